/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pool's protocol. The caller publishes a job list and a generation. Helpers woken by futex take chunks
 * from an atomic counter until it runs out, and so does the caller. The caller is done when every chunk is
 * done, not when every helper has woken: a helper that comes late finds no chunk. The counter carries the
 * generation in its upper half, so that a helper from the last job can never take a chunk of the next one
 * by mistake.
 *
 * Each helper is bound to a processor of its own, and the caller wakes those on other processors than its
 * own. The scheduler alone tends to put a thread beside the one that woke it, above all in a virtual
 * machine, where an idle processor looks like one that the host has taken away. The two would then share
 * one processor, and the helper would not help.
 */
#include "checkpoint/copiers.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_HELPERS 4
#define MAX_THREADS (MAX_HELPERS + 1) /* so that enough are left when one has the caller's processor */
#define CHUNK_PAGES 64u
#define ALONE_PAGES 192u
#define PAGE_LEN    4096u

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

struct copier {
    struct copiers *copiers;
    pthread_t thread;
    uint32_t wake_bit; /* names it among the waiters on the generation */
    int processor;     /* -1: more helpers than processors, bound to none */
};

struct copiers {
    struct copier copiers[MAX_THREADS];
    int nthreads;
    int nhelpers; /* woken for a job */
    _Alignas(64) const struct copy_job *_Atomic jobs;
    _Atomic uint32_t njobs;
    _Atomic uint32_t generation; /* futex word */
    _Atomic bool quit;
    _Alignas(64) _Atomic uint64_t next; /* generation << 32 | next chunk */
    _Alignas(64) _Atomic uint32_t chunks_done;
};

/*
 * Copies a page. The guest may write it meanwhile, on purpose (see copiers.h), and no tool should call that
 * a race. ThreadSanitizer looks into memcpy whatever the attribute says: under it the copy is by hand.
 */
#ifdef __SANITIZE_THREAD__
__attribute__((no_sanitize("thread"), optimize("no-tree-loop-distribute-patterns"))) static void
copy_page(const struct copy_job *job)
{
    const uint64_t *source = (const uint64_t *)(const void *)job->source;
    uint64_t *destination = (uint64_t *)(void *)job->destination;
    for (size_t i = 0; i < PAGE_LEN / sizeof *source; i++)
        destination[i] = source[i];
}
#else
static void copy_page(const struct copy_job *job)
{
    memcpy(job->destination, job->source, PAGE_LEN);
}
#endif

static void copy_range(const struct copy_job *jobs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i + 2 < n)
            __builtin_prefetch(jobs[i + 2].source);
        copy_page(&jobs[i]);
    }
}

/* Takes chunks of this generation until none is left. */
static void take_chunks(struct copiers *copiers, uint32_t generation)
{
    for (;;) {
        uint64_t next = atomic_load_explicit(&copiers->next, memory_order_acquire);
        /*
         * Acquire: a helper that sees the next job's list also sees that this job's counter is closed, and
         * fails below.
         */
        uint32_t njobs = atomic_load_explicit(&copiers->njobs, memory_order_acquire);
        const struct copy_job *jobs = atomic_load_explicit(&copiers->jobs, memory_order_acquire);
        uint32_t chunk = (uint32_t)next;
        if ((uint32_t)(next >> 32) != generation || chunk * CHUNK_PAGES >= njobs)
            return;
        if (!atomic_compare_exchange_weak_explicit(&copiers->next, &next, next + 1, memory_order_acq_rel,
                                                   memory_order_relaxed))
            continue;
        uint32_t first = chunk * CHUNK_PAGES;
        uint32_t n = njobs - first < CHUNK_PAGES ? njobs - first : CHUNK_PAGES;
        copy_range(jobs + first, n);
        atomic_fetch_add_explicit(&copiers->chunks_done, 1, memory_order_release);
    }
}

static void *helper_run(void *opaque)
{
    const struct copier *self = opaque;
    struct copiers *copiers = self->copiers;
    uint32_t seen = 0;
    for (;;) {
        uint32_t generation = atomic_load_explicit(&copiers->generation, memory_order_acquire);
        if (generation == seen) {
            syscall(SYS_futex, &copiers->generation, FUTEX_WAIT_BITSET_PRIVATE, seen, NULL, NULL,
                    self->wake_bit);
            continue;
        }
        seen = generation;
        if (atomic_load(&copiers->quit))
            return NULL;
        take_chunks(copiers, generation);
    }
}

