/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A log-linear histogram in the manner of HdrHistogram (Gil Tene): 64 sub-buckets per power of two, so any
 * value is kept with a relative error below 1/64, in fixed memory. One writer; any thread may read at any
 * time and sees each count whole. Values are whole numbers in whatever unit the owner says.
 */
#ifndef UNDERSTUDY_CHECKPOINT_HISTOGRAM_H
#define UNDERSTUDY_CHECKPOINT_HISTOGRAM_H

#include <stdint.h>

struct histogram;

struct histogram *histogram_new(void);
void histogram_free(struct histogram *histogram);
/* Counts a value. The writer only. No allocation, no lock. */
void histogram_record(struct histogram *histogram, uint64_t value);
/* Removes all values. The writer only. */
void histogram_reset(struct histogram *histogram);
/* Lets the writer reset the histogram before its next value; until then readers see it empty. Any thread. */
void histogram_reset_soon(struct histogram *histogram);
/* Returns a percentile (0 to 100) of the values; 0 if there are none. Any thread. */
uint64_t histogram_percentile(const struct histogram *histogram, double percentile);
uint64_t histogram_max(const struct histogram *histogram);
uint64_t histogram_count(const struct histogram *histogram);

#endif
