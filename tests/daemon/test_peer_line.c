/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a command line may name that a peer sends: by the rule itself, and by the real daemon's port for
 * peers, where whoever reaches it may ask for a standby. test_peer_line UNDERSTUDYD
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/stream.h"
#include "daemon/daemon.h"
#include "daemon/trust/roles.h"
#include "daemon/trust/trust.h"
#include "hv-hooks/line.h"
#include "proto/framing.h"
#include "replicator/transport/tcp.h"

#define TIMEOUT_MS 30000
#define PORT       7070

static const char *daemon_program;
static char *dir;                /* with its links resolved */
static char *host;               /* an address of this process alone */
static struct trust *peer_trust; /* as the daemon's peer */
static pid_t daemon_pid;

static char *in_dir(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

/* A program that says that it is a QEMU, and leaves a file that shows that it ran. */
static void make_program(const char *name)
{
    g_autofree char *path = in_dir(name), *folder = g_path_get_dirname(path);
    g_autofree char *text = g_strdup_printf("#!/bin/sh\n: >%s/ran\necho 'QEMU emulator version 7.2'\n", dir);
    assert_int_equal(g_mkdir_with_parents(folder, 0700), 0);
    assert_true(g_file_set_contents(path, text, -1, NULL));
    assert_int_equal(g_chmod(path, 0700), 0);
}

static void make_link(const char *to, const char *name)
{
    g_autofree char *path = in_dir(name), *target = in_dir(to), *folder = g_path_get_dirname(path);
    assert_int_equal(g_mkdir_with_parents(folder, 0700), 0);
    assert_int_equal(symlink(target, path), 0);
}

static bool has_run(void)
{
    g_autofree char *path = in_dir("ran");
    return g_file_test(path, G_FILE_TEST_EXISTS);
}

static int set_up(void **state)
{
    (void)state;
    g_autofree char *made = g_dir_make_tmp("us-peer-XXXXXX", NULL);
    dir = realpath(made, NULL);
    host =
        g_strdup_printf("127.%u.%u.%u", 1 + (getpid() >> 16) % 250u, getpid() >> 8 & 255u, getpid() & 255u);
    daemon_pid = 0;
    make_program("bin/qemu-system-x86_64");
    make_program("evil/anything");
    return 0;
}

static int tear_down(void **state)
{
    const char *argv[] = {"rm", "-rf", dir, NULL};
    (void)state;
    if (daemon_pid > 0) {
        kill(daemon_pid, SIGTERM);
        waitpid(daemon_pid, NULL, 0);
    }
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
    free(dir);
    g_clear_pointer(&host, g_free);
    g_clear_pointer(&peer_trust, trust_free);
    return 0;
}

/* words, with DIR for the test's folder. */
static char *with_dir(const char *words)
{
    g_auto(GStrv) parts = g_strsplit(words, "DIR", -1);
    return g_strjoinv(dir, parts);
}

/* patterns: split at spaces; NULL: the usual ones. */
static bool is_allowed(const char *program, const char *patterns, GError **error)
{
    g_autofree char *path = with_dir(program), *list = patterns ? with_dir(patterns) : NULL;
    g_auto(GStrv) allowed = list ? g_strsplit(list, " ", -1) : NULL;
    const char *argv[] = {path, "-m", "64", NULL};
    struct line *line = line_parse(argv, error);
    bool is = line && peer_line_is_allowed(line, allowed, error);
    line_free(line);
    return is;
}

static void test_a_program_is_allowed_by_its_name_and_by_what_it_is(void **state)
{
    static const struct {
        const char *program, *patterns;
        bool allowed;
    } cases[] = {
        {"DIR/bin/qemu-system-x86_64", "DIR/bin/qemu-system-*", true},
        {"DIR/bin/qemu-system-x86_64", "/nowhere/* DIR/bin/qemu-system-x86_64", true},
        {"DIR/bin/qemu-system-x86_64", "/nowhere/*", false},
        {"DIR/bin/qemu-system-x86_64", "DIR/*", false}, /* a star is one name */
        {"DIR/bin/qemu-system-x86_64", NULL, false},
        {"DIR/evil/anything", "DIR/bin/qemu-system-*", false},
        {"/bin/sh", NULL, false},
        {"/usr/bin/env", NULL, false},
        {"DIR/bin/qemu-system-no/../../evil/anything", "DIR/bin/qemu-system-*", false},
        {"DIR/bin/../evil/anything", "DIR/bin/*", false},
        {"DIR/bin/../bin/qemu-system-x86_64", "DIR/bin/*", true},
        /* A link of a peer's choice to an allowed program may lead elsewhere when it is started. */
        {"DIR/evil/link", "DIR/bin/qemu-system-*", false},
        /* A link with an allowed name. */
        {"DIR/bin/qemu-system-evil", "DIR/bin/qemu-system-*", false},
        {"DIR/bin/qemu-system-evil", "DIR/bin/qemu-system-* DIR/evil/anything", true},
        /* An alternative: a link of the same folder. */
        {"DIR/bin/qemu-system-i386", "DIR/bin/qemu-system-*", true},
        {"DIR/bin/kvm", "DIR/bin/qemu-system-*", false},
        {"DIR/bin/kvm", "DIR/bin/qemu-system-* DIR/bin/kvm", true},
        /* A folder that is a link, as /bin is one: in the program's name, and in the pattern. */
        {"DIR/merged/qemu-system-x86_64", "DIR/bin/qemu-system-*", true},
        {"DIR/bin/qemu-system-x86_64", "DIR/merged/qemu-system-*", true},
        {"bin/qemu-system-x86_64", "DIR/bin/qemu-system-*", false},
        {"../bin/qemu-system-x86_64", "*", false},
        {"qemu-system-in-no-folder", "DIR/bin/*", false},
    };
    (void)state;
    g_autofree char *folder = in_dir("bin/qemu-system-no");
    assert_int_equal(g_mkdir_with_parents(folder, 0700), 0);
    make_link("bin/qemu-system-x86_64", "evil/link");
    make_link("evil/anything", "bin/qemu-system-evil");
    make_link("bin/qemu-system-x86_64", "bin/qemu-system-i386");
    make_link("bin/qemu-system-x86_64", "bin/kvm");
    make_link("bin", "merged");
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        if (is_allowed(cases[i].program, cases[i].patterns, &error) != cases[i].allowed)
            fail_msg("%s, of %s: %s", cases[i].program, cases[i].patterns ? cases[i].patterns : "the usual",
                     error ? error->message : "allowed");
    }
    assert_false(has_run());
}

