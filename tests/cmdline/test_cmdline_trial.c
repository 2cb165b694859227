/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The line of a throw-away QEMU: the machine stays, and nothing of the host's is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hv-hooks/qemu/cmdline/cmdline.h"

#define LEN 1073741824

static char *build(const char *user, GError **error)
{
    static const uint64_t disk_len[CMDLINE_DISKS_MAX] = {LEN, LEN + 512, LEN, LEN};
    g_autofree char *text = g_strdup_printf("qemu-system-x86_64 -m 256 -nodefaults %s", user);
    g_auto(GStrv) argv = NULL;
    assert_true(g_shell_parse_argv(text, NULL, &argv, NULL));
    struct cmdline *line = cmdline_parse((const char *const *)argv, error);
    if (!line)
        return NULL;
    g_auto(GStrv) built = cmdline_build_trial(line, 63, "/run/u/web", disk_len, error);
    cmdline_free(line);
    return built ? g_strjoinv(" ", built) : NULL;
}

#define NULL_DISK "driver=null-co,size=1073741824,read-zeroes=on"

/* What stands between the fixed beginning and the fixed end. */
static const struct {
    const char *user, *trial;
} lines[] = {
    /* machine and devices */
    {"-machine pc-i440fx-7.2 -cpu qemu64 -smp 2 -device virtio-rng-pci -vga std -name web -rtc base=utc",
     "-machine pc-i440fx-7.2 -cpu qemu64 -smp 2 -device virtio-rng-pci -vga std -name web -rtc base=utc"},
    {"-kernel /k -append '-s console=ttyS0'", "-kernel /k -append -s console=ttyS0"},
    /* network */
    {"-netdev tap,id=n0,ifname=tap0,script=no,downscript=no -device virtio-net-pci,netdev=n0",
     "-netdev tap,script=no,downscript=no,id=n0,ifname=tap0 -device virtio-net-pci,netdev=n0"},
    {"-netdev tap,id=n0,br=br0,helper=/h,vnet_hdr=off",
     "-netdev tap,script=no,downscript=no,id=n0,vnet_hdr=off"},
    {"-netdev tap,id=n0,script=/etc/up,vhost=off", "-netdev tap,script=no,downscript=no,id=n0"},
    {"-netdev bridge,id=n0,br=br1", "-netdev tap,script=no,downscript=no,id=n0"},
    {"-netdev user,id=n0,hostfwd=tcp::22-:22,hostfwd=tcp::80-:80,net=10.1.0.0/24",
     "-netdev user,id=n0,net=10.1.0.0/24"},
    {"-netdev user,id=n0,guestfwd=tcp:10.0.2.100:7-tcp:1.2.3.4:7",
     "-netdev user,id=n0,guestfwd=tcp:10.0.2.100:7-null"},
    {"-netdev user,id=n0,guestfwd=tcp:10.0.2.100:7-cmd:cat",
     "-netdev user,id=n0,guestfwd=tcp:10.0.2.100:7-cmd:cat"},
    {"-netdev socket,id=n0,listen=:7", "-netdev hubport,hubid=1000,id=n0"},
    {"-netdev stream,id=n0,addr.type=unix,addr.path=/p -netdev dgram,id=n1,local.type=unix,local.path=/q",
     "-netdev hubport,hubid=1000,id=n0 -netdev hubport,hubid=1001,id=n1"},
    {"-nic tap,model=e1000,mac=52:54:00:00:00:01,id=n0",
     "-nic tap,script=no,downscript=no,model=e1000,mac=52:54:00:00:00:01,id=n0"},
    {"-nic none", "-nic none"},
    {"-netdev '{\"type\":\"tap\",\"id\":\"n0\",\"ifname\":\"t\",\"script\":\"/up\"}'",
     "-netdev tap,script=no,downscript=no,id=n0,ifname=t"},
    /* characters, under their names */
    {"-chardev socket,id=c,path=/s,server=on,wait=off -device virtio-serial -device virtserialport,chardev=c",
     "-chardev null,id=c -device virtio-serial -device virtserialport,chardev=c"},
    {"-chardev stdio,id=c,mux=on -mon chardev=c -serial chardev:c",
     "-chardev null,id=c,mux=on -serial chardev:c"},
    {"-serial file:/log -serial none -parallel unix:/p,server=on,wait=off",
     "-serial null -serial none -parallel null"},
    /* what others have, or write to */
    {"-pidfile /p -D /log -d int -monitor unix:/m,server=on,wait=off -qmp unix:/q,server=on,wait=off -s -gdb "
     "tcp::1",
     ""},
    {"-vnc :1 -display gtk", ""},
    {"-spice port=5901,tls-port=5902 -device qxl-vga",
     "-spice port=5900,disable-ticketing=on -device qxl-vga"},
    {"-audiodev pa,id=a,server=/s -device AC97,audiodev=a", "-audiodev none,id=a -device AC97,audiodev=a"},
    {"-netdev user,id=n0 -object filter-dump,id=f,netdev=n0,file=/dump -object "
     "rng-random,id=r,filename=/dev/urandom",
     "-netdev user,id=n0 -object rng-random,id=r,filename=/dev/urandom"},
    {"-overcommit mem-lock=on,cpu-pm=on", "-overcommit cpu-pm=on,mem-lock=off"},
    /* disks */
    {"-drive file=a.img,format=raw,if=virtio,cache=none,aio=native",
     "-drive " NULL_DISK ",if=virtio,cache=none"},
    {"-drive file=a.qcow2,format=qcow2,l2-cache-size=1M,if=none,id=d,werror=stop,discard=unmap -device "
     "scsi-hd,drive=d",
     "-drive " NULL_DISK ",if=none,id=d,werror=stop,discard=unmap -device scsi-hd,drive=d"},
    {"-drive file=a,format=raw -drive file=b,format=raw,if=none,id=b",
     "-drive " NULL_DISK " -drive driver=null-co,size=1073742336,read-zeroes=on,if=none,id=b"},
    {"-hda a.img", "-drive " NULL_DISK ",index=0,media=disk"},
    {"a.img", "-drive " NULL_DISK ",index=0,media=disk"},
    {"-drive file=/cd.iso,media=cdrom,readonly=on", "-drive file=/cd.iso,media=cdrom,readonly=on"},
    {"-blockdev qcow2,node-name=d,file.driver=file,file.filename=a", "-blockdev " NULL_DISK ",node-name=d"},
    {"-blockdev file,filename=a,node-name=f,cache.direct=on -blockdev "
     "qcow2,file=f,node-name=d,discard=unmap,read-only=off",
     "-blockdev " NULL_DISK ",node-name=f,cache.direct=on -blockdev "
     "{\"driver\":\"null-co\",\"size\":1073741824,\"read-zeroes\":true,\"node-name\":\"d\",\"discard\":"
     "\"unmap\",\"read-only\":false}"},
    {"-blockdev "
     "'{\"driver\":\"qcow2\",\"node-name\":\"d\",\"cache\":{\"direct\":true},\"file\":{\"driver\":\"file\","
     "\"filename\":\"a\"}}'",
     "-blockdev "
     "{\"driver\":\"null-co\",\"size\":1073741824,\"read-zeroes\":true,\"node-name\":\"d\",\"cache\":{"
     "\"direct\":true}}"},
    {"-blockdev file,filename=/cd.iso,node-name=cd,read-only=on",
     "-blockdev file,filename=/cd.iso,node-name=cd,read-only=on"},
};

