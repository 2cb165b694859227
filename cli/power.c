/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a person does to a machine by its buttons and its plug: stop, shutdown, reset, pause, resume. The
 * manual page has them side by side.
 */
#include <errno.h>
#include <gio/gio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "proto/end_reason.h"
#include "proto/framing.h"

#define ORDER_MS   10000
#define STOP_S     60
#define SHUTDOWN_S 120
#define SHOWN_S    10 /* until status shows what was ordered */
#define POLL_US    20000

/* ---- stop ---- */

/* Asks for confirmation on a terminal where the guest runs, since a user may take stop for a clean shutdown.
 */
static bool may_stop(const char *vm)
{
    Understudy__Envelope *holder = NULL;
    const Understudy__Status *status = cli_status_of(vm, &holder);
    bool runs = status && status->guest_here;
    if (holder)
        understudy__envelope__free_unpacked(holder, NULL);
    if (!runs || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return true;
    fprintf(stderr,
            "stop turns VM %s off on both hosts: its guest is not asked, and what it has not written "
            "to its disks is lost.\n'understudy shutdown %s' asks the guest. Stop it? [y/N] ",
            vm, vm);
    char answer[16] = "";
    return fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

/*
 * Prints a message if a VM that is gone from this host may run on the other host, because a takeover happened
 * during the order. how: why the VM ended here; NONE: it was not waited for. Returns whether a message was
 * printed.
 */
static bool tell_elsewhere(const char *vm, enum session_end_reason how)
{
    if (how == SESSION_END_UNCONFIRMED)
        cli_fail("VM %s has ended here, but the other host, which could take it over, did not answer.\n"
                 "'understudy status %s' there says whether it runs; 'understudy stop %s' there stops it",
                 vm, vm, vm);
    else if (how == SESSION_END_FENCED || how == SESSION_END_HANDED_OVER)
        cli_fail("VM %s is gone from this host, and it runs on the other one, which has taken it over.\n"
                 "Give the order there",
                 vm);
    else
        return false;
    return true;
}

int cmd_stop(int argc, char **argv)
{
    gboolean yes = FALSE, no_wait = FALSE;
    const GOptionEntry entries[] = {
        {"yes", 'y', 0, G_OPTION_ARG_NONE, &yes, "Do not ask", NULL},
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &no_wait, "Do not wait until the VM is gone", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    if (!cli_parse(entries, 1, 1, &argc, &argv))
        return EXIT_USAGE;
    if (!yes && !may_stop(argv[1]))
        return cli_fail("VM %s was not stopped", argv[1]);
    Understudy__StopRequest stop = UNDERSTUDY__STOP_REQUEST__INIT;
    stop.vm = argv[1];
    stop.wait_ms = no_wait ? 0 : STOP_S * 1000;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(STOP_REQUEST, stop_request, &stop);
    g_autofree char *how = NULL;
    if (!cli_call_answer(&request, stop.wait_ms + ORDER_MS, &how))
        return EXIT_FAILED;
    return tell_elsewhere(argv[1], session_end_reason_from_name(how)) ? EXIT_FAILED : EXIT_OK;
}

/* ---- shutdown ---- */

/* Reports the end of a shutdown. The guest may have ended for another reason than its own shutdown. */
static int tell_shutdown(const char *vm, const char *name)
{
    enum session_end_reason how = session_end_reason_from_name(name);
    if (name[0] == 0 || how == SESSION_END_GUEST_SHUTDOWN)
        return EXIT_OK;
    if (tell_elsewhere(vm, how))
        return EXIT_FAILED;
    return cli_fail("VM %s is gone from this host, but not by its own shutdown (%s)", vm, name);
}

int cmd_shutdown(int argc, char **argv)
{
    gboolean no_wait = FALSE;
    g_autofree char *timeout = NULL;
    const GOptionEntry entries[] = {
        {"timeout-s", 0, 0, G_OPTION_ARG_STRING, &timeout, "How long the guest may take (120)", "N"},
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &no_wait, "Ask the guest, and do not wait for it", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    if (!cli_parse(entries, 1, 1, &argc, &argv))
        return EXIT_USAGE;
    uint32_t timeout_s = SHUTDOWN_S;
    if (!cli_number("--timeout-s", timeout, 1, 86400, &timeout_s))
        return EXIT_USAGE;
    Understudy__PowerRequest power = UNDERSTUDY__POWER_REQUEST__INIT;
    power.vm = argv[1];
    power.action = UNDERSTUDY__POWER_ACTION__POWER_SHUTDOWN;
    power.wait_ms = no_wait ? 0 : timeout_s * 1000;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(POWER_REQUEST, power_request, &power);
    g_autofree char *how = NULL;
    if (!cli_call_answer(&request, power.wait_ms + ORDER_MS, &how)) {
        if (!no_wait)
            fprintf(stderr,
                    "The guest may not react to the power button; 'understudy stop %s' turns the VM off.\n",
                    argv[1]);
        return EXIT_FAILED;
    }
    return no_wait ? EXIT_OK : tell_shutdown(argv[1], how);
}

/* ---- reset, pause, resume ---- */

static bool shows(const char *vm, Understudy__GuestState guest_state)
{
    Understudy__Envelope *holder = NULL;
    const Understudy__Status *status = cli_status_of(vm, &holder);
    bool is_so = status && status->guest_here && status->guest_state == guest_state;
    if (holder)
        understudy__envelope__free_unpacked(holder, NULL);
    return is_so;
}

/* Orders an action, and waits until the guest's state in status is `wanted` (GUEST_STATE_ANY: no waiting). */
#define GUEST_STATE_ANY (-1)
static int order(int argc, char **argv, Understudy__PowerAction action, int wanted)
{
    if (!cli_parse(NULL, 1, 1, &argc, &argv))
        return EXIT_USAGE;
    Understudy__PowerRequest power = UNDERSTUDY__POWER_REQUEST__INIT;
    power.vm = argv[1];
    power.action = action;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(POWER_REQUEST, power_request, &power);
    int code = cli_call_simple(&request, ORDER_MS);
    gint64 until = g_get_monotonic_time() + SHOWN_S * G_USEC_PER_SEC;
    while (code == EXIT_OK && wanted != GUEST_STATE_ANY && !shows(argv[1], (Understudy__GuestState)wanted)) {
        if (g_get_monotonic_time() > until)
            return cli_fail("VM %s has not carried out the order: 'understudy status %s' says what it does",
                            argv[1], argv[1]);
        g_usleep(POLL_US);
    }
    return code;
}

int cmd_reset(int argc, char **argv)
{
    return order(argc, argv, UNDERSTUDY__POWER_ACTION__POWER_RESET, GUEST_STATE_ANY);
}

int cmd_pause(int argc, char **argv)
{
    return order(argc, argv, UNDERSTUDY__POWER_ACTION__POWER_PAUSE,
                 UNDERSTUDY__GUEST_STATE__GUEST_STATE_PAUSED);
}

int cmd_resume(int argc, char **argv)
{
    return order(argc, argv, UNDERSTUDY__POWER_ACTION__POWER_RESUME,
                 UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS);
}
