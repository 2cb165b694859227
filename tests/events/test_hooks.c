/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Hooks: shell scripts that do as they are told, and others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/hooks.h"

static char *dir, *out;
static GPtrArray *logged; /* of char *: what was logged since the test began */

static GLogWriterOutput collect(GLogLevelFlags level, const GLogField *fields, gsize n, gpointer opaque)
{
    (void)level, (void)opaque;
    for (gsize i = 0; i < n; i++)
        if (strcmp(fields[i].key, "MESSAGE") == 0)
            g_ptr_array_add(logged, g_strdup(fields[i].value));
    return G_LOG_WRITER_HANDLED;
}

static int set_up(void **state)
{
    (void)state;
    dir = g_dir_make_tmp("understudy-hooks-XXXXXX", NULL);
    g_chmod(dir, 0755);
    out = g_build_filename(dir, ".out", NULL); /* no hook's name */
    logged = g_ptr_array_new_with_free_func(g_free);
    return 0;
}

static int tear_down(void **state)
{
    const char *argv[] = {"rm", "-rf", dir, NULL};
    (void)state;
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
    g_clear_pointer(&logged, g_ptr_array_unref);
    g_clear_pointer(&dir, g_free);
    g_clear_pointer(&out, g_free);
    return 0;
}

/* In the script OUT is a file of the test's. */
static void write_hook(const char *name, const char *script, int mode)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *text = g_strdup_printf("#!/bin/sh\nOUT=%s\n%s\n", out, script);
    assert_true(g_file_set_contents(path, text, -1, NULL));
    assert_int_equal(g_chmod(path, mode), 0);
}

static struct hooks *make(unsigned time_ms)
{
    struct hooks_limits limits = HOOKS_LIMITS;
    limits.time_ms = time_ms;
    return hooks_new(dir, limits);
}

static void await_idle(const struct hooks *hooks)
{
    while (!hooks_are_idle(hooks))
        g_main_context_iteration(NULL, TRUE);
}

static char *read_out(void)
{
    char *text = NULL;
    return g_file_get_contents(out, &text, NULL, NULL) ? text : g_strdup("");
}

static bool was_logged(const char *part)
{
    for (guint i = 0; i < logged->len; i++)
        if (strstr(g_ptr_array_index(logged, i), part))
            return true;
    return false;
}

static bool is_alive(const char *pid_text)
{
    pid_t pid = (pid_t)strtol(pid_text, NULL, 10);
    assert_true(pid > 1);
    return kill(pid, 0) == 0;
}

static void test_a_hook_gets_the_vm_the_event_and_json(void **state)
{
    (void)state;
    write_hook("10-a", "echo \"$# $1 $2\" >>$OUT; cat >>$OUT; pwd >>$OUT", 0755);
    struct hooks *hooks = make(20000);
    hooks_call(hooks, "web", "protected", "{\"event\":\"protected\"}");
    hooks_call(hooks, "", "drained", "{}");
    await_idle(hooks);
    g_autofree char *text = read_out();
    assert_string_equal(text, "2 web protected\n{\"event\":\"protected\"}\n/\n2 - drained\n{}\n/\n");
    hooks_free(hooks);
}

static void test_a_hook_does_not_have_the_daemons_descriptors_or_signals(void **state)
{
    (void)state;
    write_hook("a", "ls /proc/self/fd | wc -l >$OUT; grep SigIgn /proc/self/status >>$OUT", 0755);
    int leaked = dup(0);
    signal(SIGPIPE, SIG_IGN);
    struct hooks *hooks = make(20000);
    hooks_call(hooks, "web", "protected", "{}");
    await_idle(hooks);
    g_autofree char *text = read_out();
    /* 0, 1, 2, and the folder that ls reads. */
    assert_string_equal(text, "4\nSigIgn:\t0000000000000000\n");
    hooks_free(hooks);
    close(leaked);
}

