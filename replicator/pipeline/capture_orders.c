/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The capture thread's orders, and what it tells. The control thread's order is one small struct under a
 * mutex that the capture thread looks at between two epochs, never inside one. All that the capture thread
 * says carries the order's generation, so that what a cancelled order still had to say is recognised and
 * dropped.
 *
 * A stop is an order like the others. The control thread does not wait for it, since the thread may be inside
 * a read of a disk that hangs; the thread says when it has let go.
 */
#include <string.h>

#include "replicator/note.h"
#include "replicator/pipeline/capture_internal.h"

/* ---- taking them: capture thread ---- */

static struct capture_order order_locked(struct capture_thread *t)
{
    struct capture_order order = t->order;
    if (order.connection)
        connection_get(order.connection);
    return order;
}

struct capture_order capture_order_take(struct capture_thread *t, uint64_t *stop)
{
    g_mutex_lock(&t->mutex);
    struct capture_order order = order_locked(t);
    *stop = t->stop_asked > t->stop_taken ? t->stop_asked : 0;
    t->stop_taken = t->stop_asked;
    hypervisor_interrupt(t->config.hv, false);
    g_mutex_unlock(&t->mutex);
    return order;
}

bool capture_order_is_current(struct capture_thread *t, const struct capture_order *order)
{
    g_mutex_lock(&t->mutex);
    bool same = t->order.generation == order->generation && t->order.mode == order->mode;
    g_mutex_unlock(&t->mutex);
    return same;
}

/* ---- telling: capture thread ---- */

void capture_note(struct capture_thread *t, enum note_kind kind, uint64_t generation, uint64_t epoch,
                  bool last)
{
    struct note *note = note_new(kind, NULL, 0);
    note->arg = last;
    note->generation = generation;
    note->epoch = epoch;
    mailbox_post(t->config.control, &note->letter);
}

void capture_note_failure(struct capture_thread *t, uint64_t generation, int status, const char *what)
{
    const char *why = hypervisor_last_message(t->config.hv);
    g_autofree char *text = g_strdup_printf("%s: %s", what, why[0] ? why : g_strerror(-status));
    struct note *note = note_new(NOTE_CAPTURE_FAILED, text, strlen(text));
    note->generation = generation;
    note->status = status;
    mailbox_post(t->config.control, &note->letter);
}

/* ---- giving them: control thread ---- */

void capture_order_give(struct capture_thread *t, struct capture_order order)
{
    g_mutex_lock(&t->mutex);
    struct connection *old = t->order.connection;
    t->order = order;
    if (order.mode == MODE_IDLE)
        t->stop_asked = order.generation;
    g_mutex_unlock(&t->mutex);
    connection_put(old);
    mailbox_wake(&t->wake);
}

void capture_thread_hurry(struct capture_thread *t)
{
    atomic_store_explicit(&t->hurry, true, memory_order_release);
    mailbox_wake(&t->wake);
}

void capture_thread_precopy(struct capture_thread *t, struct connection *connection, uint64_t term)
{
    capture_order_give(t,
                       (struct capture_order){.mode = MODE_PRECOPY,
                                              .generation = t->order.generation + 1,
                                              .term = term,
                                              .connection = connection ? connection_get(connection) : NULL});
}

void capture_thread_resync(struct capture_thread *t, struct connection *connection, uint64_t term,
                           uint64_t held_epoch)
{
    capture_order_give(t,
                       (struct capture_order){.mode = MODE_PRECOPY,
                                              .generation = t->order.generation + 1,
                                              .term = term,
                                              .resync = true,
                                              .held_epoch = held_epoch,
                                              .connection = connection ? connection_get(connection) : NULL});
}

/* Goes on with the present connection and generation in another mode. */
static void change_mode(struct capture_thread *t, enum capture_mode mode, uint64_t first_epoch)
{
    g_mutex_lock(&t->mutex);
    struct capture_order order = order_locked(t);
    g_mutex_unlock(&t->mutex);
    order.mode = mode;
    order.first_epoch = first_epoch;
    capture_order_give(t, order);
}

void capture_thread_epochs(struct capture_thread *t, uint64_t first_epoch)
{
    change_mode(t, MODE_EPOCHS, first_epoch);
}

void capture_thread_last_epoch(struct capture_thread *t)
{
    change_mode(t, MODE_LAST_EPOCH, 0);
}

void capture_thread_stop(struct capture_thread *t)
{
    capture_order_give(t, (struct capture_order){.mode = MODE_IDLE, .generation = t->order.generation + 1});
}

void capture_thread_hasten(struct capture_thread *t)
{
    g_mutex_lock(&t->mutex);
    if (t->stop_asked > t->stop_taken)
        hypervisor_interrupt(t->config.hv, true);
    g_mutex_unlock(&t->mutex);
}

void capture_thread_forget(struct capture_thread *t)
{
    capture_order_give(t, (struct capture_order){.mode = MODE_FORGET, .generation = t->order.generation + 1});
}

uint64_t capture_thread_generation(const struct capture_thread *t)
{
    return t->order.generation;
}

void capture_thread_room(void *thread)
{
    mailbox_wake(&((struct capture_thread *)thread)->wake);
}

void capture_thread_acked(struct capture_thread *t, uint64_t epoch)
{
    if (epoch > atomic_load_explicit(&t->acked_epoch, memory_order_relaxed))
        atomic_store_explicit(&t->acked_epoch, epoch, memory_order_release);
    mailbox_wake(&t->wake);
}
