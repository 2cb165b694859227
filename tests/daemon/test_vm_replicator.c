/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VM's replicator and the daemon: what it is told, what it says, in which order, and that it may be gone at
 * any step. Those of an earlier daemon are adopted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/endings.h"
#include "proto/states.h"
#include "proto/term.h"
#include "tests/daemon/glue.h"

#define PRIMARY   UNDERSTUDY__ROLE__ROLE_PRIMARY
#define SECONDARY UNDERSTUDY__ROLE__ROLE_SECONDARY
#define STATE(x)  UNDERSTUDY__STATE__STATE_##x

/* What vm_start's caller was told. */
static struct {
    unsigned times;
    bool ok;
    char message[256];
    uint16_t data_port, udp_port;
} listening;

static void on_listening(bool ok, const char *message, uint16_t data_port, uint16_t udp_port, void *opaque)
{
    (void)opaque;
    listening.times++;
    listening.ok = ok;
    g_strlcpy(listening.message, message, sizeof listening.message);
    listening.data_port = data_port;
    listening.udp_port = udp_port;
}

static bool was_told(void *opaque)
{
    (void)opaque;
    return listening.times > 0;
}

/* What takes longer than that in vm.c is cut short. */
guint __real_g_timeout_add(guint interval_ms, GSourceFunc function, gpointer data);
EXPORTED guint __wrap_g_timeout_add(guint interval_ms, GSourceFunc function, gpointer data);
static bool hurry;
static guint long_timer;

guint __wrap_g_timeout_add(guint interval_ms, GSourceFunc function, gpointer data)
{
    bool is_long = interval_ms > 10000;
    guint timer = __real_g_timeout_add(hurry && is_long ? 20 : interval_ms, function, data);
    long_timer = is_long ? timer : long_timer;
    return timer;
}

static const struct peer_standby standby = {
    .at.address = (char *)"192.0.2.7", .data_port = 11, .udp_port = 12};

static uint8_t token = 1; /* of the run that start is of */

/* The VM "web", started here. Its replicator, which knows what to do. */
static int start(Understudy__Role role)
{
    g_autoptr(GError) error = NULL;
    memset(&listening, 0, sizeof listening);
    assert_true(vm_reserve("web", NULL));
    if (!vm_start(role, glue_protection("web", token), "peer", 7071, NULL, role == PRIMARY ? &standby : NULL,
                  on_listening, NULL, &error))
        fail_msg("%s", error->message);
    int fd = glue_replicator();
    glue_skip(fd, UNDERSTUDY__ENVELOPE__BODY_START);
    return fd;
}

static int start_in(Understudy__Role role, Understudy__State state)
{
    int fd = start(role);
    glue_say_listening(fd);
    glue_say_status(fd, role, state);
    glue_await_state("web", state);
    return fd;
}

/* The number of endings of the VM; reason: a part of the last one's, if there is one. */
static unsigned endings_of(const char *vm, const char *reason)
{
    g_autoptr(GPtrArray) list = endings_list(vm);
    unsigned n = list->len;
    for (guint i = 0; i < n; i++) {
        Understudy__Ending *ending = g_ptr_array_index(list, i);
        if (i + 1 == n && !strstr(ending->reason, reason))
            fail_msg("%s", ending->reason);
        understudy__ending__free_unpacked(ending, NULL);
    }
    return n;
}

/* ---- starting ---- */

static void test_a_replicator_is_told_what_its_vm_is(void **state)
{
    (void)state;
    assert_true(vm_reserve("web", NULL));
    assert_true(
        vm_start(PRIMARY, glue_protection("web", 1), "peer", 7071, NULL, &standby, on_listening, NULL, NULL));
    assert_int_equal(glue_state("web"), STATE(STARTING));
    int fd = glue_replicator();
    Understudy__Envelope *message = glue_hear_a(fd, UNDERSTUDY__ENVELOPE__BODY_START);
    const Understudy__Start *start_order = message->start;
    g_autofree char *vm_dir = glue_path("web");
    assert_int_equal(start_order->role, PRIMARY);
    assert_string_equal(start_order->protection->vm, "web");
    assert_string_equal(start_order->vm_dir, vm_dir);
    assert_string_equal(start_order->peer_name, "peer");
    assert_string_equal(start_order->peer_host, "192.0.2.7");
    assert_int_equal(start_order->peer_data_port, 11);
    assert_int_equal(start_order->peer_udp_port, 12);
    assert_int_equal(start_order->peer_daemon_port, 7071);
    assert_string_equal(start_order->listen_address, glue_config.listen_address);
    assert_string_equal(start_order->argv[start_order->n_argv - 1], "memory-of:understudy");
    understudy__envelope__free_unpacked(message, NULL);
    assert_true(glue_exists("web"));
    close(fd);
    glue_until(was_told, NULL, "the caller is told");
}

static void test_a_standby_that_listens_is_told_to_who_asked_for_it_once(void **state)
{
    (void)state;
    int fd = start(SECONDARY);
    glue_say_listening(fd);
    glue_until(was_told, NULL, "the caller is told");
    assert_true(listening.ok);
    assert_int_equal(listening.data_port, GLUE_DATA_PORT);
    assert_int_equal(listening.udp_port, GLUE_UDP_PORT);
    glue_say_listening(fd);
    glue_say_status(fd, SECONDARY, STATE(LISTENING));
    glue_await_state("web", STATE(LISTENING));
    assert_int_equal(listening.times, 1);
    close(fd);
    glue_await_state("web", STATE(FAILED));
    assert_int_equal(listening.times, 1);
}

static void test_a_replicator_that_cannot_be_run_is_a_sentence_and_leaves_nothing(void **state)
{
    char *good = glue_config.replicator;
    (void)state;
    glue_config.replicator = (char *)"/nowhere/replicator";
    for (int i = 0; i < 3; i++) { /* glue_close counts the descriptors */
        g_autoptr(GError) error = NULL;
        assert_true(vm_reserve("web", NULL));
        bool started = vm_start(PRIMARY, glue_protection("web", 1), "peer", 7071, NULL, &standby,
                                on_listening, NULL, &error);
        vm_forget("web");
        assert_false(started);
        assert_non_null(strstr(error->message, "/nowhere/replicator"));
        assert_false(vm_is_here("web"));
        assert_int_equal(glue_state("web"), STATE(UNKNOWN));
    }
    glue_config.replicator = good;
}

