/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon with a second hypervisor in the table of command lines (fake_line.h): what it finds out about a
 * VM's network, files and disks, and the line that a standby is started with, are that hypervisor's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>

#include "daemon/daemon.h"
#include "daemon/disk/disk_setup.h"
#include "daemon/network/network.h"
#include "hv-hooks/line.h"
#include "proto/framing.h"
#include "tests/fakevm/fake_line.h"

static char *dir;
static struct daemon_config config = {.port = 7070, .hook = (char *)"hook", .disk_plugin = (char *)"plugin"};

G_GNUC_PRINTF(1, 2) static void shell(const char *format, ...)
{
    va_list args;
    int status = -1;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    const char *const argv[] = {"sh", "-c", text, NULL};
    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status,
                      NULL) ||
        status != 0)
        fail_msg("%s", text);
}

static int set_up(void **state)
{
    (void)state;
    dir = g_dir_make_tmp("understudy-line-XXXXXX", NULL);
    config.run_dir = config.state_dir = dir;
    config.replicator = g_build_filename(dir, "replicator", NULL);
    /* It writes down what it is told until it is let go. */
    g_autofree char *script = g_strdup_printf("#!/bin/sh\nexec cat <&3 >%s/told\n", dir);
    assert_true(g_file_set_contents(config.replicator, script, -1, NULL));
    assert_int_equal(g_chmod(config.replicator, 0700), 0);
    vms_init(&config);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    vms_shutdown();
    shell("rm -rf %s", dir);
    g_clear_pointer(&config.replicator, g_free);
    g_clear_pointer(&dir, g_free);
    return 0;
}

/* words: with DIR for the test's folder. GLib strv. */
static char **words_of(const char *words)
{
    char **argv = g_strsplit(words, " ", -1);
    for (char **word = argv; *word; word++) {
        g_auto(GStrv) parts = g_strsplit(*word, "DIR", -1);
        g_free(*word);
        *word = g_strjoinv(dir, parts);
    }
    return argv;
}

static struct line *line_of(const char *words)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) argv = words_of(words);
    struct line *line = line_parse((const char *const *)argv, &error);
    if (!line)
        fail_msg("%s: %s", words, error->message);
    return line;
}

static void test_the_program_s_name_chooses_the_hypervisor(void **state)
{
    static const struct {
        const char *words;
        const struct line_ops *ops;
    } cases[] = {
        {"fakevm memory:64", &line_ops_fakevm},
        {"/opt/fakevm/bin/fakevm2 memory:64", &line_ops_fakevm},
        {"qemu-system-x86_64 -m 64", &line_ops_qemu},
        {"/usr/libexec/qemu-kvm -m 64", &line_ops_qemu},
        {"/fakevm/our-own-build -m 64", &line_ops_qemu}, /* nobody else's */
        {"fakevm-not -m 64", &line_ops_qemu},
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct line *line = line_of(cases[i].words);
        assert_ptr_equal(line->ops, cases[i].ops);
        assert_int_equal(line->ram_bytes, 64 << 20);
        line_free(line);
    }
    assert_string_equal(line_default_program()->name, "qemu-system-x86_64");
}

static void test_the_network_is_that_of_the_line(void **state)
{
    struct line *line = line_of("fakevm memory:64 tap:lan@tap7 tap:wan@tap9");
    g_autoptr(GPtrArray) taps = network_taps(line);
    (void)state;
    assert_int_equal(taps->len, 2);
    const Understudy__NetworkTap *tap = g_ptr_array_index(taps, 1);
    assert_string_equal(tap->id, "wan");
    assert_string_equal(tap->ifname, "tap9");
    assert_string_equal(tap->bridge, "");
    assert_false(tap->scripted);
    line_free(line);
}

static void test_files_are_those_of_the_line_and_what_its_disks_stand_on(void **state)
{
    (void)state;
    shell("cd %s && qemu-img create -q -f raw base 1M && "
          "qemu-img create -q -f qcow2 -b %s/base -F raw root 1M && echo fw >b.fw",
          dir, dir);
    struct line *line = line_of("fakevm memory:64 firmware:DIR/b.fw disk:root@DIR/root");
    g_autoptr(GPtrArray) paths = pair_files(line, NULL);
    g_autofree char *firmware = g_build_filename(dir, "b.fw", NULL);
    g_autofree char *base = g_build_filename(dir, "base", NULL);
    assert_int_equal(paths->len, 2);
    assert_string_equal(g_ptr_array_index(paths, 0), firmware);
    assert_string_equal(g_ptr_array_index(paths, 1), base);
    line_free(line);
}

