/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks every two seconds what would fail after a takeover of each VM, so that status warns before: this
 * host's part of the guest's network and, if the guest runs here and the peer stands by, the peer's part too.
 * Test frames are sent from bridge to bridge when the standby is new, every five minutes, and as long as
 * something is wrong. Each check runs on a thread of its own, at most one a VM at a time. Main thread only.
 */
#include <gio/gio.h>

#include "daemon/daemon.h"
#include "daemon/task_thread.h"

#define LOOK_S  2
#define PROBE_S 300

struct watch {
    bool looking, again; /* again: the last look found something */
    gint64 probed_us;    /* with this standby; 0: not yet */
};
static GHashTable *watches; /* VM's name -> struct watch */

struct look {
    char *name, *host;
    uint16_t port;
    bool probe;
    Understudy__Protection *protection;
};

static void free_look(gpointer opaque)
{
    struct look *look = opaque;
    g_free(look->name);
    g_free(look->host);
    understudy__protection__free_unpacked(look->protection, NULL);
    g_free(look);
}

static void look_on_thread(GTask *task, gpointer source, gpointer opaque, GCancellable *cancellable)
{
    const struct look *look = opaque;
    (void)source;
    (void)cancellable;
    g_task_return_pointer(task,
                          pair_network_faults(look->protection, look->host, look->port, look->probe, false),
                          (GDestroyNotify)g_ptr_array_unref);
}

static void on_looked(GObject *source, GAsyncResult *result, gpointer opaque)
{
    const struct look *look = g_task_get_task_data(G_TASK(result));
    struct watch *watch = g_hash_table_lookup(watches, look->name);
    g_autoptr(GPtrArray) faults = g_task_propagate_pointer(G_TASK(result), NULL);
    (void)source;
    (void)opaque;
    if (watch)
        watch->looking = false;
    if (!faults) /* no thread could be started: the last findings stay */
        return;
    if (watch)
        watch->again = faults->len > 0;
    vm_set_warnings(look->name, faults);
}

static void look_at(const struct vm_view *vm, void *opaque)
{
    GHashTable *seen = opaque;
    struct watch *watch = g_hash_table_lookup(watches, vm->name);
    if (!watch)
        g_hash_table_insert(watches, g_strdup(vm->name), watch = g_new0(struct watch, 1));
    g_hash_table_add(seen, g_strdup(vm->name));
    if (!vm->has_standby)
        watch->probed_us = 0;
    if (watch->looking)
        return;
    gint64 now = g_get_monotonic_time();
    struct look *look = g_new0(struct look, 1);
    look->name = g_strdup(vm->name);
    look->protection = protection_copy(vm->protection);
    if (vm->has_standby && vm->peer_host && vm->peer_port) {
        look->host = g_strdup(vm->peer_host);
        look->port = vm->peer_port;
        look->probe = watch->again || !watch->probed_us || now - watch->probed_us > PROBE_S * G_USEC_PER_SEC;
    }
    if (look->probe)
        watch->probed_us = now;
    watch->looking = true;
    g_autoptr(GTask) task = g_task_new(NULL, NULL, on_looked, NULL);
    g_task_set_task_data(task, look, free_look);
    task_thread_run(task, look_on_thread);
}

static gboolean is_gone(gpointer name, gpointer watch, gpointer seen)
{
    return !((struct watch *)watch)->looking && !g_hash_table_contains(seen, name);
}

static gboolean look_at_all(gpointer opaque)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    (void)opaque;
    vms_each(look_at, seen);
    g_hash_table_foreach_remove(watches, is_gone, seen);
    return G_SOURCE_CONTINUE;
}

void vm_watch_start(void)
{
    watches = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_timeout_add_seconds(LOOK_S, look_at_all, NULL);
}
