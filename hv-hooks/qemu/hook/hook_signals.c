/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Passes signals that would end QEMU on to the replicator. A host that goes down sends SIGTERM to every
 * process at once. QEMU would quit, and the guest with it, while the replicator hands the guest over. So the
 * replicator decides (failover/leave.c). If the replicator is gone, QEMU's own handler runs as usual.
 *
 * The handlers run on any of QEMU's threads and call async-signal-safe functions only. QEMU 7.2 to 10.0 set
 * their own handlers (os_setup_signal_handling) before the main loop runs for the first time.
 */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "hv-hooks/qemu/hook/hook_internal.h"

static const int passed_on[] = {SIGTERM, SIGHUP, SIGINT};
#define NSIGNALS (sizeof passed_on / sizeof *passed_on)

static pid_t replicator;
static struct sigaction qemus_own[NSIGNALS];

static void on_signal(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    /* Only to the own parent: not if a shell is in between, or if another process has the number now. */
    if (getppid() == replicator) {
        kill(replicator, SIGTERM);
        errno = saved;
        return;
    }
    for (size_t i = 0; i < NSIGNALS; i++) {
        if (passed_on[i] == number && (qemus_own[i].sa_flags & SA_SIGINFO))
            qemus_own[i].sa_sigaction(number, info, context);
    }
    errno = saved;
}

void hook_signals_pass_on(pid_t replicator_pid)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    replicator = replicator_pid;
    for (size_t i = 0; i < NSIGNALS; i++)
        sigaction(passed_on[i], &action, &qemus_own[i]);
}
