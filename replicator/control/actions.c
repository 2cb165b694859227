/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the session decides, carried out: each of its actions is an order to one part or two. Nothing is
 * decided here. Nothing here waits: what takes time answers later, with an event.
 */
#include "replicator/control/capture_stop.h"
#include "replicator/control/channel.h"
#include "replicator/control/replicator.h"
#include "replicator/control/term_file.h"

static void fill_hello(struct replicator *r, struct wire_hello *hello)
{
    memcpy(hello->token, r->config.token, WIRE_TOKEN_LEN);
    hello->term = r->session.term;
    hello->role = r->session.role == SESSION_PRIMARY ? WIRE_ROLE_PRIMARY : WIRE_ROLE_SECONDARY;
    struct session_hello images;
    session_hello(&r->session, &images);
    /* What was held back of a shared disk is let go or forgotten meanwhile: its VM is synchronised in full.
     */
    if (disks_any_shared(r->disks.set))
        memset(&images.origin, 0, sizeof images.origin);
    hello->images = (struct wire_images){.origin = {images.origin.run, images.origin.number},
                                         .next = {images.next.run, images.next.number}};
    hello->nblocks = hypervisor_nblocks(r->hv);
    for (unsigned i = 0; i < hello->nblocks; i++) {
        const struct hv_block *block = hypervisor_block(r->hv, i);
        g_strlcpy(hello->blocks[i].idstr, block->idstr, sizeof hello->blocks[i].idstr);
        hello->blocks[i].max_len = block->max_len;
    }
}

static void do_connect(struct replicator *r)
{
    g_autofree struct wire_hello *hello = g_new0(struct wire_hello, 1);
    fill_hello(r, hello);
    link_open(r->link, hello);
}

/* A message sent by the same decision goes out first; otherwise there is nothing worth waiting for. A message
 * without a connection went nowhere: what the link has made meanwhile, and not told yet, is closed. */
static void do_disconnect(struct replicator *r, bool said_something)
{
    bool waits = said_something && r->connection;
    capture_stop_cancel(&r->capture_stop, DEFER_CONNECT);
    link_close(r->link, !waits);
    if (waits)
        sender_post_close(r->sender, r->connection);
    g_clear_pointer(&r->connection, connection_put);
}

static void do_start_precopy(struct replicator *r)
{
    r->sync_done_pages = 0;
    r->sync_total_pages = 0;
    for (unsigned i = 0; i < hypervisor_nblocks(r->hv); i++)
        r->sync_total_pages += hypervisor_block(r->hv, i)->used_len / HV_PAGE_LEN;
    r->sync_difference = false;
    r->sync_began_us = g_get_monotonic_time();
    capture_thread_precopy(r->capture, r->connection, r->session.term);
}

static void do_start_resync(struct replicator *r, uint64_t held_epoch)
{
    r->sync_difference = true;
    r->sync_began_us = g_get_monotonic_time();
    capture_thread_resync(r->capture, r->connection, r->session.term, held_epoch);
}

/* ---- the capture stops, which may take long ---- */

static void on_stop_late(void *opaque)
{
    struct replicator *r = opaque;
    sink_error_of(&r->sink, SINK_CAUSE_DISK,
                  "VM %s: its checkpoints have not ended yet: QEMU, or the storage of a disk or of the "
                  "folder %s, does not answer; no standby is looked for until it does",
                  r->config.vm_name, r->config.state_dir ? r->config.state_dir : r->config.vm_dir);
}

static void on_stop_over(void *opaque, gint64 took_us)
{
    struct replicator *r = opaque;
    if (took_us >= G_USEC_PER_SEC) {
        g_message("%s: its checkpoints have ended %.1f s after they were told to", r->config.vm_name,
                  (double)took_us / G_USEC_PER_SEC);
        sink_error_over(&r->sink, SINK_CAUSE_DISK);
        sink_changed(&r->sink);
    }
    guest_disks_stop_logging(&r->disks);
}

