/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes and reads the answer to a StatusRequest. A list that does not fit into one message continues in the
 * next one (StatusList.more). So the number of VMs on a host is not limited by the size of a message; the
 * status of one VM is. Any thread; blocks.
 */
#ifndef UNDERSTUDY_PROTO_STATUS_ANSWER_H
#define UNDERSTUDY_PROTO_STATUS_ANSWER_H

#include "proto/framing.h"

/* A reader accepts at most so many VMs and endings, and so many messages. More is an error. */
#define STATUS_ANSWER_MAX      10000u
#define STATUS_ANSWER_MESSAGES 256u

/*
 * Sends the list. If the status of one VM is longer than a message, only its name, role and state are sent,
 * with a sentence instead of its last error. timeout_ms limits each message. FALSE and error.
 */
gboolean status_answer_write(struct stream *stream, const Understudy__StatusList *list, unsigned timeout_ms,
                             GError **error);

/*
 * Reads the messages that continue the list `first`, and appends them to it. timeout_ms limits each message.
 * FALSE and error: then first has only a part of the list. first stays the caller's.
 */
gboolean status_answer_read_rest(struct stream *stream, Understudy__StatusList *first, unsigned timeout_ms,
                                 GError **error);

#endif
