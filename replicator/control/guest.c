/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's machine (hv-hooks/machine.h) from the control thread's side: its start, promotion, and its end.
 * What it tells goes to the session here, or to the parts that it concerns (struct guest_observer).
 *
 * A guest that powers itself off leaves its hypervisor there until the last frames are out and the peer knows
 * that there is nothing to take over.
 */
#include "replicator/control/guest_nics.h"
#include "replicator/control/replicator.h"

/*
 * The time that a takeover may take. In a planned one the old primary still has the guest, paused, and takes
 * it back soon. Otherwise the guest is nowhere else: a busy host gets the time that it needs.
 */
#define TAKE_BACK_MS 5000
#define ONLY_COPY_MS 60000

/* ---- what the machine tells ---- */

static void on_ready(void *opaque)
{
    struct replicator *r = opaque;
    const struct guest_nics nics = {
        .vm_name = r->config.vm_name,
        .n = r->config.nnics,
        .machine = r->machine,
        .gate = r->gate,
        .input_log = r->input_log,
        .sink = &r->sink,
    };
    r->hv_ready = true;
    r->guest_runs_here = r->config.role == SESSION_PRIMARY;
    if (!guest_nics_connect(&nics)) {
        sink_give_up(&r->sink);
        return;
    }
    r->guest_observer->ready(r);
}

/* It may say more at its end, which ends this process. */
static void on_failed(void *opaque, const char *why)
{
    struct replicator *r = opaque;
    if (!sink_last_error(&r->sink))
        sink_error(&r->sink, "VM %s could not be started: %s", r->config.vm_name, why);
}

static void on_ended(void *opaque, const char *why)
{
    struct replicator *r = opaque;
    r->qemu_gone = true;
    r->guest_runs_here = false;
    if (r->ended || r->quitting)
        return;
    /* A machine that failed has said why, and was killed for it. */
    if (r->hv_ready || !sink_last_error(&r->sink))
        sink_error(&r->sink, "%s", why);
    if (!r->hv_ready)
        sink_give_up(&r->sink);
    else
        sink_event_simple(&r->sink, SESSION_EVENT_HYPERVISOR_DIED);
}

static void on_trouble(void *opaque, const char *what)
{
    const struct replicator *r = opaque;
    if (!r->quitting)
        g_warning("%s: %s", r->config.vm_name, what);
}

static void on_run_event(void *opaque, enum run_event event, const char *reason)
{
    struct replicator *r = opaque;
    r->guest_observer->run_event(r, event, reason);
}

static void on_reset(void *opaque)
{
    struct replicator *r = opaque;
    r->guest_observer->was_reset(r);
}

static void on_disk_error(void *opaque, const struct machine_disk_error *error)
{
    struct replicator *r = opaque;
    r->guest_observer->disk_error(r, error);
}

static void on_resumed(void *opaque)
{
    struct replicator *r = opaque;
    r->guest_observer->resumed(r);
}

static void on_taken_over(void *opaque, const struct machine_takeover *result)
{
    struct replicator *r = opaque;
    struct session_event event = {.type = SESSION_EVENT_PROMOTED, .term = r->promote_term, .ok = result->ok};
    if (!result->ok) {
        sink_error(&r->sink, "VM %s could not be taken over: %s", r->config.vm_name, result->words);
    } else {
        uint64_t lost_ns = (uint64_t)g_get_monotonic_time() * 1000 - image_received_ns(r->image);
        r->promote_ms = (double)(g_get_monotonic_time() - r->granted_us) / 1000;
        r->guest_runs_here = true;
        /* The guest's clock stood still from the epoch's boundary until now. */
        if (result->state == MACHINE_RUNS)
            hypervisor_advance_clock(r->hv, lost_ns);
        g_message("%s: taken over, guest running %.1f ms after the decision (QEMU %.1f ms)",
                  r->config.vm_name, r->promote_ms, (double)result->elapsed_us / 1000);
    }
    sink_event(&r->sink, &event);
    if (result->ok) {
        input_log_inject(r->input_log);
        r->guest_observer->taken_over(r, result);
    }
}

/* ---- what it is told ---- */

bool guest_start(struct replicator *r, GError **error)
{
    static const struct machine_observer observer = {
        .ready = on_ready,
        .failed = on_failed,
        .ended = on_ended,
        .trouble = on_trouble,
        .run_event = on_run_event,
        .was_reset = on_reset,
        .disk_error = on_disk_error,
        .resumed = on_resumed,
        .taken_over = on_taken_over,
    };
    const struct machine_config config = {
        .vm_name = r->config.vm_name,
        .dir = r->config.vm_dir,
        .argv = (const char *const *)r->config.qemu_argv,
        .hook_path = r->config.hook_path,
        .ram_len = r->config.ram_bytes,
        .nnics = r->config.nnics,
        .nice = r->config.nice,
    };
    r->machine = machine_start(&config, &observer, r, error);
    if (r->machine)
        r->hv = machine_hypervisor(r->machine);
    return r->machine != NULL;
}

void guest_promote(struct replicator *r, uint64_t term, bool peer_takes_back)
{
    g_autoptr(GError) error = NULL;
    struct machine_image image = {0};
    image.devstate = image_devstate(r->image, &image.devstate_len);
    image.used_len = image_used_len(r->image, &image.nblocks);
    image.limit_ms = peer_takes_back ? TAKE_BACK_MS : ONLY_COPY_MS;
    r->promote_term = term;
    if (!machine_take_over(r->machine, &image, &error)) {
        sink_error(&r->sink, "VM %s could not be taken over: %s", r->config.vm_name, error->message);
        struct session_event event = {.type = SESSION_EVENT_PROMOTED, .term = term, .ok = false};
        sink_event(&r->sink, &event);
    }
}

void guest_quit(struct replicator *r)
{
    r->quitting = true;
    r->guest_runs_here = false;
    machine_order(r->machine, MACHINE_QUIT, NULL, NULL);
}

void guest_power_down(struct replicator *r)
{
    if (!r->hv_ready || r->qemu_gone)
        return;
    g_message("%s: this host goes down and nobody can take the guest over: it is asked to shut down",
              r->config.vm_name);
    machine_order(r->machine, MACHINE_POWER_DOWN, NULL, NULL);
}

void guest_fence(struct replicator *r)
{
    r->quitting = true;
    r->guest_runs_here = false;
    gate_drop(r->gate);
    machine_kill(r->machine);
}

void guest_resume(struct replicator *r)
{
    /* Whoever paused it will resume it. */
    if (r->guest_state == UNDERSTUDY__GUEST_STATE__GUEST_STATE_RUNS)
        machine_order(r->machine, MACHINE_CONTINUE, NULL, NULL);
}

void guest_close(struct replicator *r)
{
    g_clear_pointer(&r->machine, machine_free);
    r->hv = NULL;
}
