/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A file that a program prints into is kept from growing, and what comes last is in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

#define MAX_LEN 10000

static char *dir;

static int set_up(void **state)
{
    (void)state;
    dir = g_dir_make_tmp("understudy-log-XXXXXX", NULL);
    return dir ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    int failed = g_rmdir(dir);
    g_free(dir);
    return failed;
}

static void test_a_program_that_prints_on_and_on_keeps_its_newest_lines(void **state)
{
    g_autofree char *path = g_build_filename(dir, "console.log", NULL);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        char line[32];
        int len = g_snprintf(line, sizeof line, "line %u\n", i);
        assert_int_equal(write(fd, line, (size_t)len), len);
        if (i % 100 == 0)
            log_file_bound(path, MAX_LEN);
        assert_true(lseek(fd, 0, SEEK_END) <= MAX_LEN + 100 * 32);
    }
    close(fd);
    g_autofree char *text = NULL;
    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_unlink(path);
    assert_true(g_str_has_prefix(text, "[what was printed before was cut off]\nline "));
    assert_true(g_str_has_suffix(text, "\nline 19998\nline 19999\n"));
    /* No line is lost or broken in between. */
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    guint64 first = g_ascii_strtoull(lines[1] + strlen("line "), NULL, 10);
    for (unsigned i = 1; lines[i] && lines[i][0]; i++) {
        g_autofree char *wanted = g_strdup_printf("line %" G_GUINT64_FORMAT, first + i - 1);
        assert_string_equal(lines[i], wanted);
    }
}

static void test_what_is_short_or_is_no_file_stays_as_it_is(void **state)
{
    g_autofree char *path = g_build_filename(dir, "short", NULL), *link = g_build_filename(dir, "link", NULL);
    g_autofree char *much = g_strnfill(2 * MAX_LEN, 'x');
    g_autofree char *text = NULL;
    gsize len = 0;
    (void)state;
    log_file_bound(path, MAX_LEN); /* not there */
    assert_true(g_file_set_contents(path, "words\n", -1, NULL));
    log_file_bound(path, MAX_LEN);
    assert_true(g_file_get_contents(path, &text, &len, NULL));
    assert_string_equal(text, "words\n");
    assert_true(g_file_set_contents(path, much, -1, NULL));
    assert_int_equal(symlink(path, link), 0);
    log_file_bound(link, MAX_LEN);
    g_clear_pointer(&text, g_free);
    assert_true(g_file_get_contents(path, &text, &len, NULL));
    assert_int_equal(len, 2 * MAX_LEN);
    g_unlink(link);
    g_unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_program_that_prints_on_and_on_keeps_its_newest_lines, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_short_or_is_no_file_stays_as_it_is, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
