/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's key: made once, kept, read by nobody else; and keys as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/trust/key.h"
#include "tests/trust/folder.h"

static char *dir;

static int set_up(void **state)
{
    (void)state;
    dir = folder_new();
    return dir ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    folder_free(dir);
    return 0;
}

static struct host_key *open_key(const char *where)
{
    g_autoptr(GError) error = NULL;
    struct host_key *key = host_key_open(where, &error);
    if (!key)
        fail_msg("%s", error->message);
    return key;
}

static void expect_refusal(const char *says)
{
    g_autoptr(GError) error = NULL;
    assert_null(host_key_open(dir, &error));
    if (!strstr(error->message, says))
        fail_msg("%s; wanted %s", error->message, says);
}

static void test_a_key_is_made_once_and_kept(void **state)
{
    g_autofree char *below = g_build_filename(dir, "etc", "understudy", NULL);
    (void)state;
    struct host_key *first = open_key(below), *second = open_key(below);
    g_autofree char *text = key_text(host_key_public(first)), *file = folder_text(below, "key");
    assert_memory_equal(host_key_public(first), host_key_public(second), KEY_LEN);
    assert_int_equal(strlen(text), KEY_TEXT_LEN);
    assert_non_null(strstr(file, "BEGIN PRIVATE KEY"));
    assert_int_equal(folder_count(below), 1);
    host_key_free(first);
    host_key_free(second);
}

static void test_two_hosts_have_two_keys(void **state)
{
    g_autofree char *a = g_build_filename(dir, "a", NULL), *b = g_build_filename(dir, "b", NULL);
    (void)state;
    struct host_key *first = open_key(a), *second = open_key(b);
    assert_memory_not_equal(host_key_public(first), host_key_public(second), KEY_LEN);
    host_key_free(first);
    host_key_free(second);
}

static void test_nobody_else_can_read_the_key(void **state)
{
    struct stat status;
    g_autofree char *path = g_build_filename(dir, "key", NULL);
    mode_t mask = umask(0);
    (void)state;
    host_key_free(open_key(dir));
    umask(mask);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void test_a_key_that_others_may_read_or_write_is_not_used(void **state)
{
    g_autofree char *path = g_build_filename(dir, "key", NULL);
    const int modes[] = {0640, 0604, 0620, 0602};
    (void)state;
    host_key_free(open_key(dir));
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        g_chmod(path, modes[i]);
        expect_refusal("others may read or write it");
    }
    g_chmod(path, 0400);
    host_key_free(open_key(dir));
}

static void test_a_link_or_a_folder_is_no_key(void **state)
{
    g_autofree char *path = g_build_filename(dir, "key", NULL), *other = g_build_filename(dir, "other", NULL);
    (void)state;
    host_key_free(open_key(dir));
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
    expect_refusal("cannot be read");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(g_mkdir(path, 0700), 0);
    expect_refusal("others may read or write it");
}

static void test_what_is_no_key_is_refused_and_never_overwritten(void **state)
{
    /* Nothing; a word; a key on another curve (P-256), which is a good one otherwise. */
    const char *texts[] = {"", "key\n",
                           "-----BEGIN PRIVATE KEY-----\n"
                           "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n"
                           "OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n"
                           "1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n"
                           "-----END PRIVATE KEY-----\n"};
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        folder_write(dir, "key", texts[i], 0600);
        expect_refusal("holds no Ed25519 key");
        g_autofree char *text = folder_text(dir, "key");
        assert_string_equal(text, texts[i]);
    }
}

static void test_a_folder_that_cannot_be_made_is_a_sentence(void **state)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *below = g_build_filename(dir, "file", "etc", NULL);
    (void)state;
    folder_write(dir, "file", "", 0600);
    assert_null(host_key_open(below, &error));
    assert_non_null(strstr(error->message, "cannot be made"));
}

static void test_a_key_as_text_comes_back(void **state)
{
    uint8_t key[KEY_LEN], again[KEY_LEN];
    (void)state;
    for (unsigned i = 0; i < 256; i++) {
        memset(key, (int)i, sizeof key);
        key[0] ^= 0x5a;
        g_autofree char *text = key_text(key);
        assert_true(key_parse(text, again));
        assert_memory_equal(key, again, KEY_LEN);
    }
}

static void test_other_texts_are_no_keys(void **state)
{
    uint8_t key[KEY_LEN];
    static const char good[] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    (void)state;
    assert_true(key_parse(good, key));
    assert_false(key_parse("", key));
    assert_false(key_parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", key));
    assert_false(key_parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=", key)); /* bits behind the end */
    assert_false(key_parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8==", key));
    assert_false(key_parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh ==", key));
    assert_false(key_parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdH\n8=", key));
    assert_false(key_parse("============================================", key));
}

static void test_only_an_ed25519_key_is_taken_from_a_peer(void **state)
{
    uint8_t spki[44] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, 1, 2, 3};
    uint8_t key[KEY_LEN];
    (void)state;
    assert_true(key_from_spki(spki, sizeof spki, key));
    assert_memory_equal(key, spki + 12, KEY_LEN);
    for (size_t len = 0; len < sizeof spki; len++)
        assert_false(key_from_spki(spki, len, key));
    for (size_t i = 0; i < 12; i++) {
        spki[i] ^= 1; /* 2b 65 71 is Ed448 */
        assert_false(key_from_spki(spki, sizeof spki, key));
        spki[i] ^= 1;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_key_is_made_once_and_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_two_hosts_have_two_keys, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_else_can_read_the_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_key_that_others_may_read_or_write_is_not_used, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_link_or_a_folder_is_no_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_key_is_refused_and_never_overwritten, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_folder_that_cannot_be_made_is_a_sentence, set_up, tear_down),
        cmocka_unit_test(test_a_key_as_text_comes_back),
        cmocka_unit_test(test_other_texts_are_no_keys),
        cmocka_unit_test(test_only_an_ed25519_key_is_taken_from_a_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
