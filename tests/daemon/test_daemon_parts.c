/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's small parts, each alone: who waits for a VM to be gone, the table that status reads, threads
 * of tasks, heartbeat paths, facts of the host, calls to a peer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/stream.h"
#include "daemon/daemon.h"
#include "daemon/task_thread.h"
#include "heartbeat/packet.h"
#include "hv-hooks/line.h"
#include "proto/answer.h"
#include "proto/framing.h"
#include "tests/daemon/plain_door.h"

/* ---- waiters ---- */

struct told {
    unsigned times;
    bool gone;
    char reason[32];
};

static void on_gone(bool gone, const char *reason, void *opaque)
{
    struct told *told = opaque;
    told->times++;
    told->gone = gone;
    g_strlcpy(told->reason, reason, sizeof told->reason);
}

static void await(const unsigned *times)
{
    while (*times == 0)
        g_main_context_iteration(NULL, TRUE);
}

static void settle(void)
{
    while (g_main_context_iteration(NULL, FALSE))
        ;
}

static void test_each_who_waits_for_a_vm_is_told_once(void **state)
{
    struct told web = {0}, also_web = {0}, db = {0};
    int ends[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    waiters_add("web", 60000, ends[0], on_gone, &web);
    waiters_add("db", 60000, ends[0], on_gone, &db);
    waiters_add("web", 60000, ends[0], on_gone, &also_web);
    waiters_tell("we", "stopped");
    waiters_tell("web", "stopped");
    waiters_tell("web", "again");
    assert_int_equal(web.times, 1);
    assert_int_equal(also_web.times, 1);
    assert_int_equal(db.times, 0);
    assert_true(web.gone && also_web.gone);
    assert_string_equal(web.reason, "stopped");
    waiters_tell("db", "failed");
    assert_int_equal(db.times, 1);
    close(ends[1]);
    settle();
    assert_int_equal(web.times + also_web.times + db.times, 3);
    close(ends[0]);
}

static void test_a_wait_ends_with_its_time_or_with_its_client(void **state)
{
    struct told slow = {0}, left = {0}, stays = {0};
    int ends[2], others[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, others), 0);
    waiters_add("web", 10, others[0], on_gone, &slow);
    waiters_add("web", 60000, ends[0], on_gone, &left);
    waiters_add("web", 60000, others[0], on_gone, &stays);
    await(&slow.times);
    assert_false(slow.gone);
    settle();
    assert_int_equal(left.times, 0);
    assert_int_equal(write(ends[1], "x", 1), 1); /* what it still says is not its end */
    settle();
    assert_int_equal(left.times, 0);
    close(ends[1]);
    await(&left.times);
    assert_false(left.gone);
    assert_int_equal(stays.times, 0);
    waiters_tell("web", "stopped");
    assert_int_equal(slow.times + left.times + stays.times, 3);
    assert_true(stays.gone);
    close(ends[0]);
    close(others[0]);
    close(others[1]);
}

/* ---- the table ---- */

static void put(const char *vm, Understudy__State status_state)
{
    Understudy__Status status = UNDERSTUDY__STATUS__INIT;
    status.vm = (char *)vm;
    status.state = status_state;
    vm_table_put(&status);
}

static unsigned count(const char *name, Understudy__State with_state)
{
    g_autoptr(GPtrArray) all = vm_table_snapshot(name);
    unsigned n = 0;
    for (guint i = 0; i < all->len; i++) {
        Understudy__Status *status = g_ptr_array_index(all, i);
        n += status->state == with_state;
        understudy__status__free_unpacked(status, NULL);
    }
    return n;
}

static void test_the_table_shows_each_vm_s_last_status(void **state)
{
    const Understudy__State old = UNDERSTUDY__STATE__STATE_STARTING, new = UNDERSTUDY__STATE__STATE_PROTECTED;
    (void)state;
    put("web", old);
    put("db", old);
    put("web", new);
    assert_int_equal(count(NULL, old), 1);
    assert_int_equal(count("", new), 1);
    assert_int_equal(count("web", new), 1);
    assert_int_equal(count("web", old), 0);
    assert_int_equal(count("w", new), 0);
    vm_table_remove("nobody");
    vm_table_remove("web");
    vm_table_remove("web");
    assert_int_equal(count("web", new), 0);
    assert_int_equal(count(NULL, old), 1);
    vm_table_remove("db");
}

#define NREADS 2000

static gpointer read_table(gpointer opaque)
{
    gint *nread = opaque;
    vm_table_enter();
    for (int i = 0; i < NREADS; i++) {
        g_autoptr(GPtrArray) all = vm_table_snapshot(NULL);
        for (guint k = 0; k < all->len; k++) {
            Understudy__Status *status = g_ptr_array_index(all, k);
            assert_string_equal(status->vm, "web");
            understudy__status__free_unpacked(status, NULL);
        }
        g_atomic_int_inc(nread);
    }
    vm_table_leave();
    return NULL;
}

