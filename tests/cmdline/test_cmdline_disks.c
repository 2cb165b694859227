/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The disks of a command line: which are found, what is refused, and what QEMU is told instead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <glib/gstdio.h>

#include "hv-hooks/qemu/cmdline/cmdline.h"
#include "hv-hooks/qemu/cmdline/cmdline_keys.h"

#define QEMU "qemu-system-x86_64 -m 256 -nodefaults "
#define NBD(prefix)                                                                                          \
    prefix "driver=nbd," prefix "server.type=unix," prefix "server.path=/run/u/web/us-disk-0," prefix        \
           "reconnect-delay=10"
#define JSON_NBD                                                                                             \
    "\"driver\":\"nbd\",\"reconnect-delay\":10,\"server\":{\"type\":\"unix\",\"path\":\"/run/u/web/"         \
    "us-disk-0\"}"

static struct cmdline *parse(const char *line, GError **error)
{
    g_auto(GStrv) argv = NULL;
    if (!g_shell_parse_argv(line, NULL, &argv, error))
        return NULL;
    return cmdline_parse((const char *const *)argv, error);
}

static const struct {
    const char *line, *id, *path, *format, *rewritten;
} disks[] = {
    {"-drive file=a.img,format=raw,if=virtio", "disk0", "a.img", "raw",
     "-drive " NBD("file.") ",format=raw,if=virtio"},
    {"-drive "
     "id=root,if=none,file=/b/a.qcow2,format=qcow2,cache=none,discard=unmap,detect-zeroes=unmap,aio=native",
     "root", "/b/a.qcow2", "qcow2",
     "-drive " NBD("file.") ",id=root,if=none,format=qcow2,cache=none,discard=unmap,detect-zeroes=unmap"},
    {"-drive file=a", "disk0", "a", "", "-drive " NBD("file.")},
    {"-drive file=a,format=raw,format=qcow2,werror=stop", "disk0", "a", "qcow2",
     "-drive " NBD("file.") ",format=raw,format=qcow2,werror=stop"},
    {"-drive file=a,,b.img,id=x", "x", "a,b.img", "", "-drive " NBD("file.") ",id=x"},
    {"-drive file=file:a,id=x", "x", "a", "", "-drive " NBD("file.") ",id=x"},
    {"-drive file=a,snapshot=off", "disk0", "a", "", "-drive " NBD("file.") ",snapshot=off"},
    {"-drive driver=raw,file.driver=file,file.filename=a,file.locking=off,file.node-name=n", "disk0", "a",
     "raw", "-drive " NBD("file.") ",driver=raw,file.node-name=n"},
    {"-drive file.filename=a,if=ide", "disk0", "a", "", "-drive " NBD("file.") ",if=ide"},
    {"-drive file=a,driver=qcow2,backing.file.filename=base,backing.driver=raw", "disk0", "a", "qcow2",
     "-drive " NBD("file.") ",driver=qcow2,backing.file.filename=base,backing.driver=raw"},
    {"-drive file=a,format=file,id=x", "x", "a", "raw", "-drive " NBD("") ",id=x"},
    {"-drive driver=throttle,throttle-group=g,file.driver=qcow2,file.file.filename=a,id=x", "x", "a", "qcow2",
     "-drive " NBD("file.file.") ",driver=throttle,throttle-group=g,file.driver=qcow2,id=x"},
    {"-hda a,b.img", "disk0", "a,b.img", "", "-drive " NBD("file.") ",index=0,media=disk"},
    {"-hdd a.img", "disk0", "a.img", "", "-drive " NBD("file.") ",index=3,media=disk"},
    {"-smp 2 a.img", "disk0", "a.img", "", "-smp 2 -drive " NBD("file.") ",index=0,media=disk"},
    {"-nographic a.img", "disk0", "a.img", "", "-nographic -drive " NBD("file.") ",index=0,media=disk"},
    {"-no-reboot a.img", "disk0", "a.img", "", "-no-reboot -drive " NBD("file.") ",index=0,media=disk"},
    {"-blockdev driver=file,filename=a,node-name=n", "n", "a", "raw", "-blockdev " NBD("") ",node-name=n"},
    {"-blockdev file,filename=a,node-name=n,aio=threads,discard=unmap", "n", "a", "raw",
     "-blockdev " NBD("") ",node-name=n,discard=unmap"},
    {"-blockdev host_device,filename=/dev/vdb,node-name=n", "n", "/dev/vdb", "raw",
     "-blockdev " NBD("") ",node-name=n"},
    {"-blockdev driver=qcow2,node-name=n,file.driver=file,file.filename=a,file.locking=off", "n", "a",
     "qcow2", "-blockdev " NBD("file.") ",driver=qcow2,node-name=n"},
    {"-blockdev driver=qcow2,file=n,node-name=top -blockdev file,filename=a,node-name=n", "n", "a", "qcow2",
     "-blockdev driver=qcow2,file=n,node-name=top -blockdev " NBD("") ",node-name=n"},
    {"-blockdev file,filename=a,node-name=n -blockdev throttle,file=n,throttle-group=g,node-name=t "
     "-blockdev vpc,file=t,node-name=v",
     "n", "a", "vpc",
     "-blockdev " NBD("") ",node-name=n -blockdev throttle,file=n,throttle-group=g,node-name=t "
                          "-blockdev vpc,file=t,node-name=v"},
    {"-blockdev '{\"driver\":\"file\",\"filename\":\"a,b\",\"node-name\":\"n\",\"aio\":\"io_uring\"}'", "n",
     "a,b", "raw", "-blockdev {\"node-name\":\"n\"," JSON_NBD "}"},
    {"-blockdev '{\"driver\":\"qcow2\",\"node-name\":\"n\",\"file\":{\"driver\":\"file\",\"filename\":\"a\","
     "\"cache\":{\"direct\":true}}}'",
     "n", "a", "qcow2",
     "-blockdev {\"driver\":\"qcow2\",\"node-name\":\"n\",\"file\":{\"cache\":{\"direct\":true}," JSON_NBD
     "}}"},
};

