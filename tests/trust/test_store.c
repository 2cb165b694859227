/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hosts that are trusted: added, changed, removed, kept in a file; and what such a file may not hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/stat.h>

#include "daemon/trust/roles.h"
#include "daemon/trust/store.h"
#include "tests/trust/folder.h"

static char *dir;
static struct store *store;

static int set_up(void **state)
{
    (void)state;
    dir = folder_new();
    store = store_open(dir, NULL);
    return store ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    store_free(store);
    folder_free(dir);
    return 0;
}

static void open_again(void)
{
    g_autoptr(GError) error = NULL;
    store_free(store);
    store = store_open(dir, &error);
    if (!store)
        fail_msg("%s", error->message);
}

static struct trusted host(const char *name, uint8_t key, unsigned may)
{
    struct trusted host = {.may = may};
    g_strlcpy(host.name, name, sizeof host.name);
    memset(host.key, key, sizeof host.key);
    return host;
}

static void add(const char *name, uint8_t key, unsigned may)
{
    g_autoptr(GError) error = NULL;
    const struct trusted one = host(name, key, may);
    if (!store_add(store, &one, &error))
        fail_msg("%s", error->message);
}

static void expect_refusal(const struct trusted *one, const char *says)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *before = folder_text(dir, "trust");
    assert_false(store_add(store, one, &error));
    if (!strstr(error->message, says))
        fail_msg("%s; wanted %s", error->message, says);
    g_autofree char *after = folder_text(dir, "trust");
    assert_true(g_strcmp0(before, after) == 0);
}

static void test_a_host_is_found_by_name_and_by_key_also_after_a_restart(void **state)
{
    struct trusted found;
    uint8_t key[KEY_LEN];
    (void)state;
    memset(key, 7, sizeof key);
    add("a", 1, MAY_ALL);
    add("host-b.example_1", 7, MAY_STANDBY);
    for (int again = 0; again < 2; again++) {
        assert_true(store_find_key(store, key, &found));
        assert_string_equal(found.name, "host-b.example_1");
        assert_int_equal(found.may, MAY_STANDBY);
        assert_true(store_find_name(store, "a", &found));
        assert_int_equal(found.may, MAY_ALL);
        assert_false(store_find_name(store, "host-b", &found));
        open_again();
    }
    key[31] ^= 1;
    assert_false(store_find_key(store, key, &found));
}

static void test_a_known_host_gets_other_roles(void **state)
{
    struct trusted found;
    (void)state;
    add("b", 7, MAY_ALL);
    add("b", 7, MAY_WITNESS);
    open_again();
    assert_true(store_find_name(store, "b", &found));
    assert_int_equal(found.may, MAY_WITNESS);
    g_autoptr(GArray) all = store_list(store);
    assert_int_equal(all->len, 1);
}

static void test_a_name_has_one_key_and_a_key_one_name(void **state)
{
    const struct trusted other_key = host("b", 8, MAY_ALL), other_name = host("c", 7, MAY_ALL);
    (void)state;
    add("b", 7, MAY_ALL);
    expect_refusal(&other_key, "belongs to another key");
    expect_refusal(&other_name, "belongs to host b");
}

static void test_a_paired_host_keeps_its_name_and_its_roles(void **state)
{
    struct trusted kept;
    const struct trusted again = host("other", 7, MAY_STANDBY);
    (void)state;
    add("b", 7, MAY_WITNESS);
    assert_true(store_add_key(store, &again, &kept, NULL));
    assert_string_equal(kept.name, "b");
    assert_int_equal(kept.may, MAY_WITNESS | MAY_STANDBY);
    const struct trusted taken = host("b", 9, MAY_ALL);
    assert_false(store_add_key(store, &taken, &kept, NULL));
}

static void test_a_removed_host_is_unknown_also_after_a_restart(void **state)
{
    struct trusted gone, found;
    g_autoptr(GError) error = NULL;
    (void)state;
    add("a", 1, MAY_ALL);
    add("b", 2, MAY_ALL);
    add("c", 3, MAY_ALL);
    assert_true(store_remove(store, "b", &gone, NULL));
    assert_int_equal(gone.key[0], 2);
    for (int again = 0; again < 2; again++) {
        assert_false(store_find_key(store, gone.key, &found));
        assert_true(store_find_name(store, "a", &found));
        assert_true(store_find_name(store, "c", &found));
        open_again();
    }
    assert_false(store_remove(store, "b", &gone, &error));
    assert_non_null(strstr(error->message, "no host b is trusted"));
}