static void test_the_table_is_read_while_it_changes(void **state)
{
    gint nread = 0;
    (void)state;
    GThread *reader = g_thread_new("reader", read_table, &nread);
    for (unsigned i = 0; g_atomic_int_get(&nread) < NREADS; i++) {
        put("web", i % 2 ? UNDERSTUDY__STATE__STATE_PROTECTED : UNDERSTUDY__STATE__STATE_ARMING);
        if (i % 3 == 0)
            vm_table_remove("web");
    }
    g_thread_join(reader);
    vm_table_remove("web");
}

/* ---- threads of tasks ---- */

GThread *__real_g_thread_try_new(const char *name, GThreadFunc function, gpointer data, GError **error);
EXPORTED GThread *__wrap_g_thread_try_new(const char *name, GThreadFunc function, gpointer data,
                                          GError **error);
static bool no_threads;

GThread *__wrap_g_thread_try_new(const char *name, GThreadFunc function, gpointer data, GError **error)
{
    if (!no_threads)
        return __real_g_thread_try_new(name, function, data, error);
    g_set_error(error, G_THREAD_ERROR, G_THREAD_ERROR_AGAIN, "no more threads");
    return NULL;
}

struct work {
    GThread *worker;
    unsigned times, freed;
    int value;
    char *error;
};

static void do_work(GTask *task, gpointer source, gpointer opaque, GCancellable *cancellable)
{
    struct work *work = opaque;
    (void)source, (void)cancellable;
    work->worker = g_thread_self();
    g_task_return_int(task, 7);
}

static void on_done(GObject *source, GAsyncResult *result, gpointer opaque)
{
    struct work *work = opaque;
    g_autoptr(GError) error = NULL;
    (void)source;
    work->value = (int)g_task_propagate_int(G_TASK(result), &error);
    work->error = error ? g_strdup(error->message) : NULL;
    work->times++;
}

static void on_freed(gpointer opaque)
{
    g_atomic_int_inc((gint *)&((struct work *)opaque)->freed);
}

static void run_work(struct work *work)
{
    GTask *task = g_task_new(NULL, NULL, on_done, work);
    g_task_set_task_data(task, work, on_freed);
    task_thread_run(task, do_work);
    g_object_unref(task);
    await(&work->times);
    while (!g_atomic_int_get((gint *)&work->freed)) /* the thread may have the last reference */
        g_usleep(500);
}

static void test_a_task_s_work_is_done_on_a_thread_of_its_own(void **state)
{
    struct work work = {0};
    (void)state;
    run_work(&work);
    assert_int_equal(work.value, 7);
    assert_true(work.worker && work.worker != g_thread_self());
    assert_int_equal(work.times, 1);
}

static void test_a_task_without_a_thread_returns_the_error(void **state)
{
    struct work work = {0};
    (void)state;
    no_threads = true;
    run_work(&work);
    no_threads = false;
    assert_int_equal(work.value, -1);
    assert_null(work.worker);
    assert_string_equal(work.error, "no more threads");
    assert_int_equal(work.freed, 1);
    g_free(work.error);
}

/* ---- heartbeat paths ---- */

static void test_a_heartbeat_path_is_two_addresses_of_one_family(void **state)
{
    static const struct {
        const char *word, *here, *there; /* here NULL: it is refused with `there` in the sentence */
    } cases[] = {
        {"127.0.0.1=192.0.2.7", "127.0.0.1", "192.0.2.7"},
        {"::1=2001:db8::7", "::1", "2001:db8::7"},
        {"127.0.0.1", NULL, "give this host's address"},
        {"127.0.0.1=", NULL, "give this host's address"},
        {"=127.0.0.1", NULL, "give this host's address"},
        {"1=2=3", NULL, "give this host's address"},
        {"127.0.0.1=2001:db8::7", NULL, "must be in one network"},
        {"::1=192.0.2.7", NULL, "must be in one network"},
        {"256.1.1.1.1=192.0.2.7", NULL, "256.1.1.1.1"},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
        Understudy__RunRequest request = UNDERSTUDY__RUN_REQUEST__INIT;
        g_autoptr(GError) error = NULL;
        char *words[] = {(char *)cases[i].word};
        request.heartbeat_path = words;
        request.n_heartbeat_path = 1;
        bool ok = heartbeat_paths_describe(&protection, &request, &error);
        if (!cases[i].here && (ok || !strstr(error->message, cases[i].there)))
            fail_msg("%s: %s", cases[i].word, ok ? "taken" : error->message);
        if (cases[i].here) {
            if (!ok)
                fail_msg("%s: %s", cases[i].word, error->message);
            assert_string_equal(protection.heartbeat_paths[0]->here, cases[i].here);
            assert_string_equal(protection.heartbeat_paths[0]->there, cases[i].there);
            heartbeat_paths_swap(&protection);
            assert_string_equal(protection.heartbeat_paths[0]->here, cases[i].there);
            assert_string_equal(protection.heartbeat_paths[0]->there, cases[i].here);
        }
        heartbeat_paths_clear(&protection);
        assert_int_equal(protection.n_heartbeat_paths, 0);
        assert_null(protection.heartbeat_paths);
    }
}