static void test_a_refused_line_is_refused_in_the_hypervisor_s_words(void **state)
{
    g_autoptr(GError) error = NULL;
    char *argv[] = {(char *)"fakevm", (char *)"memory:64", (char *)"firmware:boot.bin"};
    Understudy__PairRequest request = UNDERSTUDY__PAIR_REQUEST__INIT;
    g_autoptr(GPtrArray) vms = g_ptr_array_new();
    (void)state;
    request.peer = (char *)"127.0.0.1:1";
    request.cwd = (char *)"/home/u";
    request.argv = argv;
    request.n_argv = G_N_ELEMENTS(argv);
    assert_null(pair_findings(&request, vms, &error));
    assert_string_equal(error->message, "fakevm: /home/u/boot.bin: a firmware's name ends in .fw");
}

static void test_the_accelerator_is_one_of_the_line_s(void **state)
{
    static const char *const lines[][2] = {
        {"fakevm memory:64", "slow"},
        {"fakevm memory:64 speed:kvm", "kvm"},
        {"fakevm memory:64 speed:any", NULL}, /* as the host has it */
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_auto(GStrv) argv = words_of(lines[i][0]);
        Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
        protection.qemu_argv = argv;
        protection.n_qemu_argv = g_strv_length(argv);
        g_autofree char *accel = host_accel_of(&protection);
        assert_string_equal(accel, lines[i][1] ? lines[i][1] : host_has_kvm() ? "kvm" : "slow");
    }
}

static void test_versions_are_compared_by_the_program_s_own_rules(void **state)
{
    g_autoptr(GError) error = NULL;
    struct line *line = line_of("fakevm2 memory:64");
    g_autofree char *version = line_version(line->program, &error);
    g_autofree char *warning = line_version_warning(line->program, "1", "2");
    g_autofree char *qemus = line_version_warning("qemu-system-x86_64", "7.2.1", "7.2.2");
    (void)state;
    assert_string_equal(version, "2");
    assert_string_equal(warning, "fakevm 1 and 2");
    assert_non_null(strstr(qemus, "cannot come back"));
    assert_true(line_can_move(line, "2", version, NULL));
    assert_false(line_can_move(line, "1", version, &error));
    assert_string_equal(error->message, "fakevm: 2: only equal versions exchange guests");
    line_free(line);
}

/* The daemon kills only what it knows as its own by its arguments. */
static void test_a_program_is_known_by_the_line_that_it_was_built(void **state)
{
    static const char theirs[] = "/bin/sh\0/opt/fakevm\0memory:64\0memory-of:understudy\0wait:";
    static const char qemus[] = "qemu-system-x86_64\0-object\0memory-backend-file,id=understudy-ram";
    static const char others[] = "fakevm\0memory:64";
    (void)state;
    assert_true(line_was_built(theirs, sizeof theirs));
    assert_true(line_was_built(qemus, sizeof qemus));
    assert_false(line_was_built(others, sizeof others));
}

static void test_the_guest_s_end_is_what_the_line_says(void **state)
{
    const char *const stands[] = {"fakevm", "memory:64", "end:stand", NULL};
    const char *const ends[] = {"fakevm", "-no-shutdown", NULL}; /* a word of QEMU's */
    struct run_actions actions;
    (void)state;
    line_run_actions(stands, &actions);
    assert_int_equal(run_verdict_of(&actions, RUN_EVENT_SHUTDOWN), RUN_STANDS);
    assert_int_equal(run_verdict_of(&actions, RUN_EVENT_QUIT), RUN_LOST);
    line_run_actions(ends, &actions);
    assert_int_equal(run_verdict_of(&actions, RUN_EVENT_SHUTDOWN), RUN_ENDED);
}

/* The order to start that the replicator was given. */
static Understudy__Envelope *await_start(void)
{
    g_autofree char *file = g_build_filename(dir, "told", NULL);
    for (;;) {
        g_autofree char *bytes = NULL;
        gsize len = 0;
        Understudy__Envelope *message = NULL;
        if (g_file_get_contents(file, &bytes, &len, NULL) &&
            framing_parse((guint8 *)bytes, len, &message) > 0) {
            assert_int_equal(message->body_case, UNDERSTUDY__ENVELOPE__BODY_START);
            return message;
        }
        g_main_context_iteration(NULL, FALSE);
        g_usleep(1000);
    }
}