/* Returns the next processor that this process may use, from *processor on, or -1 if there is none. */
static int next_processor(const cpu_set_t *allowed, int *processor)
{
    while (*processor < CPU_SETSIZE) {
        int candidate = (*processor)++;
        if (CPU_ISSET(candidate, allowed))
            return candidate;
    }
    return -1;
}

static int start_copier(struct copiers *copiers, int processor)
{
    struct copier *copier = &copiers->copiers[copiers->nthreads];
    copier->copiers = copiers;
    copier->wake_bit = 1u << copiers->nthreads;
    copier->processor = processor;
    int error = pthread_create(&copier->thread, NULL, helper_run, copier);
    if (error)
        return -error;
    copiers->nthreads++;
    pthread_setname_np(copier->thread, "copier");
    if (processor < 0)
        return 0;
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(processor, &own);
    pthread_setaffinity_np(copier->thread, sizeof own, &own); /* if not: slower, not wrong */
    return 0;
}

int copiers_open(struct copiers **out, int helpers)
{
    cpu_set_t allowed;
    int processor = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        return -errno;
    struct copiers *copiers = aligned_alloc(64, (sizeof *copiers + 63) / 64 * 64);
    if (!copiers)
        return -ENOMEM;
    memset(copiers, 0, sizeof *copiers);
    if (helpers < 0)
        helpers = CPU_COUNT(&allowed) - 1;
    copiers->nhelpers = helpers < MAX_HELPERS ? helpers : MAX_HELPERS;
    for (int i = 0; copiers->nhelpers > 0 && i <= copiers->nhelpers; i++) {
        int status = start_copier(copiers, next_processor(&allowed, &processor));
        if (status < 0) {
            copiers_close(copiers);
            return status;
        }
    }
    *out = copiers;
    return 0;
}

/* Wakes as many helpers as are wanted, none of them on the caller's processor. */
static void wake_helpers(struct copiers *copiers)
{
    int here = sched_getcpu(), chosen = 0;
    uint32_t bits = 0;
    for (int i = 0; i < copiers->nthreads && chosen < copiers->nhelpers; i++) {
        if (copiers->copiers[i].processor == here)
            continue;
        bits |= copiers->copiers[i].wake_bit;
        chosen++;
    }
    syscall(SYS_futex, &copiers->generation, FUTEX_WAKE_BITSET_PRIVATE, chosen, NULL, NULL, bits);
}

void copiers_close(struct copiers *copiers)
{
    if (!copiers)
        return;
    atomic_store(&copiers->quit, true);
    atomic_fetch_add(&copiers->generation, 1);
    syscall(SYS_futex, &copiers->generation, FUTEX_WAKE_PRIVATE, copiers->nthreads, NULL, NULL, 0);
    for (int i = 0; i < copiers->nthreads; i++)
        pthread_join(copiers->copiers[i].thread, NULL);
    free(copiers);
}

void copiers_run(struct copiers *copiers, const struct copy_job *jobs, size_t n)
{
    if (n <= ALONE_PAGES || copiers->nhelpers == 0) {
        copy_range(jobs, n);
        return;
    }
    uint32_t generation = atomic_load_explicit(&copiers->generation, memory_order_relaxed) + 1;
    uint32_t chunks = (uint32_t)((n + CHUNK_PAGES - 1) / CHUNK_PAGES);
    /* Closes the old job before its list changes: UINT64_MAX is a chunk that no list has. */
    atomic_store_explicit(&copiers->next, UINT64_MAX, memory_order_release);
    atomic_store_explicit(&copiers->jobs, jobs, memory_order_release);
    atomic_store_explicit(&copiers->njobs, (uint32_t)n, memory_order_release);
    atomic_store_explicit(&copiers->chunks_done, 0, memory_order_relaxed);
    atomic_store_explicit(&copiers->next, (uint64_t)generation << 32, memory_order_release);
    atomic_store_explicit(&copiers->generation, generation, memory_order_release);
    wake_helpers(copiers);
    take_chunks(copiers, generation);
    while (atomic_load_explicit(&copiers->chunks_done, memory_order_acquire) != chunks)
        cpu_relax();
}
