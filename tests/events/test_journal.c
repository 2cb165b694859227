/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The journal of events: through restarts, kills at any moment, full disks and floods. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/journal.h"
#include "proto/events.h"

#define FLUSH_MS 20000

static char *dir, *current, *older;

static int set_up(void **state)
{
    (void)state;
    dir = g_dir_make_tmp("understudy-journal-XXXXXX", NULL);
    current = g_build_filename(dir, ".events", NULL);
    older = g_build_filename(dir, ".events.1", NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    g_unlink(current);
    g_unlink(older);
    g_rmdir(dir);
    g_clear_pointer(&dir, g_free);
    g_clear_pointer(&current, g_free);
    g_clear_pointer(&older, g_free);
    return 0;
}

static uint64_t append(struct journal *journal, const char *vm, const char *message, uint64_t at_us)
{
    Understudy__EventField field = UNDERSTUDY__EVENT_FIELD__INIT, *fields[] = {&field};
    Understudy__Event event = UNDERSTUDY__EVENT__INIT;
    field.key = (char *)"peer";
    field.value = (char *)"host \"b\"";
    event.at_us = at_us;
    event.name = (char *)"protected";
    event.severity = SEVERITY_WARNING;
    event.vm = (char *)vm;
    event.message = (char *)message;
    event.fields = fields;
    event.n_fields = 1;
    journal_append(journal, &event);
    return event.serial;
}

static size_t len_of(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? (size_t)status.st_size : 0;
}

static const Understudy__Event *at(const GPtrArray *events, guint i)
{
    return g_ptr_array_index(events, i);
}

static void test_events_are_read_as_they_were_told_after_a_restart(void **state)
{
    (void)state;
    struct journal *journal = journal_open(dir);
    append(journal, "web", "one", 1000000);
    append(journal, "db", "two\\", 2000000);
    journal_close(journal);
    journal = journal_open(dir);
    assert_int_equal(append(journal, "web", "three", 3000000), 3);
    assert_true(journal_flush(journal, FLUSH_MS));
    g_autoptr(GPtrArray) all = journal_read(journal, NULL, 0);
    assert_int_equal(all->len, 3);
    assert_int_equal(at(all, 1)->serial, 2);
    assert_int_equal(at(all, 1)->at_us, 2000000);
    assert_int_equal(at(all, 1)->severity, SEVERITY_WARNING);
    assert_string_equal(at(all, 1)->name, "protected");
    assert_string_equal(at(all, 1)->vm, "db");
    assert_string_equal(at(all, 1)->message, "two\\");
    assert_int_equal(at(all, 1)->n_fields, 1);
    assert_string_equal(at(all, 1)->fields[0]->key, "peer");
    assert_string_equal(at(all, 1)->fields[0]->value, "host \"b\"");
    g_autoptr(GPtrArray) of_web = journal_read(journal, "web", 0);
    assert_int_equal(of_web->len, 2);
    g_autoptr(GPtrArray) late = journal_read(journal, "", 2000001);
    assert_int_equal(late->len, 1);
    assert_string_equal(at(late, 0)->message, "three");
    journal_close(journal);
}

static void write_bytes(const char *bytes)
{
    int fd = open(current, O_WRONLY | O_APPEND | O_CREAT, 0600);
    assert_int_equal(write(fd, bytes, strlen(bytes)), strlen(bytes));
    close(fd);
}

static void test_a_torn_line_costs_no_other_line(void **state)
{
    (void)state;
    struct journal *journal = journal_open(dir);
    append(journal, "web", "before", 1);
    journal_close(journal);
    write_bytes("{\"version\":1,\"serial\":2,\"ti");
    journal = journal_open(dir);
    append(journal, "web", "after", 3);
    assert_true(journal_flush(journal, FLUSH_MS));
    g_autoptr(GPtrArray) all = journal_read(journal, NULL, 0);
    assert_int_equal(all->len, 2);
    assert_string_equal(at(all, 0)->message, "before");
    assert_string_equal(at(all, 1)->message, "after");
    journal_close(journal);
}

static void test_lines_that_are_no_events_are_passed_over(void **state)
{
    static const char *const lines[] = {
        "",
        "nonsense",
        "[]",
        "{}",
        "null",
        "7",
        "{\"event\":7,\"serial\":1,\"time_us\":1}",
        "{\"event\":\"x\",\"serial\":-1,\"time_us\":1}",
        "{\"event\":\"x\",\"serial\":1,\"time_us\":\"now\"}",
        "{\"event\":\"x\",\"serial\":1,\"time_us\":99999999999999999999}",
        "{\"event\":\"\xff\",\"serial\":1,\"time_us\":1}",
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        write_bytes(lines[i]);
        write_bytes("\n");
    }
    /* This one is an event, of which not everything is as it should be. */
    write_bytes("{\"event\":\"a\\u001bb\",\"serial\":5,\"time_us\":1,\"severity\":\"loud\",\"vm\":[],"
                "\"fields\":{\"a\":1,\"b\":"
                "\"c\\n\"}}\n");
    struct journal *journal = journal_open(dir);
    g_autoptr(GPtrArray) all = journal_read(journal, NULL, 0);
    assert_int_equal(all->len, 1);
    assert_string_equal(at(all, 0)->name, "a?b");
    assert_string_equal(at(all, 0)->vm, "");
    assert_int_equal(at(all, 0)->severity, SEVERITY_NOTICE);
    assert_int_equal(at(all, 0)->n_fields, 1);
    assert_string_equal(at(all, 0)->fields[0]->value, "c");
    journal_close(journal);
}

/* ---- killed at any moment ---- */

/* Appends without end. Says which serial is kept for sure. */
G_NORETURN static void append_until_killed(int fd)
{
    struct journal *journal = journal_open(dir);
    g_autofree char *text = g_strnfill(300, 'x');
    for (;;) {
        uint64_t last = 0;
        for (int i = 0; i < 50; i++)
            last = append(journal, "web", text, 1);
        if (!journal_flush(journal, FLUSH_MS) || write(fd, &last, sizeof last) != sizeof last)
            _exit(1);
    }
}

static void test_a_kill_at_any_moment_loses_nothing_that_was_kept(void **state)
{
    (void)state;
    for (int round = 0; round < 25; round++) {
        int fds[2];
        uint64_t kept = 0, serial;
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        pid_t pid = fork();
        if (pid == 0)
            append_until_killed(fds[1]);
        close(fds[1]);
        /* It is in the middle of something, whatever that is. */
        assert_int_equal(read(fds[0], &kept, sizeof kept), sizeof kept);
        g_usleep((gulong)(round * 137 % 1500));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        while (read(fds[0], &serial, sizeof serial) == sizeof serial)
            kept = serial;
        close(fds[0]);
        struct journal *journal = journal_open(dir);
        g_autoptr(GPtrArray) all = journal_read(journal, NULL, 0);
        assert_true(at(all, all->len - 1)->serial >= kept);
        for (guint i = 1; i < all->len; i++)
            assert_int_equal(at(all, i)->serial, at(all, i - 1)->serial + 1);
        journal_close(journal);
    }
}

/* ---- no room ---- */

static struct rlimit no_limit;

static void set_room(size_t len)
{
    const struct rlimit limit = {.rlim_cur = len, .rlim_max = no_limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_a_full_disk_cuts_no_line_and_is_told_of_afterwards(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &no_limit), 0);
    struct journal *journal = journal_open(dir);
    append(journal, "web", "before", 1);
    assert_true(journal_flush(journal, FLUSH_MS));
    size_t len = len_of(current);
    set_room(len + len / 2);
    for (int i = 0; i < 3; i++)
        append(journal, "web", "lost", 2);
    assert_true(journal_flush(journal, FLUSH_MS));
    assert_int_equal(len_of(current), len);
    set_room(no_limit.rlim_cur);
    append(journal, "web", "after", 3);
    assert_true(journal_flush(journal, FLUSH_MS));
    g_autoptr(GPtrArray) all = journal_read(journal, NULL, 0);
    assert_int_equal(all->len, 3);
    assert_string_equal(at(all, 1)->name, "events-lost");
    assert_string_equal(at(all, 1)->fields[0]->key, "n");
    assert_string_equal(at(all, 1)->fields[0]->value, "3");
    assert_string_equal(at(all, 2)->message, "after");
    journal_close(journal);
}

static void test_a_folder_that_cannot_be_made_stops_nobody(void **state)
{
    (void)state;
    g_autofree char *file = g_build_filename(dir, "file", NULL), *below = g_build_filename(file, "x", NULL);
    assert_true(g_file_set_contents(file, "", 0, NULL));
    struct journal *journal = journal_open(below);
    append(journal, "web", "lost", 1);
    assert_true(journal_flush(journal, FLUSH_MS));
    g_autoptr(GPtrArray) all = journal_read(journal, NULL, 0);
    assert_int_equal(all->len, 0);
    journal_close(journal);
    g_unlink(file);
}

static void test_a_link_in_the_files_place_is_not_followed(void **state)
{
    (void)state;
    g_autofree char *file = g_build_filename(dir, "file", NULL);
    assert_true(g_file_set_contents(file, "", 0, NULL));
    assert_int_equal(symlink(file, current), 0);
    struct journal *journal = journal_open(dir);
    append(journal, "web", "lost", 1);
    journal_close(journal);
    assert_int_equal(len_of(file), 0);
    g_unlink(file);
}

/* ---- floods ---- */

static void test_a_thousand_events_at_once_are_kept(void **state)
{
    (void)state;
    struct journal *journal = journal_open(dir);
    for (int i = 0; i < 1000; i++)
        append(journal, "web", "one of many", 1);
    assert_true(journal_flush(journal, FLUSH_MS));
    g_autoptr(GPtrArray) all = journal_read(journal, NULL, 0);
    assert_int_equal(all->len, 1000);
    journal_close(journal);
}

/* Every event is there, or counted. */
static void test_what_finds_no_room_in_the_queue_is_counted(void **state)
{
    (void)state;
    const unsigned many = 3 * JOURNAL_QUEUE_MAX;
    struct journal *journal = journal_open(dir);
    uint64_t lost = 0, kept = 0;
    for (unsigned i = 0; i < many; i++)
        append(journal, "", "x", 1);
    assert_true(journal_flush(journal, FLUSH_MS));
    append(journal, "", "x", 1);
    assert_true(journal_flush(journal, FLUSH_MS));
    g_autoptr(GPtrArray) all = journal_read(journal, NULL, 0);
    for (guint i = 0; i < all->len; i++) {
        bool tells = strcmp(at(all, i)->name, "events-lost") == 0;
        lost += tells ? g_ascii_strtoull(at(all, i)->fields[0]->value, NULL, 10) : 0;
        kept += !tells;
    }
    assert_int_equal(kept + lost, many + 1);
    journal_close(journal);
}

static void test_what_is_kept_is_bounded_and_is_the_newest(void **state)
{
    (void)state;
    g_autofree char *text = g_strnfill(3000, 'x');
    struct journal *journal = journal_open(dir);
    uint64_t last = 0;
    for (int i = 0; i < 2000; i++) {
        last = append(journal, "web", text, 1);
        if (i % 100 == 0)
            assert_true(journal_flush(journal, FLUSH_MS));
        assert_true(len_of(current) <= JOURNAL_FILE_MAX && len_of(older) <= JOURNAL_FILE_MAX);
    }
    assert_true(journal_flush(journal, FLUSH_MS));
    g_autoptr(GPtrArray) all = journal_read(journal, NULL, 0);
    assert_int_equal(at(all, all->len - 1)->serial, last);
    assert_true(len_of(current) + len_of(older) >= JOURNAL_FILE_MAX / 2);
    for (guint i = 1; i < all->len; i++)
        assert_int_equal(at(all, i)->serial, at(all, i - 1)->serial + 1);
    journal_close(journal);
    /* The numbers go on. */
    journal = journal_open(dir);
    assert_int_equal(append(journal, "web", "next", 1), last + 1);
    journal_close(journal);
}

/* Neither half a line nor a hole in the middle. */
static gpointer read_again_and_again(gpointer opaque)
{
    struct journal *journal = opaque;
    for (int i = 0; i < 20; i++) {
        GPtrArray *all = journal_read(journal, NULL, 0);
        for (guint k = 1; k < all->len; k++)
            if (at(all, k)->serial != at(all, k - 1)->serial + 1)
                return GINT_TO_POINTER(1);
        g_ptr_array_unref(all);
    }
    return NULL;
}

static void test_reading_while_files_are_exchanged_misses_no_line(void **state)
{
    (void)state;
    g_autofree char *text = g_strnfill(3000, 'x');
    struct journal *journal = journal_open(dir);
    GThread *reader = g_thread_new("reader", read_again_and_again, journal);
    for (int i = 0; i < 1000; i++) {
        append(journal, "web", text, 1);
        if (i % 50 == 0)
            assert_true(journal_flush(journal, FLUSH_MS));
    }
    assert_null(g_thread_join(reader));
    journal_close(journal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events_are_read_as_they_were_told_after_a_restart, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_torn_line_costs_no_other_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lines_that_are_no_events_are_passed_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_kill_at_any_moment_loses_nothing_that_was_kept, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_full_disk_cuts_no_line_and_is_told_of_afterwards, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_folder_that_cannot_be_made_stops_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_link_in_the_files_place_is_not_followed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_thousand_events_at_once_are_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_finds_no_room_in_the_queue_is_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_kept_is_bounded_and_is_the_newest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reading_while_files_are_exchanged_misses_no_line, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