static void test_a_standby_is_started_with_the_line_that_the_hypervisor_builds(void **state)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) argv = words_of("fakevm memory:64 disk:root@DIR/root processor:own disk:data@DIR/data%raw");
    g_auto(GStrv) want =
        words_of("fakevm memory:64 processor:own disk:root@DIR/web/us-disk-0%qcow2 "
                 "disk:data@DIR/web/us-disk-1%raw memory-of:understudy processor:whole wait:");
    Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
    Understudy__RunRequest request = UNDERSTUDY__RUN_REQUEST__INIT;
    uint8_t token[16] = {0};
    (void)state;
    shell("cd %s && qemu-img create -q -f qcow2 root 1M && qemu-img create -q -f raw data 1M", dir);
    protection.vm = (char *)"web";
    protection.qemu_argv = argv;
    protection.n_qemu_argv = g_strv_length(argv);
    protection.token.data = token;
    protection.token.len = sizeof token;
    protection.cpu_enforce = true;
    struct line *line = host_line(&protection, &error);
    assert_non_null(line);
    assert_string_equal(line->cpu_of_host, "processor:own");
    if (!disks_describe(&protection, line, &request, &error))
        fail_msg("%s", error->message);
    line_free(line);
    assert_int_equal(protection.n_disks, 2);
    assert_string_equal(protection.disks[0]->format, "qcow2");
    assert_true(vm_reserve("web", NULL));
    assert_true(
        vm_start(UNDERSTUDY__ROLE__ROLE_SECONDARY, &protection, "peer", 7070, NULL, NULL, NULL, NULL, NULL));
    Understudy__Envelope *message = await_start();
    assert_int_equal(message->start->n_argv, g_strv_length(want));
    for (size_t i = 0; want[i]; i++)
        assert_string_equal(message->start->argv[i], want[i]);
    assert_int_equal(message->start->n_trial_argv, 0); /* of equal versions there is no trial */
    understudy__envelope__free_unpacked(message, NULL);
    disks_clear(&protection);
}

/* Asked for by a host whose program is of another version than this one's. */
static bool start_on_trial(const char *words, GError **error)
{
    g_auto(GStrv) argv = words_of(words);
    Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
    Understudy__RunRequest request = UNDERSTUDY__RUN_REQUEST__INIT;
    uint8_t token[16] = {0};
    shell("cd %s && qemu-img create -q -f qcow2 root 1M && qemu-img create -q -f raw data 2M", dir);
    protection.vm = (char *)"web";
    protection.qemu_argv = argv;
    protection.n_qemu_argv = g_strv_length(argv);
    protection.token.data = token;
    protection.token.len = sizeof token;
    protection.qemu_version = (char *)"2";
    struct line *line = host_line(&protection, error);
    assert_non_null(line);
    assert_true(disks_describe(&protection, line, &request, error));
    line_free(line);
    assert_true(vm_reserve("web", NULL));
    protection.tried_for = (char *)"1";
    bool started =
        vm_start(UNDERSTUDY__ROLE__ROLE_SECONDARY, &protection, "peer", 7070, NULL, NULL, NULL, NULL, error);
    disks_clear(&protection);
    return started;
}

static void test_a_standby_of_another_version_is_tried_with_the_line_that_the_hypervisor_builds(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    if (!start_on_trial("fakevm2 memory:64 disk:root@DIR/root disk:data@DIR/data%raw", &error))
        fail_msg("%s", error->message);
    g_auto(GStrv) want = words_of("fakevm2 memory:64 disk:nothing@1048576 disk:nothing@2097152 "
                                  "monitor:DIR/web/us-trial");
    Understudy__Envelope *message = await_start();
    assert_int_equal(message->start->n_trial_argv, g_strv_length(want));
    for (size_t i = 0; want[i]; i++)
        assert_string_equal(message->start->trial_argv[i], want[i]);
    understudy__envelope__free_unpacked(message, NULL);
}

static void test_a_standby_that_cannot_be_tried_is_refused_with_what_to_do(void **state)
{
    g_autoptr(GError) error = NULL;
    (void)state;
    assert_false(start_on_trial("fakevm2 memory:64 processor:own", &error));
    assert_non_null(strstr(error->message, "install the same version on both"));
    assert_non_null(strstr(error->message, "fakevm: processor:own: it cannot be there twice"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_program_s_name_chooses_the_hypervisor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_network_is_that_of_the_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files_are_those_of_the_line_and_what_its_disks_stand_on, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_refused_line_is_refused_in_the_hypervisor_s_words, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_accelerator_is_one_of_the_line_s, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_versions_are_compared_by_the_program_s_own_rules, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_program_is_known_by_the_line_that_it_was_built, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_guest_s_end_is_what_the_line_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_standby_is_started_with_the_line_that_the_hypervisor_builds,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_a_standby_of_another_version_is_tried_with_the_line_that_the_hypervisor_builds, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(test_a_standby_that_cannot_be_tried_is_refused_with_what_to_do,
                                        set_up, tear_down),
    };
    vm_table_enter();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