static void test_names_that_could_be_taken_for_something_else_are_refused(void **state)
{
    const char *names[] = {"", "-b", ".b", "_b", "b c", "b\n", "b#", "../b", "b\xc3\xa4", "b:7070", "b/c"};
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        const struct trusted bad = host(names[i], 7, MAY_ALL);
        assert_false(store_name_is_fit(names[i]));
        expect_refusal(&bad, "is no name");
    }
    g_autofree char *longest = g_strnfill(STORE_NAME_MAX, 'b'), *longer = g_strnfill(STORE_NAME_MAX + 1, 'b');
    assert_true(store_name_is_fit(longest));
    assert_false(store_name_is_fit(longer));
}

static void test_the_number_of_hosts_is_bounded(void **state)
{
    (void)state;
    for (unsigned i = 0; i < STORE_MAX; i++) {
        struct trusted one = host("x", 0, MAY_ALL);
        g_snprintf(one.name, sizeof one.name, "h%u", i);
        memcpy(one.key, &i, sizeof i);
        assert_true(store_add(store, &one, NULL));
    }
    const struct trusted more = host("more", 99, MAY_ALL);
    expect_refusal(&more, "remove one");
    struct trusted old;
    assert_true(store_find_name(store, "h3", &old));
    old.may = MAY_WITNESS;
    assert_true(store_add(store, &old, NULL)); /* one that is known still changes */
}

/* The folder is gone: no file can be made there. */
static void test_what_cannot_be_written_does_not_count(void **state)
{
    struct trusted gone, found;
    const struct trusted more = host("b", 2, MAY_ALL);
    g_autofree char *moved = g_strconcat(dir, "-moved", NULL);
    (void)state;
    add("a", 1, MAY_ALL);
    assert_int_equal(rename(dir, moved), 0);
    expect_refusal(&more, "cannot be written");
    assert_false(store_remove(store, "a", &gone, NULL));
    assert_int_equal(rename(moved, dir), 0);
    assert_true(store_find_name(store, "a", &found));
    assert_false(store_find_name(store, "b", &found));
    assert_int_equal(folder_count(dir), 1);
}

static void test_a_file_that_others_may_write_is_not_used(void **state)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(dir, "trust", NULL);
    (void)state;
    add("a", 1, MAY_ALL);
    g_chmod(path, 0666);
    assert_null(store_open(dir, &error));
    assert_non_null(strstr(error->message, "may write to it"));
    g_chmod(path, 0644);
    open_again();
}

#define KEY_A "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define KEY_B "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="

static void test_a_file_of_an_administrator_s_hand_is_read(void **state)
{
    struct trusted found;
    (void)state;
    folder_write(dir, "trust", "\n# ours\n  a\t" KEY_A "   standby,primary \n\nb " KEY_B " witness", 0600);
    open_again();
    assert_true(store_find_name(store, "a", &found));
    assert_int_equal(found.may, MAY_USUAL);
    assert_true(store_find_name(store, "b", &found));
    assert_int_equal(found.may, MAY_WITNESS);
}

static void test_a_line_that_is_wrong_is_named(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"a", "line 1: a name, a key and roles"},
        {"# x\na " KEY_A, "line 2: a name, a key and roles"},
        {"a " KEY_A " standby more", "line 1: there are more"},
        {"-a " KEY_A " standby", "line 1: the first word"},
        {"a nonsense standby", "line 1: the second word"},
        {"a " KEY_A " captain", "line 1: 'captain' is not a role"},
        {"a " KEY_A " standby,", "line 1: '' is not a role"},
        {"a " KEY_A " standby\nb " KEY_A " standby", "line 2: the name or the key"},
        {"a " KEY_A " standby\na " KEY_B " standby", "line 2: the name or the key"},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        folder_write(dir, "trust", cases[i].text, 0600);
        assert_null(store_open(dir, &error));
        if (!strstr(error->message, cases[i].says))
            fail_msg("%s; wanted %s", error->message, cases[i].says);
    }
    g_autoptr(GError) error = NULL;
    assert_null(store_parse("a\0b", 3, &error));
    assert_non_null(strstr(error->message, "no text"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_host_is_found_by_name_and_by_key_also_after_a_restart),
        TEST(test_a_known_host_gets_other_roles),
        TEST(test_a_name_has_one_key_and_a_key_one_name),
        TEST(test_a_paired_host_keeps_its_name_and_its_roles),
        TEST(test_a_removed_host_is_unknown_also_after_a_restart),
        TEST(test_names_that_could_be_taken_for_something_else_are_refused),
        TEST(test_the_number_of_hosts_is_bounded),
        TEST(test_what_cannot_be_written_does_not_count),
        TEST(test_a_file_that_others_may_write_is_not_used),
        TEST(test_a_file_of_an_administrator_s_hand_is_read),
        TEST(test_a_line_that_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
