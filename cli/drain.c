/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * understudy drain, undrain. The daemon moves the VMs away; drain prints a line for each change until no VM
 * is left on this host or its time is over.
 */
#include <gio/gio.h>
#include <stdio.h>

#include "cli/cli.h"
#include "proto/framing.h"
#include "proto/states.h"

#define ORDER_MS 10000
#define DRAIN_S  120
#define POLL_US  100000

static bool set_drain(bool off)
{
    Understudy__DrainRequest drain = UNDERSTUDY__DRAIN_REQUEST__INIT;
    drain.off = off;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(DRAIN_REQUEST, drain_request, &drain);
    return cli_call_simple(&request, ORDER_MS) == EXIT_OK;
}

static bool is_here(const Understudy__Status *status)
{
    return status->guest_here || status->role == UNDERSTUDY__ROLE__ROLE_SECONDARY;
}

static void print_row(const char *vm, const char *role, const char *what, const char *why)
{
    printf("%-16s %-9s %-15s %s\n", vm, role, what, why);
    fflush(stdout);
}

/* Prints a row for each VM that changed since `seen` (name -> words shown last). Returns how many VMs are
 * here. */
static unsigned show(const Understudy__StatusList *list, GHashTable *seen)
{
    g_autoptr(GHashTable) now = g_hash_table_new(g_str_hash, g_str_equal);
    GHashTableIter iter;
    gpointer name;
    unsigned left = 0;
    for (size_t i = 0; i < list->n_vms; i++) {
        const Understudy__Status *s = list->vms[i];
        bool primary = s->role == UNDERSTUDY__ROLE__ROLE_PRIMARY;
        if (!is_here(s) || s->state == UNDERSTUDY__STATE__STATE_ENDED)
            continue;
        left++;
        g_hash_table_add(now, s->vm);
        if (g_strcmp0(g_hash_table_lookup(seen, s->vm), state_name(s->state)) == 0)
            continue;
        print_row(s->vm, primary ? "primary" : "secondary", state_name(s->state),
                  s->unprotected_why[0] ? s->unprotected_why : s->peer);
        g_hash_table_replace(seen, g_strdup(s->vm), g_strdup(state_name(s->state)));
    }
    g_hash_table_iter_init(&iter, seen);
    while (g_hash_table_iter_next(&iter, &name, NULL)) {
        if (g_hash_table_contains(now, name))
            continue;
        print_row(name, "-", "gone", "");
        g_hash_table_iter_remove(&iter);
    }
    return left;
}

/* Asks for the status of all VMs and prints what has changed. False after a message to the user. */
static bool look(GHashTable *seen, unsigned *left)
{
    Understudy__StatusRequest status = UNDERSTUDY__STATUS_REQUEST__INIT;
    status.vm = (char *)"";
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(STATUS_REQUEST, status_request, &status);
    Understudy__Envelope *answer = cli_call(&request, ORDER_MS);
    if (!answer)
        return false;
    bool ok = answer->body_case == UNDERSTUDY__ENVELOPE__BODY_STATUS_LIST;
    if (ok)
        *left = show(answer->status_list, seen);
    else
        cli_fail("the daemon's answer was not understood");
    understudy__envelope__free_unpacked(answer, NULL);
    return ok;
}

/* Asks every guest that is left to shut down. They have until the caller's time is over. */
static void shut_down(GHashTable *seen)
{
    GHashTableIter iter;
    gpointer name;
    g_hash_table_iter_init(&iter, seen);
    while (g_hash_table_iter_next(&iter, &name, NULL)) {
        Understudy__PowerRequest power = UNDERSTUDY__POWER_REQUEST__INIT;
        power.vm = name;
        power.action = UNDERSTUDY__POWER_ACTION__POWER_SHUTDOWN;
        Understudy__Envelope request = UNDERSTUDY_ENVELOPE(POWER_REQUEST, power_request, &power);
        if (cli_call_simple(&request, ORDER_MS) == EXIT_OK)
            print_row(name, "primary", "shutting-down", "no host could take it: it was asked to shut down");
    }
}

/* Waits until the host is empty or timeout_s have passed. Returns the number of VMs that are left, or -1. */
static int wait_until_empty(GHashTable *seen, uint32_t timeout_s)
{
    gint64 until = g_get_monotonic_time() + (gint64)timeout_s * G_USEC_PER_SEC;
    unsigned left = 0;
    do {
        if (!look(seen, &left))
            return -1;
        if (left > 0)
            g_usleep(POLL_US);
    } while (left > 0 && g_get_monotonic_time() < until);
    return (int)left;
}

int cmd_drain(int argc, char **argv)
{
    gboolean rest = FALSE;
    g_autofree char *timeout = NULL;
    const GOptionEntry entries[] = {
        {"timeout-s", 0, 0, G_OPTION_ARG_STRING, &timeout, "How long to wait (120)", "N"},
        {"shutdown", 0, 0, G_OPTION_ARG_NONE, &rest,
         "Ask guests that could not be handed over in that time to shut down, and wait as long again", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    uint32_t timeout_s = DRAIN_S;
    if (!cli_parse(entries, 0, 0, &argc, &argv) || !cli_number("--timeout-s", timeout, 1, 86400, &timeout_s))
        return EXIT_USAGE;
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    print_row("NAME", "ROLE", "STATE", "PEER, OR WHY IT STAYS");
    unsigned now = 0;
    if (!look(seen, &now) || !set_drain(false))
        return EXIT_FAILED;
    int left = wait_until_empty(seen, timeout_s);
    if (left > 0 && rest) {
        shut_down(seen);
        left = wait_until_empty(seen, timeout_s);
    }
    if (left < 0)
        return EXIT_FAILED;
    if (left > 0)
        return cli_fail("%d VM%s left here: restore %s protection, shut %s down, or 'understudy undrain'",
                        left, left == 1 ? " is" : "s are", left == 1 ? "its" : "their",
                        left == 1 ? "it" : "them");
    return EXIT_OK;
}

int cmd_undrain(int argc, char **argv)
{
    if (!cli_parse(NULL, 0, 0, &argc, &argv))
        return EXIT_USAGE;
    return set_drain(true) ? EXIT_OK : EXIT_FAILED;
}