/* The order has the line of the user and the one that is made of it: it may be too long when neither is. */
static void test_an_order_too_long_for_the_replicator_is_a_sentence_and_starts_nothing(void **state)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *file = g_strnfill(600 << 10, 'x'), *word = g_strconcat("firmware:/", file, ".fw", NULL);
    char *argv[] = {glue_config.qemu[0], (char *)"memory:64", word};
    Understudy__Protection *protection = glue_protection("web", 1);
    (void)state;
    protection->qemu_argv = argv;
    protection->n_qemu_argv = G_N_ELEMENTS(argv);
    assert_true(vm_reserve("web", NULL));
    assert_false(vm_start(PRIMARY, protection, "peer", 7071, NULL, &standby, on_listening, NULL, &error));
    assert_non_null(error);
    assert_non_null(strstr(error->message, "VM web: the request with QEMU's command line has 1"));
    assert_non_null(strstr(error->message, "1048576 are the limit: shorten the command line"));
    assert_false(vm_is_here("web"));
    vm_forget("web");
    assert_int_equal(glue_state("web"), STATE(UNKNOWN));
}

static void test_a_name_that_is_none_is_refused(void **state)
{
    static const char *const names[] = {
        "", ".", "..", "-x", "a/b", "a b", "\xc3\xa4", "a-name-of-more-than-thirty-two-ch",
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(GError) error = NULL;
        uint16_t port = 0;
        g_autofree char *why = NULL;
        assert_false(vm_reserve(names[i], &error));
        assert_true(g_error_matches(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT));
        assert_int_equal(vm_check_existing(glue_protection(names[i], 1), &port, &port, &why), VM_REFUSED);
    }
    assert_true(vm_reserve("a-name-of-just-thirty-two-chars_", NULL));
    vm_forget("a-name-of-just-thirty-two-chars_");
}

static void test_a_name_is_reserved_once_and_an_order_for_it_waits(void **state)
{
    g_autoptr(GError) again = NULL, stop = NULL, power = NULL;
    (void)state;
    assert_true(vm_reserve("web", NULL));
    assert_false(vm_reserve("web", &again));
    assert_non_null(strstr(again->message, "being started"));
    assert_false(vm_stop("web", &stop));
    assert_true(g_error_matches(stop, G_IO_ERROR, G_IO_ERROR_BUSY));
    assert_false(vm_power("web", UNDERSTUDY__POWER_ACTION__POWER_RESET, &power));
    assert_false(vm_is_here("web"));
    vm_forget("web");
    assert_true(vm_reserve("web", NULL));
    vm_forget("web");
}

static void test_a_run_folder_too_long_for_sockets_is_refused(void **state)
{
    char *good = glue_config.run_dir;
    g_autofree char *name = g_strnfill(90, 'x'), *longer = glue_path(name);
    g_autoptr(GError) error = NULL;
    (void)state;
    glue_config.run_dir = longer;
    assert_true(vm_reserve("web", NULL));
    bool started = vm_start(PRIMARY, glue_protection("web", 1), "peer", 7071, NULL, &standby, on_listening,
                            NULL, &error);
    vm_forget("web");
    glue_config.run_dir = good;
    assert_false(started);
    assert_non_null(strstr(error->message, "--run-dir"));
}

/* The wait for it is bounded, and what was refused does not come later. */
static void test_a_replicator_that_says_nothing_is_stopped_in_time(void **state)
{
    (void)state;
    hurry = true;
    int fd = start(SECONDARY);
    hurry = false;
    glue_until(was_told, NULL, "the caller is told");
    assert_false(listening.ok);
    assert_non_null(strstr(listening.message, "not ready after 45 s"));
    glue_skip(fd, UNDERSTUDY__ENVELOPE__BODY_STOP);
    glue_say_listening(fd);
    glue_say_ended(fd, "stopped", "");
    close(fd);
    glue_await_gone("web");
    assert_int_equal(listening.times, 1);
    fd = start(PRIMARY);
    assert_non_null(g_main_context_find_source_by_id(NULL, long_timer));
    glue_say_listening(fd); /* in time */
    glue_until(was_told, NULL, "the caller is told");
    assert_true(listening.ok);
    assert_null(g_main_context_find_source_by_id(NULL, long_timer));
    close(fd);
    glue_await_state("web", STATE(FAILED));
}

/* ---- a replicator that is gone ---- */

static char *logged; /* the newest warning */

static GLogWriterOutput keep_warning(GLogLevelFlags level, const GLogField *fields, gsize n, gpointer opaque)
{
    if (!(level & G_LOG_LEVEL_WARNING))
        return g_log_writer_default(level, fields, n, opaque);
    for (gsize i = 0; i < n; i++) {
        if (strcmp(fields[i].key, "MESSAGE") != 0)
            continue;
        g_free(logged);
        logged = g_strdup(fields[i].value);
    }
    return G_LOG_WRITER_HANDLED;
}

static bool was_logged(void *opaque)
{
    return logged && strstr(logged, opaque);
}

/* A primary whose replicator is this shell command. */
static void start_command(const char *command)
{
    g_autofree char *program = glue_path("program"), *as_ever = g_steal_pointer(&glue_config.replicator);
    glue_write("program", "#!/bin/sh\n%s\n", command);
    assert_int_equal(g_chmod(program, 0700), 0);
    glue_config.replicator = program;
    bool ok =
        vm_reserve("web", NULL) && vm_start(PRIMARY, glue_protection("web", 1), glue_config.listen_address,
                                            glue_peer_port(), NULL, NULL, NULL, NULL, NULL);
    glue_config.replicator = g_steal_pointer(&as_ever);
    assert_true(ok);
}

static void test_how_one_ended_without_a_word_is_logged(void **state)
{
    (void)state;
    start_command("kill -TERM $$");
    glue_until(was_logged, (void *)"VM web: its replicator was ended by signal 15 (Terminated)",
               "it is logged");
    glue_await_state("web", STATE(FAILED));
    assert_true(vm_stop("web", NULL));
    start_command("exit 3");
    glue_until(was_logged, (void *)"web: its replicator ended with exit status 3", "it is logged");
    g_clear_pointer(&logged, g_free);
}

