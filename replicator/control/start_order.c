/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See start_order.h. */
#include "replicator/control/start_order.h"

#include <gio/gio.h>
#include <string.h>

#include "proto/limits.h"

static void take_disks(struct replicator_config *config, const Understudy__Start *start)
{
    const Understudy__Protection *p = start->protection;
    for (size_t i = 0; i < p->n_disks && i < DISK_MAX; i++)
        config->disks[config->ndisks++] = (struct disk_config){.id = g_strdup(p->disks[i]->id),
                                                               .path = g_strdup(p->disks[i]->path),
                                                               .export_len = p->disks[i]->export_len,
                                                               .shared = p->disks[i]->shared};
    config->durable_acks = p->durability == UNDERSTUDY__DURABILITY__DURABILITY_DISK;
    config->state_dir = g_strdup(start->state_dir);
    config->disk_plugin = g_strdup(start->disk_plugin);
}

_Static_assert(LIMIT_NICS == REPLICATOR_MAX_NICS && LIMIT_HEARTBEAT_PATHS == HEARTBEAT_PATHS_MAX,
               "what is promised is what there is room for");

static bool is_within_limits(const Understudy__Start *start, GError **error)
{
    if (start->nice < LIMIT_NICE_MIN || start->nice > LIMIT_NICE_MAX) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "--nice %d: give a number from %d to %d",
                    start->nice, LIMIT_NICE_MIN, LIMIT_NICE_MAX);
        return false;
    }
    return limits_hold(start->protection, error);
}

/* Links are sealed unless the order says otherwise, and not without a secret. */
static bool has_secret(const Understudy__Protection *p)
{
    return p->link_security == UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_NONE ||
           p->secret.len == SEAL_SECRET_LEN;
}

bool start_order_take(const Understudy__Start *start, struct replicator_config *config,
                      struct run_actions *actions, GError **error)
{
    const Understudy__Protection *p = start->protection;
    if (!p || config->vm_name || p->token.len != WIRE_TOKEN_LEN || !has_secret(p) || start->n_argv == 0 ||
        p->n_disks > DISK_MAX || start->peer_data_port > UINT16_MAX || start->peer_udp_port > UINT16_MAX) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "the daemon sent an order that was not understood");
        return false;
    }
    if (!is_within_limits(start, error))
        return false;
    config->role = start->role == UNDERSTUDY__ROLE__ROLE_PRIMARY ? SESSION_PRIMARY : SESSION_SECONDARY;
    config->vm_name = g_strdup(p->vm);
    config->vm_dir = g_strdup(start->vm_dir);
    config->qemu_argv = g_new0(char *, start->n_argv + 1);
    for (size_t i = 0; i < start->n_argv; i++)
        config->qemu_argv[i] = g_strdup(start->argv[i]);
    if (start->n_trial_argv && config->role == SESSION_SECONDARY) {
        config->trial_argv = g_new0(char *, start->n_trial_argv + 1);
        for (size_t i = 0; i < start->n_trial_argv; i++)
            config->trial_argv[i] = g_strdup(start->trial_argv[i]);
    }
    config->qemu_version = g_strdup(p->qemu_version);
    config->tried_for = g_strdup(p->tried_for);
    config->hook_path = g_strdup(start->hook);
    g_autoptr(GPtrArray) line = g_ptr_array_new();
    for (size_t i = 0; i < p->n_qemu_argv; i++)
        g_ptr_array_add(line, p->qemu_argv[i]);
    g_ptr_array_add(line, NULL);
    line_run_actions((const char *const *)line->pdata, actions);
    config->ram_bytes = p->ram_bytes;
    config->nnics = p->nnics;
    memcpy(config->token, p->token.data, WIRE_TOKEN_LEN);
    config->sealed = p->link_security != UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_NONE;
    if (config->sealed)
        memcpy(config->secret, p->secret.data, SEAL_SECRET_LEN);
    config->term = p->term;
    config->epoch_ms = p->epoch_ms;
    config->deadline_ms = p->deadline_ms;
    config->silence_ms = p->silence_ms;
    config->heartbeat_ms = p->heartbeat_ms;
    config->nheartbeat_paths = (unsigned)p->n_heartbeat_paths;
    for (unsigned i = 0; i < config->nheartbeat_paths; i++) {
        config->heartbeat_paths[i].here = g_strdup(p->heartbeat_paths[i]->here);
        config->heartbeat_paths[i].there = g_strdup(p->heartbeat_paths[i]->there);
    }
    config->on_peer_loss = p->on_peer_loss == UNDERSTUDY__PEER_LOSS__PEER_LOSS_HOLD
                               ? SESSION_ON_PEER_LOSS_HOLD
                               : SESSION_ON_PEER_LOSS_CONTINUE;
    config->listen_address = start->listen_address[0] ? g_strdup(start->listen_address) : NULL;
    config->peer_host = start->peer_host[0] ? g_strdup(start->peer_host) : NULL;
    config->peer_data_port = (uint16_t)start->peer_data_port;
    config->peer_udp_port = (uint16_t)start->peer_udp_port;
    config->nice = start->nice;
    config->tracker = g_strcmp0(p->tracker, "uffd") == 0 ? HV_TRACKER_UFFD : HV_TRACKER_QEMU_LOG;
    config->transport = g_strcmp0(p->transport, "tcp") == 0    ? TRANSPORT_TCP
                        : g_strcmp0(p->transport, "rdma") == 0 ? TRANSPORT_RDMA
                                                               : TRANSPORT_AUTO;
    take_disks(config, start);
    return true;
}