static void test_the_machine_stays_and_the_host_is_left_alone(void **state)
{
    (void)state;
    static const char begin[] = "qemu-system-x86_64 -m 256 -nodefaults ";
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *built = build(lines[i].user, &error);
        if (!built)
            fail_msg("%s: %s", lines[i].user, error->message);
        assert_true(g_str_has_prefix(built, begin));
        char *end = strstr(built, "-object memory-backend-file");
        assert_non_null(end);
        *end = 0;
        /* A line without a display gets none already. */
        if (g_str_has_suffix(built, "-display none "))
            fail_msg("%s: a display is in %s", lines[i].user, built);
        assert_string_equal(g_strchomp(built + strlen(begin)), lines[i].trial);
    }
}

static void test_a_trial_has_memory_of_its_own_and_a_guest_that_does_not_run(void **state)
{
    (void)state;
    g_autofree char *built = build("-display none", NULL);
    assert_string_equal(
        strstr(built, "-object"),
        "-object memory-backend-file,id=understudy-ram,size=268435456,share=off,mem-path=/proc/self/fd/63 "
        "-machine memory-backend=understudy-ram "
        "-chardev socket,id=us-c-qmp,path=/run/u/web/us-trial,server=on,wait=off -qmp chardev:us-c-qmp "
        "-action shutdown=pause,panic=pause "
        "-incoming defer -machine suppress-vmdesc=on -global migration.send-configuration=off "
        "-display none -monitor none -S");
}

static void test_what_cannot_be_there_twice_is_refused(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    assert_null(build(
        "-chardev socket,id=c,path=/swtpm -tpmdev emulator,id=t,chardev=c -device tpm-tis,tpmdev=t", &error));
    assert_non_null(strstr(error->message, "TPM"));
}

static void test_an_option_without_its_value_takes_no_word_of_a_disk(void **state)
{
    const char *const argv[] = {"qemu-system-x86_64", "-d", "-drive", "file=/a", "-m", "64", NULL};
    const uint64_t len[] = {512};
    (void)state;
    struct cmdline *cmdline = cmdline_parse(argv, NULL);
    assert_non_null(cmdline);
    g_auto(GStrv) trial = cmdline_build_trial(cmdline, 3, "/run", len, NULL);
    assert_string_equal(trial[0], argv[0]);
    assert_string_equal(trial[1], "-drive");
    cmdline_free(cmdline);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_machine_stays_and_the_host_is_left_alone),
        cmocka_unit_test(test_a_trial_has_memory_of_its_own_and_a_guest_that_does_not_run),
        cmocka_unit_test(test_what_cannot_be_there_twice_is_refused),
        cmocka_unit_test(test_an_option_without_its_value_takes_no_word_of_a_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