static void on_stop_connect(void *opaque)
{
    do_connect(opaque);
}

static void on_stop_resume(void *opaque)
{
    guest_resume(opaque);
}

void actions_open_capture_stop(struct replicator *r)
{
    static const struct capture_stop_calls calls = {
        .late = on_stop_late, .over = on_stop_over, .connect = on_stop_connect, .resume = on_stop_resume};
    capture_stop_init(&r->capture_stop, r->capture, &calls, r);
}

static void on_granted(bool granted, uint64_t term, void *opaque)
{
    struct replicator *r = opaque;
    struct session_event event = {.type = SESSION_EVENT_GRANT, .term = term, .ok = granted};
    r->granted_us = g_get_monotonic_time();
    /* A guest that is handed over was not lost: there is nothing to detect. */
    if (granted && r->session.role == SESSION_SECONDARY && !r->session.handed_over)
        r->detect_ms = (double)r->silent_ms;
    r->asked_us = 0;
    sink_event(&r->sink, &event);
}

static void do_end(struct replicator *r, enum session_end_reason reason)
{
    if (r->ended)
        return;
    r->ended = true;
    if (reason == SESSION_END_BUG)
        sink_error(
            &r->sink,
            "VM %s was stopped here because understudy found an error in its own state: its session was %s "
            "and would have become %s, which is no valid step. The step was not taken; the other host goes "
            "on as after a crash of this one. Please report this sentence and the log (journalctl -u "
            "understudyd)",
            r->config.vm_name, session_state_name(r->session.bug_from),
            session_state_name(r->session.bug_to));
    channel_ended(r->channel, reason, sink_last_error(&r->sink));
    g_main_loop_quit(r->loop);
}

bool action_sends_message(enum session_action_type type)
{
    return type == SESSION_DO_SEND_FENCED || type == SESSION_DO_SEND_GOODBYE ||
           type == SESSION_DO_SEND_ANSWER || type == SESSION_DO_SEND_HANDOVER ||
           type == SESSION_DO_SEND_HANDOVER_DONE;
}