/* Its words are in the console's log: an ending without a reason is worth reading. */
static void test_one_that_dies_before_it_listens_is_told_and_its_log_stays(void **state)
{
    (void)state;
    int fd = start(SECONDARY);
    glue_write("web/console.log", "words");
    glue_write("web/us-monitor", "a socket");
    close(fd);
    glue_until(was_told, NULL, "the caller is told");
    assert_false(listening.ok);
    assert_string_equal(listening.message, "the replicator died");
    glue_await_gone("web");
    assert_int_equal(endings_of("web", "its replicator died"), 1);
    assert_true(glue_exists("web/console.log"));
    assert_false(glue_exists("web/us-monitor"));
}

static void test_one_that_ends_before_it_listens_tells_why_and_leaves_no_folder(void **state)
{
    (void)state;
    int fd = start(SECONDARY);
    glue_write("web/console.log", "words");
    glue_say_ended(fd, "hypervisor-died", "no such machine");
    glue_until(was_told, NULL, "the caller is told");
    close(fd);
    assert_false(listening.ok);
    assert_string_equal(listening.message, "no such machine");
    glue_await_gone("web");
    assert_int_equal(endings_of("web", ""), 0);
    assert_false(glue_exists("web"));
}

static void test_one_that_dies_later_is_shown_as_failed_until_it_is_stopped(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    int fd = start_in(PRIMARY, STATE(PROTECTED));
    glue_write("web/us-monitor", "a socket");
    assert_int_equal(vms_count(), 1);
    close(fd);
    glue_await_state("web", STATE(FAILED));
    assert_int_equal(vms_count(), 0);
    assert_false(glue_exists("web/us-monitor"));
    assert_int_equal(endings_of("web", "its replicator died"), 1);
    assert_false(vm_power("web", UNDERSTUDY__POWER_ACTION__POWER_RESET, &error));
    assert_non_null(strstr(error->message, "any more (failed)"));
    assert_true(vm_stop("web", NULL));
    assert_int_equal(glue_state("web"), STATE(UNKNOWN));
    g_clear_error(&error);
    assert_false(vm_stop("web", &error));
    assert_non_null(strstr(error->message, "there is no VM web"));
}

/* A failed one's name can be used again, and what failed is shown until the new one starts. */
static void test_a_failed_vm_s_entry_outlives_a_reservation_that_comes_to_nothing(void **state)
{
    (void)state;
    close(start_in(PRIMARY, STATE(PROTECTED)));
    glue_await_state("web", STATE(FAILED));
    assert_true(vm_reserve("web", NULL));
    assert_false(vm_stop("web", NULL));
    assert_false(vm_reserve("web", NULL));
    vm_forget("web");
    assert_int_equal(glue_state("web"), STATE(FAILED));
    int fd = start_in(PRIMARY, STATE(CONNECTING));
    assert_int_equal(vms_count(), 1);
    close(fd);
    glue_await_state("web", STATE(FAILED));
}

static void test_what_a_replicator_says_last_is_what_its_vm_came_to(void **state)
{
    static const struct {
        const char *reason;
        Understudy__Role role;
        Understudy__State shown; /* UNKNOWN: it is not shown any more */
    } cases[] = {
        {"guest-shutdown", PRIMARY, STATE(UNKNOWN)},
        {"stopped", SECONDARY, STATE(UNKNOWN)},
        {"handed-over", PRIMARY, STATE(UNKNOWN)},
        {"abandoned", SECONDARY, STATE(UNKNOWN)},
        {"fenced", PRIMARY, STATE(FENCED)},
        {"hypervisor-died", PRIMARY, STATE(HYPERVISOR_DIED)},
        {"promote-failed", SECONDARY, STATE(PROMOTE_FAILED)},
        {"image-failed", SECONDARY, STATE(IMAGE_FAILED)},
        {"trial-failed", SECONDARY, STATE(TRIAL_FAILED)},
        {"bug", PRIMARY, STATE(FAILED)},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        int fd = start_in(cases[i].role, cases[i].role == PRIMARY ? STATE(PROTECTED) : STATE(STANDBY));
        glue_say_ended(fd, cases[i].reason, "its last words");
        close(fd);
        while (vm_is_here("web"))
            g_main_context_iteration(NULL, TRUE);
        if (glue_state("web") != cases[i].shown)
            fail_msg("%s: %s", cases[i].reason, state_name(glue_state("web")));
        assert_int_equal(
            endings_of("web", session_end_reason_words(session_end_reason_from_name(cases[i].reason))),
            i + 1);
        if (cases[i].shown != STATE(UNKNOWN))
            assert_true(vm_stop("web", NULL));
    }
}

/* Nothing counts after the last word, and a second one is none. */
static void test_what_comes_after_the_last_word_is_not_heard(void **state)
{
    (void)state;
    int fd = start_in(PRIMARY, STATE(PROTECTED));
    glue_say_ended(fd, "guest-shutdown", "");
    glue_say_status(fd, PRIMARY, STATE(PROTECTED));
    glue_say_ended(fd, "bug", "");
    close(fd);
    glue_await_gone("web");
    assert_int_equal(endings_of("web", "the guest shut down"), 1);
}

static void test_what_is_no_message_counts_as_the_replicator_s_death(void **state)
{
    static const uint8_t too_long[] = {0xff, 0xff, 0xff, 0x7f, 0}, empty[] = {0, 0, 0, 0},
                         nonsense[] = {3, 0, 0, 0, 0xff, 0xff, 0xff}, cut[] = {100, 0, 0, 0, 10};
    static const struct {
        const uint8_t *bytes;
        size_t len;
    } cases[] = {
        {too_long, sizeof too_long}, {empty, sizeof empty}, {nonsense, sizeof nonsense}, {cut, sizeof cut}};
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        int fd = start_in(PRIMARY, STATE(CONNECTING));
        assert_int_equal(send(fd, cases[i].bytes, cases[i].len, MSG_NOSIGNAL), cases[i].len);
        if (cases[i].bytes == cut)
            shutdown(fd, SHUT_WR);
        glue_await_state("web", STATE(FAILED));
        assert_true(glue_has_closed(fd));
        close(fd);
    }
}