static void test_there_are_no_more_heartbeat_paths_than_that(void **state)
{
    char *words[HEARTBEAT_PATHS_MAX + 1];
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        words[i] = (char *)"127.0.0.1=127.0.0.2";
    for (size_t n = HEARTBEAT_PATHS_MAX; n <= G_N_ELEMENTS(words); n++) {
        Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
        Understudy__RunRequest request = UNDERSTUDY__RUN_REQUEST__INIT;
        g_autoptr(GError) error = NULL;
        request.heartbeat_path = words;
        request.n_heartbeat_path = n;
        bool fits = n <= HEARTBEAT_PATHS_MAX;
        assert_int_equal(heartbeat_paths_describe(&protection, &request, &error), fits);
        assert_int_equal(protection.n_heartbeat_paths, fits ? n : 0);
        heartbeat_paths_clear(&protection);
    }
}

/* ---- the host ---- */

static void test_a_protection_s_strings_and_copies_are_its_own(void **state)
{
    Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
    char *argv[] = {(char *)"qemu-system-x86_64", (char *)"-m", (char *)"64"};
    (void)state;
    assert_null(host_program(&protection));
    protection.vm = (char *)"web";
    protection.qemu_argv = argv;
    protection.n_qemu_argv = G_N_ELEMENTS(argv);
    protection_set_string(&protection.standby_qemu, "7.2");
    protection_set_string(&protection.standby_qemu, "8.0");
    Understudy__Protection *copy = protection_copy(&protection);
    protection_set_string(&protection.standby_qemu, "");
    assert_string_equal(protection.standby_qemu, "");
    assert_string_equal(copy->standby_qemu, "8.0");
    assert_string_equal(copy->qemu_argv[2], "64");
    assert_string_equal(host_program(copy), "qemu-system-x86_64");
    protection_set_string(&copy->standby_qemu, "9.1"); /* of what protobuf-c has allocated */
    struct line *line = host_line(copy, NULL);
    assert_int_equal(line->ram_bytes, 64 << 20);
    line_free(line);
    copy->n_qemu_argv = 2; /* "-m" without a value */
    assert_null(host_line(copy, NULL));
    g_autofree char *accel = host_accel_of(copy);
    assert_string_equal(accel, "");
    copy->n_qemu_argv = 3;
    understudy__protection__free_unpacked(copy, NULL);
}

/* ---- calls to a peer ---- */

static void test_a_peer_s_name_is_taken_apart(void **state)
{
    static const struct {
        const char *text, *host; /* NULL: it is none */
        uint16_t port;
    } cases[] = {
        {"b", "b", DEFAULT_PORT},
        {"b:1234", "b", 1234},
        {"192.0.2.7:1", "192.0.2.7", 1},
        {"[2001:db8::7]:1234", "2001:db8::7", 1234},
        {"[2001:db8::7]", "2001:db8::7", DEFAULT_PORT},
        {"", NULL, 0},
        {"[", NULL, 0},
        {"b:99999", NULL, 0},
        {"b:-1", NULL, 0},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *host = NULL;
        uint16_t port = 0;
        bool ok = peer_split(cases[i].text, &host, &port);
        if (ok != (cases[i].host != NULL))
            fail_msg("%s", cases[i].text);
        if (!ok)
            continue;
        assert_string_equal(host, cases[i].host);
        assert_int_equal(port, cases[i].port);
    }
}

/* A peer that accepts and says nothing; then one that is gone. */
static void test_a_call_ends_when_its_time_is_over(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    Understudy__HostRequest body = UNDERSTUDY__HOST_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(HOST_REQUEST, host_request, &body);
    g_autoptr(GError) error = NULL;
    struct peer_reached reached = {.address = NULL};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    uint16_t port = ntohs(address.sin_port);
    peer_use_door(&plain_door);
    assert_null(peer_call_at("127.0.0.1", port, &request, 50, &reached, &error));
    assert_string_equal(error->message, "the peer 127.0.0.1: no answer within 50 ms");
    assert_null(reached.address);
    close(fd);
    g_clear_error(&error);
    assert_null(peer_call("127.0.0.1", port, &request, 50, &error));
    assert_non_null(strstr(error->message, "is it running there?"));
    assert_int_equal(memcmp(peer_own_instance(), peer_own_instance(), PEER_INSTANCE_LEN), 0);
}

