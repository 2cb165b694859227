/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks as the daemons see them, with images made by qemu-img: host A's folder and host B's are two folders.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/disk/disk_setup.h"

struct fixture {
    char *dir, *a, *b; /* image files of the two hosts */
    Understudy__Protection protection;
    struct line *line;
};

G_GNUC_PRINTF(1, 2) static void shell(const char *format, ...)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *output = NULL, *complaint = NULL;
    int status = 0;
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    const char *const argv[] = {"sh", "-c", text, NULL};
    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &output, &complaint,
                      &status, &error) ||
        status != 0)
        fail_msg("%s: %s", text, error ? error->message : complaint);
}

static int set_up(void **state)
{
    struct fixture *f = g_new0(struct fixture, 1);
    f->dir = g_dir_make_tmp("us-disks-XXXXXX", NULL);
    f->a = g_build_filename(f->dir, "a.img", NULL);
    f->b = g_build_filename(f->dir, "b.img", NULL);
    understudy__protection__init(&f->protection);
    f->protection.vm = (char *)"web";
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    disks_clear(&f->protection);
    line_free(f->line);
    shell("rm -rf %s", f->dir);
    g_free(f->dir);
    g_free(f->a);
    g_free(f->b);
    g_free(f);
    return 0;
}

/* What `understudy run --peer-disk root=B` finds about a disk with these drive options. */
static bool describe(struct fixture *f, const char *drive_options, GError **error)
{
    g_autofree char *drive = g_strdup_printf("id=root,file=%s%s", f->a, drive_options);
    g_autofree char *peer = g_strdup_printf("root=%s", f->b);
    const char *const argv[] = {"qemu-system-x86_64", "-m", "256", "-drive", drive, NULL};
    char *peers[] = {peer};
    Understudy__RunRequest request = UNDERSTUDY__RUN_REQUEST__INIT;
    request.peer_disk = peers;
    request.n_peer_disk = 1;
    disks_clear(&f->protection);
    line_free(f->line);
    f->line = line_parse(argv, error);
    return f->line && disks_describe(&f->protection, f->line, &request, error);
}

/* Host B is asked to stand by, over the wire. */
static bool prepare(struct fixture *f, GError **error)
{
    Understudy__PrepareStandby request = UNDERSTUDY__PREPARE_STANDBY__INIT;
    g_autoptr(GPtrArray) seeds = disk_seeds_read(&f->protection);
    request.protection = &f->protection;
    request.seeds = (Understudy__DiskSeed **)seeds->pdata;
    request.n_seeds = seeds->len;
    size_t len = understudy__prepare_standby__get_packed_size(&request);
    assert_true(len < (1u << 20) - 4096);
    g_autofree uint8_t *packed = g_malloc(len);
    understudy__prepare_standby__pack(&request, packed);
    Understudy__PrepareStandby *received = understudy__prepare_standby__unpack(NULL, len, packed);
    disks_swap_paths(received->protection);
    bool ok = disks_prepare_standby(received, f->dir, error);
    understudy__prepare_standby__free_unpacked(received, NULL);
    return ok;
}

/* The errors by address: they are set while the call's arguments are worked out. */
static void must(bool ok, GError **error)
{
    if (!ok)
        fail_msg("%s", *error ? (*error)->message : "no error set");
}

static void must_say(bool ok, GError **error, const char *word)
{
    if (ok)
        fail_msg("not refused: %s", word);
    if (!strstr((*error)->message, word))
        fail_msg("says \"%s\", not \"%s\"", (*error)->message, word);
}

static uint64_t len_of(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? (uint64_t)status.st_size : 0;
}

