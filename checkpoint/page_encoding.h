/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Zero pages travel as a name without bytes. Sender thread; never in the pause. */
#ifndef UNDERSTUDY_CHECKPOINT_PAGE_ENCODING_H
#define UNDERSTUDY_CHECKPOINT_PAGE_ENCODING_H

#include <stdbool.h>
#include <stdint.h>

#include "checkpoint/staging.h"

bool page_is_zero(const uint8_t *page);
/* Marks the epoch's zero pages in place: PAGE_REF_ZERO, no slot. Returns how many. */
uint32_t page_encoding_mark_zero(const struct staging *staging, struct staged_epoch *epoch);

#endif
