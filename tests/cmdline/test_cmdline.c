/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The user's QEMU command line: what is accepted, what is refused with which advice, and what is added. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <glib/gstdio.h>

#include "hv-hooks/qemu/cmdline/cmdline.h"

static struct cmdline *parse(const char *line, GError **error)
{
    g_auto(GStrv) argv = NULL;
    assert_true(g_shell_parse_argv(line, NULL, &argv, NULL));
    return cmdline_parse((const char *const *)argv, error);
}

static const struct {
    const char *line;
    uint64_t mib;
    unsigned nics;
} accepted[] = {
    {"qemu-system-x86_64 -m 256 -nodefaults", 256, 0},
    {"qemu-system-x86_64 -m 256M -nodefaults", 256, 0},
    {"qemu-system-x86_64 -m 1G -nodefaults", 1024, 0},
    {"qemu-system-x86_64 -m 1048576k -nodefaults", 1024, 0},
    {"qemu-system-x86_64 --m 1G -nodefaults", 1024, 0},
    {"qemu-system-x86_64 -m size=2G,slots=2,maxmem=4G -nodefaults", 2048, 0},
    {"qemu-system-x86_64 -m size=512 -nodefaults", 512, 0},
    {"qemu-system-x86_64 -m 1.5G -nodefaults", 1536, 0},
    {"qemu-system-x86_64 -m 256", 256, 1},
    {"qemu-system-x86_64 -m 256 -nodefaults -drive file=a,throttling.iops-total=0,throttling.group=g", 256,
     0},
    {"qemu-system-x86_64 -m 256 -nodefaults -drive file=a,throttling.iops-size=4096", 256, 0},
    {"qemu-system-x86_64 -m 256 -nodefaults -object throttle-group,id=g -object "
     "throttle-group,id=h,x-bps-total=0k",
     256, 0},
    {"qemu-system-x86_64 -m 256 -sandbox off -nodefaults", 256, 0},
    {"qemu-system-x86_64 -m 256 -sandbox enable=off -nodefaults", 256, 0},
    {"qemu-system-x86_64 -m 256 -serial unix:/s,server=on,wait=off -nodefaults", 256, 0},
    {"qemu-system-x86_64 -m 256 -serial unix:/s,server,nowait -nodefaults", 256, 0},
    {"qemu-system-x86_64 -m 256 -serial unix:/s -serial mon:stdio -nodefaults", 256, 0},
    {"qemu-system-x86_64 -m 256 -chardev socket,id=a,path=/s -nodefaults", 256, 0},
    {"qemu-system-x86_64 -m 256 -chardev socket,id=a,path=/s,server=on,wait=off -nodefaults", 256, 0},
    {"qemu-system-x86_64 -m 256 -nic none", 256, 0},
    {"qemu-system-x86_64 -m 256 -net none", 256, 0},
    {"qemu-system-x86_64 -m 256 -nic user,model=e1000", 256, 1},
    {"qemu-system-x86_64 -m 256 -nic tap,id=a -nic user", 256, 2},
    {"qemu-system-x86_64 -m 256 -netdev tap,id=a,vhost=off -netdev user,id=b -smp 4 -vga std", 256, 2},
    {"qemu-system-x86_64 -m 256 -nodefaults -drive file=x.iso,media=cdrom", 256, 0},
    {"qemu-system-x86_64 -m 256 -nodefaults -drive file=x.img,readonly=on,if=virtio", 256, 0},
    {"qemu-system-x86_64 -m 256 -nodefaults -blockdev driver=file,filename=x,node-name=n,read-only=on", 256,
     0},
    {"qemu-system-x86_64 -machine q35,accel=kvm:tcg -m 256 -nodefaults -cpu host", 256, 0},
    {"qemu-system-x86_64 -m 256 -m slots=2,maxmem=1G -nodefaults", 256, 0},
    {"qemu-system-x86_64 -m 256 -m 512 -nodefaults", 512, 0},
    {"qemu-system-x86_64 -m 256 -netdev '{\"type\":\"tap\",\"id\":\"a\",\"vhost\":false,\"queues\":1}' "
     "-device '{\"driver\":\"virtio-net-pci\",\"netdev\":\"a\"}' "
     "-object '{\"qom-type\":\"rng-random\",\"id\":\"r\"}'",
     256, 1},
    {"qemu-system-x86_64 -m 256 -netdev tap,vhost=on,id=a,vhost=off -netdev type=user,id=b,hostname=a,,id=c",
     256, 2},
    {"qemu-system-x86_64 -accel hvf -accel tcg -m 256 -nodefaults", 256, 0},
    {"qemu-system-x86_64 -enable-kvm -m 256 -nodefaults -append 'console=ttyS0 quiet'", 256, 0},
};

