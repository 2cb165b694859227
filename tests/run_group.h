/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every test program is compiled with this header before its first line: CMakeLists.txt attaches it to cmocka
 * itself. cmocka_run_group_tests then means run_group, which cannot say 0 where something went wrong:
 *
 * - cmocka 1.1.5 prints a group teardown that fails as FAILED, and returns 0 all the same;
 * - it returns a number of tests, of which an exit status keeps eight bits: 256 failures are none;
 * - a test that calls exit(0) ends the program as if all were well.
 *
 * UNDERSTUDY_TEST in the environment is a pattern (* and ?): only the tests of such names are run.
 */
#ifndef UNDERSTUDY_TESTS_RUN_GROUP_H
#define UNDERSTUDY_TESTS_RUN_GROUP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct run_group {
    CMFixtureFunction setup, teardown;
    int set_up, torn_down; /* each came back, and with 0 */
    long unfinished_pid;   /* the process in which a group runs now; its children are none of our business */
};

static struct run_group run_group_now;

static inline int run_group_setup(void **state)
{
    int status = run_group_now.setup ? run_group_now.setup(state) : 0;
    run_group_now.set_up = status == 0;
    return status;
}

static inline int run_group_teardown(void **state)
{
    int status = run_group_now.teardown ? run_group_now.teardown(state) : 0;
    run_group_now.torn_down = status == 0;
    return status;
}

static inline void run_group_at_exit(void)
{
    if (run_group_now.unfinished_pid != (long)getpid())
        return;
    fputs("run_group: a test ended the program\n", stderr);
    _exit(1);
}

/* 0: all tests of the group, its setup and its teardown went well. 1: not. */
static inline int run_group(const char *name, const struct CMUnitTest *tests, size_t ntests,
                            CMFixtureFunction setup, CMFixtureFunction teardown)
{
    static int registered;
    run_group_now = (struct run_group){setup, teardown, 0, 0, (long)getpid()};
    if (!registered && atexit(run_group_at_exit) != 0)
        return 1;
    registered = 1;
    if (getenv("UNDERSTUDY_TEST"))
        cmocka_set_test_filter(getenv("UNDERSTUDY_TEST"));
    int failed = _cmocka_run_group_tests(name, tests, ntests, run_group_setup, run_group_teardown);
    run_group_now.unfinished_pid = 0;
    if (failed == 0 && run_group_now.set_up && run_group_now.torn_down)
        return 0;
    fprintf(stderr, "run_group: %s: %s failed\n", name,
            failed                 ? "a test"
            : run_group_now.set_up ? "the group's teardown"
                                   : "the group's setup");
    return 1;
}

#undef cmocka_run_group_tests
#define cmocka_run_group_tests(tests, setup, teardown)                                                       \
    run_group(#tests, tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)
#undef cmocka_run_group_tests_name
#define cmocka_run_group_tests_name(name, tests, setup, teardown)                                            \
    run_group(name, tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)

/* For a function that stands in for a library's (ld's --wrap): GNU ld lets other libraries call it too. */
#define EXPORTED __attribute__((visibility("default")))

#endif
