/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes and reads the answer to a StatusRequest. A list that does not fit into one message continues in the
 * next one (StatusList.more). So the number of VMs on a host is not limited by the size of a message; the
 * status of one VM is. Any thread; blocks.
 */
#ifndef UNDERSTUDY_PROTO_STATUS_ANSWER_H
#define UNDERSTUDY_PROTO_STATUS_ANSWER_H

#include "proto/framing.h"

/* What a reader takes: VMs and endings, and messages. Any more is an error. */
#define STATUS_ANSWER_MAX      10000u
#define STATUS_ANSWER_MESSAGES 256u

/*
 * Sends the list. Of a VM whose status no message can hold, name, role and state are sent, and a sentence in
 * place of its last error. timeout_ms bounds each message.
 */
gboolean status_answer_write(int fd, const Understudy__StatusList *list, unsigned timeout_ms, GError **error);

/*
 * Appends to first, which has come, what belongs to it; timeout_ms bounds each message. first stays the
 * caller's, and holds a part if this fails.
 */
gboolean status_answer_read_rest(int fd, Understudy__StatusList *first, unsigned timeout_ms, GError **error);

#endif