/* Messages that a replicator has no business to send, and a status before anything is known of the VM. */
static void test_what_is_not_a_replicator_s_to_say_changes_nothing(void **state)
{
    (void)state;
    int fd = start(SECONDARY);
    Understudy__Stop stop = UNDERSTUDY__STOP__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STOP, stop, &stop);
    glue_say(fd, &envelope);
    glue_answer(fd, true, "");
    glue_say_status(fd, SECONDARY, STATE(FOLLOWING));
    glue_await_state("web", STATE(FOLLOWING));
    assert_int_equal(listening.times, 0);
    close(fd);
    glue_await_gone("web");
}

/* ---- its QEMU ---- */

/* A process that waits for its input, under that command line. */
static pid_t run_as(const char *name, const char *word, int *input)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[0], 0);
        close(ends[0]);
        close(ends[1]);
        execl("/bin/cat", name, "-", word, (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    *input = ends[1];
    g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", pid);
    for (;;) { /* until it is that program */
        g_autofree char *line = NULL;
        gsize len = 0;
        if (g_file_get_contents(path, &line, &len, NULL) && len > strlen(name) && strcmp(line, name) == 0)
            return pid;
        g_usleep(500);
    }
}

static void say_qemu(int fd, int pid)
{
    Understudy__Status status = UNDERSTUDY__STATUS__INIT;
    status.role = PRIMARY;
    status.state = STATE(PROTECTED);
    status.qemu_pid = pid;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS, status, &status);
    glue_say(fd, &envelope);
    glue_await_state("web", STATE(PROTECTED));
}

