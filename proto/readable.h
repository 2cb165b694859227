/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every text in a message that came from elsewhere, made fit to be shown (common/words.h). */
#ifndef UNDERSTUDY_PROTO_READABLE_H
#define UNDERSTUDY_PROTO_READABLE_H

#include <stddef.h>

#include "proto/control.pb-c.h"

#define READABLE_LINES_MAX 64 /* of a repeated text: more are dropped */

/* max: bytes of each text. The message must have been unpacked (its texts are replaced). */
void envelope_make_readable(Understudy__Envelope *message, size_t max);

#endif