static void test_each_writable_disk_is_found_and_reached_through_its_server(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(disks); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *text = g_strconcat(QEMU, disks[i].line, NULL);
        struct cmdline *line = parse(text, &error);
        if (!line)
            fail_msg("%s: %s", text, error->message);
        assert_int_equal(line->disks->len, 1);
        const struct cmdline_disk *disk = g_ptr_array_index(line->disks, 0);
        assert_string_equal(disk->id, disks[i].id);
        assert_string_equal(disk->path, disks[i].path);
        assert_string_equal(disk->format, disks[i].format);
        g_auto(GStrv) argv = cmdline_build(line, 63, "/run/u/web", false);
        g_autofree char *built = g_strjoinv(" ", argv);
        if (!strstr(built, disks[i].rewritten))
            fail_msg("%s: becomes \"%s\", without \"%s\"", text, built, disks[i].rewritten);
        cmdline_free(line);
    }
}

static const char *const untouched[] = {
    "-drive file=a.iso,media=cdrom",
    "-drive file=a,readonly=on,if=virtio",
    "-drive file=a,read-only=on,if=pflash",
    "-drive file=nbd:localhost:1,readonly=on",
    "-drive if=none,id=empty",
    "-drive driver=null-co,if=virtio",
    "-blockdev file,filename=a,node-name=n,read-only=on",
    "-blockdev qcow2,node-name=n,read-only=on,file.driver=file,file.filename=a",
    "-blockdev {\"driver\":\"file\",\"filename\":\"a\",\"node-name\":\"n\",\"read-only\":true}",
    "-blockdev null-co,node-name=n",
    "-cdrom a.iso",
};

static void test_what_the_guest_only_reads_passes_as_it_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(untouched); i++) {
        g_autoptr(GError) error = NULL;
        g_auto(GStrv) option = g_strsplit(untouched[i], " ", 2);
        const char *const argv[] = {
            "qemu-system-x86_64", "-m", "256", "-nodefaults", option[0], option[1], NULL};
        struct cmdline *line = cmdline_parse(argv, &error);
        if (!line)
            fail_msg("%s: %s", untouched[i], error->message);
        assert_int_equal(line->disks->len, 0);
        g_auto(GStrv) out = cmdline_build(line, 63, "/run/u/web", false);
        assert_true(g_strv_contains((const char *const *)out, option[1]));
        cmdline_free(line);
    }
}