static void test_a_name_alone_is_looked_for_in_the_path(void **state)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_strdup(g_getenv("PATH")), *bin = in_dir("bin"), *evil = in_dir("evil");
    (void)state;
    make_program("evil/qemu-system-x86_64");
    g_setenv("PATH", bin, TRUE);
    bool good = is_allowed("qemu-system-x86_64", "DIR/bin/qemu-system-*", NULL);
    g_setenv("PATH", evil, TRUE);
    bool bad = is_allowed("qemu-system-x86_64", "DIR/bin/qemu-system-*", &error);
    g_setenv("PATH", path, TRUE);
    assert_true(good);
    assert_false(bad);
    g_autofree char *named = in_dir("evil/qemu-system-x86_64");
    assert_non_null(strstr(error->message, named));
    assert_non_null(strstr(error->message, "--qemu"));
}

static void test_qemu_is_the_program_that_is_allowed_by_default(void **state)
{
    g_auto(GStrv) usual = line_peer_programs();
    (void)state;
    assert_int_equal(g_strv_length(usual), 1);
    assert_string_equal(usual[0], "/usr/bin/qemu-system-*");
}

/* ---- the daemon ---- */

/* The daemon and this program, which is its peer, trust each other. */
static void let(struct trust *trust, const struct trust *other)
{
    struct trusted known = {.name = "other", .may = MAY_USUAL};
    memcpy(known.key, trust_own_key(other), KEY_LEN);
    assert_true(store_add(trust_store(trust), &known, NULL));
}

static void start_daemon(const char *qemu)
{
    g_autofree char *etc = in_dir("etc"), *own = in_dir("peer");
    struct trust *daemon_trust = trust_open(etc, NULL);
    peer_trust = trust_open(own, NULL);
    assert_non_null(daemon_trust);
    assert_non_null(peer_trust);
    let(daemon_trust, peer_trust);
    let(peer_trust, daemon_trust);
    trust_free(daemon_trust);
    g_autofree char *listen = g_strdup_printf("%s:%u", host, PORT), *pattern = qemu ? with_dir(qemu) : NULL;
    const char *argv[] = {daemon_program,
                          "--run-dir",
                          dir,
                          "--state-dir",
                          dir,
                          "--hooks-dir",
                          dir,
                          "--etc-dir",
                          etc,
                          "--listen",
                          listen,
                          pattern ? "--qemu" : NULL,
                          pattern,
                          NULL};
    daemon_pid = fork();
    if (daemon_pid == 0) {
        execv(daemon_program, (char *const *)argv);
        _exit(127);
    }
}

static int connect_to_daemon(void)
{
    gint64 until = g_get_monotonic_time() + TIMEOUT_MS * 1000;
    for (;;) {
        int fd = -1;
        if (transport_tcp_connect(host, "7070", 1000, &fd, NULL) == 0)
            return fd;
        if (g_get_monotonic_time() > until)
            fail_msg("the daemon does not listen");
        g_usleep(10000);
    }
}

