/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The queue and the wake-ups of a mailbox (mailbox.h). The eventfd is written after the enqueue and read
 * before the dequeue. So a letter may be found before its wake-up, which costs one more round, but a wake-up
 * is never lost.
 */
#include "common/mailbox.h"

#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <urcu/compiler.h>

#include "common/futex.h"

/*
 * liburcu's queue orders the poster's writes before the taker's reads. The thread sanitizer does not see
 * that, so these macros declare it in its builds.
 */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define HAND_OVER(letter) __tsan_release(letter)
#define TAKE_OVER(letter) __tsan_acquire(letter)
#else
#define HAND_OVER(letter) ((void)0)
#define TAKE_OVER(letter) ((void)0)
#endif

int mailbox_open(struct mailbox *box)
{
    cds_wfcq_init(&box->head, &box->tail);
    atomic_init(&box->nletters, 0);
    atomic_init(&box->crowded, 0);
    atomic_init(&box->room, 0);
    box->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return box->event_fd < 0 ? -errno : 0;
}

void mailbox_close(struct mailbox *box)
{
    if (box->event_fd >= 0)
        close(box->event_fd);
    box->event_fd = -1;
    cds_wfcq_destroy(&box->head, &box->tail);
}

void mailbox_wake(struct mailbox *box)
{
    uint64_t one = 1;
    /* EAGAIN means that the counter is full of wake-ups: the taker is awake already. */
    ssize_t ignored = write(box->event_fd, &one, sizeof one);
    (void)ignored;
}

static void enqueue(struct mailbox *box, struct letter *letter)
{
    cds_wfcq_node_init(&letter->node);
    HAND_OVER(letter);
    cds_wfcq_enqueue(&box->head, &box->tail, &letter->node);
    mailbox_wake(box);
}

bool mailbox_try_post(struct mailbox *box, struct letter *letter, uint32_t limit)
{
    if (atomic_fetch_add(&box->nletters, 1) >= limit) {
        atomic_fetch_sub(&box->nletters, 1);
        return false;
    }
    enqueue(box, letter);
    return true;
}

void mailbox_post(struct mailbox *box, struct letter *letter)
{
    g_assert_true(atomic_fetch_add(&box->nletters, 1) < MAILBOX_LIMIT);
    enqueue(box, letter);
}

bool mailbox_await_room(struct mailbox *box, uint32_t limit, unsigned timeout_ms)
{
    const struct timespec until = disk_futex_in_ms(timeout_ms);
    uint32_t seen = atomic_load(&box->room);
    if (atomic_load(&box->nletters) < limit)
        return true;
    /* Stored before the last check: a taker that makes room after that check sees it. */
    atomic_store(&box->crowded, limit);
    if (atomic_load(&box->nletters) >= limit)
        disk_futex_wait(&box->room, seen, &until);
    return atomic_load(&box->nletters) < limit;
}

struct letter *mailbox_take(struct mailbox *box)
{
    struct cds_wfcq_node *node = __cds_wfcq_dequeue_blocking(&box->head, &box->tail);
    if (!node)
        return NULL;
    TAKE_OVER(caa_container_of(node, struct letter, node));
    uint32_t left = atomic_fetch_sub(&box->nletters, 1) - 1;
    uint32_t crowded = atomic_load(&box->crowded);
    /* Waits until the mailbox is half empty, so that one wake-up makes room for many letters. */
    if (crowded && left <= crowded / 2) {
        atomic_store(&box->crowded, 0);
        disk_futex_raise(&box->room);
    }
    return caa_container_of(node, struct letter, node);
}

void mailbox_clear_wake(struct mailbox *box)
{
    uint64_t count;
    ssize_t ignored = read(box->event_fd, &count, sizeof count);
    (void)ignored;
}

void mailbox_wait(struct mailbox *box, int timeout_ms)
{
    struct pollfd pfd = {.fd = box->event_fd, .events = POLLIN};
    if (poll(&pfd, 1, timeout_ms) > 0)
        mailbox_clear_wake(box);
}
