/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Takes one checkpoint: pauses the guest, harvests, saves, waits for the engine's copy, resumes the guest, in
 * the order that hook_shm.h gives.
 *
 * The deadline (invariant I4) counts from the moment when the guest stands still. The time before that, in
 * which QEMU's stop waits for disk requests under way, does not count. An engine that does not answer cannot
 * hold the guest beyond the deadline: the wait is a futex with a timeout. After that the guest resumes,
 * whatever the engine says later, because the verdict is set by compare-and-swap and only one side succeeds.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hv-hooks/qemu/hook/hook_internal.h"

#define SPIN_NS 20000

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Waits for the engine's copy, or the deadline. Returns the verdict. */
static uint32_t wait_for_copy(struct hook *hook, uint64_t stopped_ns, uint64_t deadline_ns)
{
    _Atomic uint32_t *verdict = &hook->shm->verdict;
    uint64_t spin_until = hook_now_ns() + SPIN_NS;
    for (;;) {
        uint32_t now_is = atomic_load_explicit(verdict, memory_order_acquire);
        if (now_is != HOOK_WAITING)
            return now_is;
        uint64_t now = hook_now_ns();
        if (now - stopped_ns >= deadline_ns) {
            uint32_t expected = HOOK_WAITING;
            if (atomic_compare_exchange_strong(verdict, &expected, HOOK_EXPIRED))
                return HOOK_EXPIRED;
            return expected;
        }
        if (now < spin_until)
            cpu_relax();
        else
            hook_futex_wait(verdict, HOOK_WAITING,
                            stopped_ns + deadline_ns > now ? stopped_ns + deadline_ns - now : 1000000);
    }
}

/* A planted fault: forgets what an expired checkpoint had harvested. */
static void chaos_drop_bits(struct hook *hook)
{
    for (uint32_t i = 0; i < hook->nlocal; i++) {
        struct hook_block *block = &hook->shm->blocks[i];
        memset((uint8_t *)hook->shm + block->bitmap_off, 0, (block->max_len / HOOK_PAGE_LEN + 63) / 64 * 8);
    }
}

static bool is_error(int run_state)
{
    return run_state == QEMU_RUN_STATE_IO_ERROR || run_state == QEMU_RUN_STATE_INTERNAL_ERROR;
}

/*
 * Takes a stop request of a device or processor that the main loop has not carried out yet. Returns its run
 * state, or -1 if there is none.
 */
static int take_stop_that_waits(const struct hook *hook)
{
    int wanted = -1;
    return hook->qemu.qemu_vmstop_requested && hook->qemu.qemu_vmstop_requested(&wanted) ? wanted : -1;
}

/*
 * Requests the stop again, since vm_start cancels a waiting request. A stop for a failed disk request is left
 * out, since vm_start repeats the request; other stops must still happen.
 */
static void give_stop_back(const struct hook *hook, int wanted)
{
    if (wanted < 0 || is_error(wanted) || !hook->qemu.qemu_system_vmstop_request_prepare ||
        !hook->qemu.qemu_system_vmstop_request)
        return;
    hook->qemu.qemu_system_vmstop_request_prepare();
    hook->qemu.qemu_system_vmstop_request(wanted);
}

/*
 * Whether the guest stands still for an error of this host: a disk that is full (QEMU keeps the request and
 * tries it again), or a fault of QEMU's own. Such a moment is not saved. The standby has what ran last, and
 * its own disk may well take the request; the guest does nothing meanwhile that could get lost. Between the
 * error and the stop that follows from it the guest counts as running: then the stop is what waits.
 */
static bool stands_for_an_error(const struct hook *hook, bool was_running, int waiting)
{
    const struct qemu_symbols *qemu = &hook->qemu;
    if (was_running)
        return is_error(waiting);
    return qemu->runstate_check && (qemu->runstate_check(QEMU_RUN_STATE_IO_ERROR) ||
                                    qemu->runstate_check(QEMU_RUN_STATE_INTERNAL_ERROR));
}

void hook_checkpoint(struct hook *hook, uint32_t seq)
{
    const struct qemu_symbols *qemu = &hook->qemu;
    struct hook_shm *shm = hook->shm;
    struct hook_result *result = &shm->result;
    uint64_t deadline_ns = shm->request_deadline_us * 1000 + (hook_chaos("ignore-deadline") ? 500000000 : 0);
    uint32_t flags = shm->request_flags;
    struct hook_clock_mark mark = {0};
    bool was_running = qemu->runstate_is_running();

    uint64_t began = hook_now_ns();
    if (was_running) {
        hook_clock_before_stop(hook, &mark);
        began = hook_now_ns();
        qemu->vm_stop(QEMU_RUN_STATE_PAUSED);
    }
    uint64_t stopped = hook_now_ns();
    int waiting = was_running ? take_stop_that_waits(hook) : -1;
    /* The last epoch of a handover is saved nevertheless, since the other host's disk may take the request.
     */
    bool skip = !(flags & HOOK_STAY_PAUSED) && stands_for_an_error(hook, was_running, waiting);
    atomic_store_explicit(&shm->verdict, skip ? HOOK_EXPIRED : HOOK_WAITING, memory_order_relaxed);
    uint64_t pages = hook_harvest(hook);
    uint64_t harvested = hook_now_ns();
    atomic_store_explicit(&shm->harvested_seq, seq, memory_order_release);
    hook_futex_wake(&shm->harvested_seq);

    uint64_t devstate_len = 0;
    int status = skip ? -EBUSY : hook_save_devices(hook, was_running, &devstate_len);
    uint64_t saved = hook_now_ns();
    uint32_t verdict = wait_for_copy(hook, stopped, deadline_ns);
    uint64_t copied = hook_now_ns();
    if (verdict == HOOK_EXPIRED && hook_chaos("drop-bits"))
        chaos_drop_bits(hook);

    bool stay = (flags & HOOK_STAY_PAUSED) && verdict == HOOK_COPIED && status == 0;
    if (was_running && !stay) {
        hook_clock_before_start(hook, &mark);
        qemu->vm_start();
        hook_clock_after_start(hook, &mark);
        give_stop_back(hook, waiting);
    }
    uint64_t resumed = hook_now_ns();

    result->status = status;
    if (skip)
        snprintf(result->message, sizeof result->message, "the guest stands still for an error of this host");
    else if (status == -EPROTO)
        snprintf(result->message, sizeof result->message, HOOK_NO_STREAM, shm->qemu_version);
    else if (status < 0)
        snprintf(result->message, sizeof result->message, "QEMU could not save the device state (%s)",
                 strerror(-status));
    result->verdict = verdict;
    result->pause_began_ns = began;
    result->stop_ns = stopped - began;
    result->harvest_ns = harvested - stopped;
    result->save_ns = saved - harvested;
    result->copy_wait_ns = copied - saved;
    result->resume_ns = resumed - copied;
    result->pause_ns = resumed - began;
    result->dirty_pages = pages;
    result->devstate_len = devstate_len;
    result->was_running = was_running;
    result->blocks_changed = hook_blocks_changed(hook);
}
