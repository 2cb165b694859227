/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Packs and writes Answer and Progress. */
#include "proto/answer.h"

#include "proto/framing.h"

gboolean answer_write(struct stream *stream, bool ok, const char *message, unsigned timeout_ms)
{
    Understudy__Answer body = UNDERSTUDY__ANSWER__INIT;
    body.ok = ok;
    body.message = (char *)(message ? message : "");
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(ANSWER, answer, &body);
    return framing_write(stream, &envelope, timeout_ms, NULL);
}

gboolean answer_write_progress(struct stream *stream, const char *what, uint64_t done, uint64_t total,
                               unsigned timeout_ms)
{
    Understudy__Progress body = UNDERSTUDY__PROGRESS__INIT;
    body.what = (char *)what;
    body.done = done;
    body.total = total;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(PROGRESS, progress, &body);
    return framing_write(stream, &envelope, timeout_ms, NULL);
}