static void test_sane_lines_are_taken(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(accepted); i++) {
        g_autoptr(GError) error = NULL;
        struct cmdline *line = parse(accepted[i].line, &error);
        if (!line)
            fail_msg("%s: %s", accepted[i].line, error->message);
        assert_int_equal(line->ram_bytes, accepted[i].mib << 20);
        assert_int_equal(line->nics->len, accepted[i].nics);
        cmdline_free(line);
    }
}

static const char *const refused[][2] = {
    {"qemu-system-x86_64 -nodefaults", "-m is missing"},
    {"qemu-system-x86_64 -m", "needs an argument"},
    {"qemu-system-x86_64 -m banana", "multiple of 2 MiB"},
    {"qemu-system-x86_64 -m 0", "multiple of 2 MiB"},
    {"qemu-system-x86_64 -m 3", "multiple of 2 MiB"},
    {"-m 256", "must begin with the program"},
    {"qemu-system-x86_64 -m 256 -netdev tap,id=a,vhost=on", "vhost=off"},
    {"qemu-system-x86_64 -m 256 -nic tap,vhost=on", "vhost=off"},
    {"qemu-system-x86_64 -m 256 -netdev vhost-user,id=a,chardev=c", "vhost back ends"},
    {"qemu-system-x86_64 -m 256 -netdev user", "id is missing"},
    {"qemu-system-x86_64 -m 256 -net nic -net user", "use -netdev"},
    {"qemu-system-x86_64 -m 256 -device vfio-pci,host=01:00.0", "passed-through"},
    {"qemu-system-x86_64 -m 256 -device vhost-user-fs-pci", "vhost devices"},
    {"qemu-system-x86_64 -m 256 -device pc-dimm,memdev=m", "with -m"},
    {"qemu-system-x86_64 -m 256 -object memory-backend-ram,id=m,size=256M", "with -m only"},
    {"qemu-system-x86_64 -m 256 -machine q35,memory-backend=m", "with -m only"},
    {"qemu-system-x86_64 -m 256 -netdev '{\"type\":\"tap\",\"id\":\"a\",\"vhost\":true}'", "vhost=off"},
    {"qemu-system-x86_64 -m 256 -netdev '{\"id\":\"a\",\"type\":\"vhost-user\",\"chardev\":\"c\"}'",
     "vhost back ends"},
    {"qemu-system-x86_64 -m 256 -netdev '{\"type\":\"user\"}'", "id is missing"},
    {"qemu-system-x86_64 -m 256 -netdev \"{'type':'user','id':'a'}\"", "not JSON"},
    {"qemu-system-x86_64 -m 256 -device '{\"driver\":\"vfio-pci\",\"host\":\"01:00.0\"}'", "passed-through"},
    {"qemu-system-x86_64 -m 256 -device '{\"driver\":\"e1000\",\"driver\":\"vfio-pci\"}'", "each name once"},
    {"qemu-system-x86_64 -m 256 -object '{\"qom-type\":\"memory-backend-ram\",\"id\":\"m\",\"size\":1}'",
     "with -m only"},
    {"qemu-system-x86_64 -m 256 -device host=01:00.0,driver=vfio-pci", "passed-through"},
    {"qemu-system-x86_64 -m 256 -object qom-type=memory-backend-ram,id=m", "with -m only"},
    {"qemu-system-x86_64 -m 256 -netdev id=a,type=vhost-user,chardev=c", "vhost back ends"},
    {"qemu-system-x86_64 -m 256 -netdev tap,id=a,vhost=off,vhost=on", "vhost=off"},
    {"qemu-system-x86_64 -m 256 -netdev tap,id=a,vhost", "vhost=off"},
    {"qemu-system-x86_64 -m 256 -netdev tap,id=a,fd=3", "ifname"},
    {"qemu-system-x86_64 -m 256 -netdev tap,id=a,queues=4", "one queue"},
    {"qemu-system-x86_64 -m 256 -netdev '{\"type\":\"tap\",\"id\":\"a\",\"queues\":2}'", "one queue"},
    {"qemu-system-x86_64 -m 256 -nic hubport,hubid=0", "hubs"},
    {"qemu-system-x86_64 -m 256 -set netdev.a.vhost=on -netdev tap,id=a", "-set"},
    {"qemu-system-x86_64 -m 256 -add-fd fd=3,set=1", "-add-fd"},
    {"qemu-system-x86_64 -m 256 -virtfs local,path=/x,mount_tag=t,security_model=none", "-virtfs"},
    {"qemu-system-x86_64 -m 256 -device virtio-9p-pci,fsdev=f,mount_tag=t", "shared folder"},
    {"qemu-system-x86_64 -m 256 -run-with user=nobody", "user out"},
    {"qemu-system-x86_64 -m 256 -machine q35,confidential-guest-support=sev0", "encrypted memory"},
    {"qemu-system-x86_64 -m 256 -accel xen", "use -accel kvm or -accel tcg"},
    {"qemu-system-x86_64 -m 256 -daemonize", "-daemonize"},
    {"qemu-system-x86_64 -m 256 -incoming tcp:0:1", "-incoming"},
    {"qemu-system-x86_64 -m 256 -loadvm s", "-loadvm"},
    {"qemu-system-x86_64 -m 256 -S", "-S"},
    {"qemu-system-x86_64 -m 256 -icount 1", "-icount"},
    {"qemu-system-x86_64 -m 256 -mem-path /x", "-mem-path"},
    {"qemu-system-x86_64 -m 256 -numa node,memdev=m", "-numa out"},
    {"qemu-system-x86_64 -m 256 -numa node", "-numa out"},
    {"qemu-system-x86_64 -m 256 -sandbox on", "-sandbox off"},
    {"qemu-system-x86_64 -m 256 -serial unix:/s,server", "add ,wait=off"},
    {"qemu-system-x86_64 -m 256 -serial mon:telnet::4444,server=on", "add ,wait=off"},
    {"qemu-system-x86_64 -m 256 -qmp unix:/s,server=on,wait=on", "add ,wait=off"},
    {"qemu-system-x86_64 -m 256 -chardev socket,id=a,path=/s,server=on", "add ,wait=off"},
    {"taskset 1 qemu-system-x86_64 -m 256", "taskset cannot stand before QEMU"},
    {"/usr/bin/nice -n 5 qemu-system-x86_64 -m 256", "nice cannot stand before QEMU"},
    {"env A=b qemu-system-x86_64 -m 256", "env cannot stand before QEMU"},
    {"qemu-system-x86_64 -m 256 -readconfig f", "-readconfig"},
    {"qemu-system-x86_64 -m 256 -drive file=a,throttling.iops-total=50",
     "throttling.iops-total would not hold"},
    {"qemu-system-x86_64 -m 256 -drive file=a,throttling.bps-write=1M,throttling.group=g", "bps-write would"},
    {"qemu-system-x86_64 -m 256 -drive file=a,iops=50", "limit iops would not hold"},
    {"qemu-system-x86_64 -m 256 -drive file=a,bps_rd=1000000,bps_rd_max=2000000", "bps_rd would not hold"},
    {"qemu-system-x86_64 -m 256 -drive file=a,readonly=on,throttling.iops-read=9",
     "iops-read would not hold"},
    {"qemu-system-x86_64 -m 256 -object throttle-group,id=g,x-iops-total=9", "x-iops-total would not hold"},
    {"qemu-system-x86_64 -m 256 -object throttle-group,id=g,limits.bps-read-max=9", "bps-read-max would not"},
    {"qemu-system-x86_64 -m 256 -object "
     "'{\"qom-type\":\"throttle-group\",\"id\":\"g\",\"limits\":{\"iops-total\":9}}'",
     "limits.iops-total would not hold"},
};

