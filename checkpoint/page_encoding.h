/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finds zero pages, which are sent as a name without bytes. Sender thread; never in the pause. */
#ifndef UNDERSTUDY_CHECKPOINT_PAGE_ENCODING_H
#define UNDERSTUDY_CHECKPOINT_PAGE_ENCODING_H

#include <stdbool.h>
#include <stdint.h>

#include "checkpoint/staging.h"

/* Returns whether all STAGING_PAGE_LEN bytes of the page are zero. */
bool page_is_zero(const uint8_t *page);
/* Marks the epoch's zero pages: their flag becomes PAGE_REF_ZERO, their slot STAGING_NO_PAGE. Returns their
 * number. */
uint32_t page_encoding_mark_zero(const struct staging *staging, struct staged_epoch *epoch);

#endif