/* Whether the process was killed; its input ends otherwise. */
static bool was_killed(pid_t pid, int input)
{
    int status = 0;
    close(input);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static void test_a_dead_replicator_s_qemu_is_killed_and_no_other_process(void **state)
{
    int input;
    (void)state;
    pid_t qemu = run_as("fakevm", "memory-of:understudy", &input);
    int fd = start_in(PRIMARY, STATE(CONNECTING));
    say_qemu(fd, qemu);
    close(fd);
    glue_await_state("web", STATE(FAILED));
    assert_true(was_killed(qemu, input));

    pid_t other = run_as("cat", "memory-of:somebody", &input);
    fd = start_in(PRIMARY, STATE(CONNECTING));
    say_qemu(fd, other);
    close(fd);
    glue_await_state("web", STATE(FAILED));
    assert_false(was_killed(other, input));
}

static void test_a_qemu_that_is_not_the_vm_s_any_more_is_left_alone(void **state)
{
    int input;
    (void)state;
    pid_t qemu = run_as("fakevm", "memory-of:understudy", &input);
    int fd = start_in(PRIMARY, STATE(CONNECTING));
    say_qemu(fd, qemu);
    glue_say_status(fd, PRIMARY, STATE(CONNECTING)); /* without a QEMU */
    glue_await_state("web", STATE(CONNECTING));
    close(fd);
    glue_await_state("web", STATE(FAILED));
    assert_false(was_killed(qemu, input));
}

/* ---- orders ---- */

static void test_orders_are_given_where_and_when_they_make_sense(void **state)
{
    static const struct {
        Understudy__Role role;
        Understudy__State state;
        bool planned, forced, power;
    } cases[] = {
        {PRIMARY, STATE(STARTING), false, false, false},
        {PRIMARY, STATE(CONNECTING), false, false, true},
        {PRIMARY, STATE(SYNCHRONISING), false, false, true},
        {PRIMARY, STATE(PROTECTED), true, false, true},
        {PRIMARY, STATE(PEER_LOST), false, false, true},
        {SECONDARY, STATE(LISTENING), false, false, false},
        {SECONDARY, STATE(FOLLOWING), false, false, false},
        {SECONDARY, STATE(STANDBY), false, true, false},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const Understudy__PowerAction pause = UNDERSTUDY__POWER_ACTION__POWER_PAUSE;
        int fd = start_in(cases[i].role, cases[i].state);
        assert_int_equal(vm_failover("web", false, NULL), cases[i].planned);
        assert_int_equal(vm_failover("web", true, NULL), cases[i].forced);
        assert_int_equal(vm_power("web", pause, NULL), cases[i].power);
        assert_true(vm_stop("web", NULL));
        if (cases[i].planned || cases[i].forced) {
            Understudy__Envelope *order = glue_hear_a(fd, UNDERSTUDY__ENVELOPE__BODY_FAILOVER);
            assert_int_equal(order->failover->force, cases[i].forced);
            understudy__envelope__free_unpacked(order, NULL);
        }
        if (cases[i].power) {
            Understudy__Envelope *order = glue_hear_a(fd, UNDERSTUDY__ENVELOPE__BODY_POWER);
            assert_int_equal(order->power->action, pause);
            understudy__envelope__free_unpacked(order, NULL);
        }
        glue_skip(fd, UNDERSTUDY__ENVELOPE__BODY_STOP);
        assert_true(glue_is_silent(fd));
        close(fd);
        glue_await_state("web", STATE(FAILED));
    }
}

static void test_figures_begin_anew_for_one_vm_or_for_all(void **state)
{
    (void)state;
    int web = start_in(PRIMARY, STATE(PROTECTED));
    assert_true(vm_reserve("db", NULL));
    assert_true(vm_start(PRIMARY, glue_protection("db", 2), "peer", 7071, NULL, &standby, NULL, NULL, NULL));
    int db = glue_replicator();
    glue_skip(db, UNDERSTUDY__ENVELOPE__BODY_START);
    vm_reset_figures("db");
    glue_skip(db, UNDERSTUDY__ENVELOPE__BODY_RESET_FIGURES);
    assert_true(glue_is_silent(web));
    vm_reset_figures("");
    glue_skip(db, UNDERSTUDY__ENVELOPE__BODY_RESET_FIGURES);
    glue_skip(web, UNDERSTUDY__ENVELOPE__BODY_RESET_FIGURES);
    close(web);
    close(db);
    glue_await_state("web", STATE(FAILED));
    glue_await_state("db", STATE(FAILED));
}

/* A replicator that reads nothing costs a bounded amount of memory, and then its VM's channel. */
static void test_a_replicator_that_reads_nothing_is_given_up(void **state)
{
    (void)state;
    int fd = start_in(PRIMARY, STATE(PROTECTED));
    for (unsigned i = 0; vm_is_here("web") && i < 4u << 20; i++) {
        vm_reset_figures("");
        if (i % 1024 == 0)
            glue_settle();
    }
    glue_settle();
    assert_int_equal(glue_state("web"), STATE(FAILED));
    close(fd);
}

/* ---- a standby that is asked for ---- */

static enum vm_existing check(Understudy__Protection *wanted, const char *says)
{
    uint16_t data_port = 0, udp_port = 0;
    g_autofree char *why = NULL;
    enum vm_existing existing = vm_check_existing(wanted, &data_port, &udp_port, &why);
    if (existing == VM_REUSE) {
        assert_int_equal(data_port, GLUE_DATA_PORT);
        assert_int_equal(udp_port, GLUE_UDP_PORT);
    }
    if (says && (!why || !strstr(why, says)))
        fail_msg("%s; wanted %s", why ? why : "nothing", says);
    return existing;
}

static Understudy__Protection *in_term(uint8_t of_token, uint64_t term)
{
    Understudy__Protection *protection = glue_protection("web", of_token);
    protection->term = term;
    return protection;
}

static void test_a_standby_that_waits_is_used_again_by_its_own_run_alone(void **state)
{
    (void)state;
    assert_int_equal(check(in_term(1, TERM_FIRST), NULL), VM_NONE);
    assert_true(vm_reserve("web", NULL));
    assert_int_equal(check(in_term(1, TERM_FIRST), "being started"), VM_ENDING);
    vm_forget("web");
    int fd = start(SECONDARY);
    assert_int_equal(check(in_term(1, TERM_FIRST), "busy"), VM_REFUSED); /* it does not listen yet */
    glue_say_listening(fd);
    glue_until(was_told, NULL, "it listens");
    assert_int_equal(check(in_term(1, TERM_FIRST), NULL), VM_REUSE);
    assert_int_equal(check(in_term(2, TERM_FIRST), "busy"), VM_ENDING);
    glue_say_status(fd, SECONDARY, STATE(LISTENING));
    glue_await_state("web", STATE(LISTENING));
    assert_int_equal(check(in_term(1, TERM_FIRST), NULL), VM_REUSE);
    assert_int_equal(check(in_term(1, TERM_FIRST + 2 * (TERM_WINDOW + 1)), "cannot follow"), VM_REFUSED);
    glue_say_status(fd, SECONDARY, STATE(FOLLOWING));
    glue_await_state("web", STATE(FOLLOWING));
    assert_int_equal(check(in_term(1, TERM_FIRST), "busy"), VM_REFUSED);
    close(fd);
    glue_await_state("web", STATE(FAILED));
}

static void test_a_guest_that_runs_here_in_no_older_term_needs_no_standby_here(void **state)
{
    (void)state;
    int fd = start_in(PRIMARY, STATE(PEER_LOST));
    assert_int_equal(check(in_term(1, TERM_FIRST), "runs on this host already (term 1.0)"), VM_REFUSED);
    assert_int_equal(check(in_term(1, TERM_FIRST + 1), "busy"), VM_REFUSED);
    close(fd);
    glue_await_state("web", STATE(FAILED));
    assert_int_equal(check(in_term(1, TERM_FIRST), NULL), VM_NONE);
}

static void test_only_the_standby_of_that_token_is_cancelled(void **state)
{
    uint8_t its_own[16], other[16] = {0};
    (void)state;
    memset(its_own, 1, sizeof its_own);
    vm_cancel_standby("nobody", its_own, false);
    int fd = start_in(SECONDARY, STATE(LISTENING));
    vm_cancel_standby("web", other, true);
    assert_true(glue_is_silent(fd));
    vm_cancel_standby("web", its_own, false);
    glue_skip(fd, UNDERSTUDY__ENVELOPE__BODY_STOP);
    glue_say_status(fd, SECONDARY, STATE(FOLLOWING));
    glue_await_state("web", STATE(FOLLOWING));
    vm_cancel_standby("web", its_own, false); /* it has its primary */
    vm_cancel_standby("web", other, true);
    assert_true(glue_is_silent(fd));
    vm_cancel_standby("web", its_own, true); /* which gives it up */
    glue_skip(fd, UNDERSTUDY__ENVELOPE__BODY_STOP);
    close(fd);
    glue_await_state("web", STATE(FAILED));
}

/* The key comes with the order to start, so that a later daemon knows it too (Start.peer_key). */
static void test_a_standby_of_a_host_that_is_removed_stops(void **state)
{
    uint8_t key[STREAM_KEY_LEN] = {5}, other[STREAM_KEY_LEN] = {6};
    (void)state;
    for (int role = PRIMARY; role <= SECONDARY; role++) {
        assert_true(vm_reserve("web", NULL));
        assert_true(vm_start((Understudy__Role)role, glue_protection("web", 1), "peer", 7071, key,
                             role == PRIMARY ? &standby : NULL, NULL, NULL, NULL));
        int fd = glue_replicator();
        Understudy__Envelope *start_order = glue_hear_a(fd, UNDERSTUDY__ENVELOPE__BODY_START);
        assert_int_equal(start_order->start->peer_key.len, sizeof key);
        assert_memory_equal(start_order->start->peer_key.data, key, sizeof key);
        understudy__envelope__free_unpacked(start_order, NULL);
        glue_say_status(fd, (Understudy__Role)role, role == PRIMARY ? STATE(PROTECTED) : STATE(STANDBY));
        glue_await_state("web", role == PRIMARY ? STATE(PROTECTED) : STATE(STANDBY));
        vms_end_of_peer(other, true);
        assert_true(glue_is_silent(fd));
        vms_end_of_peer(key, true);
        glue_skip(fd, role == PRIMARY ? UNDERSTUDY__ENVELOPE__BODY_DROP_PEER /* the guest goes on */
                                      : UNDERSTUDY__ENVELOPE__BODY_STOP);
        close(fd);
        glue_await_state("web", STATE(FAILED));
    }
}

static void fail_standby(const char *reason)
{
    int fd = start_in(SECONDARY, STATE(FOLLOWING));
    glue_say_ended(fd, reason, "disk root: no space left");
    close(fd);
    while (vm_is_here("web"))
        g_main_context_iteration(NULL, TRUE);
}

static void test_a_standby_that_failed_is_not_started_again_at_once(void **state)
{
    (void)state;
    fail_standby("image-failed");
    assert_int_equal(check(in_term(1, TERM_FIRST), "no space left (the next attempt is in 1 s)"), VM_REFUSED);
    assert_int_equal(check(in_term(2, TERM_FIRST), NULL), VM_NONE); /* another run */
    fail_standby("image-failed");                                   /* asked for by hand */
    assert_int_equal(check(in_term(1, TERM_FIRST), "in 2 s"), VM_REFUSED);
    assert_true(vm_stop("web", NULL));
    assert_int_equal(check(in_term(1, TERM_FIRST), NULL), VM_NONE);
}

/* A standby that ended before it listened is not shown. It counts for its own run only. */
static void test_a_standby_that_dies_without_a_word_is_not_started_again_at_once(void **state)
{
    (void)state;
    close(start(SECONDARY));
    glue_until(was_told, NULL, "the caller is told");
    glue_await_gone("web");
    assert_false(vm_stop("web", NULL));
    assert_int_equal(check(in_term(1, TERM_FIRST), "the replicator died (the next attempt is in 1 s)"),
                     VM_REFUSED);
    assert_int_equal(check(in_term(2, TERM_FIRST), NULL), VM_NONE);
    close(start(SECONDARY));
    glue_await_state("web", STATE(FAILED));
    assert_int_equal(check(in_term(1, TERM_FIRST), "in 2 s"), VM_REFUSED);
    assert_true(vm_stop("web", NULL));
    assert_int_equal(check(in_term(1, TERM_FIRST), NULL), VM_NONE);
}

static void test_a_standby_that_fails_before_it_listens_is_not_started_again_at_once(void **state)
{
    (void)state;
    int fd = start(SECONDARY);
    glue_say_ended(fd, "hypervisor-died", "no such machine");
    close(fd);
    glue_until(was_told, NULL, "the caller is told");
    glue_await_gone("web");
    assert_int_equal(check(in_term(1, TERM_FIRST), "no such machine (the next attempt is in 1 s)"),
                     VM_REFUSED);
}

/* A user who runs the VM again begins another run, and does not wait. */
static void test_what_failed_before_it_listened_does_not_count_for_another_run(void **state)
{
    (void)state;
    close(start(SECONDARY));
    glue_await_gone("web");
    token = 2;
    close(start(SECONDARY));
    token = 1;
    glue_await_gone("web");
    assert_int_equal(check(in_term(2, TERM_FIRST), "in 1 s"), VM_REFUSED);
}

static void test_a_standby_that_dies_later_is_not_started_again_at_once(void **state)
{
    (void)state;
    close(start_in(SECONDARY, STATE(FOLLOWING)));
    glue_await_state("web", STATE(FAILED));
    assert_int_equal(check(in_term(1, TERM_FIRST), "the replicator died (the next attempt is in 1 s)"),
                     VM_REFUSED);
}

static void test_a_standby_that_proved_unfit_waits_until_something_has_changed(void **state)
{
    (void)state;
    fail_standby("trial-failed");
    Understudy__Protection *wanted = glue_protection("web", 1);
    wanted->qemu_version = (char *)"9"; /* the guest runs in another one now */
    assert_int_equal(check(wanted, NULL), VM_NONE);
    wanted->qemu_version = (char *)""; /* as it was tried for */
    assert_int_equal(check(wanted, "'understudy stop web' there lets the next attempt come at once"),
                     VM_REFUSED);
}

/* ---- status ---- */

static void test_a_split_is_shown_until_the_vm_is_forgotten(void **state)
{
    Understudy__Status said = UNDERSTUDY__STATUS__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS, status, &said);
    (void)state;
    int fd = start_in(SECONDARY, STATE(FOLLOWING));
    said.role = SECONDARY;
    said.state = STATE(STANDBY);
    said.split = (char *)"both hosts had run it";
    glue_say(fd, &envelope);
    glue_await_state("web", STATE(STANDBY));
    close(fd);
    glue_await_state("web", STATE(FAILED));
    fd = start_in(SECONDARY, STATE(LISTENING));
    Understudy__Status *shown = glue_status("web");
    assert_string_equal(shown->split, "both hosts had run it");
    understudy__status__free_unpacked(shown, NULL);
    close(fd);
    glue_await_state("web", STATE(FAILED));
    assert_true(vm_stop("web", NULL));
    fd = start_in(SECONDARY, STATE(LISTENING));
    shown = glue_status("web");
    assert_string_equal(shown->split, "");
    understudy__status__free_unpacked(shown, NULL);
    close(fd);
    glue_await_state("web", STATE(FAILED));
}