static void test_what_cannot_be_protected_is_refused_with_advice(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_autoptr(GError) error = NULL;
        struct cmdline *line = parse(refused[i][0], &error);
        if (line)
            fail_msg("accepted: %s", refused[i][0]);
        if (!strstr(error->message, refused[i][1]))
            fail_msg("%s: says \"%s\", not \"%s\"", refused[i][0], error->message, refused[i][1]);
    }
}

static char *build(const char *text, bool standby)
{
    struct cmdline *line = parse(text, NULL);
    assert_non_null(line);
    g_auto(GStrv) argv = cmdline_build(line, 63, "/run/u/web", standby);
    cmdline_free(line);
    return g_strjoinv(" ", argv);
}

static void test_released_frames_cannot_be_caught_again(void **state)
{
    (void)state;
    g_autofree char *line = build("qemu-system-x86_64 -m 256 -netdev tap,id=a", false);
    assert_non_null(strstr(line, "id=us-in-0,netdev=a,queue=rx,indev"));
    assert_true(strstr(line, "id=us-in-0,") < strstr(line, "id=us-out-0,"));
    assert_true(strstr(line, "id=us-mir-0,") < strstr(line, "id=us-inj-0,"));
    assert_non_null(strstr(line, "mem-path=/proc/self/fd/63"));
    assert_null(strstr(line, "-incoming"));
}

