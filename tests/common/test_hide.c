/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A process that hides itself, and one that it starts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/hide.h"

#define SAY_IT "--say-whether-dumpable"

static int status_of(pid_t pid)
{
    int status = 0;
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_it_is_not_dumpable(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        bool before = prctl(PR_GET_DUMPABLE) == 1;
        process_hide();
        _exit(before && prctl(PR_GET_DUMPABLE) == 0 ? 0 : 1);
    }
    assert_int_equal(status_of(pid), 0);
}

static void test_it_leaves_no_core_whatever_the_limit_is(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit limit;
        getrlimit(RLIMIT_CORE, &limit);
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_CORE, &limit);
        process_hide();
        signal(SIGQUIT, SIG_DFL);
        kill(getpid(), SIGQUIT);
        _exit(1);
    }
    int status = status_of(pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGQUIT);
    assert_false(WCOREDUMP(status));
}

/* QEMU's core files are the administrator's to have. */
static void test_what_it_starts_is_as_ever(void **state)
{
    struct rlimit before;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_CORE, &before), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit after;
        process_hide();
        if (getrlimit(RLIMIT_CORE, &after) != 0 || memcmp(&before, &after, sizeof after) != 0)
            _exit(2);
        execl("/proc/self/exe", "test_hide", SAY_IT, NULL);
        _exit(3);
    }
    assert_int_equal(status_of(pid), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_is_not_dumpable),
        cmocka_unit_test(test_it_leaves_no_core_whatever_the_limit_is),
        cmocka_unit_test(test_what_it_starts_is_as_ever),
    };
    if (argc == 2 && strcmp(argv[1], SAY_IT) == 0)
        return prctl(PR_GET_DUMPABLE) == 1 ? 0 : 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
