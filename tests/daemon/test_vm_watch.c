/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When the pair's network is looked at, and what becomes of what is found. The linker puts the test in the
 * place of the clock, the timer, the VMs and the look itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <gio/gio.h>
#include <string.h>

#include "daemon/daemon.h"

EXPORTED guint __wrap_g_timeout_add_seconds(guint interval, GSourceFunc function, gpointer data);
EXPORTED gint64 __wrap_g_get_monotonic_time(void);
GPtrArray *__wrap_pair_network_faults(const Understudy__Protection *protection, const char *host,
                                      uint16_t port, bool probe, bool moves_only);
void __wrap_vms_each(void (*each)(const struct vm_view *vm, void *opaque), void *opaque);
void __wrap_vm_set_warnings(const char *name, const GPtrArray *warnings);

static GSourceFunc timer;
static gint64 now_us = 1;
static struct vm_view vm; /* name NULL: there is none */

/* Of the looks, which are on threads of their own. */
static GMutex lock;
static GCond changed;
static unsigned nlooks;
static bool may_end, probed, with_peer;
static unsigned nfaults;

/* Of the main thread. */
static unsigned nwarned, nwarnings;

guint __wrap_g_timeout_add_seconds(guint interval, GSourceFunc function, gpointer data)
{
    (void)interval, (void)data;
    timer = function;
    return 1;
}

gint64 __wrap_g_get_monotonic_time(void)
{
    return now_us;
}

GPtrArray *__wrap_pair_network_faults(const Understudy__Protection *protection, const char *host,
                                      uint16_t port, bool probe, bool moves_only)
{
    GPtrArray *faults = g_ptr_array_new_with_free_func(g_free);
    assert_string_equal(protection->vm, "web");
    assert_false(moves_only);
    g_mutex_lock(&lock);
    probed = probe;
    with_peer = host && strcmp(host, "peer") == 0 && port == 7070;
    nlooks++;
    g_cond_broadcast(&changed);
    while (!may_end)
        g_cond_wait(&changed, &lock);
    for (unsigned i = 0; i < nfaults; i++)
        g_ptr_array_add(faults, g_strdup("the bridge is down"));
    g_mutex_unlock(&lock);
    return faults;
}

void __wrap_vms_each(void (*each)(const struct vm_view *view, void *opaque), void *opaque)
{
    if (vm.name)
        each(&vm, opaque);
}

void __wrap_vm_set_warnings(const char *name, const GPtrArray *warnings)
{
    assert_string_equal(name, "web");
    nwarned++;
    nwarnings = warnings->len;
}

static unsigned looks(void)
{
    g_mutex_lock(&lock);
    unsigned n = nlooks;
    g_mutex_unlock(&lock);
    return n;
}

static void let_end(bool may)
{
    g_mutex_lock(&lock);
    may_end = may;
    g_cond_broadcast(&changed);
    g_mutex_unlock(&lock);
}

/* The timer runs, and the look that it begins ends. Whether frames were sent. */
static bool look(void)
{
    unsigned before = nwarned;
    now_us += 2 * G_USEC_PER_SEC;
    timer(NULL);
    while (nwarned == before)
        g_main_context_iteration(NULL, TRUE);
    return probed;
}

static int set_up(void **state)
{
    static Understudy__Protection protection = UNDERSTUDY__PROTECTION__INIT;
    (void)state;
    protection.vm = (char *)"web";
    vm = (struct vm_view){.name = "web",
                          .protection = &protection,
                          .peer_host = "peer",
                          .peer_port = 7070,
                          .runs_here = true,
                          .has_standby = true};
    nlooks = nwarned = nwarnings = nfaults = 0;
    let_end(true);
    vm_watch_start();
    return 0;
}

static void test_frames_are_sent_when_the_standby_is_new_and_seldom_after(void **state)
{
    (void)state;
    assert_true(look());
    assert_true(with_peer);
    assert_false(look());
    assert_false(look());
    now_us += 300 * G_USEC_PER_SEC;
    assert_true(look());
    assert_false(look());
    vm.has_standby = false;
    assert_false(look());
    assert_false(with_peer); /* this host's part alone */
    vm.has_standby = true;
    assert_true(look());
    assert_false(look());
}

static void test_what_is_wrong_is_told_and_looked_at_until_it_is_well(void **state)
{
    (void)state;
    look();
    assert_int_equal(nwarnings, 0);
    nfaults = 3;
    assert_false(look());
    assert_int_equal(nwarnings, 3);
    assert_true(look());
    assert_true(look());
    nfaults = 0;
    assert_true(look());
    assert_int_equal(nwarnings, 0);
    assert_false(look());
}

static void test_a_look_that_takes_long_is_the_vm_s_only_one(void **state)
{
    (void)state;
    let_end(false);
    timer(NULL);
    while (looks() == 0)
        g_usleep(500);
    timer(NULL);
    timer(NULL);
    let_end(true);
    while (nwarned == 0)
        g_main_context_iteration(NULL, TRUE);
    assert_int_equal(looks(), 1);
    look();
    assert_int_equal(looks(), 2);
}

/* It is begun anew with the next VM of that name. */
static void test_a_vm_that_is_gone_is_forgotten_once_its_look_has_ended(void **state)
{
    const char *name = vm.name;
    (void)state;
    let_end(false);
    timer(NULL);
    while (looks() == 0)
        g_usleep(500);
    vm.name = NULL;
    timer(NULL);
    let_end(true);
    while (nwarned == 0)
        g_main_context_iteration(NULL, TRUE);
    timer(NULL);
    vm.name = name;
    assert_true(look());
    vm.name = NULL;
    timer(NULL);
    vm.name = name;
    assert_true(look());
}

static void test_without_a_peer_s_port_this_host_is_looked_at(void **state)
{
    (void)state;
    vm.peer_port = 0;
    assert_false(look());
    assert_false(with_peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_frames_are_sent_when_the_standby_is_new_and_seldom_after, set_up),
        cmocka_unit_test_setup(test_what_is_wrong_is_told_and_looked_at_until_it_is_well, set_up),
        cmocka_unit_test_setup(test_a_look_that_takes_long_is_the_vm_s_only_one, set_up),
        cmocka_unit_test_setup(test_a_vm_that_is_gone_is_forgotten_once_its_look_has_ended, set_up),
        cmocka_unit_test_setup(test_without_a_peer_s_port_this_host_is_looked_at, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