static const char *const refused[][2] = {
    {"-drive file=a,snapshot=on", "readonly=on"},
    {"-drive file=nbd:localhost:1", "nbd"},
    {"-drive file=rbd:pool/x", "by a file"},
    {"-drive file=iscsi://host/x,if=virtio", "iscsi"},
    {"-drive file=json:{}", "json"},
    {"-drive driver=nbd,server.type=unix,server.path=x", "nbd"},
    {"-drive file.driver=ssh,file.path=x,driver=qcow2", "ssh"},
    {"-drive file=a,if=pflash", "if=pflash"},
    {"-drive file=a,if=floppy", "readonly=on"},
    {"-drive file=,if=virtio", "missing"},
    {"-blockdev nbd,node-name=n,server.type=unix,server.path=x", "nbd"},
    {"-blockdev qcow2,node-name=n,file.driver=rbd,file.pool=x", "rbd"},
    {"-blockdev '{\"driver\":\"nbd\",\"node-name\":\"n\"}'", "read-only=on"},
    {"-blockdev '{\"driver\":'", "not JSON"},
    {"-blockdev quorum,node-name=n,children.0.driver=file,children.0.filename=a,children.1.driver=file,"
     "children.1.filename=b,vote-threshold=1",
     "a -blockdev of its own"},
    {"-blockdev "
     "qcow2,node-name=n,file.driver=file,file.filename=a,data-file.driver=file,data-file.filename=b",
     "external data file"},
    {"-fda a", "leave it out"},
    {"-pflash a", "readonly=on"},
    {"-sd a", "not replicated"},
    {"-drive file=a,id=disk1 -drive file=b", "an id of its own"},
    {"-hda nbd://host/x", "nbd"},
};

static void test_what_cannot_be_replicated_is_refused_with_advice(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *text = g_strconcat(QEMU, refused[i][0], NULL);
        struct cmdline *line = parse(text, &error);
        if (line)
            fail_msg("accepted: %s", refused[i][0]);
        if (!strstr(error->message, refused[i][1]))
            fail_msg("%s: says \"%s\", not \"%s\"", refused[i][0], error->message, refused[i][1]);
    }
}

static void test_seventeen_disks_are_too_many(void **state)
{
    g_autoptr(GError) error = NULL;
    GString *text = g_string_new(QEMU);
    (void)state;
    for (unsigned i = 0; i < CMDLINE_DISKS_MAX; i++)
        g_string_append_printf(text, "-drive file=%u ", i);
    struct cmdline *line = parse(text->str, &error);
    assert_non_null(line);
    cmdline_free(line);
    g_string_append(text, "-drive file=more");
    assert_null(parse(text->str, &error));
    assert_non_null(strstr(error->message, "at most 16"));
    g_string_free(text, TRUE);
}

static char *repeated(const char *text, unsigned n)
{
    GString *out = g_string_new(NULL);
    while (n--)
        g_string_append(out, text);
    return g_string_free(out, FALSE);
}

/* Takes line over. */
static void assert_refused(char *line, const char *because)
{
    g_autoptr(GError) error = NULL;
    struct cmdline *cmdline = parse(line, &error);
    if (cmdline)
        fail_msg("accepted: %s", line);
    if (!strstr(error->message, because))
        fail_msg("%s: says \"%s\", not \"%s\"", line, error->message, because);
    g_free(line);
}

