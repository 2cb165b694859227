/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Empties this host, for maintenance or before it goes down. Every VM that runs here is handed over as soon
 * as it is protected. Standbys here are stopped, and no VM may start or stand by here. `understudy drain`
 * makes a file in the run folder, which lasts until undrain or a reboot, so that a new daemon continues the
 * drain. Main thread, except drain_is_on.
 */
#include <errno.h>
#include <gio/gio.h>
#include <glib/gstdio.h>

#include "daemon/daemon.h"
#include "daemon/events.h"

#define STEP_MS     100
#define ASK_AGAIN_S 7 /* a handover is given up after five seconds */

static char *path;
static gint on;
static guint timer;
static GHashTable *asked; /* name -> gint64 *: when it was last ordered to go */

bool drain_is_on(void)
{
    return g_atomic_int_get(&on);
}

static bool is_due(const char *vm)
{
    gint64 now = g_get_monotonic_time();
    const gint64 *last = g_hash_table_lookup(asked, vm);
    if (last && now - *last < ASK_AGAIN_S * G_USEC_PER_SEC)
        return false;
    g_hash_table_replace(asked, g_strdup(vm), g_memdup2(&now, sizeof now));
    return true;
}

static bool stands_by(const Understudy__Status *status)
{
    return status->role == UNDERSTUDY__ROLE__ROLE_SECONDARY &&
           (status->state == UNDERSTUDY__STATE__STATE_LISTENING ||
            status->state == UNDERSTUDY__STATE__STATE_FOLLOWING ||
            status->state == UNDERSTUDY__STATE__STATE_STANDBY);
}

static gboolean step(gpointer opaque)
{
    g_autoptr(GPtrArray) all = vm_table_snapshot(NULL);
    (void)opaque;
    for (guint i = 0; i < all->len; i++) {
        Understudy__Status *status = g_ptr_array_index(all, i);
        bool is_protected = status->role == UNDERSTUDY__ROLE__ROLE_PRIMARY &&
                            status->state == UNDERSTUDY__STATE__STATE_PROTECTED;
        if (is_protected && is_due(status->vm))
            vm_failover(status->vm, false, NULL);
        else if (stands_by(status) && is_due(status->vm))
            vm_stop(status->vm, NULL);
        understudy__status__free_unpacked(status, NULL);
    }
    return G_SOURCE_CONTINUE;
}

static void begin(void)
{
    g_atomic_int_set(&on, 1);
    if (!timer)
        timer = g_timeout_add(STEP_MS, step, NULL);
    events_emit(EVENT_DRAINED, NULL, NULL,
                "this host is drained: its VMs go to their other hosts, and it stands by for none");
}

static void end(void)
{
    g_atomic_int_set(&on, 0);
    g_clear_handle_id(&timer, g_source_remove);
    g_hash_table_remove_all(asked);
    events_emit(EVENT_UNDRAINED, NULL, NULL, "this host is not drained any more");
}

bool drain_set(bool wanted, bool kept, GError **error)
{
    g_autoptr(GError) failure = NULL;
    if (wanted && kept && !g_file_set_contents(path, "", 0, &failure)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "the drain cannot be remembered: %s",
                    failure->message);
        return false;
    }
    if (!wanted && g_unlink(path) < 0 && errno != ENOENT) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno), "%s cannot be removed: %s", path,
                    g_strerror(errno));
        return false;
    }
    if (wanted && !drain_is_on())
        begin();
    else if (!wanted && drain_is_on())
        end();
    return true;
}

void drain_init(const struct daemon_config *config)
{
    path = g_build_filename(config->run_dir, "drained", NULL);
    asked = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    vm_table_enter(); /* the table is read here too */
    if (g_access(path, F_OK) == 0)
        begin();
}