static void test_a_replicator_speaks_for_its_own_vm_only(void **state)
{
    Understudy__Status said = UNDERSTUDY__STATUS__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS, status, &said);
    (void)state;
    int fd = start(PRIMARY);
    said.vm = (char *)"other";
    said.peer = (char *)"elsewhere";
    said.role = PRIMARY;
    said.state = STATE(CONNECTING);
    glue_say(fd, &envelope);
    glue_await_state("web", STATE(CONNECTING));
    assert_int_equal(glue_state("other"), STATE(UNKNOWN));
    Understudy__Status *shown = glue_status("web");
    assert_string_equal(shown->peer, "peer");
    understudy__status__free_unpacked(shown, NULL);
    close(fd);
    glue_await_gone("web");
}

static void test_warnings_are_shown_as_many_as_are_kept(void **state)
{
    g_autoptr(GPtrArray) warnings = g_ptr_array_new();
    (void)state;
    for (int i = 0; i < 100; i++)
        g_ptr_array_add(warnings, (char *)"the bridge is down");
    vm_set_warnings("nobody", warnings);
    int fd = start_in(PRIMARY, STATE(CONNECTING));
    vm_set_warnings("web", warnings);
    glue_say_status(fd, PRIMARY, STATE(PROTECTED));
    glue_await_state("web", STATE(PROTECTED));
    Understudy__Status *shown = glue_status("web");
    assert_int_equal(shown->n_warnings, 32);
    assert_string_equal(shown->warnings[31], "the bridge is down");
    understudy__status__free_unpacked(shown, NULL);
    g_ptr_array_set_size(warnings, 0);
    vm_set_warnings("web", warnings);
    glue_say_status(fd, PRIMARY, STATE(CONNECTING));
    glue_await_state("web", STATE(CONNECTING));
    shown = glue_status("web");
    assert_int_equal(shown->n_warnings, 0);
    understudy__status__free_unpacked(shown, NULL);
    close(fd);
    glue_await_state("web", STATE(FAILED));
}

