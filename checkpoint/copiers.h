/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small pool of threads that help one thread copy pages. No lock and no allocation once open. Few pages are
 * copied by the caller alone: waking a helper costs more than copying a hundred pages.
 */
#ifndef UNDERSTUDY_CHECKPOINT_COPIERS_H
#define UNDERSTUDY_CHECKPOINT_COPIERS_H

#include <stddef.h>
#include <stdint.h>

struct copiers;

struct copy_job {
    const uint8_t *source;
    uint8_t *destination;
};

/* Starts the helper threads. helpers: their number; negative: one less than the processors, at most 4.
 * Returns 0 or -errno. */
int copiers_open(struct copiers **out, int helpers);
/* Ends the helper threads and waits for them. NULL is allowed. */
void copiers_close(struct copiers *copiers);
/*
 * Copies n pages and returns when all are copied. The sources may be written meanwhile: the caller has
 * cleared their dirty bits before, so a page that is torn here is dirty again and will be copied again. One
 * caller at a time.
 */
void copiers_run(struct copiers *copiers, const struct copy_job *jobs, size_t n);

#endif
