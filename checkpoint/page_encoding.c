/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finds zero pages. Most pages differ from zero in their first bytes, so these are compared first. */
#include "checkpoint/page_encoding.h"

#include <string.h>

bool page_is_zero(const uint8_t *page)
{
    uint64_t words[8];
    for (size_t offset = 0; offset < STAGING_PAGE_LEN; offset += sizeof words) {
        memcpy(words, page + offset, sizeof words);
        if (words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7])
            return false;
    }
    return true;
}

uint32_t page_encoding_mark_zero(const struct staging *staging, struct staged_epoch *epoch)
{
    uint32_t zeroes = 0;
    for (uint32_t i = 0; i < epoch->npages; i++) {
        struct staged_page *page = &epoch->pages[i];
        if (page->slot == STAGING_NO_PAGE || !page_is_zero(staging_slot(staging, page->slot)))
            continue;
        page->ref |= PAGE_REF_ZERO;
        page->slot = STAGING_NO_PAGE;
        zeroes++;
    }
    return zeroes;
}