void action_carry_out(struct replicator *r, const struct session_action *action, bool said_something,
                      struct staged_epoch **offered)
{
    switch (action->type) {
    case SESSION_DO_CONNECT:
        capture_stop_connect(&r->capture_stop);
        break;
    case SESSION_DO_DISCONNECT:
        do_disconnect(r, said_something);
        break;
    case SESSION_DO_START_PRECOPY:
        do_start_precopy(r);
        break;
    case SESSION_DO_START_RESYNC:
        do_start_resync(r, action->epoch);
        break;
    case SESSION_DO_FORGET_IMAGE:
        capture_thread_forget(r->capture);
        break;
    case SESSION_DO_STOP_CAPTURE:
        capture_stop_order(&r->capture_stop);
        disks_limit_logs(r->disks.set, 0); /* the guest's writes wait for no pass that is over */
        break;
    case SESSION_DO_HOLD_OUTPUT:
        r->alone_us = 0;
#ifndef UNDERSTUDY_CHAOS /* the planted fault: output that does not wait for its epoch */
        gate_hold(r->gate);
#endif
        guest_disks_hold(&r->disks);
        break;
    case SESSION_DO_START_EPOCHS:
        capture_thread_epochs(r->capture, r->session.cut_epoch + 1);
        break;
    case SESSION_DO_RELEASE:
        gate_release(r->gate, action->epoch);
        guest_disks_release(&r->disks, action->epoch);
        capture_thread_acked(r->capture, action->epoch);
        break;
    case SESSION_DO_RELEASE_ALL:
        split_alone(r);
        gate_pass_all(r->gate);
        break;
    case SESSION_DO_RELEASE_LAST:
        guest_disks_release_last(&r->disks);
        break;
    case SESSION_DO_KEEP_TERM:
        gate_hold(r->gate);
        term_file_keep(r->term_file, action->term);
        break;
    case SESSION_DO_DISKS_DURABLE:
        split_alone(r);
        guest_disks_make_durable(&r->disks, action->order);
        break;
    case SESSION_DO_DISKS_GIVE_UP:
        guest_disks_give_up(&r->disks, action->order);
        break;
    case SESSION_DO_DISKS_WRITABLE:
        guest_disks_make_writable(&r->disks, action->order);
        break;
    case SESSION_DO_DISKS_TAKE_OVER:
        guest_disks_take_over(&r->disks, action->order);
        break;
    case SESSION_DO_DROP_OUTPUT:
        capture_stop_cancel(&r->capture_stop, DEFER_RESUME);
        guest_disks_fence(&r->disks);
        gate_drop(r->gate);
        break;
    case SESSION_DO_SEND_ACK:
        sink_send(&r->sink, MESSAGE_ACK, action->term, action->epoch, action->untried ? ACK_UNTRIED : 0);
        break;
    case SESSION_DO_APPLY:
        input_log_acked(r->input_log, action->epoch);
        if (*offered && (*offered)->epoch == action->epoch)
            applier_post(r->applier, g_steal_pointer(offered), action->term,
                         r->connection ? r->connection->id : 0);
        break;
    case SESSION_DO_DISCARD_IMAGE:
        input_log_reset(r->input_log);
        applier_post_discard_image(r->applier);
        r->sync_done_pages = 0;
        break;
    case SESSION_DO_KEEP_IMAGE:
        input_log_reset(r->input_log);
        applier_post_keep_image(r->applier);
        r->sync_done_pages = 0;
        break;
    case SESSION_DO_ASK_PEER:
    case SESSION_DO_SEND_ANSWER:
        heartbeats_send_now(r, true);
        break;
    case SESSION_DO_ASK_GRANT:
        if (!r->asked_us) {
            r->asked_us = g_get_monotonic_time();
            r->silent_ms = replicator_now_ms() - r->session.detector.peer.heard_ms;
        }
        arbiter_ask(r->arbiter, action->term, on_granted, r);
        break;
    case SESSION_DO_PROMOTE:
        guest_promote(r, action->term, session_peer_takes_back(&r->session));
        break;
    case SESSION_DO_LAST_EPOCH:
        capture_thread_last_epoch(r->capture);
        break;
    case SESSION_DO_SEND_HANDOVER:
        sink_send(&r->sink, MESSAGE_HANDOVER, action->term, action->epoch, 0);
        break;
    case SESSION_DO_SEND_HANDOVER_DONE:
        sink_send(&r->sink, MESSAGE_HANDOVER_DONE, action->term, action->epoch, 0);
        break;
    case SESSION_DO_SEND_GOODBYE:
        sink_send(&r->sink, MESSAGE_GOODBYE, action->term, action->epoch, action->reason);
        break;
    case SESSION_DO_SEND_FENCED:
        sink_send(&r->sink, MESSAGE_FENCED, action->term, 0, 0);
        break;
    case SESSION_DO_RESUME_GUEST:
        capture_stop_resume(&r->capture_stop);
        break;
    case SESSION_DO_FENCE_GUEST:
        capture_stop_cancel(&r->capture_stop, DEFER_RESUME);
        if (r->session.end_reason == SESSION_END_FENCED) {
            split_fenced(r);
            /* The first beat that came ended this side: the other may not have had one of ours, and tells of
             * the split too. */
            heartbeats_send_now(r, true);
        }
        guest_disks_fence(&r->disks);
        guest_fence(r);
        break;
    case SESSION_DO_QUIT_HYPERVISOR:
        guest_quit(r);
        break;
    case SESSION_DO_POWER_DOWN_GUEST:
        guest_power_down(r);
        break;
    case SESSION_DO_END:
        do_end(r, action->reason);
        break;
    case SESSION_NACTIONS:
        break;
    }
}
