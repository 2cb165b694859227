/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control thread's core: what happened goes into the session as events, what the session decides goes out
 * to the parts as actions.
 *
 * Notes of an older connection or an older capture are dropped at this door, so the session never sees them.
 * Events raised while an action is carried out (a grant given at once) wait until the action list is done.
 */
#include "replicator/control/replicator.h"

#include "replicator/control/channel.h"
#include "replicator/control/term_file.h"
#include "replicator/control/trial.h"
#include "replicator/note.h"

static void fill_hello(struct replicator *r, struct wire_hello *hello)
{
    memcpy(hello->token, r->config.token, WIRE_TOKEN_LEN);
    hello->term = r->session.term;
    hello->role = r->session.role == SESSION_PRIMARY ? WIRE_ROLE_PRIMARY : WIRE_ROLE_SECONDARY;
    struct session_hello images;
    session_hello(&r->session, &images);
    /* What was held back of a shared disk is let go or forgotten meanwhile: its VM is synchronised in full.
     */
    if (disks_any_shared(r->disks))
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

/* A message sent by the same decision goes out first; otherwise there is nothing worth waiting for. */
static void do_disconnect(struct replicator *r, bool said_something)
{
    capture_stop_cancel(&r->capture_stop, DEFER_CONNECT);
    link_close(r->link, !said_something);
    if (said_something && r->connection)
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
    guest_disks_stop_logging(r);
}

static void on_stop_connect(void *opaque)
{
    do_connect(opaque);
}

static void on_stop_resume(void *opaque)
{
    guest_resume(opaque);
}

void replicator_open_capture_stop(struct replicator *r)
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
            "VM %s ended here because understudy itself went wrong: its session was %s and would have "
            "become %s. Nothing of that was done; the other host goes on as after a crash of this one. "
            "Please report this sentence",
            r->config.vm_name, session_state_name(r->session.bug_from),
            session_state_name(r->session.bug_to));
    channel_ended(r->channel, reason, sink_last_error(&r->sink));
    g_main_loop_quit(r->loop);
}

static bool sends_message(enum session_action_type type)
{
    return type == SESSION_DO_SEND_FENCED || type == SESSION_DO_SEND_GOODBYE ||
           type == SESSION_DO_SEND_ANSWER || type == SESSION_DO_SEND_HANDOVER ||
           type == SESSION_DO_SEND_HANDOVER_DONE;
}

