/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See mailbox.h. The eventfd is written after the enqueue and read before the dequeue, so a letter can be
 * found without its wake-up (harmless: an extra round) but never the other way round.
 */
#include "common/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <urcu/compiler.h>

/*
 * What a letter's poster wrote, its taker sees: by liburcu's queue. The thread sanitizer does not see into
 * that, so in its builds it is told.
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

void mailbox_post(struct mailbox *box, struct letter *letter)
{
    cds_wfcq_node_init(&letter->node);
    HAND_OVER(letter);
    cds_wfcq_enqueue(&box->head, &box->tail, &letter->node);
    mailbox_wake(box);
}

struct letter *mailbox_take(struct mailbox *box)
{
    struct cds_wfcq_node *node = __cds_wfcq_dequeue_blocking(&box->head, &box->tail);
    if (!node)
        return NULL;
    TAKE_OVER(caa_container_of(node, struct letter, node));
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
