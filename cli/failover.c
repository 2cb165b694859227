/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * understudy failover: orders it, then waits until the guest has moved, or until it is clear that it stays.
 * The daemon answers the order at once; how it went shows in the VM's status, which is asked for again and
 * again.
 */
#include <gio/gio.h>
#include <stdio.h>

#include "cli/cli.h"
#include "proto/framing.h"

#define ORDER_MS  10000
#define LONGEST_S 15 /* the hosts give up after some five seconds */
#define POLL_US   20000

/* Returns whether the guest has left this host, which then has nothing of the VM, or only its standby. */
static bool has_left(const Understudy__Status *status)
{
    return !status || status->state == UNDERSTUDY__STATE__STATE_ENDED ||
           (status->role == UNDERSTUDY__ROLE__ROLE_SECONDARY && !status->guest_here);
}

enum outcome { PENDING, MOVED, FAILED };

/* Judges a planned failover by the VM's status. term: the term when it was ordered; a guest that was taken
 * back runs here in a newer one. */
static enum outcome planned_outcome(const Understudy__Status *status, uint64_t term)
{
    if (has_left(status))
        return MOVED;
    return status->guest_here && status->term > term ? FAILED : PENDING;
}

static enum outcome forced_outcome(const Understudy__Status *status)
{
    if (!status)
        return FAILED;
    if (status->guest_here)
        return MOVED;
    bool failed = status->state == UNDERSTUDY__STATE__STATE_PROMOTE_FAILED ||
                  status->state == UNDERSTUDY__STATE__STATE_HYPERVISOR_DIED ||
                  status->state == UNDERSTUDY__STATE__STATE_ENDED;
    return failed ? FAILED : PENDING;
}

/* Waits for the outcome of the failover. *why: the VM's message in status, a GLib string. */
static enum outcome wait_for_outcome(const char *vm, bool force, uint64_t term, char **why)
{
    gint64 until = g_get_monotonic_time() + LONGEST_S * G_USEC_PER_SEC;
    enum outcome outcome = PENDING;
    while (outcome == PENDING && g_get_monotonic_time() < until) {
        Understudy__Envelope *holder = NULL;
        const Understudy__Status *status = cli_status_of(vm, &holder);
        outcome = force ? forced_outcome(status) : planned_outcome(status, term);
        if (outcome == FAILED)
            *why = g_strdup(status ? status->last_error : "it is not known here any more");
        if (holder)
            understudy__envelope__free_unpacked(holder, NULL);
        if (outcome == PENDING)
            g_usleep(POLL_US);
    }
    return outcome;
}

static int tell_planned(const char *vm, const char *peer, enum outcome outcome, const char *why)
{
    if (outcome == FAILED)
        return cli_fail("VM %s stays on this host%s%s", vm, why[0] ? ": " : "", why);
    if (outcome == PENDING)
        return cli_fail("VM %s has not left this host after %d s; 'understudy status %s' says what it does",
                        vm, LONGEST_S, vm);
    printf("VM %s runs on %s\n", vm, peer);
    return EXIT_OK;
}

static int tell_forced(const char *vm, enum outcome outcome, const char *why)
{
    if (outcome == FAILED)
        return cli_fail("VM %s could not be taken over: %s", vm, why);
    if (outcome == PENDING)
        return cli_fail("VM %s does not run here after %d s; 'understudy status %s' says what it does", vm,
                        LONGEST_S, vm);
    printf("VM %s runs on this host\n", vm);
    return EXIT_OK;
}

int cmd_failover(int argc, char **argv)
{
    gboolean planned = FALSE, force = FALSE;
    const GOptionEntry entries[] = {
        {"planned", 0, 0, G_OPTION_ARG_NONE, &planned,
         "Move the VM to the peer; nothing is lost (order it where it runs)", NULL},
        {"force", 0, 0, G_OPTION_ARG_NONE, &force,
         "Take the VM over now (order it where it stands by); with --planned: move it although the peer "
         "lacks",
         NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    if (!cli_parse(entries, 1, 1, &argc, &argv))
        return EXIT_USAGE;
    if (!planned && !force)
        return cli_wrong("give --planned (where it runs) or --force (where it stands by)");
    Understudy__Envelope *before = NULL;
    const Understudy__Status *status = cli_status_of(argv[1], &before);
    uint64_t term = status ? status->term : 0;
    g_autofree char *peer = g_strdup(status ? status->peer : "");
    if (before)
        understudy__envelope__free_unpacked(before, NULL);
    Understudy__FailoverRequest failover = UNDERSTUDY__FAILOVER_REQUEST__INIT;
    failover.vm = argv[1];
    failover.force = force && !planned;
    failover.unchecked = planned && force;
    force = failover.force;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(FAILOVER_REQUEST, failover_request, &failover);
    int code = cli_call_simple(&request, ORDER_MS);
    if (code != EXIT_OK)
        return code;
    g_autofree char *why = NULL;
    enum outcome outcome = wait_for_outcome(argv[1], force, term, &why);
    return force ? tell_forced(argv[1], outcome, why) : tell_planned(argv[1], peer, outcome, why);
}
