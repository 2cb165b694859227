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

/* helpers: threads besides the caller; negative: one for each processor but one, at most 4. 0 or -errno. */
int copiers_open(struct copiers **out, int helpers);
void copiers_close(struct copiers *copiers);
/*
 * Copies n pages; returns when all are done. The sources may be written to meanwhile: the caller has cleared
 * their dirty bits before, so a page torn here is dirty again and will be copied again.
 */
void copiers_run(struct copiers *copiers, const struct copy_job *jobs, size_t n);

#endif
