/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The newest term that a host used outlives it, whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replicator/control/term_file.h"
#include "replicator/note.h"

#define WAIT_MS 30000

struct fixture {
    char *folder, *path, *new_path;
    struct mailbox box;
};

static const uint8_t ours[16] = "our pair", theirs[16] = "another pair";

static int set_up(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);
    f->folder = g_dir_make_tmp("term-XXXXXX", NULL);
    f->path = g_build_filename(f->folder, "term", NULL);
    f->new_path = g_build_filename(f->folder, "term.new", NULL);
    *state = f;
    return f->folder ? mailbox_open(&f->box) : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    g_unlink(f->path);
    g_unlink(f->new_path);
    g_rmdir(f->new_path);
    int status = g_rmdir(f->folder);
    mailbox_close(&f->box);
    g_free(f->folder);
    g_free(f->path);
    g_free(f->new_path);
    g_free(f);
    return status;
}

static struct term_file *open_ours(struct fixture *f, uint64_t *term)
{
    g_autoptr(GError) error = NULL;
    struct term_file *file = term_file_open(f->path, ours, sizeof ours, &f->box, term, &error);
    assert_null(error);
    assert_non_null(file);
    return file;
}

static struct note *next_note(struct fixture *f)
{
    struct note *note;
    while (!(note = note_take(&f->box))) {
        struct pollfd fd = {.fd = f->box.event_fd, .events = POLLIN};
        assert_int_equal(poll(&fd, 1, WAIT_MS), 1);
        mailbox_clear_wake(&f->box);
    }
    return note;
}

static void await(struct fixture *f, enum note_kind kind, uint64_t term)
{
    struct note *note = next_note(f);
    assert_int_equal(note->letter.kind, kind);
    assert_int_equal(note->term, term);
    g_free(note);
}

static void damage(const struct fixture *f, const char *text)
{
    assert_true(g_file_set_contents(f->path, text, -1, NULL));
}

static void test_a_host_that_restarts_knows_the_newest_term_it_used(void **state)
{
    struct fixture *f = *state;
    uint64_t term = 99;
    struct term_file *file = open_ours(f, &term);
    assert_int_equal(term, 0);
    term_file_keep(file, 5);
    await(f, NOTE_TERM_KEPT, 5);
    term_file_close(file);
    file = open_ours(f, &term);
    assert_int_equal(term, 5);
    term_file_keep(file, 4); /* an older one is not written */
    term_file_keep(file, 8);
    await(f, NOTE_TERM_KEPT, 8);
    term_file_close(file);
    file = open_ours(f, &term);
    assert_int_equal(term, 8);
    term_file_close(file);
}

/* When the note comes the file is there under its name, and nothing is half written beside it. */
static void test_a_term_that_is_said_to_be_kept_is_in_the_file(void **state)
{
    struct fixture *f = *state;
    uint64_t term, read;
    struct term_file *file = open_ours(f, &term);
    for (uint64_t i = 1; i <= 20; i++) {
        term_file_keep(file, i);
        await(f, NOTE_TERM_KEPT, i);
        struct term_file *other = open_ours(f, &read); /* as after a crash at this moment */
        assert_int_equal(read, i);
        term_file_close(other);
        assert_int_not_equal(access(f->new_path, F_OK), 0);
    }
    term_file_close(file);
}

/* The old file is replaced, not written over: one that is open there still reads the old term. */
static void test_a_new_term_replaces_the_file(void **state)
{
    struct fixture *f = *state;
    uint64_t term;
    struct stat before, after;
    struct term_file *file = open_ours(f, &term);
    term_file_keep(file, 3);
    await(f, NOTE_TERM_KEPT, 3);
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(fstat(fd, &before), 0);
    term_file_keep(file, 6);
    await(f, NOTE_TERM_KEPT, 6);
    assert_int_equal(stat(f->path, &after), 0);
    assert_int_not_equal(before.st_ino, after.st_ino);
    assert_int_equal(after.st_mode & 0777, 0600);
    close(fd);
    term_file_close(file);
}