static void test_what_is_no_hook_is_not_called(void **state)
{
    (void)state;
    write_hook("no-x", "echo $0 >>$OUT", 0644);
    write_hook("backup~", "echo $0 >>$OUT", 0755);
    write_hook("old.dpkg-old", "echo $0 >>$OUT", 0755);
    write_hook(".hidden", "echo $0 >>$OUT", 0755);
    write_hook("anybodys", "echo $0 >>$OUT", 0757);
    write_hook("groups", "echo $0 >>$OUT", 0775);
    struct hooks *hooks = make(20000);
    hooks_call(hooks, "web", "protected", "{}");
    await_idle(hooks);
    g_autofree char *text = read_out();
    assert_string_equal(text, "");
    assert_true(was_logged("anybodys is not called"));
    assert_true(was_logged("groups is not called"));
    g_chmod(dir, 0777);
    write_hook("good", "echo $0 >>$OUT", 0755);
    hooks_call(hooks, "web", "protected", "{}");
    await_idle(hooks);
    g_autofree char *again = read_out();
    assert_string_equal(again, "");
    assert_true(was_logged("no hook is called"));
    hooks_free(hooks);
}

static void test_without_a_folder_nothing_is_called(void **state)
{
    (void)state;
    struct hooks *hooks = hooks_new("/nowhere/hooks.d", HOOKS_LIMITS);
    hooks_call(hooks, "web", "protected", "{}");
    assert_true(hooks_are_idle(hooks));
    assert_int_equal(logged->len, 0);
    hooks_free(hooks);
}

static void test_what_a_hook_prints_is_logged_readable(void **state)
{
    (void)state;
    write_hook("loud", "printf 'one\\n\\033[2Jtwo\\377\\nno newline'; exit 7", 0755);
    struct hooks *hooks = make(20000);
    hooks_call(hooks, "web", "protected", "{}");
    await_idle(hooks);
    assert_true(was_logged("hook loud (web protected): one"));
    assert_true(was_logged("?[2Jtwo"));
    assert_true(was_logged("no newline"));
    assert_true(was_logged("ended with status 7"));
    hooks_free(hooks);
}

/* The loop goes on meanwhile: it is the daemon's. */
static gboolean count(gpointer opaque)
{
    (*(unsigned *)opaque)++;
    return G_SOURCE_CONTINUE;
}

static void test_a_hook_that_hangs_is_killed_and_keeps_nobody(void **state)
{
    (void)state;
    write_hook("hangs", "trap '' TERM; echo $$ >>$OUT; while :; do sleep 1000; done", 0755);
    struct hooks *hooks = make(300);
    unsigned turns = 0;
    guint timer = g_timeout_add(10, count, &turns);
    hooks_call(hooks, "web", "protected", "{}");
    await_idle(hooks);
    g_source_remove(timer);
    g_autofree char *pid = read_out();
    assert_false(is_alive(pid));
    assert_true(turns > 2);
    assert_true(was_logged("is killed"));
    assert_true(was_logged("ended by signal 9"));
    hooks_free(hooks);
}

static void await_end(const char *pid_text)
{
    while (is_alive(pid_text))
        g_usleep(1000);
}

static void test_what_a_hook_leaves_behind_is_killed_too(void **state)
{
    (void)state;
    write_hook("forks", "sleep 1000 & echo $! >$OUT", 0755);
    struct hooks *hooks = make(20000);
    hooks_call(hooks, "web", "protected", "{}");
    await_idle(hooks);
    g_autofree char *pid = read_out();
    await_end(pid);
    hooks_free(hooks);
}

/* One that leaves its group keeps its output open; it is not waited for, and does not occupy a place. */
static void test_a_process_that_leaves_the_group_is_not_waited_for(void **state)
{
    (void)state;
    write_hook("leaves",
               "setsid sh -c 'echo $$ >$OUT; exec sleep 1000' & while [ ! -s $OUT ]; do sleep 0.01; done",
               0755);
    g_setenv("OUT", out, TRUE);
    struct hooks *hooks = make(20000);
    hooks_call(hooks, "web", "protected", "{}");
    await_idle(hooks);
    g_unsetenv("OUT");
    g_autofree char *pid = read_out();
    assert_true(is_alive(pid));
    kill((pid_t)strtol(pid, NULL, 10), SIGKILL);
    hooks_free(hooks);
}

static void test_output_without_end_is_bounded(void **state)
{
    (void)state;
    write_hook("yes", "exec yes", 0755);
    struct hooks *hooks = make(500);
    hooks_call(hooks, "web", "protected", "{}");
    await_idle(hooks);
    assert_true(logged->len < 60);
    assert_true(was_logged("prints more than is logged"));
    hooks_free(hooks);
}

