/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's VMs, with replicators that are shell scripts: what each is told is in a file of its own. The
 * peer answers when the test lets it (peer_prepare is wrapped by the linker).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/daemon.h"
#include "proto/framing.h"

#define DATA_PORT 4711

bool __wrap_peer_prepare(const char *host, uint16_t port, Understudy__Protection *protection,
                         uint16_t own_port, struct peer_standby *standby,
                         const struct files_progress *progress, GError **error);

static GMutex lock;
static GCond changed;
static bool asked, may_answer;

bool __wrap_peer_prepare(const char *host, uint16_t port, Understudy__Protection *protection,
                         uint16_t own_port, struct peer_standby *standby,
                         const struct files_progress *progress, GError **error)
{
    (void)host, (void)port, (void)protection, (void)own_port, (void)progress, (void)error;
    g_mutex_lock(&lock);
    asked = true;
    g_cond_broadcast(&changed);
    while (!may_answer)
        g_cond_wait(&changed, &lock);
    asked = may_answer = false;
    g_cond_broadcast(&changed);
    g_mutex_unlock(&lock);
    standby->at.address = g_strdup("127.0.0.1");
    standby->data_port = standby->udp_port = DATA_PORT;
    return true;
}

static char *dir;
static struct daemon_config config = {.port = 7070, .hook = (char *)"hook", .disk_plugin = (char *)"plugin"};

static char *path(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

/* A replicator that says that its guest runs alone, and writes down what it is told until it is let go. */
static void write_replicator(void)
{
    Understudy__Status status = UNDERSTUDY__STATUS__INIT;
    status.role = UNDERSTUDY__ROLE__ROLE_PRIMARY;
    status.state = UNDERSTUDY__STATE__STATE_CONNECTING;
    Understudy__Envelope message = UNDERSTUDY_ENVELOPE(STATUS, status, &status);
    guint32 len = (guint32)understudy__envelope__get_packed_size(&message);
    g_autofree guint8 *bytes = g_malloc(4 + len);
    guint32 head = GUINT32_TO_LE(len);
    memcpy(bytes, &head, sizeof head);
    understudy__envelope__pack(&message, bytes + 4);
    g_autofree char *says = path("says"), *program = path("replicator");
    g_autofree char *script =
        g_strdup_printf("#!/bin/sh\ncd %s\ncat says >&3\nn=1\nwhile [ -e told-$n ]; do n=$((n + 1)); done\n"
                        "exec cat <&3 >told-$n\n",
                        dir);
    assert_true(g_file_set_contents(says, (const char *)bytes, 4 + len, NULL));
    assert_true(g_file_set_contents(program, script, -1, NULL));
    assert_int_equal(g_chmod(program, 0700), 0);
    config.replicator = g_steal_pointer(&program);
}

static int set_up(void **state)
{
    (void)state;
    dir = g_dir_make_tmp("understudy-vm-XXXXXX", NULL);
    config.run_dir = config.state_dir = dir;
    write_replicator();
    vms_init(&config);
    return 0;
}

static int tear_down(void **state)
{
    const char *argv[] = {"rm", "-rf", dir, NULL};
    (void)state;
    vms_shutdown();
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
    g_clear_pointer(&config.replicator, g_free);
    g_clear_pointer(&dir, g_free);
    return 0;
}

static void start(const char *name)
{
    static char *argv[] = {(char *)"qemu-system-x86_64", (char *)"-accel", (char *)"tcg", (char *)"-m",
                           (char *)"64"};
    Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
    uint8_t token[16] = {0};
    protection.vm = (char *)name;
    protection.qemu_argv = argv;
    protection.n_qemu_argv = G_N_ELEMENTS(argv);
    protection.token.data = token;
    protection.token.len = sizeof token;
    const struct peer_standby standby = {.at.address = (char *)"127.0.0.1", .data_port = 1, .udp_port = 1};
    assert_true(vm_reserve(name, NULL));
    assert_true(vm_start(UNDERSTUDY__ROLE__ROLE_PRIMARY, &protection, "peer", 7070, NULL, &standby, NULL,
                         NULL, NULL));
}

static void await_asked(void)
{
    for (;;) {
        g_mutex_lock(&lock);
        bool now = asked;
        g_mutex_unlock(&lock);
        if (now)
            return;
        g_main_context_iteration(NULL, FALSE);
        g_usleep(1000);
    }
}

static void let_answer(void)
{
    g_mutex_lock(&lock);
    may_answer = true;
    g_cond_broadcast(&changed);
    while (may_answer)
        g_cond_wait(&changed, &lock);
    g_mutex_unlock(&lock);
}

/* Whether replicator n was told to go to the port; once it was told at least as much as `least` messages. */
static bool told_to_move(unsigned n, unsigned least)
{
    g_autofree char *name = g_strdup_printf("told-%u", n);
    g_autofree char *file = path(name);
    for (;;) {
        g_autofree char *bytes = NULL;
        gsize len = 0, at = 0;
        unsigned nmessages = 0;
        bool moved = false;
        if (g_file_get_contents(file, &bytes, &len, NULL)) {
            Understudy__Envelope *message = NULL;
            gssize used;
            while ((used = framing_parse((guint8 *)bytes + at, len - at, &message)) > 0) {
                at += (gsize)used;
                nmessages++;
                moved |= message->body_case == UNDERSTUDY__ENVELOPE__BODY_PEER_MOVED &&
                         message->peer_moved->data_port == DATA_PORT;
                understudy__envelope__free_unpacked(message, NULL);
            }
        }
        if (nmessages >= least)
            return moved;
        g_main_context_iteration(NULL, FALSE);
        g_usleep(1000);
    }
}

static void test_a_vm_that_runs_alone_is_told_of_its_new_standby(void **state)
{
    (void)state;
    start("web");
    await_asked();
    let_answer();
    assert_true(told_to_move(1, 2));
}

/* The old VM's standby is no standby of the new one. */
static void test_a_new_vm_of_that_name_does_not_get_the_old_ones_standby(void **state)
{
    (void)state;
    start("web");
    await_asked();
    vm_forget("web");
    start("web");
    let_answer();
    /* The new one asks for itself, and it is asked only after the first answer was heard: tasks are answered
     * in order. What it is told then is the second thing that it hears. */
    await_asked();
    vm_reset_figures("web");
    assert_false(told_to_move(2, 2));
    let_answer();
    assert_true(told_to_move(2, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_vm_that_runs_alone_is_told_of_its_new_standby, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_new_vm_of_that_name_does_not_get_the_old_ones_standby, set_up,
                                        tear_down),
    };
    vm_table_enter();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