/* The memory that a name takes grows with the square of its length, and each dot makes the tree deeper. */
static void test_names_of_keys_that_qemu_has_not_are_too_long(void **state)
{
    const char *because = "longer than 256 bytes";
    g_autofree char *dots = repeated("a.", 128), *word = repeated("a", 128);
    g_autofree char *inner = repeated("{\"a\":", 129), *ends = repeated("}", 129);
    (void)state;
    assert_refused(g_strdup_printf(QEMU "-drive file=/a,%sb=1", dots), because);
    assert_refused(g_strdup_printf(QEMU "-blockdev driver=file,filename=/a,%sb=1", dots), because);
    assert_refused(g_strdup_printf(QEMU "-blockdev '{\"driver\":\"x\",\"a\":%s1%s}'", inner, ends), because);
    assert_refused(g_strdup_printf(QEMU "-blockdev '{\"a\":[%s1%s]}'", inner, ends), because);
    assert_refused(
        g_strdup_printf(QEMU "-netdev '{\"type\":\"tap\",\"id\":\"n\",\"%s\":{\"%s\":1}}'", word, word),
        because);
    assert_refused(g_strdup_printf(QEMU "-device '{\"driver\":\"x\",\"%s\":{\"%s\":1}}'", word, word),
                   because);
    g_autofree char *most = g_strdup_printf(QEMU "-drive file=/a,%.*s=1", 256, dots);
    struct cmdline *cmdline = parse(most, NULL);
    assert_non_null(cmdline);
    cmdline_free(cmdline);
}

static void test_more_block_nodes_than_can_be_checked_are_too_many(void **state)
{
    (void)state;
    g_autofree char *nodes = repeated("-blockdev driver=x,file=n ", 257);
    assert_refused(g_strconcat(QEMU, nodes, NULL), "257 -blockdev options");
    struct cmdline *cmdline = NULL;
    g_autofree char *fewer = g_strconcat(QEMU, nodes + strlen("-blockdev driver=x,file=n "), NULL);
    cmdline = parse(fewer, NULL);
    assert_non_null(cmdline);
    cmdline_free(cmdline);
}

static void test_format_found_by_probing_is_told_to_qemu(void **state)
{
    struct cmdline *line = parse(QEMU "-drive file=a -drive file=b,format=raw", NULL);
    (void)state;
    assert_non_null(line);
    cmdline_set_format(line, 0, "qcow2");
    cmdline_set_format(line, 1, "raw");
    g_auto(GStrv) argv = cmdline_build(line, 63, "/run/u/web", true);
    g_autofree char *built = g_strjoinv(" ", argv);
    assert_non_null(strstr(built, "us-disk-0,file.reconnect-delay=10,format=qcow2 "));
    assert_non_null(strstr(built, "us-disk-1,file.reconnect-delay=10,format=raw "));
    cmdline_free(line);
}

static void test_socket_in_a_folder_with_a_comma_is_escaped(void **state)
{
    struct cmdline *line = parse(QEMU "-drive file=a", NULL);
    (void)state;
    g_auto(GStrv) argv = cmdline_build(line, 63, "/run/a,b", false);
    assert_true(g_strv_contains((const char *const *)argv,
                                "file.driver=nbd,file.server.type=unix,file.server.path=/run/a,,b/us-disk-0,"
                                "file.reconnect-delay=10"));
    cmdline_free(line);
}

static void test_files_are_named_from_the_root(void **state)
{
    static const char *const argv[] = {
        "qemu-system-x86_64",
        "-kernel",
        "k",
        "-append",
        "a.img",
        "-drive",
        "file=a,,b,if=virtio",
        "-drive",
        "id=x,file=/abs",
        "-blockdev",
        "file,filename=c,node-name=n",
        "-blockdev",
        "{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"d\"}}",
        "-hda",
        "e,f",
        "-nographic",
        "g",
        "-drive",
        "file=nbd:host:1,readonly=on",
        "-smp",
        "2",
        "-drive",
        "file.filename=h,format=raw",
        NULL};
    static const char *const wanted[] = {
        "qemu-system-x86_64",
        "-kernel",
        "/home/u/k",
        "-append",
        "a.img",
        "-drive",
        "file=/home/u/a,,b,if=virtio",
        "-drive",
        "id=x,file=/abs",
        "-blockdev",
        "driver=file,filename=/home/u/c,node-name=n",
        "-blockdev",
        "{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/home/u/d\"}}",
        "-hda",
        "/home/u/e,f",
        "-nographic",
        "/home/u/g",
        "-drive",
        "file=nbd:host:1,readonly=on",
        "-smp",
        "2",
        "-drive",
        "file.filename=/home/u/h,format=raw",
        NULL};
    (void)state;
    g_auto(GStrv) out = cmdline_absolute(argv, "/home/u");
    for (unsigned i = 0; wanted[i]; i++)
        assert_string_equal(out[i], wanted[i]);
    assert_null(out[G_N_ELEMENTS(wanted) - 1]);
}