static void test_a_script_that_cannot_be_run_is_told_of(void **state)
{
    (void)state;
    g_autofree char *path = g_build_filename(dir, "broken", NULL);
    assert_true(g_file_set_contents(path, "#!/nowhere/sh\n", -1, NULL));
    g_chmod(path, 0755);
    struct hooks *hooks = make(20000);
    hooks_call(hooks, "web", "protected", "{}");
    await_idle(hooks);
    assert_true(was_logged("it cannot be run"));
    assert_true(was_logged("ended with status 127"));
    hooks_free(hooks);
}

/* Six hooks, many events: never more than four at once, never two of one, each in the events' order. */
static void test_a_thousand_events_at_once_are_called_within_the_limits(void **state)
{
    (void)state;
    const unsigned nhooks = 6, limit = 60;
    for (unsigned i = 0; i < nhooks; i++) {
        g_autofree char *name = g_strdup_printf("%u", i);
        write_hook(name,
                   "n=${0##*/}; echo \"+ $n $2\" >>$OUT; [ $n = 0 ] && sleep 0.1; echo \"- $n $2\" >>$OUT",
                   0755);
    }
    struct hooks_limits limits = HOOKS_LIMITS;
    limits.waiting = limit;
    struct hooks *hooks = hooks_new(dir, limits);
    for (int i = 1; i <= 1000; i++) {
        g_autofree char *event = g_strdup_printf("%d", i);
        hooks_call(hooks, "web", event, "{}");
    }
    await_idle(hooks);
    g_autofree char *text = read_out();
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    int now = 0, most = 0, calls = 0, running[6] = {0}, last[6] = {0};
    for (char **line = lines; *line && **line; line++) {
        int hook = 0, event = 0;
        char what = 0;
        assert_int_equal(sscanf(*line, "%c %d %d", &what, &hook, &event), 3);
        assert_in_range(hook, 0, 5);
        now += what == '+' ? 1 : -1;
        running[hook] += what == '+' ? 1 : -1;
        most = MAX(most, now);
        assert_in_range(running[hook], 0, 1);
        if (what == '+') {
            assert_true(event > last[hook]);
            last[hook] = event;
            calls++;
        }
    }
    assert_int_equal(now, 0);
    assert_in_range(most, 1, 4);
    assert_in_range(calls, limit, limit + 4);
    assert_true(was_logged("calls wait already"));
    hooks_free(hooks);
}

static void test_more_programs_than_the_limit_are_passed_over(void **state)
{
    (void)state;
    struct hooks_limits limits = HOOKS_LIMITS;
    limits.max_hooks = 2;
    for (int i = 0; i < 5; i++) {
        g_autofree char *name = g_strdup_printf("%d", i);
        write_hook(name, "echo $0 >>$OUT", 0755);
    }
    struct hooks *hooks = hooks_new(dir, limits);
    hooks_call(hooks, "web", "protected", "{}");
    await_idle(hooks);
    g_autofree char *text = read_out();
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    assert_int_equal(g_strv_length(lines) - 1, 2);
    assert_true(was_logged("more than 2 hooks"));
    hooks_free(hooks);
}

static void test_those_that_run_end_with_the_daemon(void **state)
{
    (void)state;
    write_hook("hangs", "echo $$ >$OUT; sleep 1000", 0755);
    struct hooks *hooks = make(20000);
    hooks_call(hooks, "web", "protected", "{}");
    hooks_call(hooks, "web", "protected", "{}"); /* waits */
    g_autofree char *pid = read_out();
    while (!pid[0]) {
        g_usleep(1000);
        g_free(pid);
        pid = read_out();
    }
    hooks_free(hooks);
    while (waitpid((pid_t)strtol(pid, NULL, 10), NULL, 0) < 0 && errno != ECHILD)
        continue;
    assert_false(is_alive(pid));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_hook_gets_the_vm_the_event_and_json, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_hook_does_not_have_the_daemons_descriptors_or_signals, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_hook_is_not_called, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_a_folder_nothing_is_called, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_a_hook_prints_is_logged_readable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_hook_that_hangs_is_killed_and_keeps_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_a_hook_leaves_behind_is_killed_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_process_that_leaves_the_group_is_not_waited_for, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_output_without_end_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_script_that_cannot_be_run_is_told_of, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_thousand_events_at_once_are_called_within_the_limits, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_more_programs_than_the_limit_are_passed_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_those_that_run_end_with_the_daemon, set_up, tear_down),
    };
    g_log_set_writer_func(collect, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
