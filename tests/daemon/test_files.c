/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that both hosts must have: what counts as the same, how often they are read, and what images stand
 * on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/files/files.h"
#include "hv-hooks/line.h"

static char *folder;

static int make_folder(void **state)
{
    (void)state;
    folder = g_dir_make_tmp("us-files-XXXXXX", NULL);
    return folder ? 0 : -1;
}

static int remove_folder(void **state)
{
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;
    (void)state;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_unlink(path);
    }
    g_dir_close(dir);
    int status = g_rmdir(folder);
    g_free(folder);
    return status;
}

/* A file that changed long ago. */
static char *a_file(const char *name, const char *bytes, gssize len)
{
    char *path = g_build_filename(folder, name, NULL);
    assert_true(g_file_set_contents(path, bytes, len, NULL));
    const struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    return path;
}

static GPtrArray *facts_of(const char *path)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new();
    g_ptr_array_add(paths, (char *)path);
    g_autoptr(GError) error = NULL;
    GPtrArray *facts = files_describe(paths, NULL, &error);
    if (!facts)
        fail_msg("%s", error->message);
    return facts;
}

static void assert_differs(const GPtrArray *facts, const char *words)
{
    g_autoptr(GError) error = NULL;
    assert_false(files_are_the_same((Understudy__FileFact *const *)facts->pdata, facts->len, NULL, &error));
    if (!strstr(error->message, words))
        fail_msg("'%s' does not say '%s'", error->message, words);
}

static void assert_same(const GPtrArray *facts)
{
    assert_true(files_are_the_same((Understudy__FileFact *const *)facts->pdata, facts->len, NULL, NULL));
}

static void test_length_and_content_are_compared(void **state)
{
    g_autofree char *path = a_file("medium", "one", -1);
    g_autoptr(GPtrArray) facts = facts_of(path);
    (void)state;
    assert_same(facts);
    g_free(a_file("medium", "two", -1));
    assert_differs(facts, "other content");
    g_free(a_file("medium", "three", -1));
    assert_differs(facts, "has 5 bytes");
    g_unlink(path);
    assert_differs(facts, "cannot be read");
    g_free(a_file("medium", "one", -1));
    assert_same(facts);
}

static void test_a_digest_is_sha_256(void **state)
{
    static const uint8_t of_abc[4] = {0xba, 0x78, 0x16, 0xbf};
    g_autofree char *path = a_file("abc", "abc", -1);
    struct file_digest digest;
    (void)state;
    assert_true(file_digest(path, &digest, NULL, NULL));
    assert_int_equal(digest.len, 3);
    assert_false(digest.sampled);
    assert_memory_equal(digest.sha256, of_abc, sizeof of_abc);
}

/* The clock of the change itself cannot be set, so a file is remembered some seconds after it was made. */
static void test_a_file_that_stays_is_read_once(void **state)
{
    g_autofree char *path = a_file("steady", "steady", -1);
    struct file_digest first, again;
    (void)state;
    unsigned before;
    gint64 until = g_get_monotonic_time() + 30 * G_USEC_PER_SEC;
    do {
        g_usleep(100000);
        assert_true(file_digest(path, &first, NULL, NULL));
        before = file_digest_count();
        assert_true(file_digest(path, &again, NULL, NULL));
    } while (file_digest_count() != before && g_get_monotonic_time() < until);
    assert_int_equal(file_digest_count(), before);
    assert_memory_equal(first.sha256, again.sha256, sizeof first.sha256);
    g_free(a_file("steady", "change", -1)); /* of the same length, with the same time of change */
    assert_true(file_digest(path, &again, NULL, NULL));
    assert_int_equal(file_digest_count(), before + 1);
    assert_memory_not_equal(first.sha256, again.sha256, sizeof first.sha256);
}

static void test_a_large_file_is_compared_by_samples_that_reach_its_ends(void **state)
{
    g_autofree char *path = a_file("large", "", -1);
    struct file_digest first, last;
    uint64_t len = FILES_WHOLE_MAX + 12345;
    (void)state;
    assert_int_equal(truncate(path, (off_t)len), 0);
    assert_true(file_digest(path, &first, NULL, NULL));
    assert_true(first.sampled);
    assert_int_equal(first.len, len);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, (off_t)len - 1), 1);
    close(fd);
    assert_true(file_digest(path, &last, NULL, NULL));
    assert_memory_not_equal(first.sha256, last.sha256, sizeof first.sha256);
}

static void test_what_has_no_content_is_not_compared(void **state)
{
    g_autoptr(GPtrArray) facts = facts_of("/dev/zero");
    g_autoptr(GError) error = NULL;
    struct file_digest digest;
    (void)state;
    assert_int_equal(facts->len, 0);
    assert_false(file_digest(folder, &digest, NULL, &error)); /* a folder is no medium */
    g_autofree char *pipe = g_build_filename(folder, "pipe", NULL);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_true(file_digest(pipe, &digest, NULL, NULL)); /* and nobody waits for a writer */
    assert_false(digest.has_content);
}