static void test_only_the_standby_waits(void **state)
{
    (void)state;
    g_autofree char *line = build("qemu-system-x86_64 -m 256 -nic user", true);
    assert_non_null(strstr(line, "-incoming defer"));
    assert_non_null(strstr(line, "migration.send-configuration=off"));
    assert_non_null(strstr(line, "user,id=us-net0"));
}

static void test_a_list_of_accelerators_is_understood(void **state)
{
    static const struct {
        const char *line, *accel;
        bool or_tcg;
    } lists[] = {
        {"qemu-system-x86_64 -m 256", "tcg", false},
        {"qemu-system-x86_64 -m 256 -accel kvm", "kvm", false},
        {"qemu-system-x86_64 -m 256 -accel kvm,dirty-ring-size=4096 -accel tcg,thread=multi", "kvm", true},
        {"qemu-system-x86_64 -m 256 -machine q35,accel=kvm:tcg", "kvm", true},
        {"qemu-system-x86_64 -m 256 -enable-kvm", "kvm", false},
        {"qemu-system-x86_64 -m 256 -accel tcg", "tcg", false},
        {"/usr/bin/kvm -m 256", "kvm", true},
        {"kvm -m 256 -accel tcg", "tcg", false},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        struct cmdline *line = parse(lists[i].line, NULL);
        assert_non_null(line);
        assert_string_equal(line->accel, lists[i].accel);
        assert_int_equal(line->accel_or_tcg, lists[i].or_tcg);
        cmdline_free(line);
    }
}

static void test_only_a_cpu_of_the_host_ties_a_vm_to_it(void **state)
{
    static const struct {
        const char *line;
        bool host;
    } cpus[] = {
        {"qemu-system-x86_64 -m 256 -accel kvm", false},
        {"qemu-system-x86_64 -m 256 -accel kvm -cpu host", true},
        {"kvm -m 256 -cpu max", true},
        {"qemu-system-x86_64 -m 256 -accel kvm -cpu host,migratable=on", true},
        {"qemu-system-x86_64 -m 256 -cpu max,-avx2 -accel kvm", true},
        {"qemu-system-x86_64 -m 256 -cpu max", false},
        {"qemu-system-x86_64 -m 256 -accel kvm -cpu host -cpu qemu64", false},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cpus); i++) {
        struct cmdline *line = parse(cpus[i].line, NULL);
        assert_non_null(line);
        assert_int_equal(line->cpu_host, cpus[i].host);
        cmdline_free(line);
    }
}