static void test_missing_raw_image_is_created_as_long_and_empty(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL;
    struct stat status;
    shell("truncate -s 64M %s && printf hello | dd of=%s conv=notrunc status=none", f->a, f->a);
    must(describe(f, ",format=raw", &error), &error);
    assert_int_equal(f->protection.disks[0]->export_len, 64 << 20);
    assert_string_equal(f->protection.disks[0]->format, "raw");
    must(prepare(f, &error), &error);
    assert_int_equal(stat(f->b, &status), 0);
    assert_int_equal(status.st_size, 64 << 20);
    assert_int_equal(status.st_blocks, 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

static void test_raw_found_by_probing_stays_unsaid_and_qcow2_is_told_to_qemu(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL;
    shell("truncate -s 8M %s", f->a);
    must(describe(f, "", &error), &error);
    assert_string_equal(f->protection.disks[0]->format, "");
    must(disks_set_formats(f->line, &f->protection, &error), &error);
    g_auto(GStrv) raw = line_build(f->line, "/d", false);
    g_autofree char *raw_text = g_strjoinv(" ", raw);
    assert_null(strstr(raw_text, "format="));
    shell("qemu-img create -q -f qcow2 %s 8M", f->a);
    must(describe(f, "", &error), &error);
    assert_string_equal(f->protection.disks[0]->format, "qcow2");
    must(disks_set_formats(f->line, &f->protection, &error), &error);
    g_auto(GStrv) qcow2 = line_build(f->line, "/d", false);
    g_autofree char *qcow2_text = g_strjoinv(" ", qcow2);
    assert_non_null(strstr(qcow2_text, ",format=qcow2"));
}

/* Formats that can be replicated: the seeded image opens as a disk of that size, and the guest can write all
 * of it within the export. */
static void test_seeded_image_opens_and_the_export_takes_all_writes(void **state)
{
    static const char *const images[][3] = {
        {"qcow2", "-f qcow2", ",format=qcow2"},
        {"qcow2", "-f qcow2 -o cluster_size=4k,refcount_bits=64,lazy_refcounts=on", ",format=qcow2"},
        {"qcow2", "-f qcow2 -o cluster_size=2M,extended_l2=on", ",format=qcow2"},
        {"qcow2", "-f qcow2 -o compat=0.10", ",format=qcow2"},
        {"vpc", "-f vpc -o subformat=fixed,force_size=on", ",format=vpc"},
        {"vhdx", "-f vhdx -o subformat=fixed,block_state_zero=off", ",format=vhdx"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < G_N_ELEMENTS(images); i++) {
        g_autoptr(GError) error = NULL;
        shell("rm -f %s %s && qemu-img create -q %s %s 64M && qemu-io -f %s -c 'write -P 5 1M 5M' %s", f->a,
              f->b, images[i][1], f->a, images[i][0], f->a);
        must(describe(f, images[i][2], &error), &error);
        const Understudy__Disk *disk = f->protection.disks[0];
        must(prepare(f, &error), &error);
        assert_int_equal(len_of(f->b), len_of(f->a));
        must(disk_image_matches(disk, f->b, &error), &error);
        /* The whole of it over a server of that length, as QEMU will see it. */
        shell("truncate -s %" G_GUINT64_FORMAT " %s && "
              "nbdkit -U - file %s --run 'qemu-io -t writeback --image-opts -c \"write -P 6 0 64M\" -c "
              "\"read -P 6 0 64M\" "
              "driver=%s,file.driver=nbd,file.server.type=unix,file.server.path=$unixsocket'",
              disk->export_len, f->a, f->a, images[i][0]);
    }
}

static void test_qcow2_with_snapshots_and_bitmaps_is_seeded_too(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL;
    shell("qemu-img create -q -f qcow2 %s 64M && qemu-io -f qcow2 -c 'write -P 5 0 40M' %s && qemu-img "
          "snapshot -c one %s "
          "&& qemu-img bitmap --add %s map && qemu-io -f qcow2 -c 'write -P 6 0 20M' %s && qemu-img snapshot "
          "-c two %s",
          f->a, f->a, f->a, f->a, f->a, f->a);
    must(describe(f, ",format=qcow2", &error), &error);
    assert_true(f->protection.disks[0]->export_len > len_of(f->a) + (64u << 20));
    must(prepare(f, &error), &error);
    must(disk_image_matches(f->protection.disks[0], f->b, &error), &error);
    shell("test $(qemu-img snapshot -l %s | grep -cE '(one|two)') = 2", f->b);
}

/* All of a LUKS image is noise, but opening it needs little: a late key is there, and there is room for other
 * disks'. */
static void test_luks_seed_has_every_key_and_leaves_room(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL;
    static const char secrets[] = "--object secret,id=s,data=one --object secret,id=n,data=two";
    /* qemu-img measures the processor and gives up, by chance, where the kernel's accounting saw none of its
     * work. */
    shell(
        "again() { for i in 1 2 3 4 5 6 7 8; do \"$@\" && return; done; return 1; }; "
        "again qemu-img create -q -f luks %s -o key-secret=s,iter-time=10 %s 16M && again qemu-img amend %s "
        "-q -o state=active,new-secret=n,keyslot=5,iter-time=10 --image-opts "
        "driver=luks,key-secret=s,file.filename=%s && qemu-io %s "
        "--image-opts driver=luks,key-secret=s,file.filename=%s -c 'write -P 5 0 12M'",
        secrets, f->a, secrets, f->a, secrets, f->a);
    must(describe(f, ",format=luks", &error), &error);
    must(prepare(f, &error), &error);
    shell("qemu-io %s --image-opts driver=luks,key-secret=n,file.filename=%s -c 'read 0 512'", secrets, f->b);
    g_autoptr(GPtrArray) seeds = disk_seeds_read(&f->protection);
    assert_int_equal(seeds->len, 1);
    const Understudy__DiskSeed *seed = seeds->pdata[0];
    assert_true(seed->n_blocks * 4096 < 2 * 256000 + 4 * 4096);
}

static void test_export_length_stays_while_the_image_grows(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL;
    shell("qemu-img create -q -f qcow2 %s 128M", f->a);
    must(describe(f, ",format=qcow2", &error), &error);
    uint64_t first = f->protection.disks[0]->export_len;
    shell("qemu-io -f qcow2 -c 'write -P 5 0 128M' %s", f->a);
    must(describe(f, ",format=qcow2", &error), &error);
    assert_int_equal(f->protection.disks[0]->export_len, first);
}

static const struct {
    const char *make, *options, *says;
} refused[] = {
    {"true", "", "does not exist"},
    {"mkdir $A", "", "directory"},
    {"truncate -s 0 $A", ",format=raw", "empty"},
    {"truncate -s 1048676 $A", ",format=raw",
     "its last sector is not whole: round the length up with 'qemu-img resize -f raw "},
    {"qemu-img create -q -f vhdx $A 64M", "", "block_state_zero=off"},
    {"qemu-img create -q -f vhdx -o subformat=fixed $A 64M", "", "block_state_zero=off"},
    {"qemu-img create -q -f vpc $A 64M", "", "subformat=fixed"},
    {"qemu-img create -q -f vmdk $A 64M", "", "-O qcow2"},
    {"qemu-img create -q -f vdi $A 64M", "", "-O qcow2"},
    {"qemu-img create -q -f qed $A 64M", "", "-O qcow2"},
    {"qemu-img create -q -f qcow2 -o data_file=$A.data $A 64M", "", "another file"},
    {"cd $(dirname $A) && qemu-img create -q -f qcow2 base 64M && qemu-img create -q -f qcow2 -b base -F "
     "qcow2 $A",
     "", "whole path"},
    {"qemu-img create -q -f qcow2 $A.base 64M && qemu-img create -q -f qcow2 -b $A.base -F qcow2 $A && rm "
     "$A.base",
     "", "base"},
    {"printf garbage >$A", ",format=qcow2", "not in qcow2 format"},
};

static void test_image_that_cannot_be_replicated_is_refused_with_advice(void **state)
{
    struct fixture *f = *state;
    g_setenv("A", f->a, TRUE);
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_autoptr(GError) error = NULL;
        shell("rm -rf %s/* && %s", f->dir, refused[i].make);
        must_say(describe(f, refused[i].options, &error), &error, refused[i].says);
        assert_non_null(strstr(error->message, "root"));
    }
}

static const struct {
    const char *make, *says; /* on host B, where A is a raw image of 8 MiB */
} unfit[] = {
    {"truncate -s 4M $B", "4194304 bytes"},
    {"truncate -s 16M $B", "16777216 bytes"},
    {"qemu-img create -q -f qcow2 $B 8M", "bytes"},
    {"qemu-img create -q -f qcow2 $B 8M && truncate -s 8M $B", "in the format qcow2"},
    {"mkdir $B", "directory"},
    {"mkfifo $B", "neither a file"},
    {"ln -s /nowhere/x $B", "No such file"},
};

static void test_image_that_cannot_stand_by_is_refused_by_name(void **state)
{
    struct fixture *f = *state;
    g_setenv("B", f->b, TRUE);
    for (size_t i = 0; i < G_N_ELEMENTS(unfit); i++) {
        g_autoptr(GError) error = NULL;
        shell("rm -rf %s/* && truncate -s 8M %s && %s", f->dir, f->a, unfit[i].make);
        must(describe(f, "", &error), &error);
        must_say(prepare(f, &error), &error, unfit[i].says);
        assert_non_null(strstr(error->message, "VM web, disk root on host "));
    }
}

static void test_image_in_use_is_refused_on_both_hosts(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL, other = NULL;
    shell("truncate -s 8M %s %s", f->a, f->b);
    must(describe(f, ",format=raw", &error), &error);
    const char *const argv[] = {"qemu-io", "-f", "raw", f->b, NULL};
    g_autoptr(GSubprocess) user =
        g_subprocess_newv(argv, G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE, &error);
    must(user != NULL, &error);
    char prompt[8]; /* printed once the image is open */
    assert_true(g_input_stream_read(g_subprocess_get_stdout_pipe(user), prompt, sizeof prompt, NULL, NULL) >
                0);
    must_say(prepare(f, &error), &error, "in use");
    char *keep = f->a;
    f->a = f->b;
    must_say(describe(f, ",format=raw", &other), &other, "in use");
    f->a = keep;
    g_subprocess_force_exit(user);
    g_subprocess_wait(user, NULL, NULL);
}

static bool has_map(const struct fixture *f)
{
    g_autofree char *map = g_build_filename(f->dir, "disk-0.map", NULL);
    return g_access(map, F_OK) == 0;
}

/* The map says what has changed of an image that both hosts had: not of one that is new, or was in other
 * hands. */
static void test_map_goes_with_an_image_that_was_made_or_unfit(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL, other = NULL;
    shell("truncate -s 8M %s %s && touch %s/disk-0.map", f->a, f->b, f->dir);
    must(describe(f, ",format=raw", &error), &error);
    must(prepare(f, &error), &error);
    assert_true(has_map(f));
    shell("truncate -s 4M %s", f->b);
    must_say(prepare(f, &error), &error, "4194304 bytes");
    assert_false(has_map(f));
    shell("rm %s && touch %s/disk-0.map", f->b, f->dir);
    must(prepare(f, &other), &other);
    assert_false(has_map(f));
}

static void test_folder_and_room_are_looked_at_before_anything_is_made(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL, other = NULL;
    shell("truncate -s 8M %s", f->a);
    must(describe(f, ",format=raw", &error), &error);
    f->protection.disks[0]->used_bytes = 1ull << 60;
    must_say(prepare(f, &error), &error, "make room");
    assert_int_equal(g_access(f->b, F_OK), -1);
    f->protection.disks[0]->used_bytes = 0;
    g_free(f->protection.disks[0]->peer_path);
    f->protection.disks[0]->peer_path = g_strdup("/nowhere/b.img");
    must_say(prepare(f, &other), &other, "/nowhere does not exist");
}

static void test_backing_file_must_be_the_same_on_both_hosts(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL, other = NULL;
    shell("cd %s && qemu-img create -q -f raw base 8M && qemu-img create -q -f qcow2 -F raw -b %s/base %s",
          f->dir, f->dir, f->a);
    must(describe(f, ",format=qcow2", &error), &error);
    assert_int_equal(f->protection.disks[0]->n_backing, 1);
    must(prepare(f, &error), &error);
    shell("truncate -s 9M %s/base", f->dir);
    must_say(prepare(f, &error), &error, "copy that one here");
    shell("rm %s/base", f->dir);
    must_say(prepare(f, &other), &other, "cannot be read");
}

static void test_options_that_name_no_disk_are_refused_with_the_names_there_are(void **state)
{
    struct fixture *f = *state;
    const char *const argv[] = {"qemu-system-x86_64", "-m", "256", "-hda", f->a, "-hdb", f->b, NULL};
    static const char *const wrong[][3] = {
        {"--peer-disk", "root=/x", "disk0, disk1"},
        {"--peer-disk", "disk0", "disk0, disk1"},
        {"--peer-disk", "disk1=x", "whole path"},
        {"--shared-disk", "disk", "disk0, disk1"},
    };
    shell("truncate -s 8M %s %s", f->a, f->b);
    f->line = line_parse(argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GError) error = NULL;
        char *values[] = {(char *)wrong[i][1]};
        Understudy__RunRequest request = UNDERSTUDY__RUN_REQUEST__INIT;
        bool is_peer = strcmp(wrong[i][0], "--peer-disk") == 0;
        request.peer_disk = request.shared_disk = values;
        request.n_peer_disk = is_peer;
        request.n_shared_disk = !is_peer;
        must_say(disks_describe(&f->protection, f->line, &request, &error), &error, wrong[i][2]);
        disks_clear(&f->protection);
    }
}

static void test_shared_disk_is_never_created(void **state)
{
    struct fixture *f = *state;
    g_autoptr(GError) error = NULL;
    shell("truncate -s 8M %s", f->a);
    must(describe(f, ",format=raw", &error), &error);
    f->protection.disks[0]->shared = true;
    must_say(prepare(f, &error), &error, "to be shared");
    assert_int_equal(g_access(f->b, F_OK), -1);
}

/* The seed comes from the peer: whatever its offsets are, nothing beyond the image is written. */
static void test_seed_beyond_the_image_is_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[4096];
    memset(bytes, 7, sizeof bytes);
    Understudy__DiskSeed__Block block = UNDERSTUDY__DISK_SEED__BLOCK__INIT, *blocks[] = {&block};
    Understudy__DiskSeed seed = UNDERSTUDY__DISK_SEED__INIT;
    block.data.data = bytes;
    block.data.len = sizeof bytes;
    seed.blocks = blocks;
    seed.n_blocks = 1;
    int fd = open(f->b, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    block.offset = UINT64_MAX - 100;
    assert_true(disk_seed_write(fd, &seed, 6000) < 0);
    block.offset = 4096;
    assert_int_equal(disk_seed_write(fd, &seed, 6000), 0);
    assert_int_equal(len_of(f->b), 6000);
    close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_missing_raw_image_is_created_as_long_and_empty),
        TEST(test_raw_found_by_probing_stays_unsaid_and_qcow2_is_told_to_qemu),
        TEST(test_seeded_image_opens_and_the_export_takes_all_writes),
        TEST(test_qcow2_with_snapshots_and_bitmaps_is_seeded_too),
        TEST(test_luks_seed_has_every_key_and_leaves_room),
        TEST(test_export_length_stays_while_the_image_grows),
        TEST(test_image_that_cannot_be_replicated_is_refused_with_advice),
        TEST(test_image_that_cannot_stand_by_is_refused_by_name),
        TEST(test_image_in_use_is_refused_on_both_hosts),
        TEST(test_map_goes_with_an_image_that_was_made_or_unfit),
        TEST(test_folder_and_room_are_looked_at_before_anything_is_made),
        TEST(test_backing_file_must_be_the_same_on_both_hosts),
        TEST(test_options_that_name_no_disk_are_refused_with_the_names_there_are),
        TEST(test_shared_disk_is_never_created),
        TEST(test_seed_beyond_the_image_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