/* ---- the peer's files ---- */

gint64 __real_g_get_monotonic_time(void);
EXPORTED gint64 __wrap_g_get_monotonic_time(void);
static gint64 passed_us;

gint64 __wrap_g_get_monotonic_time(void)
{
    return __real_g_get_monotonic_time() + passed_us;
}

/* Ten minutes pass. */
static void on_progress(const char *path, uint64_t done, uint64_t total, void *opaque)
{
    unsigned *n = opaque;
    (void)path, (void)done, (void)total;
    (*n)++;
    passed_us += 600 * G_USEC_PER_SEC;
}

/* A peer whose progress has no end is given up, and one that is slow is not. */
static void test_a_peer_that_compares_files_without_end_is_given_up(void **state)
{
    (void)state;
    for (int ends_well = 0; ends_well < 2; ends_well++) {
        g_autoptr(GPtrArray) facts = g_ptr_array_new();
        g_autoptr(GError) error = NULL;
        unsigned n = 0;
        const struct files_progress progress = {.told = on_progress, .opaque = &n};
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        for (int i = 0; i < (ends_well ? 11 : 30); i++)
            assert_true(answer_write_progress(STREAM_FD(ends[1]), "", 1, 2, 1000));
        assert_true(answer_write(STREAM_FD(ends[1]), true, NULL, 1000));
        assert_int_equal(files_ask_peer(STREAM_FD(ends[0]), facts, "b", &progress, &error), ends_well);
        if (!ends_well)
            assert_non_null(strstr(error->message, "not compared after 7200 s"));
        assert_true(n < 20);
        close(ends[0]);
        close(ends[1]);
        passed_us = 0;
    }
}

/* ---- refusals in the log ---- */

static char refusal[256]; /* the last warning */
static unsigned nrefusals;

static GLogWriterOutput keep_warning(GLogLevelFlags level, const GLogField *fields, gsize n, gpointer opaque)
{
    (void)level, (void)opaque;
    for (gsize i = 0; i < n; i++) {
        if (strcmp(fields[i].key, "MESSAGE") == 0)
            g_strlcpy(refusal, fields[i].value, sizeof refusal);
    }
    nrefusals++;
    return G_LOG_WRITER_HANDLED;
}

/* Other tests have written lines before, so the writer is set once, for the rest of the program. */
static void test_refusals_are_logged_once_a_minute_and_counted(void **state)
{
    (void)state;
    g_log_set_writer_func(keep_warning, NULL, NULL);
    for (unsigned minute = 0; minute < 3; minute++) {
        for (unsigned i = 0; i < 100; i++)
            refused_log("10.0.0.9", UNDERSTUDY__ENVELOPE__BODY_PREPARE_STANDBY, "it has no right to it");
        assert_int_equal(nrefusals, minute + 1);
        assert_string_equal(refusal, minute
                                         ? "a request of 10.0.0.9 (prepare_standby) was refused: it has no "
                                           "right to it (and 99 more before it)"
                                         : "a request of 10.0.0.9 (prepare_standby) was refused: it has no "
                                           "right to it");
        passed_us += 60 * G_USEC_PER_SEC;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_who_waits_for_a_vm_is_told_once),
        cmocka_unit_test(test_a_wait_ends_with_its_time_or_with_its_client),
        cmocka_unit_test(test_the_table_shows_each_vm_s_last_status),
        cmocka_unit_test(test_the_table_is_read_while_it_changes),
        cmocka_unit_test(test_a_task_s_work_is_done_on_a_thread_of_its_own),
        cmocka_unit_test(test_a_task_without_a_thread_returns_the_error),
        cmocka_unit_test(test_a_heartbeat_path_is_two_addresses_of_one_family),
        cmocka_unit_test(test_there_are_no_more_heartbeat_paths_than_that),
        cmocka_unit_test(test_a_protection_s_strings_and_copies_are_its_own),
        cmocka_unit_test(test_a_peer_s_name_is_taken_apart),
        cmocka_unit_test(test_a_call_ends_when_its_time_is_over),
        cmocka_unit_test(test_a_peer_that_compares_files_without_end_is_given_up),
        cmocka_unit_test(test_refusals_are_logged_once_a_minute_and_counted),
    };
    vm_table_enter();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
