/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes all texts of a message from outside safe to print (common/words.h). */
#ifndef UNDERSTUDY_PROTO_READABLE_H
#define UNDERSTUDY_PROTO_READABLE_H

#include <stddef.h>

#include "proto/control.pb-c.h"

#define READABLE_LINES_MAX 64 /* of a repeated text: more are dropped */

/* Replaces every text by a readable one of at most max bytes. The message must be one that was unpacked. */
void envelope_make_readable(Understudy__Envelope *message, size_t max);

#endif