static void test_a_folder_whose_name_is_not_utf8_does_not_cut_the_line(void **state)
{
    const char *const argv[] = {
        "qemu-system-x86_64", "-blockdev", "{\"driver\":\"file\",\"filename\":\"a\"}", "-hda", "b", NULL};
    (void)state;
    g_auto(GStrv) out = cmdline_absolute(argv, "/home/\xff");
    assert_int_equal(g_strv_length(out), G_N_ELEMENTS(argv) - 1);
    assert_string_equal(out[2], argv[2]);
    assert_string_equal(out[4], "/home/\xff/b");
}

static void test_script_no_is_no_file_even_where_there_is_one_of_that_name(void **state)
{
    const char *const argv[] = {"qemu-system-x86_64", "-netdev", "tap,id=n,script=no,downscript=no", "-nic",
                                "tap,script=no",      NULL};
    g_autoptr(GError) error = NULL;
    (void)state;
    g_autofree char *folder = g_dir_make_tmp("cmdline-XXXXXX", &error);
    assert_non_null(folder);
    g_autofree char *file = g_build_filename(folder, "no", NULL);
    assert_true(g_file_set_contents(file, "", 0, NULL));
    g_auto(GStrv) out = cmdline_absolute(argv, folder);
    g_unlink(file);
    g_rmdir(folder);
    for (unsigned i = 0; argv[i]; i++)
        assert_string_equal(out[i], argv[i]);
}

/* What a parser must never do, for any text: read beyond its end, lose a value. */
static void test_any_text_is_parsed_and_formatted_back_to_the_same_keys(void **state)
{
    static const char letters[] = "a=,.=,b";
    (void)state;
    for (unsigned number = 0; number < 7 * 7 * 7 * 7 * 7 * 7; number++) {
        char text[7] = "";
        for (unsigned i = 0, rest = number; i < 6; i++, rest /= 7)
            text[i] = letters[rest % 7];
        g_autoptr(GPtrArray) once = cmdline_keys_parse(text, NULL);
        g_autofree char *formatted = cmdline_keys_format(once);
        g_autoptr(GPtrArray) twice = cmdline_keys_parse(formatted, NULL);
        if (once->len != twice->len)
            fail_msg("%s: %u keys, then %u from %s", text, once->len, twice->len, formatted);
        for (guint i = 0; i < once->len; i++) {
            const struct cmdline_key *a = g_ptr_array_index(once, i), *b = g_ptr_array_index(twice, i);
            assert_string_equal(a->key, b->key);
            assert_string_equal(a->value, b->value);
        }
        json_decref(cmdline_keys_tree(once));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_writable_disk_is_found_and_reached_through_its_server),
        cmocka_unit_test(test_what_the_guest_only_reads_passes_as_it_is),
        cmocka_unit_test(test_what_cannot_be_replicated_is_refused_with_advice),
        cmocka_unit_test(test_seventeen_disks_are_too_many),
        cmocka_unit_test(test_names_of_keys_that_qemu_has_not_are_too_long),
        cmocka_unit_test(test_more_block_nodes_than_can_be_checked_are_too_many),
        cmocka_unit_test(test_format_found_by_probing_is_told_to_qemu),
        cmocka_unit_test(test_socket_in_a_folder_with_a_comma_is_escaped),
        cmocka_unit_test(test_files_are_named_from_the_root),
        cmocka_unit_test(test_a_folder_whose_name_is_not_utf8_does_not_cut_the_line),
        cmocka_unit_test(test_script_no_is_no_file_even_where_there_is_one_of_that_name),
        cmocka_unit_test(test_any_text_is_parsed_and_formatted_back_to_the_same_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