static void test_a_request_that_is_nonsense_is_refused(void **state)
{
    Understudy__FileFact fact = UNDERSTUDY__FILE_FACT__INIT, *facts[FILES_MAX + 1];
    uint8_t hash[FILES_DIGEST_LEN] = {0};
    (void)state;
    fact.path = (char *)"/dev/null";
    for (size_t i = 0; i < G_N_ELEMENTS(facts); i++)
        facts[i] = &fact;
    assert_false(files_are_the_same(facts, 1, NULL, NULL)); /* no digest */
    fact.sha256.data = hash;
    fact.sha256.len = sizeof hash;
    assert_false(files_are_the_same(facts, 1, NULL, NULL)); /* no file */
    fact.path = (char *)"relative";
    assert_false(files_are_the_same(facts, 1, NULL, NULL));
    assert_false(files_are_the_same(facts, G_N_ELEMENTS(facts), NULL, NULL));
    assert_true(files_are_the_same(facts, 0, NULL, NULL));
}

/* An image whose head names a file of that many bytes' name. */
static char *an_image(const char *name, const char *backing, uint32_t len)
{
    char head[1200] = "QFI\xfb\0\0\0\3";
    uint64_t offset = GUINT64_TO_BE(112);
    len = GUINT32_TO_BE(len);
    memcpy(head + 8, &offset, sizeof offset);
    memcpy(head + 16, &len, sizeof len);
    g_strlcpy(head + 112, backing, sizeof head - 112);
    return a_file(name, head, sizeof head);
}

static void test_all_layers_behind_an_image_are_found(void **state)
{
    g_autofree char *base = a_file("base.raw", "base", -1);
    g_autofree char *middle = an_image("middle.qcow2", "base.raw", 8);
    g_autofree char *top = an_image("top.qcow2", middle, (uint32_t)strlen(middle));
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    (void)state;
    files_add_backing(paths, top);
    assert_int_equal(paths->len, 2);
    assert_string_equal(g_ptr_array_index(paths, 0), middle);
    assert_string_equal(g_ptr_array_index(paths, 1), base);
}

static void test_heads_that_lie_are_survived(void **state)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *lengthy = an_image("lengthy", "x", UINT32_MAX);
    g_autofree char *json = an_image("json", "json:{}", 7);
    g_autofree char *small = a_file("small", "QFI\xfb", 4);
    (void)state;
    files_add_backing(paths, lengthy);
    files_add_backing(paths, json);
    files_add_backing(paths, small);
    files_add_backing(paths, "/nowhere");
    assert_int_equal(paths->len, 0);
    g_autofree char *self = g_build_filename(folder, "self", NULL);
    g_free(an_image("self", self, (uint32_t)strlen(self)));
    files_add_backing(paths, self); /* a circle ends */
    assert_int_equal(paths->len, 1);
}

static void test_files_are_found_on_the_line(void **state)
{
    static const char *const cases[][2] = {
        {"-cdrom /a.iso", "/a.iso"},
        {"-drive file=/a.iso,media=cdrom", "/a.iso"},
        {"-drive file=/code.fd,if=pflash,format=raw,readonly=on", "/code.fd"},
        {"-kernel /k -initrd /i", "/k /i"},
        {"-machine pc,kernel=/k,initrd=/i", "/k /i"},
        {"-bios /b", "/b"},
        {"-option-rom /r,bootindex=1", "/r"},
        {"-fw_cfg opt/a,file=/f", "/f"},
        {"-fw_cfg opt/a,string=/f", ""},
        {"-smbios file=/s", "/s"},
        {"-acpitable file=/t", "/t"},
        {"-device e1000,romfile=/r", "/r"},
        {"-device e1000,romfile=efi-e1000.rom", ""}, /* QEMU's own */
        {"-device loader,file=/l", "/l"},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = g_strconcat("qemu -m 64 -nodefaults ", cases[i][0], NULL);
        g_auto(GStrv) argv = g_strsplit(text, " ", -1);
        g_autoptr(GError) error = NULL;
        struct line *line = line_parse((const char *const *)argv, &error);
        if (!line)
            fail_msg("%s: %s", text, error->message);
        g_ptr_array_add(line->files, NULL);
        g_autofree char *found = g_strjoinv(" ", (char **)line->files->pdata);
        assert_string_equal(found, cases[i][1]);
        g_ptr_array_set_size(line->files, (int)line->files->len - 1);
        line_free(line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_length_and_content_are_compared),
        cmocka_unit_test(test_a_digest_is_sha_256),
        cmocka_unit_test(test_a_file_that_stays_is_read_once),
        cmocka_unit_test(test_a_large_file_is_compared_by_samples_that_reach_its_ends),
        cmocka_unit_test(test_what_has_no_content_is_not_compared),
        cmocka_unit_test(test_a_request_that_is_nonsense_is_refused),
        cmocka_unit_test(test_all_layers_behind_an_image_are_found),
        cmocka_unit_test(test_heads_that_lie_are_survived),
        cmocka_unit_test(test_files_are_found_on_the_line),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
