/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Groups of tests of which each is wrong in its own way; the argument says which runs. See broken_groups.sh.
 */
#include <string.h>
#include <sys/wait.h>

static void passes(void **state)
{
    (void)state;
}

static void fails(void **state)
{
    (void)state;
    fail();
}

static void leaves(void **state)
{
    (void)state;
    exit(0);
}

/* As tests do that look at another process. */
static void forks(void **state)
{
    int status;
    pid_t child = fork();
    (void)state;
    if (child == 0)
        exit(7);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(WEXITSTATUS(status), 7);
}

static int returns_0(void **state)
{
    (void)state;
    return 0;
}

static int returns_1(void **state)
{
    (void)state;
    return 1;
}

static int asserts(void **state)
{
    (void)state;
    assert_true(0);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest well[] = {cmocka_unit_test(passes), cmocka_unit_test(forks)};
    const struct CMUnitTest one_fails[] = {cmocka_unit_test(passes), cmocka_unit_test(fails)};
    const struct CMUnitTest one_leaves[] = {cmocka_unit_test(leaves), cmocka_unit_test(passes)};
    struct CMUnitTest many_fail[256];
    const char *which = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < 256; i++)
        many_fail[i] = (struct CMUnitTest)cmocka_unit_test(fails);
    if (strcmp(which, "well") == 0)
        return cmocka_run_group_tests(well, NULL, NULL);
    if (strcmp(which, "well_with_fixture") == 0)
        return cmocka_run_group_tests_name("well", well, returns_0, returns_0);
    if (strcmp(which, "test_fails") == 0)
        return cmocka_run_group_tests(one_fails, NULL, NULL);
    if (strcmp(which, "256_tests_fail") == 0)
        return cmocka_run_group_tests(many_fail, NULL, NULL);
    if (strcmp(which, "test_exits") == 0)
        return cmocka_run_group_tests(one_leaves, NULL, NULL);
    if (strcmp(which, "setup_returns_1") == 0)
        return cmocka_run_group_tests(well, returns_1, NULL);
    if (strcmp(which, "setup_asserts") == 0)
        return cmocka_run_group_tests(well, asserts, returns_0);
    if (strcmp(which, "teardown_returns_1") == 0)
        return cmocka_run_group_tests(well, NULL, returns_1);
    if (strcmp(which, "teardown_asserts") == 0)
        return cmocka_run_group_tests_name("well", well, returns_0, asserts);
    return 2;
}
