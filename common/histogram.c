/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The buckets of a histogram (histogram.h). Each value below 64 has its own bucket; above, the six bits after
 * the leading one choose the sub-bucket.
 */
#include "common/histogram.h"

#include <glib.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>

#define SUB_BITS 6
#define SUB      (1u << SUB_BITS)
#define BUCKETS  ((64 - SUB_BITS + 1) * SUB)

struct histogram {
    _Atomic uint64_t total;
    _Atomic uint64_t max;
    _Atomic bool reset_wanted;
    _Atomic uint64_t counts[BUCKETS];
};

static unsigned bucket_of(uint64_t value)
{
    if (value < SUB)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return (shift + 1) * SUB + (unsigned)((value >> shift) & (SUB - 1));
}

/* Returns the middle of a bucket. */
static uint64_t value_of(unsigned bucket)
{
    if (bucket < SUB)
        return bucket;
    unsigned shift = bucket / SUB - 1;
    uint64_t low = ((uint64_t)SUB + bucket % SUB) << shift;
    return low + ((1ull << shift) >> 1);
}

struct histogram *histogram_new(void)
{
    return g_new0(struct histogram, 1);
}

void histogram_free(struct histogram *histogram)
{
    g_free(histogram);
}

void histogram_record(struct histogram *histogram, uint64_t value)
{
    if (atomic_load_explicit(&histogram->reset_wanted, memory_order_relaxed))
        histogram_reset(histogram);
    atomic_fetch_add_explicit(&histogram->counts[bucket_of(value)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->total, 1, memory_order_relaxed);
    if (value > atomic_load_explicit(&histogram->max, memory_order_relaxed))
        atomic_store_explicit(&histogram->max, value, memory_order_relaxed);
}

void histogram_reset_soon(struct histogram *histogram)
{
    atomic_store_explicit(&histogram->reset_wanted, true, memory_order_relaxed);
}

void histogram_reset(struct histogram *histogram)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        atomic_store_explicit(&histogram->counts[i], 0, memory_order_relaxed);
    atomic_store_explicit(&histogram->total, 0, memory_order_relaxed);
    atomic_store_explicit(&histogram->max, 0, memory_order_relaxed);
    /* Last: a reader that sees the request cleared sees the counts cleared. */
    atomic_store_explicit(&histogram->reset_wanted, false, memory_order_release);
}

static bool emptied(const struct histogram *histogram)
{
    return atomic_load_explicit(&histogram->reset_wanted, memory_order_acquire);
}

uint64_t histogram_percentile(const struct histogram *histogram, double percentile)
{
    uint64_t total = histogram_count(histogram);
    uint64_t wanted = (uint64_t)ceil((double)total * percentile / 100.0), seen = 0;
    if (total == 0)
        return 0;
    if (wanted == 0)
        wanted = 1;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
        if (seen >= wanted) {
            uint64_t value = value_of(i), max = histogram_max(histogram);
            return value < max ? value : max;
        }
    }
    return histogram_max(histogram);
}

uint64_t histogram_max(const struct histogram *histogram)
{
    return emptied(histogram) ? 0 : atomic_load_explicit(&histogram->max, memory_order_relaxed);
}

uint64_t histogram_count(const struct histogram *histogram)
{
    return emptied(histogram) ? 0 : atomic_load_explicit(&histogram->total, memory_order_relaxed);
}
