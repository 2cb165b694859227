/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps the requests (`stop`, `shutdown`) that wait until a VM is gone from this host. Main thread only. Each
 * waiter is called once: when the VM's replicator has ended (its QEMU and its disks' servers end before it),
 * when its time is over, or when its client has closed the connection. Without that, clients that were
 * interrupted would keep the threads that serve them, which are few, for as long as they wanted to wait.
 */
#include <glib-unix.h>

#include "daemon/daemon.h"

struct waiter {
    char *vm;
    guint timeout, hangup;
    vm_gone gone;
    void *opaque;
};

static GSList *waiters;

static void finish(struct waiter *waiter, bool gone, const char *reason)
{
    waiters = g_slist_remove(waiters, waiter);
    g_clear_handle_id(&waiter->timeout, g_source_remove);
    g_clear_handle_id(&waiter->hangup, g_source_remove);
    waiter->gone(gone, reason, waiter->opaque);
    g_free(waiter->vm);
    g_free(waiter);
}

static gboolean on_timeout(gpointer opaque)
{
    struct waiter *waiter = opaque;
    waiter->timeout = 0;
    finish(waiter, false, "");
    return G_SOURCE_REMOVE;
}

static gboolean on_hangup(gint client, GIOCondition condition, gpointer opaque)
{
    struct waiter *waiter = opaque;
    (void)client, (void)condition;
    waiter->hangup = 0;
    finish(waiter, false, "");
    return G_SOURCE_REMOVE;
}

void waiters_add(const char *vm, unsigned timeout_ms, int client, vm_gone gone, void *opaque)
{
    struct waiter *waiter = g_new0(struct waiter, 1);
    waiter->vm = g_strdup(vm);
    waiter->gone = gone;
    waiter->opaque = opaque;
    waiter->timeout = g_timeout_add(timeout_ms, on_timeout, waiter);
    waiter->hangup = g_unix_fd_add(client, G_IO_HUP | G_IO_ERR, on_hangup, waiter);
    waiters = g_slist_prepend(waiters, waiter);
}

void waiters_tell(const char *vm, const char *reason)
{
    for (GSList *at = waiters, *next; at; at = next) {
        struct waiter *waiter = at->data;
        next = at->next;
        if (g_str_equal(waiter->vm, vm))
            finish(waiter, true, reason);
    }
}
