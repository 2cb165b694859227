/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VMs that ended here are remembered with their reasons and folders, as many as are kept and no more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/endings.h"

static char *dir;

/* A run folder with a console.log. GLib string. */
static char *make_folder(const char *name)
{
    char *folder = g_build_filename(dir, name, NULL);
    g_autofree char *log = g_build_filename(folder, "console.log", NULL);
    assert_int_equal(g_mkdir_with_parents(folder, 0700), 0);
    assert_true(g_file_set_contents(log, "words", -1, NULL));
    return folder;
}

static bool is_there(const char *path)
{
    return g_file_test(path, G_FILE_TEST_EXISTS);
}

static void end(const char *name, const char *folder)
{
    endings_add(name, UNDERSTUDY__ROLE__ROLE_PRIMARY, 1, SESSION_END_GUEST_SHUTDOWN, "", folder);
}

static unsigned count(const char *name)
{
    g_autoptr(GPtrArray) list = endings_list(name);
    unsigned n = list->len;
    for (guint i = 0; i < list->len; i++)
        understudy__ending__free_unpacked(g_ptr_array_index(list, i), NULL);
    return n;
}

static int set_up(void **state)
{
    (void)state;
    dir = g_dir_make_tmp("understudy-endings-XXXXXX", NULL);
    return dir ? 0 : -1;
}

static int tear_down(void **state)
{
    const char *argv[] = {"rm", "-rf", dir, NULL};
    (void)state;
    endings_clear();
    bool removed =
        g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
    g_clear_pointer(&dir, g_free);
    return removed ? 0 : -1;
}

static void test_an_ending_says_in_words_why(void **state)
{
    (void)state;
    endings_add("web", UNDERSTUDY__ROLE__ROLE_SECONDARY, 7, SESSION_END_IMAGE_FAILED,
                "disk root: no space left", NULL);
    g_autoptr(GPtrArray) list = endings_list("web");
    assert_int_equal(list->len, 1);
    Understudy__Ending *ending = g_ptr_array_index(list, 0);
    assert_string_equal(ending->vm, "web");
    assert_string_equal(ending->message, "disk root: no space left");
    assert_non_null(strstr(ending->reason, "could not be written"));
    assert_int_equal(ending->term, 7);
    assert_int_equal(ending->role, UNDERSTUDY__ROLE__ROLE_SECONDARY);
    understudy__ending__free_unpacked(ending, NULL);
    assert_int_equal(count("other"), 0);
    assert_int_equal(count(""), 1);
}

static void test_no_more_are_kept_than_that_and_their_folders_go_with_them(void **state)
{
    char *folders[ENDINGS_MAX + 3];
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *name = g_strdup_printf("vm%u", i);
        folders[i] = make_folder(name);
        end(name, folders[i]);
    }
    assert_int_equal(count(""), ENDINGS_MAX);
    assert_int_equal(count("vm2"), 0);
    assert_int_equal(count("vm3"), 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(folders); i++) {
        assert_int_equal(is_there(folders[i]), i >= 3);
        g_free(folders[i]);
    }
}

/* The same folder, ended again and again, or taken by a VM that runs, outlives the older endings. */
static void test_a_folder_has_one_owner_the_last(void **state)
{
    g_autofree char *folder = make_folder("web");
    (void)state;
    end("web", folder);
    end("web", folder);
    endings_release_dir(folder); /* a VM runs there now */
    for (unsigned i = 0; i < ENDINGS_MAX + 1; i++)
        end("other", NULL);
    assert_int_equal(count("web"), 0);
    assert_true(is_there(folder));
    end("web", folder);
    end("web", folder);
    for (unsigned i = 0; i < ENDINGS_MAX - 1; i++)
        end("other", NULL);
    assert_int_equal(count("web"), 1);
    assert_true(is_there(folder));
    end("other", NULL);
    assert_false(is_there(folder));
}

static void test_a_link_is_removed_and_what_it_points_at_is_not(void **state)
{
    g_autofree char *elsewhere = make_folder("elsewhere"), *folder = make_folder("web");
    g_autofree char *link = g_build_filename(folder, "link", NULL);
    g_autofree char *file = g_build_filename(elsewhere, "console.log", NULL);
    (void)state;
    assert_int_equal(symlink(elsewhere, link), 0);
    run_folder_remove(folder);
    assert_false(is_there(folder));
    assert_true(is_there(file));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_an_ending_says_in_words_why, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_more_are_kept_than_that_and_their_folders_go_with_them,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_folder_has_one_owner_the_last, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_link_is_removed_and_what_it_points_at_is_not, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
