/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See qemu_events.h. The words are those of qapi/run-state.json and qapi/block-core.json, 7.2 to 10.0. They
 * come from QEMU, which the guest may rule. */
#include "hv-hooks/qemu/qemu_events.h"

#include "common/words.h"

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

enum machine_state qemu_event_state(const char *run_state)
{
    static const struct {
        const char *name;
        enum machine_state state;
    } known[] = {
        {"running", MACHINE_RUNS},        {"paused", MACHINE_PAUSED},
        {"io-error", MACHINE_DISK_ERROR}, {"guest-panicked", MACHINE_PANICKED},
        {"shutdown", MACHINE_SHUT_OFF},   {"watchdog", MACHINE_WATCHDOG},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
        if (g_strcmp0(run_state, known[i].name) == 0)
            return known[i].state;
    }
    return MACHINE_STANDS;
}

/* What QEMU says there, readable, or NULL. GLib string. */
static char *word(const json_t *data, const char *key)
{
    const char *said = json_string_value(json_object_get(data, key));
    return said ? words_make_readable(said, WORDS_MAX) : NULL;
}

static void tell_disk_error(const json_t *data, const struct machine_observer *observer, void *opaque)
{
    g_autofree char *reason = word(data, "reason"), *device = word(data, "device"),
                    *node = word(data, "node-name");
    const char *action = json_string_value(json_object_get(data, "action"));
    const struct machine_disk_error error = {
        .disk = device && device[0] ? device
                : node              ? node
                                    : "",
        .reason = reason ? reason : "",
        .stops = g_strcmp0(action, "stop") == 0,
    };
    observer->disk_error(opaque, &error);
}

void qemu_event_tell(const char *name, const json_t *data, const struct machine_observer *observer,
                     void *opaque)
{
    if (g_str_equal(name, "SHUTDOWN")) {
        g_autofree char *reason = word(data, "reason");
        bool guest = json_is_true(json_object_get(data, "guest"));
        observer->run_event(opaque, qemu_event_shutdown(guest, reason), reason);
    } else if (g_str_equal(name, "GUEST_PANICKED")) {
        observer->run_event(opaque, RUN_EVENT_PANICKED, NULL);
    } else if (g_str_equal(name, "WATCHDOG")) {
        g_autofree char *action = word(data, "action");
        observer->run_event(opaque, qemu_event_watchdog(action), action);
    } else if (g_str_equal(name, "RESET")) {
        observer->was_reset(opaque);
    } else if (g_str_equal(name, "BLOCK_IO_ERROR")) {
        tell_disk_error(data, observer, opaque);
    } else if (g_str_equal(name, "RESUME")) {
        observer->resumed(opaque);
    }
}