static void test_what_was_left_half_written_is_no_term(void **state)
{
    struct fixture *f = *state;
    uint64_t term;
    assert_true(g_file_set_contents(f->new_path, "understudy-te", -1, NULL));
    struct term_file *file = open_ours(f, &term);
    assert_int_equal(term, 0);
    term_file_keep(file, 2);
    await(f, NOTE_TERM_KEPT, 2);
    term_file_close(file);
}

static void test_the_terms_of_another_pair_say_nothing(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL;
    uint64_t term;
    struct term_file *file = term_file_open(f->path, theirs, sizeof theirs, &f->box, &term, &error);
    term_file_keep(file, 50);
    await(f, NOTE_TERM_KEPT, 50);
    term_file_close(file);
    file = open_ours(f, &term);
    assert_int_equal(term, 0);
    term_file_keep(file, 3); /* and theirs is older in no sense */
    await(f, NOTE_TERM_KEPT, 3);
    term_file_close(file);
    file = open_ours(f, &term);
    assert_int_equal(term, 3);
    term_file_close(file);
}

static void test_a_damaged_file_is_refused_and_named(void **state)
{
    struct fixture *f = *state;
    static const char *const damaged[] = {"", "\n\n\n", "understudy-term 1\n", "understudy-term 1\nabc\n5\n",
                                          "understudy-term 2\nabc\n5\n"};
    uint64_t term;
    struct term_file *file = open_ours(f, &term);
    term_file_keep(file, 5);
    await(f, NOTE_TERM_KEPT, 5);
    term_file_close(file);
    g_autofree char *good = NULL;
    assert_true(g_file_get_contents(f->path, &good, NULL, NULL));
    g_autofree char *negative = g_strndup(good, strlen(good) - 2), *longer = g_strconcat(good, "x", NULL);
    g_autofree char *no_number = g_strconcat(negative, "-5\n", NULL);
    g_autofree char *huge = g_strnfill(100000, '7');
    /* A number, of a term after which there is none. */
    g_autofree char *no_term = g_strconcat(negative, "18446744073709551615\n", NULL);
    const char *more[] = {longer, no_number, huge, negative, no_term};
    for (unsigned i = 0; i < G_N_ELEMENTS(damaged) + G_N_ELEMENTS(more); i++) {
        g_autoptr(GError) error = NULL;
        damage(f, i < G_N_ELEMENTS(damaged) ? damaged[i] : more[i - G_N_ELEMENTS(damaged)]);
        assert_null(term_file_open(f->path, ours, sizeof ours, &f->box, &term, &error));
        assert_non_null(error);
        assert_non_null(strstr(error->message, f->path));
        assert_int_equal(term, 0);
    }
    damage(f, good);
    file = open_ours(f, &term);
    assert_int_equal(term, 5);
    term_file_close(file);
}

/* A folder stands where the new file has to be. It is told once, and tried until it works. */
static void test_a_term_that_cannot_be_written_is_tried_again(void **state)
{
    struct fixture *f = *state;
    uint64_t term;
    struct term_file *file = open_ours(f, &term);
    assert_int_equal(g_mkdir(f->new_path, 0700), 0);
    term_file_keep(file, 7);
    await(f, NOTE_TERM_FAILED, 7);
    assert_int_equal(g_rmdir(f->new_path), 0);
    await(f, NOTE_TERM_KEPT, 7);
    term_file_close(file);
}

static void test_closing_does_not_wait_for_a_term_that_cannot_be_written(void **state)
{
    struct fixture *f = *state;
    uint64_t term;
    struct term_file *file = open_ours(f, &term);
    assert_int_equal(g_mkdir(f->new_path, 0700), 0);
    term_file_keep(file, 7);
    await(f, NOTE_TERM_FAILED, 7);
    term_file_close(file);
    assert_null(note_take(&f->box));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_host_that_restarts_knows_the_newest_term_it_used),
        TEST(test_a_term_that_is_said_to_be_kept_is_in_the_file),
        TEST(test_a_new_term_replaces_the_file),
        TEST(test_what_was_left_half_written_is_no_term),
        TEST(test_the_terms_of_another_pair_say_nothing),
        TEST(test_a_damaged_file_is_refused_and_named),
        TEST(test_a_term_that_cannot_be_written_is_tried_again),
        TEST(test_closing_does_not_wait_for_a_term_that_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