static void test_a_processor_can_be_made_to_be_there_in_full(void **state)
{
    static const char *const cpus[][2] = {
        {"qemu -m 256 -cpu A -cpu EPYC,+x2apic -smp 2", "-cpu A -cpu EPYC,+x2apic,enforce -smp 2"},
        {"qemu -m 256 -cpu EPYC,enforce=off -smp 2", "-cpu EPYC,enforce=off -smp 2"},
        {"qemu -m 256 -smp 2", "-m 256 -smp 2"},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cpus); i++) {
        struct cmdline *line = parse(cpus[i][0], NULL);
        assert_non_null(line);
        cmdline_enforce_cpu(line);
        g_auto(GStrv) argv = cmdline_build(line, 63, "/run/u/web", true);
        g_autofree char *built = g_strjoinv(" ", argv);
        assert_non_null(strstr(built, cpus[i][1]));
        cmdline_free(line);
    }
}

static void test_files_are_named_from_where_the_user_stood(void **state)
{
    static const char *const lines[][2] = {
        {"-serial file:log -m 256", "-serial file:/home/u/log -m 256"},
        {"-serial file:/log x.img", "-serial file:/log /home/u/x.img"},
        {"-serial stdio -monitor unix:m,server=on,wait=off",
         "-serial stdio -monitor unix:/home/u/m,server=on,wait=off"},
        {"-qmp tcp:localhost:4444,server=on", "-qmp tcp:localhost:4444,server=on"},
        {"-pidfile p -D d -option-rom r", "-pidfile /home/u/p -D /home/u/d -option-rom /home/u/r"},
        {"-chardev socket,id=a,path=s,server=on", "-chardev backend=socket,id=a,path=/home/u/s,server=on"},
        {"-chardev file,id=a,path=/s", "-chardev file,id=a,path=/s"},
        {"-fw_cfg opt/a,file=f", "-fw_cfg name=opt/a,file=/home/u/f"},
        {"-smbios file=f -acpitable file=t", "-smbios file=/home/u/f -acpitable file=/home/u/t"},
        {"-name a -append b", "-name a -append b"},
        {"-serial mon:unix:m,server=on,wait=off", "-serial mon:unix:/home/u/m,server=on,wait=off"},
        {"-chardev stdio,id=a,logfile=l", "-chardev backend=stdio,id=a,logfile=/home/u/l"},
        {"-object filter-dump,id=a,netdev=n,file=f",
         "-object qom-type=filter-dump,id=a,netdev=n,file=/home/u/f"},
        {"-audiodev wav,id=a,path=s.wav", "-audiodev driver=wav,id=a,path=/home/u/s.wav"},
        {"-vnc unix:v -trace file=t", "-vnc unix:/home/u/v -trace file=/home/u/t"},
        /* Not in that folder: QEMU looks for it elsewhere. */
        {"-device e1000,romfile=efi-e1000.rom", "-device e1000,romfile=efi-e1000.rom"},
        {"-netdev tap,id=a,script=no", "-netdev tap,id=a,script=no"},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autofree char *given = g_strconcat("qemu ", lines[i][0], NULL),
                        *wanted = g_strconcat("qemu ", lines[i][1], NULL);
        g_auto(GStrv) argv = g_strsplit(given, " ", -1);
        g_auto(GStrv) out = cmdline_absolute((const char *const *)argv, "/home/u");
        g_autofree char *line = g_strjoinv(" ", out);
        assert_string_equal(line, wanted);
    }
}

static void test_a_file_that_qemu_may_find_elsewhere_is_named_where_it_is(void **state)
{
    static const char *const argv[] = {
        "qemu", "-device", "e1000,romfile=rom", "-netdev", "tap,id=a,script=up", NULL};
    g_autofree char *dir = g_dir_make_tmp("understudy-paths-XXXXXX", NULL);
    g_autofree char *rom = g_build_filename(dir, "rom", NULL), *script = g_build_filename(dir, "up", NULL);
    (void)state;
    assert_true(g_file_set_contents(rom, "", 0, NULL) && g_file_set_contents(script, "", 0, NULL));
    g_auto(GStrv) out = cmdline_absolute(argv, dir);
    assert_true(g_str_has_suffix(out[2], rom));
    assert_true(g_str_has_suffix(out[4], script));
    g_unlink(rom);
    g_unlink(script);
    g_rmdir(dir);
}

