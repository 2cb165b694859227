/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Asks the peer's daemon for a standby, and cancels one (daemon.h). */
#include <gio/gio.h>
#include <string.h>

#include "daemon/daemon.h"
#include "daemon/disk/disk_setup.h"
#include "proto/epoch_wire.h"
#include "proto/framing.h"
#include "proto/seal_derive.h"

#define PREPARE_MS       30000
#define THERE_MS         5000
#define QEMU_VERSION_MAX 160

static bool is_this_daemon(const Understudy__Host *host)
{
    return host->instance.len == PEER_INSTANCE_LEN &&
           memcmp(host->instance.data, peer_own_instance(), PEER_INSTANCE_LEN) == 0;
}

/*
 * Asks the peer about its host first. A standby takes long to start, and this request does not: it soon shows
 * a peer that does not answer, is another program, or has another version of the link.
 */
static bool peer_is_fit(const char *host, uint16_t port, GError **error)
{
    Understudy__HostRequest ask = UNDERSTUDY__HOST_REQUEST__INIT;
    ask.brief = true;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(HOST_REQUEST, host_request, &ask);
    Understudy__Envelope *answer = peer_call(host, port, &request, THERE_MS, error);
    if (!answer)
        return false;
    bool is_host = answer->body_case == UNDERSTUDY__ENVELOPE__BODY_HOST;
    bool own = is_host && is_this_daemon(answer->host);
    bool fit = is_host && !own && answer->host->wire_version == WIRE_VERSION;
    if (!is_host)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the peer %s does not say what it is: is understudyd running there?", host);
    else if (own)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "the peer %s is this host itself: name the other host", host);
    else if (!fit)
        g_set_error(
            error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
            "the peer %s has understudy %s (link version %u), this host %s (%u): install one version on "
            "both",
            host, answer->host->version, answer->host->wire_version, UNDERSTUDY_VERSION, WIRE_VERSION);
    understudy__envelope__free_unpacked(answer, NULL);
    return fit;
}

bool peer_cancel(const char *host, uint16_t port, const Understudy__Protection *protection, bool in_use,
                 GError **error)
{
    Understudy__CancelStandby cancel = UNDERSTUDY__CANCEL_STANDBY__INIT;
    cancel.vm = protection->vm;
    cancel.token = protection->token;
    cancel.in_use = in_use;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(CANCEL_STANDBY, cancel_standby, &cancel);
    Understudy__Envelope *answer = peer_call(host, port, &request, THERE_MS, error);
    if (!answer)
        return false;
    bool is_answer = answer->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER;
    bool ok = is_answer && answer->answer->ok;
    if (!ok)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "the peer %s refused: %s", host,
                    is_answer ? answer->answer->message : "no reason given");
    understudy__envelope__free_unpacked(answer, NULL);
    return ok;
}

static bool read_ports(const Understudy__Prepared *prepared, const char *host, struct peer_standby *standby,
                       GError **error)
{
    bool fit = prepared->data_port > 0 && prepared->data_port <= UINT16_MAX && prepared->udp_port > 0 &&
               prepared->udp_port <= UINT16_MAX;
    standby->data_port = (uint16_t)prepared->data_port;
    standby->udp_port = (uint16_t)prepared->udp_port;
    if (!fit)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the peer %s names no ports where its standby listens: install one version of understudy "
                    "on both",
                    host);
    return fit;
}

/* Sets protection's secret to the standby's: an earlier request may have started the standby. */
static bool read_secret(const Understudy__Prepared *prepared, const char *host,
                        Understudy__Protection *protection, GError **error)
{
    if (protection->link_security == UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_NONE)
        return true;
    bool fit = prepared->secret.len == SEAL_SECRET_LEN;
    if (fit)
        protection_set_secret(protection, prepared->secret.data);
    else
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the peer %s does not say which secret its standby has: install one version of "
                    "understudy on both",
                    host);
    return fit;
}

bool peer_prepare(const char *host, uint16_t port, Understudy__Protection *protection, uint16_t own_port,
                  struct peer_standby *standby, const struct files_progress *progress, GError **error)
{
    if (!peer_is_fit(host, port, error) || !pair_files_are_fit(protection, host, port, progress, error))
        return false;
    Understudy__PrepareStandby prepare = UNDERSTUDY__PREPARE_STANDBY__INIT;
    g_autofree char *own = g_strdup_printf("%u", own_port);
    disks_refresh(protection);
    g_autoptr(GPtrArray) seeds = disk_seeds_read(protection);
    prepare.protection = protection;
    prepare.primary_daemon = own;
    g_autofree char *cpu_model = host_cpu_model(), *accel = host_accel_of(protection);
    prepare.cpu_model = cpu_model;
    prepare.accel = accel;
    prepare.seeds = (Understudy__DiskSeed **)seeds->pdata;
    prepare.n_seeds = seeds->len;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(PREPARE_STANDBY, prepare_standby, &prepare);
    Understudy__Envelope *answer = peer_call_at(host, port, &request, PREPARE_MS, &standby->at, error);
    if (!answer)
        return false;
    bool prepared = answer->body_case == UNDERSTUDY__ENVELOPE__BODY_PREPARED;
    bool ok = prepared && read_ports(answer->prepared, host, standby, error) &&
              read_secret(answer->prepared, host, protection, error);
    if (ok) {
        protection->cpu_enforce = answer->prepared->cpu_enforce;
        size_t len = strnlen(answer->prepared->qemu_version, QEMU_VERSION_MAX + 1);
        if (len > 0 && len <= QEMU_VERSION_MAX)
            protection_set_string(&protection->standby_qemu, answer->prepared->qemu_version);
    } else if (!prepared) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "the peer %s refused: %s", host,
                    answer->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER ? answer->answer->message
                                                                           : "no reason given");
    }
    understudy__envelope__free_unpacked(answer, NULL);
    return ok;
}
