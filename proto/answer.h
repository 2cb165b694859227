/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two messages by which a daemon answers most requests: yes or no with a sentence, and before that how
 * far it is. Any thread; blocks for timeout_ms at most. A client that is gone is no error of the daemon's:
 * FALSE.
 */
#ifndef UNDERSTUDY_PROTO_ANSWER_H
#define UNDERSTUDY_PROTO_ANSWER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct stream;

/* message: NULL is "". */
gboolean answer_write(struct stream *stream, bool ok, const char *message, unsigned timeout_ms);
/* done, total: bytes. */
gboolean answer_write_progress(struct stream *stream, const char *what, uint64_t done, uint64_t total,
                               unsigned timeout_ms);

#endif