static void note_view(const struct vm_view *vm, void *opaque)
{
    *(struct vm_view *)opaque = *vm;
}

static void test_a_vm_is_looked_at_while_its_hypervisor_runs(void **state)
{
    struct vm_view seen = {0};
    (void)state;
    int fd = start(PRIMARY);
    vms_each(note_view, &seen);
    assert_null(seen.name); /* it is being started */
    glue_say_status(fd, PRIMARY, STATE(PROTECTED));
    glue_await_state("web", STATE(PROTECTED));
    vms_each(note_view, &seen);
    assert_string_equal(seen.name, "web");
    assert_string_equal(seen.peer_host, "peer");
    assert_int_equal(seen.peer_port, 7071);
    assert_true(seen.runs_here && seen.has_standby);
    glue_say_status(fd, PRIMARY, STATE(PEER_LOST));
    glue_await_state("web", STATE(PEER_LOST));
    vms_each(note_view, &seen);
    assert_true(seen.runs_here && !seen.has_standby);
    close(fd);
    glue_await_gone("web");
    seen.name = NULL;
    vms_each(note_view, &seen);
    assert_null(seen.name);
}

/* ---- those of an earlier daemon ---- */

/* As a daemon that starts now. */
static void start_again(void)
{
    vms_shutdown();
    vms_init(&glue_config);
}

static void say_adopted(int fd, const char *vm, const char *peer_name)
{
    Understudy__Start order = UNDERSTUDY__START__INIT;
    Understudy__Listening ports = UNDERSTUDY__LISTENING__INIT;
    Understudy__Adopted adopted = UNDERSTUDY__ADOPTED__INIT;
    order.protection = glue_protection(vm, 1);
    order.peer_name = (char *)peer_name;
    order.peer_daemon_port = 7071;
    ports.data_port = GLUE_DATA_PORT;
    ports.udp_port = GLUE_UDP_PORT;
    adopted.start = &order;
    adopted.listening = &ports;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ADOPTED, adopted, &adopted);
    glue_say(fd, &envelope);
}

static void test_a_replicator_that_runs_is_adopted_with_what_it_says(void **state)
{
    (void)state;
    int listener = glue_left_vm("web", 2);
    start_again();
    assert_true(vm_is_here("web"));
    int fd = accept(listener, NULL, NULL);
    glue_say_status(fd, SECONDARY, STATE(STANDBY)); /* too early: whose is it? */
    say_adopted(fd, "other", "wrong");
    say_adopted(fd, "web", "peer");
    say_adopted(fd, "web", "changed");
    glue_say_status(fd, SECONDARY, STATE(LISTENING));
    glue_await_state("web", STATE(LISTENING));
    Understudy__Status *shown = glue_status("web");
    assert_string_equal(shown->peer, "peer");
    understudy__status__free_unpacked(shown, NULL);
    assert_int_equal(check(in_term(1, TERM_FIRST), NULL), VM_REUSE);
    assert_true(vm_stop("web", NULL));
    glue_skip(fd, UNDERSTUDY__ENVELOPE__BODY_STOP);
    close(fd);
    close(listener);
    glue_await_state("web", STATE(FAILED));
}

/* Until then it is not known whose status that is, nor how the VM is protected. */
static void test_a_status_that_comes_before_adopted_shows_nothing(void **state)
{
    Understudy__Status early = UNDERSTUDY__STATUS__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS, status, &early);
    (void)state;
    int listener = glue_left_vm("web", 2);
    start_again();
    int fd = accept(listener, NULL, NULL);
    early.role = PRIMARY;
    early.state = STATE(PROTECTED);
    glue_say(fd, &envelope);
    glue_settle();
    assert_int_equal(glue_state("web"), STATE(UNKNOWN));
    assert_false(vm_failover("web", false, NULL));
    say_adopted(fd, "web", "peer");
    glue_settle();
    assert_int_equal(glue_state("web"), STATE(UNKNOWN)); /* the early one is not kept for later */
    glue_say_status(fd, PRIMARY, STATE(PROTECTED));
    glue_await_state("web", STATE(PROTECTED));
    glue_say_ended(fd, "stopped", "");
    close(fd);
    close(listener);
    glue_await_gone("web");
}

/* It may be of a version that says less, or be anything. */
static void test_an_adopted_one_that_does_not_say_what_it_is_can_be_stopped(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    int listener = glue_left_vm("web", 2);
    start_again();
    int fd = accept(listener, NULL, NULL);
    Understudy__Adopted nothing = UNDERSTUDY__ADOPTED__INIT;
    Understudy__Start order = UNDERSTUDY__START__INIT;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ADOPTED, adopted, &nothing);
    glue_say(fd, &envelope);
    nothing.start = &order;
    glue_say(fd, &envelope);
    glue_settle();
    assert_true(vm_is_here("web"));
    assert_false(vm_reserve("web", &error));
    assert_false(vm_failover("web", false, NULL));
    assert_false(vm_power("web", UNDERSTUDY__POWER_ACTION__POWER_RESET, NULL));
    assert_int_equal(check(in_term(1, TERM_FIRST), "busy"), VM_REFUSED);
    assert_true(vm_stop("web", NULL));
    glue_skip(fd, UNDERSTUDY__ENVELOPE__BODY_STOP);
    glue_say_ended(fd, "stopped", "");
    close(fd);
    close(listener);
    glue_await_gone("web");
}

static void test_what_ended_unattended_keeps_its_log_and_loses_its_sockets(void **state)
{
    (void)state;
    close(glue_left_vm("web", 2));
    glue_write("web/console.log", "words");
    glue_write("empty/console.log", "words");
    glue_write("a-file", "not a VM");
    start_again();
    assert_false(vm_is_here("web"));
    assert_int_equal(endings_of("web", "no understudyd ran here"), 1);
    assert_int_equal(endings_of("empty", "no understudyd ran here"), 1);
    assert_int_equal(endings_of("a-file", ""), 0);
    assert_true(glue_exists("web/console.log"));
    assert_false(glue_exists("web/us-replicator"));
    assert_true(vm_reserve("web", NULL));
    vm_forget("web");
}