/* What the daemon answers to a peer that wants a standby with this line: a refusal. GLib string. */
static char *refusal_of(const char *words)
{
    g_autofree char *text = with_dir(words);
    g_auto(GStrv) argv = g_strsplit(text, " ", -1);
    uint8_t token[16] = {1}, secret[32] = {1};
    Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
    Understudy__PrepareStandby prepare = UNDERSTUDY__PREPARE_STANDBY__INIT;
    protection.vm = (char *)"web";
    protection.qemu_argv = argv;
    protection.n_qemu_argv = g_strv_length(argv);
    protection.ram_bytes = 64 << 20;
    protection.nnics = 1;
    protection.token.data = token;
    protection.token.len = sizeof token;
    protection.secret.data = secret;
    protection.secret.len = sizeof secret;
    protection.term = 2;
    protection.epoch_ms = 20;
    protection.deadline_ms = 20;
    protection.silence_ms = 300;
    protection.heartbeat_ms = 30;
    protection.tracker = (char *)"auto";
    protection.transport = (char *)"tcp";
    protection.qemu_version = (char *)"99.0"; /* so that a program which ran is refused, too */
    prepare.protection = &protection;
    prepare.primary_daemon = (char *)"7070";
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(PREPARE_STANDBY, prepare_standby, &prepare);
    g_autoptr(GError) error = NULL;
    const struct door *door = trust_door(peer_trust);
    struct stream *stream = door->dial(door->opaque, connect_to_daemon(), host,
                                       g_get_monotonic_time() + TIMEOUT_MS * 1000, &error);
    if (!stream)
        fail_msg("%s: %s", words, error->message);
    Understudy__Envelope *answer = framing_call(stream, &request, TIMEOUT_MS, &error);
    stream_close(stream);
    if (!answer)
        fail_msg("%s: %s", words, error->message);
    assert_int_equal(answer->body_case, UNDERSTUDY__ENVELOPE__BODY_ANSWER);
    assert_false(answer->answer->ok);
    char *message = g_strdup(answer->answer->message);
    understudy__envelope__free_unpacked(answer, NULL);
    return message;
}

static void test_a_peer_s_program_is_not_run_unless_the_administrator_says_so(void **state)
{
    (void)state;
    start_daemon(NULL);
    g_autofree char *refusal = refusal_of("DIR/bin/qemu-system-x86_64 -m 64 -nodefaults");
    g_autofree char *shell = refusal_of("/bin/sh -m 64 -nodefaults");
    assert_non_null(strstr(refusal, "/bin/qemu-system-x86_64"));
    assert_non_null(strstr(refusal, "--qemu"));
    assert_non_null(strstr(shell, "/bin/sh"));
    assert_non_null(strstr(shell, "--qemu"));
    assert_false(has_run());
}

static void test_an_allowed_program_is_asked_for_its_version(void **state)
{
    (void)state;
    start_daemon("DIR/bin/qemu-*");
    g_autofree char *refusal = refusal_of("DIR/bin/qemu-system-x86_64 -m 64 -nodefaults");
    assert_non_null(strstr(refusal, "QEMU 7.2"));
    assert_true(has_run());
}

static void test_a_peer_s_script_is_refused_by_the_option_s_name(void **state)
{
    (void)state;
    start_daemon("DIR/bin/qemu-*");
    g_autofree char *refusal =
        refusal_of("DIR/bin/qemu-system-x86_64 -m 64 -netdev tap,id=a,script=DIR/evil/anything");
    g_autofree char *plugin = refusal_of("DIR/bin/qemu-system-x86_64 -m 64 -nic user -plugin DIR/evil/p.so");
    g_autofree char *down = refusal_of("DIR/bin/qemu-system-x86_64 -m 64 -nic tap,script=no,downscript=x");
    assert_non_null(strstr(refusal, "-netdev tap,id=a,script="));
    assert_non_null(strstr(plugin, "-plugin "));
    assert_non_null(strstr(down, "-nic tap,script=no,downscript=x"));
    assert_false(has_run());
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_program_is_allowed_by_its_name_and_by_what_it_is, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_name_alone_is_looked_for_in_the_path, set_up, tear_down),
        cmocka_unit_test(test_qemu_is_the_program_that_is_allowed_by_default),
        cmocka_unit_test_setup_teardown(test_a_peer_s_program_is_not_run_unless_the_administrator_says_so,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_allowed_program_is_asked_for_its_version, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_peer_s_script_is_refused_by_the_option_s_name, set_up,
                                        tear_down),
    };
    if (argc != 2)
        return 2;
    daemon_program = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
