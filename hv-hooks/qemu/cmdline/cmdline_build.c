/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The line that QEMU is started with: the user's, and what protection adds to it (cmdline.h).
 *
 * The filters of a NIC, in the order in which frames leave the guest: QEMU walks the rx list backwards, so
 * "in" must stand before "out", or released frames would be caught again. "mir" copies what the guest
 * receives; "inj" stands after it, so that what is given to the guest again is not copied again. "mir" begins
 * switched off (replicator/control/guest_nics.c).
 */
#include <stdarg.h>

#include "hv-hooks/qemu/cmdline/cmdline_build.h"
#include "hv-hooks/qemu/cmdline/run_events.h"

void cmdline_add(GPtrArray *out, const char *option, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_ptr_array_add(out, g_strdup(option));
    g_ptr_array_add(out, g_strdup_vprintf(format, args));
    va_end(args);
}

static void add_nic(GPtrArray *out, const char *vm_dir, unsigned i, const char *netdev)
{
    static const char *const sockets[] = {"in", "out", "mir", "inj"};
    for (size_t k = 0; k < G_N_ELEMENTS(sockets); k++)
        cmdline_add(out, "-chardev", "socket,id=us-c-%s-%u,path=%s/us-%s-%u,server=on,wait=off", sockets[k],
                    i, vm_dir, sockets[k], i);
    cmdline_add(out, "-object", "filter-redirector,id=us-in-%u,netdev=%s,queue=rx,indev=us-c-in-%u", i,
                netdev, i);
    cmdline_add(out, "-object", "filter-redirector,id=us-out-%u,netdev=%s,queue=rx,outdev=us-c-out-%u", i,
                netdev, i);
    cmdline_add(out, "-object", "filter-mirror,id=us-mir-%u,netdev=%s,queue=tx,outdev=us-c-mir-%u,status=off",
                i, netdev, i);
    cmdline_add(out, "-object", "filter-redirector,id=us-inj-%u,netdev=%s,queue=tx,indev=us-c-inj-%u", i,
                netdev, i);
}

static void add_user_args(GPtrArray *out, const struct cmdline *cmdline, const char *vm_dir)
{
    guint disk = 0;
    for (guint i = 0; i < cmdline->args->len; i++) {
        const struct cmdline_disk *next =
            disk < cmdline->disks->len ? g_ptr_array_index(cmdline->disks, disk) : NULL;
        if (!next || next->arg != i) {
            g_ptr_array_add(out, g_strdup(g_ptr_array_index(cmdline->args, i)));
            continue;
        }
        g_autofree char *socket = g_strdup_printf("%s/us-disk-%u", vm_dir, disk++);
        if (!next->bare)
            g_ptr_array_remove_index(out, out->len - 1);
        g_ptr_array_add(out, g_strdup(next->option));
        g_ptr_array_add(out, cmdline_disk_argument(next, socket));
    }
}

/*
 * Adds -action options, so that QEMU pauses where it would end. So the peer is told and the last frames are
 * released before the replicator does what the user's line says (run_verdict_of). A panic that the line
 * ignores is still ignored. The last -action of a key counts.
 */
void cmdline_add_actions(GPtrArray *out, const struct cmdline *cmdline)
{
    struct run_actions actions;
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    for (guint i = 0; i < cmdline->args->len; i++)
        g_ptr_array_add(args, g_ptr_array_index(cmdline->args, i));
    g_ptr_array_add(args, NULL);
    run_actions_read(&actions, (const char *const *)args->pdata);
    cmdline_add(out, "-action", "shutdown=pause%s%s", actions.panic_ignored ? "" : ",panic=pause",
                actions.watchdog_ends ? ",watchdog=pause" : "");
}

void cmdline_add_memory(GPtrArray *out, const struct cmdline *cmdline, int ram_fd, bool private_copy)
{
    cmdline_add(out, "-object",
                "memory-backend-file,id=understudy-ram,size=%" G_GUINT64_FORMAT
                ",share=%s,mem-path=/proc/self/fd/%d",
                cmdline->ram_bytes, private_copy ? "off" : "on", ram_fd);
    cmdline_add(out, "-machine", "memory-backend=understudy-ram");
}

void cmdline_add_monitor(GPtrArray *out, const char *vm_dir, const char *socket)
{
    cmdline_add(out, "-chardev", "socket,id=us-c-qmp,path=%s/%s,server=on,wait=off", vm_dir, socket);
    cmdline_add(out, "-qmp", "chardev:us-c-qmp"); /* -mon says the same; QEMU 11 warns that it will go */
}

void cmdline_add_migration(GPtrArray *out, bool incoming)
{
    if (incoming) {
        cmdline_add(out, "-incoming", "defer");
        cmdline_add(out, "-machine", "suppress-vmdesc=on");
    }
    cmdline_add(out, "-global", "migration.send-configuration=off");
}

char **cmdline_build(const struct cmdline *cmdline, int ram_fd, const char *vm_dir, bool standby)
{
    g_autoptr(GPtrArray) out = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(out, g_strdup(cmdline->binary));
    add_user_args(out, cmdline, vm_dir);
    cmdline_add_memory(out, cmdline, ram_fd, false);
    for (guint i = 0; i < cmdline->nics->len; i++)
        add_nic(out, vm_dir, i, g_ptr_array_index(cmdline->nics, i));
    cmdline_add_monitor(out, vm_dir, "us-qmp");
    cmdline_add_actions(out, cmdline);
    cmdline_add_migration(out, standby);
    g_ptr_array_add(out, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&out), FALSE);
}
