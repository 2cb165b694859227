/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks what this host and a peer together lack for a VM (daemon.h). Each host may be in order by itself,
 * and clients would still not reach the guest after a takeover. With a fault, a VM is not started, nor moved
 * by a planned failover unless the administrator insists. A VM that runs keeps its standby, and status shows
 * the fault.
 */
#include <gio/gio.h>
#include <string.h>

#include "common/stream.h"
#include "daemon/daemon.h"
#include "daemon/network/network.h"
#include "hv-hooks/line.h"

enum { LEVEL_GOOD, LEVEL_WARN, LEVEL_FAULT };

/* Returns the VM's tap devices as an array of NetworkTap *; none if its command line cannot be parsed. */
static GPtrArray *taps_of(const Understudy__Protection *protection)
{
    struct line *line = host_line(protection, NULL);
    GPtrArray *taps = line ? network_taps(line) : g_ptr_array_new();
    line_free(line);
    return taps;
}

static struct network_findings *look(const GPtrArray *taps, enum network_moment moment, const char *host,
                                     uint16_t port, bool probe, GError **error)
{
    struct stream *stream = host ? peer_connect(host, port, error) : NULL;
    if (host && !stream)
        return NULL;
    struct network_findings *findings = network_check((Understudy__NetworkTap *const *)taps->pdata, taps->len,
                                                      moment, stream, host, probe, error);
    stream_close(stream);
    return findings;
}

bool pair_network_is_fit(const Understudy__Protection *protection, const char *host, uint16_t port,
                         GError **error)
{
    g_autoptr(GPtrArray) taps = taps_of(protection);
    if (taps->len == 0)
        return true;
    struct network_findings *findings = look(taps, NETWORK_BEFORE_START, host, port, true, error);
    if (!findings)
        return false;
    const GPtrArray *faults = findings->own->len ? findings->own : findings->faults;
    bool fit = faults->len == 0;
    for (guint i = 0; i < findings->remarks->len; i++)
        g_message("VM %s: %s", protection->vm, (const char *)g_ptr_array_index(findings->remarks, i));
    if (!fit)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "VM %s: %s; or start it with --no-network-check, if you know that the network works",
                    protection->vm, (const char *)g_ptr_array_index(faults, 0));
    network_findings_free(findings);
    return fit;
}

static void move_all(GPtrArray *from, GPtrArray *to)
{
    for (guint i = 0; i < from->len; i++)
        g_ptr_array_add(to, g_strdup(g_ptr_array_index(from, i)));
}

GPtrArray *pair_network_faults(const Understudy__Protection *protection, const char *host, uint16_t port,
                               bool probe, bool moves_only)
{
    GPtrArray *faults = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) taps = taps_of(protection);
    struct network_findings *findings = NULL;
    if (taps->len)
        findings = look(taps, NETWORK_RUNNING, host, port, probe && !protection->network_unchecked, NULL);
    /* The peer does not answer, which is reported elsewhere: judge this host's devices alone. */
    if (!findings && taps->len && host)
        findings = look(taps, NETWORK_RUNNING, NULL, 0, false, NULL);
    if (findings && !moves_only)
        move_all(findings->own, faults);
    if (findings)
        move_all(findings->faults, faults);
    network_findings_free(findings);
    return faults;
}

/* ---- doctor ---- */

static void add_finding(GPtrArray *list, int level, const char *what, const char *text)
{
    Understudy__Finding *finding = g_new(Understudy__Finding, 1);
    understudy__finding__init(finding);
    finding->level = (uint32_t)level;
    finding->what = g_strdup(what);
    finding->text = g_strdup(text);
    g_ptr_array_add(list, finding);
}

static void add_findings(GPtrArray *list, const struct network_findings *findings, int level,
                         const char *what)
{
    for (guint i = 0; i < findings->own->len; i++)
        add_finding(list, level, what, g_ptr_array_index(findings->own, i));
    for (guint i = 0; i < findings->faults->len; i++)
        add_finding(list, level, what, g_ptr_array_index(findings->faults, i));
    for (guint i = 0; i < findings->remarks->len; i++)
        add_finding(list, LEVEL_GOOD, what, g_ptr_array_index(findings->remarks, i));
}

static bool add_taps(GPtrArray *list, const GPtrArray *taps, enum network_moment moment, int level,
                     const char *what, const char *host, uint16_t port, GError **error)
{
    struct network_findings *findings = taps->len ? look(taps, moment, host, port, true, error) : NULL;
    if (taps->len && !findings)
        return false;
    if (findings)
        add_findings(list, findings, level, what);
    network_findings_free(findings);
    return true;
}