static bool is_here(void *opaque)
{
    return vm_is_here(opaque);
}

/* A replicator that stands still, with what earlier daemons left in its queue, is not dead. */
static void test_a_replicator_that_does_not_answer_yet_is_adopted_later(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *path = glue_path("web/us-replicator");
    (void)state;
    int listener = glue_left_vm("web", 0);
    int before = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    assert_int_equal(connect(before, (struct sockaddr *)&address, sizeof address), 0);
    start_again();
    assert_false(vm_is_here("web"));
    assert_true(glue_exists("web/us-replicator"));
    assert_int_equal(endings_of("web", ""), 0);
    assert_false(vm_reserve("web", NULL)); /* nobody starts a second one */
    close(accept(listener, NULL, NULL));
    close(before);
    glue_until(is_here, (void *)"web", "the replicator is adopted");
    int fd = accept(listener, NULL, NULL);
    glue_say_ended(fd, "stopped", "");
    close(fd);
    close(listener);
    glue_await_gone("web");
}

static bool has_ended_unattended(void *opaque)
{
    return endings_of(opaque, "no understudyd ran here") == 1;
}

static void test_one_that_could_not_be_reached_and_is_gone_is_told_as_unattended(void **state)
{
    struct rlimit usual, none;
    (void)state;
    int listener = glue_left_vm("web", 2);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
    /* Room for the folder that is read, and for no socket. */
    int lowest = dup(0);
    close(lowest);
    none = usual;
    none.rlim_cur = (rlim_t)lowest + 1;
    vms_shutdown();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    vms_init(&glue_config);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
    assert_false(vm_is_here("web"));
    assert_true(glue_exists("web/us-replicator"));
    close(listener);
    glue_until(has_ended_unattended, (void *)"web", "it is told");
    assert_false(glue_exists("web/us-replicator"));
    assert_true(vm_reserve("web", NULL));
    vm_forget("web");
}

#define WITH_VMS(test) cmocka_unit_test_setup_teardown(test, glue_open_vms, glue_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_VMS(test_a_replicator_is_told_what_its_vm_is),
        WITH_VMS(test_a_standby_that_listens_is_told_to_who_asked_for_it_once),
        WITH_VMS(test_a_replicator_that_cannot_be_run_is_a_sentence_and_leaves_nothing),
        WITH_VMS(test_an_order_too_long_for_the_replicator_is_a_sentence_and_starts_nothing),
        WITH_VMS(test_a_name_that_is_none_is_refused),
        WITH_VMS(test_a_name_is_reserved_once_and_an_order_for_it_waits),
        WITH_VMS(test_a_run_folder_too_long_for_sockets_is_refused),
        WITH_VMS(test_a_replicator_that_says_nothing_is_stopped_in_time),
        WITH_VMS(test_how_one_ended_without_a_word_is_logged),
        WITH_VMS(test_one_that_dies_before_it_listens_is_told_and_its_log_stays),
        WITH_VMS(test_one_that_ends_before_it_listens_tells_why_and_leaves_no_folder),
        WITH_VMS(test_one_that_dies_later_is_shown_as_failed_until_it_is_stopped),
        WITH_VMS(test_a_failed_vm_s_entry_outlives_a_reservation_that_comes_to_nothing),
        WITH_VMS(test_what_a_replicator_says_last_is_what_its_vm_came_to),
        WITH_VMS(test_what_comes_after_the_last_word_is_not_heard),
        WITH_VMS(test_what_is_no_message_counts_as_the_replicator_s_death),
        WITH_VMS(test_what_is_not_a_replicator_s_to_say_changes_nothing),
        WITH_VMS(test_a_dead_replicator_s_qemu_is_killed_and_no_other_process),
        WITH_VMS(test_a_qemu_that_is_not_the_vm_s_any_more_is_left_alone),
        WITH_VMS(test_orders_are_given_where_and_when_they_make_sense),
        WITH_VMS(test_figures_begin_anew_for_one_vm_or_for_all),
        WITH_VMS(test_a_replicator_that_reads_nothing_is_given_up),
        WITH_VMS(test_a_standby_that_waits_is_used_again_by_its_own_run_alone),
        WITH_VMS(test_a_guest_that_runs_here_in_no_older_term_needs_no_standby_here),
        WITH_VMS(test_only_the_standby_of_that_token_is_cancelled),
        WITH_VMS(test_a_standby_of_a_host_that_is_removed_stops),
        WITH_VMS(test_a_standby_that_failed_is_not_started_again_at_once),
        WITH_VMS(test_a_standby_that_dies_without_a_word_is_not_started_again_at_once),
        WITH_VMS(test_a_standby_that_fails_before_it_listens_is_not_started_again_at_once),
        WITH_VMS(test_what_failed_before_it_listened_does_not_count_for_another_run),
        WITH_VMS(test_a_standby_that_dies_later_is_not_started_again_at_once),
        WITH_VMS(test_a_standby_that_proved_unfit_waits_until_something_has_changed),
        WITH_VMS(test_a_split_is_shown_until_the_vm_is_forgotten),
        WITH_VMS(test_a_replicator_speaks_for_its_own_vm_only),
        WITH_VMS(test_warnings_are_shown_as_many_as_are_kept),
        WITH_VMS(test_a_vm_is_looked_at_while_its_hypervisor_runs),
        WITH_VMS(test_a_replicator_that_runs_is_adopted_with_what_it_says),
        WITH_VMS(test_a_status_that_comes_before_adopted_shows_nothing),
        WITH_VMS(test_an_adopted_one_that_does_not_say_what_it_is_can_be_stopped),
        WITH_VMS(test_what_ended_unattended_keeps_its_log_and_loses_its_sockets),
        WITH_VMS(test_a_replicator_that_does_not_answer_yet_is_adopted_later),
        WITH_VMS(test_one_that_could_not_be_reached_and_is_gone_is_told_as_unattended),
    };
    g_log_set_writer_func(keep_warning, NULL, NULL);
    return cmocka_run_group_tests(tests, glue_group_set_up, glue_group_tear_down);
}
