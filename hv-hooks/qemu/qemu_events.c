/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Maps QEMU's SHUTDOWN and WATCHDOG events to run events. The words are those of qapi/run-state.json, 7.2
 * to 10.0. */
#include "hv-hooks/qemu/qemu_events.h"

enum run_event qemu_event_shutdown(bool guest, const char *reason)
{
    if (g_strcmp0(reason, "guest-panic") == 0)
        return RUN_EVENT_PANIC_END;
    /* A reset by the monitor is a shutdown where the user's line says so (-no-reboot). */
    if (guest || g_strcmp0(reason, "host-qmp-system-reset") == 0)
        return RUN_EVENT_SHUTDOWN;
    return RUN_EVENT_QUIT; /* host-signal, host-qmp-quit, host-ui, host-error */
}

enum run_event qemu_event_watchdog(const char *action)
{
    /* QEMU itself does the others: reset, shutdown (it asks the guest), inject-nmi, debug, none. */
    return g_strcmp0(action, "pause") == 0 ? RUN_EVENT_WATCHDOG : RUN_EVENT_WATCHDOG_DONE;
}