/* Adds this host's other taps, which later VMs may use, so that doctor can report what the peer lacks for
 * them. */
static bool add_other_taps(GPtrArray *list, const GPtrArray *seen, const char *host, uint16_t port,
                           GError **error)
{
    g_autoptr(GPtrArray) taps = g_ptr_array_new_with_free_func(g_free);
    g_auto(GStrv) names = network_bridged_taps();
    for (char **name = names; *name && taps->len < NETWORK_TAPS_MAX; name++) {
        if (g_ptr_array_find_with_equal_func((GPtrArray *)seen, *name, g_str_equal, NULL))
            continue;
        Understudy__NetworkTap *tap = g_new(Understudy__NetworkTap, 1);
        understudy__network_tap__init(tap);
        tap->id = tap->ifname = *name;
        g_ptr_array_add(taps, tap);
    }
    return add_taps(list, taps, NETWORK_RUNNING, LEVEL_WARN, "network", host, port, error);
}

static void add_files(GPtrArray *list, const struct line *line, const Understudy__Protection *protection,
                      const char *what, const char *host, uint16_t port)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) paths = pair_files(line, protection);
    g_autoptr(GPtrArray) facts = pair_files_agree(paths, host, port, NULL, &error);
    unsigned sampled = 0;
    for (guint i = 0; facts && i < facts->len; i++)
        sampled += ((Understudy__FileFact *)g_ptr_array_index(facts, i))->sampled;
    g_autofree char *good =
        facts ? g_strdup_printf("%u files are the same on both hosts, %u of them compared by samples",
                                facts->len, sampled)
              : NULL;
    add_finding(list, facts ? LEVEL_GOOD : LEVEL_FAULT, what, facts ? good : error->message);
}

static bool add_vm(GPtrArray *list, GPtrArray *seen, const struct line *line, enum network_moment moment,
                   const char *what, const char *host, uint16_t port, GError **error)
{
    g_autoptr(GPtrArray) taps = network_taps(line);
    for (guint i = 0; i < line->taps->len; i++)
        g_ptr_array_add(seen, g_strdup(((struct line_tap *)g_ptr_array_index(line->taps, i))->ifname));
    return add_taps(list, taps, moment, LEVEL_FAULT, what, host, port, error);
}

Understudy__Findings *pair_findings(const Understudy__PairRequest *request, const GPtrArray *vms,
                                    GError **error)
{
    g_autofree char *host = NULL;
    uint16_t port = 0;
    GPtrArray *list = g_ptr_array_new();
    g_autoptr(GPtrArray) seen = g_ptr_array_new_with_free_func(g_free);
    bool ok = peer_split(request->peer, &host, &port);
    if (!ok)
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "--peer %s is not HOST or HOST:PORT",
                    request->peer);
    if (ok && request->n_argv) {
        g_auto(GStrv) user_argv = host_argv(request->argv, request->n_argv);
        g_auto(GStrv) argv = line_absolute((const char *const *)user_argv, request->cwd);
        struct line *line = line_parse((const char *const *)argv, error);
        ok = line && add_vm(list, seen, line, NETWORK_BEFORE_START, "network", host, port, error);
        if (ok)
            add_files(list, line, NULL, "files", host, port);
        line_free(line);
    }
    for (guint i = 0; ok && i < vms->len; i++) {
        const Understudy__Protection *protection = g_ptr_array_index(vms, i);
        g_autofree char *what = g_strdup_printf("network of %s", protection->vm);
        struct line *line = host_line(protection, NULL);
        g_autofree char *files = g_strdup_printf("files of %s", protection->vm);
        ok = !line || add_vm(list, seen, line, NETWORK_RUNNING, what, host, port, error);
        if (ok && line)
            add_files(list, line, protection, files, host, port);
        line_free(line);
    }
    ok = ok && add_other_taps(list, seen, host, port, error);
    Understudy__Findings *findings = g_new(Understudy__Findings, 1);
    understudy__findings__init(findings);
    findings->n_findings = list->len;
    findings->findings = (Understudy__Finding **)g_ptr_array_free(list, FALSE);
    if (!ok) {
        understudy__findings__free_unpacked(findings, NULL);
        return NULL;
    }
    return findings;
}