static void do_action(struct replicator *r, const struct session_action *action, bool said_something,
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
        disks_limit_logs(r->disks, 0); /* the guest's writes wait for no pass that is over */
        break;
    case SESSION_DO_HOLD_OUTPUT:
        r->alone_us = 0;
#ifndef UNDERSTUDY_CHAOS /* the planted fault: output that does not wait for its epoch */
        gate_hold(r->gate);
#endif
        guest_disks_hold(r);
        break;
    case SESSION_DO_START_EPOCHS:
        capture_thread_epochs(r->capture, r->session.cut_epoch + 1);
        break;
    case SESSION_DO_RELEASE:
        gate_release(r->gate, action->epoch);
        guest_disks_release(r, action->epoch);
        capture_thread_acked(r->capture, action->epoch);
        break;
    case SESSION_DO_RELEASE_ALL:
        split_alone(r);
        gate_pass_all(r->gate);
        break;
    case SESSION_DO_RELEASE_LAST:
        guest_disks_release_last(r);
        break;
    case SESSION_DO_KEEP_TERM:
        gate_hold(r->gate);
        term_file_keep(r->term_file, action->term);
        break;
    case SESSION_DO_DISKS_DURABLE:
        split_alone(r);
        guest_disks_make_durable(r, action->order);
        break;
    case SESSION_DO_DISKS_GIVE_UP:
        guest_disks_give_up(r, action->order);
        break;
    case SESSION_DO_DISKS_WRITABLE:
        guest_disks_make_writable(r, action->order);
        break;
    case SESSION_DO_DISKS_TAKE_OVER:
        guest_disks_take_over(r, action->order);
        break;
    case SESSION_DO_DROP_OUTPUT:
        capture_stop_cancel(&r->capture_stop, DEFER_RESUME);
        guest_disks_fence(r);
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
        guest_promote(r, action->term);
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
        guest_disks_fence(r);
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

static gboolean on_tick(gpointer opaque)
{
    struct replicator *r = opaque;
    r->tick_source = 0;
    paths_look(r->paths);
    if (r->ended)
        return G_SOURCE_REMOVE;
    sink_event_simple(&r->sink, SESSION_EVENT_TICK);
    return G_SOURCE_REMOVE;
}

static void arm_tick(struct replicator *r)
{
    uint64_t next = session_next_tick_ms(&r->session);
    uint64_t now = replicator_now_ms();
    g_clear_handle_id(&r->tick_source, g_source_remove);
    if (next == UINT64_MAX || r->ended)
        return;
    r->tick_source =
        g_timeout_add_full(G_PRIORITY_HIGH, next > now ? (guint)MIN(next - now, 10000) : 0, on_tick, r, NULL);
}

static void log_synchronised(const struct replicator *r)
{
    const struct capture_figures *figures = capture_thread_figures(r->capture);
    g_message("%s: the standby %s: %" G_GUINT64_FORMAT " pages in %.0f ms", r->config.vm_name,
              r->sync_difference ? "had kept its image and got what it lacked" : "got a new image",
              atomic_load_explicit(&figures->sync_sent_pages, memory_order_relaxed), r->sync_ms);
}

/* ---- the trial of a standby whose QEMU is not the primary's ---- */

static void say_of_trial(struct replicator *r, char *text)
{
    g_free(r->trial_text);
    r->trial_text = text;
    if (text)
        g_message("%s: %s", r->config.vm_name, text);
    sink_changed(&r->sink);
}

static void fail_trial(struct replicator *r, const char *why)
{
    const struct session_event event = {.type = SESSION_EVENT_TRIED};
    say_of_trial(r, NULL);
    sink_error(&r->sink,
               "QEMU %s of this host cannot take VM %s over, which runs in QEMU %s on the other host: on "
               "trial it did not load the state of the guest's devices (%s); install QEMU %s here, or "
               "another later one",
               r->config.qemu_version, r->config.vm_name, r->config.tried_for, why, r->config.tried_for);
    sink_event(&r->sink, &event);
}

static bool stands_by(const struct replicator *r)
{
    return r->session.state == SESSION_LISTENING || r->session.state == SESSION_FOLLOWING ||
           r->session.state == SESSION_STANDBY;
}

/* With the first whole image; again if the last trial decided nothing. */
static void consider_trial(struct replicator *r)
{
    g_autoptr(GError) error = NULL;
    if (r->trial || r->ended || r->session.state != SESSION_STANDBY || !r->session.untried)
        return;
    const struct trial_config config = {
        .vm_name = r->config.vm_name,
        .vm_dir = r->config.vm_dir,
        .argv = (const char *const *)r->config.trial_argv,
        .hook_path = r->config.hook_path,
        .ram_len = r->config.ram_bytes,
        .ram_fd = r->fds.ram,
        .image = r->image,
        .applier = r->applier,
        .control = &r->box,
    };
    r->trial = trial_begin(&config, &error);
    if (!r->trial)
        fail_trial(r, error->message);
    else
        say_of_trial(r, g_strdup_printf("QEMU %s is loading the state of the guest's devices on trial",
                                        r->config.qemu_version));
}

static void on_tried(struct replicator *r, const struct note *note)
{
    const struct session_event event = {.type = SESSION_EVENT_TRIED, .ok = true};
    g_clear_pointer(&r->trial, trial_end);
    if (note->arg == TRIAL_FAILED && stands_by(r)) {
        fail_trial(r, (const char *)note->payload);
    } else if (note->arg == TRIAL_LOADED) {
        say_of_trial(r, g_strdup_printf("QEMU %s loaded the state of the guest's devices on trial in %.0f ms "
                                        "(epoch %" G_GUINT64_FORMAT ")",
                                        r->config.qemu_version, (double)note->status / 1000, note->epoch));
        sink_event(&r->sink, &event);
    } else {
        say_of_trial(r, NULL);
    }
}

/* Who is about to take over, or has ended, waits for no trial. */
static void stop_trial_unless_standing_by(struct replicator *r)
{
    if (r->trial && !stands_by(r))
        trial_cancel(r->trial);
}

static void on_state_changed(struct replicator *r, enum session_state before, enum session_event_type cause)
{
    input_log_set_active(r->input_log,
                         r->session.state == SESSION_ARMING || r->session.state == SESSION_PROTECTED);
    r->since_us = g_get_monotonic_time();
    stop_trial_unless_standing_by(r);
    g_message("%s: %s, was %s (%s)", r->config.vm_name, session_state_name(r->session.state),
              session_state_name(before), session_event_name(cause));
    sink_changed(&r->sink);
}

/* One event. offered: the epoch that came with it, or NULL. */
static void handle_one(void *opaque, const struct session_event *event, struct staged_epoch *offered)
{
    struct replicator *r = opaque;
    enum session_state before = r->session.state;
    uint64_t term = r->session.term;
    struct session_actions actions;
    bool said_something = false;
    session_handle(&r->session, event, replicator_now_ms(), &actions);
    /* The peer hears of a new term before anything is done about it, which may take a while. */
    if (r->session.term != term)
        heartbeats_send_now(r, false);
    for (size_t i = 0; i < actions.n && !r->ended; i++) {
        do_action(r, &actions.list[i], said_something, &offered);
        said_something |= sends_message(actions.list[i].type);
    }
    if (offered)
        applier_post_discard(r->applier, offered);
    if (r->session.state == SESSION_PROTECTED && r->sync_began_us) {
        r->sync_ms = (double)(g_get_monotonic_time() - r->sync_began_us) / 1000;
        r->sync_began_us = 0;
        log_synchronised(r);
    }
    if (r->session.state != before)
        on_state_changed(r, before, event->type);
}

/* ---- what the parts post (sink.h) ---- */

static void on_handled(void *opaque)
{
    arm_tick(opaque);
}

static void on_overflow(void *opaque, const struct session_event *event, struct staged_epoch *offered)
{
    struct replicator *r = opaque;
    g_warning("%s: an event (%s) came amid too many others: the link is given up", r->config.vm_name,
              session_event_name(event->type));
    if (offered)
        applier_post_discard(r->applier, offered);
    if (r->connection)
        connection_shutdown(r->connection);
}

static void on_send(void *opaque, const struct transport_message *message)
{
    struct replicator *r = opaque;
    if (r->connection)
        sender_post_message(r->sender, r->connection, message);
}

static void on_changed(void *opaque)
{
    const struct replicator *r = opaque;
    channel_report_soon(r->channel);
}

static void on_give_up(void *opaque)
{
    struct replicator *r = opaque;
    if (r->ended)
        return;
    r->ended = true;
    r->exit_status = 1;
    channel_ended(r->channel, SESSION_END_HYPERVISOR_DIED, sink_last_error(&r->sink));
    g_main_loop_quit(r->loop);
}

void control_open(struct replicator *r)
{
    static const struct sink_core core = {
        .event = handle_one,
        .done = on_handled,
        .overflow = on_overflow,
        .send = on_send,
        .changed = on_changed,
        .give_up = on_give_up,
    };
    sink_init(&r->sink, &core, r);
}

static void on_message(struct replicator *r, const struct note *note)
{
    struct session_event event = {
        .term = note->term,
        .epoch = note->epoch,
        .peer_role = r->session.role == SESSION_PRIMARY ? SESSION_SECONDARY : SESSION_PRIMARY,
        .by_link = true,
    };
    switch ((enum message_type)note->arg) {
    case MESSAGE_ACK:
        event.type = SESSION_EVENT_ACK;
        event.untried = r->peer_untried = note->aux & ACK_UNTRIED;
        break;
    case MESSAGE_HANDOVER:
        event.type = SESSION_EVENT_HANDOVER;
        break;
    case MESSAGE_HANDOVER_DONE:
        event.type = SESSION_EVENT_HANDOVER_DONE;
        break;
    case MESSAGE_GOODBYE:
        event.type = SESSION_EVENT_GOODBYE;
        event.reason = (enum session_end_reason)note->aux;
        if (r->session.state == SESSION_HANDING_OVER)
            sink_error(&r->sink,
                       "the other host could not take VM %s over (%s): its understudyd has logged why",
                       r->config.vm_name, session_end_reason_name(event.reason));
        break;
    case MESSAGE_FENCED:
        event.type = SESSION_EVENT_FENCED;
        break;
    case MESSAGE_FRAMES:
        if (r->session.role == SESSION_SECONDARY)
            input_log_received(r->input_log, note->aux, note->epoch, note->payload, note->len);
        event.type = SESSION_EVENT_HEARTBEAT;
        break;
    case MESSAGE_APPLIED:
    case MESSAGE_DISK_BITS:
    case MESSAGE_DISK_STATE:
    case MESSAGE_DISK_PAIR:
    case MESSAGE_DISK_HASH_REQUEST:
    case MESSAGE_DISK_HASHES:
    case MESSAGE_DISK_FLUSHED:
        if (!guest_disks_message(r, note)) {
            sink_error(&r->sink, "the peer sent nonsense about the disks: are both hosts of one version?");
            connection_shutdown(r->connection);
        }
        event.type = SESSION_EVENT_HEARTBEAT;
        break;
    case MESSAGE_BEAT:
        paths_take(r->paths, note->payload, note->len);
        return;
    default:
        event.type = SESSION_EVENT_HEARTBEAT;
        break;
    }
    sink_event(&r->sink, &event);
}

static struct session_hello images_of(const struct wire_images *images)
{
    return (struct session_hello){.origin = {images->origin.run, images->origin.number},
                                  .next = {images->next.run, images->next.number}};
}

static void on_link_up(struct replicator *r, struct note *note)
{
    struct session_event event = {.type = SESSION_EVENT_LINK_UP,
                                  .term = note->term,
                                  .peer_role =
                                      note->arg == WIRE_ROLE_PRIMARY ? SESSION_PRIMARY : SESSION_SECONDARY};
    g_clear_pointer(&r->connection, connection_put);
    r->connection = g_steal_pointer(&note->connection);
    event.said = images_of(&r->connection->said);
    event.heard = images_of(&r->connection->heard);
    sink_forget_error(&r->sink);
    r->peer_untried = false;
    r->transport = r->connection->transport->ops->name;
    if (note->len) {
        g_free(r->transport_why);
        r->transport_why = g_strdup((const char *)note->payload);
    }
    disk_sync_connected(r->disk_sync);
    sink_event(&r->sink, &event);
    if (r->connection && r->session.state == SESSION_FOLLOWING)
        disk_answer_connected(r->disk_answer, r->connection, r->session.term);
}

static void on_epoch_received(struct replicator *r, struct note *note)
{
    struct staged_epoch *staged = g_steal_pointer(&note->staged);
    if (image_check(r->image, staged) < 0 || disks_check(r->disks, r->staging, staged) < 0) {
        applier_post_discard(r->applier, staged);
        sink_error(
            &r->sink,
            "the peer sent pages or disk blocks that this VM does not have: are both hosts of one version?");
        connection_shutdown(r->connection);
        return;
    }
    if (staged->kind == STAGED_PRECOPY) {
        r->sync_done_pages += staged->npages;
        if (r->session.state == SESSION_FOLLOWING && note->term == r->session.term)
            applier_post(r->applier, staged, note->term, note->link);
        else
            applier_post_discard(r->applier, staged);
        struct session_event beat = {.type = SESSION_EVENT_HEARTBEAT,
                                     .term = note->term,
                                     .peer_role = SESSION_PRIMARY,
                                     .by_link = true};
        heartbeats_heard(r, &beat);
        return;
    }
    struct session_event event = {
        .type = SESSION_EVENT_EPOCH_RECEIVED, .term = note->term, .epoch = note->epoch};
    sink_epoch(&r->sink, &event, staged);
}

/* Notes that belong to one connection. */
static void on_link_note(struct replicator *r, struct note *note)
{
    if (!r->connection || note->link != r->connection->id) {
        if (note->staged)
            applier_post_discard(r->applier, note->staged);
        return;
    }
    if (note->letter.kind == NOTE_MESSAGE) {
        on_message(r, note);
    } else if (note->letter.kind == NOTE_EPOCH_RECEIVED) {
        on_epoch_received(r, note);
    } else if (note->letter.kind == NOTE_EPOCH_SENT) {
        struct session_event event = {
            .type = SESSION_EVENT_EPOCH_SENT, .term = r->session.term, .epoch = note->epoch};
        sink_event(&r->sink, &event);
    } else {
        g_clear_pointer(&r->connection, connection_put);
        g_info("%s: link down: %s", r->config.vm_name, g_strerror(-note->status));
        sink_event_simple(&r->sink, SESSION_EVENT_LINK_DOWN);
    }
}

/* Notes that belong to one run of the capture thread. */
static void on_capture_note(struct replicator *r, const struct note *note)
{
    if (note->generation != capture_thread_generation(r->capture))
        return;
    struct session_event event = {.term = r->session.term, .epoch = note->epoch};
    if (note->letter.kind == NOTE_SYNCHRONISED) {
        event.type = SESSION_EVENT_SYNCHRONISED;
    } else if (note->letter.kind == NOTE_EPOCH_CUT) {
        event.type = SESSION_EVENT_EPOCH_CUT;
        event.ok = note->arg; /* the last epoch: the guest stays paused */
    } else {
        sink_error(&r->sink, "%s", (const char *)note->payload);
        sink_event_simple(&r->sink, SESSION_EVENT_TRACKING_LOST);
        if (r->connection)
            connection_shutdown(r->connection);
        return;
    }
    sink_event(&r->sink, &event);
}

/* The peer may be waiting for room in our staging. */
static void tell_room(struct replicator *r)
{
    if (r->connection)
        r->connection->transport->ops->room(r->connection->transport);
}

/* What could not be written leaves no whole epoch here: this standby is worth nothing any more. */
static void on_image_failed(struct replicator *r, int status)
{
    g_autofree char *why = r->disks ? disks_failure(r->disks) : NULL;
    sink_error(&r->sink, "VM %s cannot stand by here: %s", r->config.vm_name,
               why ? why : g_strerror(-status));
    sink_event_simple(&r->sink, SESSION_EVENT_IMAGE_FAILED);
}

static void on_applied(struct replicator *r, const struct note *note)
{
    bool is_batch = note->letter.kind == NOTE_BATCH_APPLIED;
    tell_room(r);
    if (note->status < 0) {
        on_image_failed(r, note->status);
        return;
    }
    if (r->disks && r->connection && r->connection->id == note->link)
        sink_send(&r->sink, MESSAGE_APPLIED, note->term, note->epoch, is_batch);
    if (is_batch)
        return;
    struct session_event event = {
        .type = SESSION_EVENT_EPOCH_APPLIED, .term = r->session.term, .epoch = note->epoch};
    sink_event(&r->sink, &event);
    consider_trial(r);
}

static void on_term_note(struct replicator *r, const struct note *note)
{
    if (note->letter.kind == NOTE_TERM_FAILED) {
        sink_error_of(&r->sink, SINK_CAUSE_TERM,
                      "VM %s: the new term could not be written to %s: %s. What the guest sends waits; it is "
                      "tried again every second",
                      r->config.vm_name, r->config.state_dir, g_strerror(-note->status));
        return;
    }
    sink_error_over(&r->sink, SINK_CAUSE_TERM);
    const struct session_event event = {.type = SESSION_EVENT_TERM_KEPT, .term = note->term};
    sink_event(&r->sink, &event);
}

void replicator_note(struct replicator *r, struct note *note)
{
    switch ((enum note_kind)note->letter.kind) {
    case NOTE_LINK_UP:
        on_link_up(r, note);
        break;
    case NOTE_LINK_REFUSED:
        sink_error(&r->sink, "%s", (const char *)note->payload);
        break;
    case NOTE_LINK_DOWN:
    case NOTE_MESSAGE:
    case NOTE_EPOCH_RECEIVED:
    case NOTE_EPOCH_SENT:
        on_link_note(r, note);
        break;
    case NOTE_SYNCHRONISED:
    case NOTE_EPOCH_CUT:
    case NOTE_CAPTURE_FAILED:
        on_capture_note(r, note);
        break;
    case NOTE_CAPTURE_STOPPED:
        capture_stop_answered(&r->capture_stop, note->generation);
        break;
    case NOTE_STAGING_ROOM:
        tell_room(r);
        break;
    case NOTE_BATCH_APPLIED:
    case NOTE_EPOCH_APPLIED:
        on_applied(r, note);
        break;
    case NOTE_EPOCH_JOURNALLED:
        if (r->connection && r->connection->id == note->link) {
            struct session_event event = {
                .type = SESSION_EVENT_EPOCH_DURABLE, .term = note->term, .epoch = note->epoch};
            sink_event(&r->sink, &event);
        }
        break;
    case NOTE_TERM_KEPT:
    case NOTE_TERM_FAILED:
        on_term_note(r, note);
        break;
    case NOTE_TRIED:
        on_tried(r, note);
        break;
    case NOTE_STANDBY_ENDED:
        guest_disks_standby_ended(r, note->status);
        break;
    case NOTE_HYPERVISOR_READY:
    case NOTE_HYPERVISOR_FAILED:
        guest_ready(r, note);
        break;
    default:
        break;
    }
    connection_put(note->connection);
    g_free(note);
}