/* What another host's line may not do on this one. */
static void test_an_option_that_runs_a_program_is_noted(void **state)
{
    static const char *const none[] = {
        "-netdev tap,id=a,script=no,downscript=no",
        "-netdev tap,id=a,ifname=t0", /* the host's own script */
        "-netdev bridge,id=a,br=lan",
        "-nic tap,script=,downscript=no",
        "-netdev user,id=a,guestfwd=tcp:10.0.2.100:7-tcp:1.2.3.4:7,hostfwd=tcp::22-:22,tftp=/srv",
        "-netdev vde,id=a,sock=/run/vde",
        "-name script=/x -append plugin=/x -smbios path=/x",
    };
    static const char *const some[] = {
        "-netdev tap,id=a,script=/x",
        "-netdev tap,id=a,downscript=x,script=no",
        "-netdev tap,id=a,script=/x,script=no",
        "-netdev tap,id=a,noscript",
        "-netdev tap,id=a,script",
        "-nic tap,script=/x",
        "--nic tap,downscript=/x",
        "-netdev '{\"type\":\"tap\",\"id\":\"a\",\"script\":\"/x\"}'",
        "-netdev tap,id=a,helper=/x",
        "-netdev bridge,id=a,helper=/x",
        "-netdev user,id=a,guestfwd=tcp:10.0.2.100:7-cmd:/x",
        "-netdev '{\"type\":\"user\",\"id\":\"a\",\"guestfwd\":[{\"str\":\"tcp:1.1.1.1:7-cmd:/x\"}]}'",
        "-netdev user,id=a,guestfwd.0.str=tcp:10.0.2.100:7-cmd:/x",
        "-netdev user,id=a,smb=/x",
        "-netdev vde,id=a,sock=cmd:///x",
        "-netdev passt,id=a",
        "-netdev type=passt,id=a,path=/x",
        "-plugin /x",
        "-plugin file=/x,arg=1",
        "-semihosting",
        "-semihosting-config enable=on",
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(none); i++) {
        g_autofree char *text = g_strconcat("qemu -m 64 ", none[i], NULL);
        struct cmdline *line = parse(text, NULL);
        assert_non_null(line);
        if (line->runs)
            fail_msg("%s: %s", text, line->runs);
        cmdline_free(line);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(some); i++) {
        g_autofree char *text = g_strconcat("qemu -m 64 -netdev user,id=z ", some[i], NULL);
        struct cmdline *line = parse(text, NULL);
        assert_non_null(line);
        if (!line->runs)
            fail_msg("%s: not noted", text);
        /* As it was written, but for the shell's quotes and the second dash. */
        g_auto(GStrv) words = g_strsplit(some[i][1] == '-' ? some[i] + 1 : some[i], "'", -1);
        g_autofree char *written = g_strjoinv("", words);
        assert_string_equal(line->runs, written);
        cmdline_free(line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_option_that_runs_a_program_is_noted),
        cmocka_unit_test(test_sane_lines_are_taken),
        cmocka_unit_test(test_what_cannot_be_protected_is_refused_with_advice),
        cmocka_unit_test(test_released_frames_cannot_be_caught_again),
        cmocka_unit_test(test_only_the_standby_waits),
        cmocka_unit_test(test_only_a_cpu_of_the_host_ties_a_vm_to_it),
        cmocka_unit_test(test_a_processor_can_be_made_to_be_there_in_full),
        cmocka_unit_test(test_files_are_named_from_where_the_user_stood),
        cmocka_unit_test(test_a_list_of_accelerators_is_understood),
        cmocka_unit_test(test_a_file_that_qemu_may_find_elsewhere_is_named_where_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
