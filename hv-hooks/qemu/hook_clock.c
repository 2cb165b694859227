/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A pause stops QEMU's virtual clock: at 50 pauses of 0.7 ms a second the guest would run 3.5 % slow. While ticks are
 * enabled QEMU computes
 *
 *     clock = host monotonic clock + timers_state.cpu_clock_offset
 *     ticks = host cycle counter   + timers_state.cpu_ticks_offset
 *
 * and while they are disabled the two fields hold the frozen values themselves. So the time lost in a pause is given back,
 * exactly, by putting the two offsets back to what they were before it. They are put nearly right before the vCPUs start
 * (no guest instruction sees the old time) and exactly right just after.
 *
 * timers_state is exported but its layout is QEMU's own (system/cpu-timers.c): the fields are found by looking, with
 * ticks disabled, for the one 8-byte word that equals cpu_get_clock(), and the one that equals cpu_get_ticks(). Anything
 * but exactly one match each, or a trial change that the accessor does not follow, and the hook keeps its hands off.
 *
 * Under KVM the guest reads kvmclock, which QEMU sets back at each start (hw/i386/kvm/clock.c). The kernel moves it on
 * when it is set with KVM_CLOCK_REALTIME and the time at which the value was right (Linux 5.16).
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <time.h>

#include "hv-hooks/qemu/hook_internal.h"

#ifndef KVM_CLOCK_REALTIME
#define KVM_CLOCK_REALTIME (1 << 2)
#endif

#define PROBE_LEN 256

static int64_t host_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static int64_t host_ticks(void)
{
#if defined(__x86_64__)
    return (int64_t)__builtin_ia32_rdtsc();
#else
    return host_clock_ns();
#endif
}

/* The one word of timers_state that equals value, or NULL. */
static int64_t *find_word(void *timers_state, int64_t value)
{
    int64_t *found = NULL;
    for (size_t i = 0; i < PROBE_LEN / sizeof(int64_t); i++) {
        int64_t *word = (int64_t *)timers_state + i;
        if (*word != value)
            continue;
        if (found)
            return NULL;
        found = word;
    }
    return found;
}

static bool follows(int64_t *word, int64_t (*get)(void))
{
    int64_t value = get();
    *word += 1000;
    bool moved = get() == value + 1000;
    *word -= 1000;
    return moved && get() == value;
}

const char *hook_clock_probe(struct hook *hook)
{
    const struct qemu_symbols *qemu = &hook->qemu;
    if (hook->clock_probed)
        return hook->clock_offset_ns ? NULL : "QEMU's clock was not understood";
    if (!qemu->cpu_disable_ticks || !qemu->cpu_enable_ticks || !qemu->cpu_get_clock || !qemu->cpu_get_ticks ||
        !qemu->timers_state)
        return "this QEMU does not export its clock";
    hook->clock_probed = true;
    qemu->cpu_disable_ticks();
    int64_t *clock = find_word(qemu->timers_state, qemu->cpu_get_clock());
    int64_t *ticks = find_word(qemu->timers_state, qemu->cpu_get_ticks());
    bool right = clock && ticks && follows(clock, qemu->cpu_get_clock) && follows(ticks, qemu->cpu_get_ticks);
    qemu->cpu_enable_ticks();
    if (!right)
        return "QEMU's clock was not understood";
    hook->clock_offset_ns = clock;
    hook->ticks_offset = ticks;
    return NULL;
}

static bool uses_kvm(const struct hook *hook)
{
    return hook->qemu.kvm_allowed && *hook->qemu.kvm_allowed && hook->qemu.kvm_vm_ioctl && hook->qemu.kvm_state;
}

void hook_clock_before_stop(struct hook *hook, struct hook_clock_mark *mark)
{
    mark->valid = mark->kvm_valid = false;
    if (hook_clock_probe(hook) != NULL)
        return;
    mark->clock_offset_ns = *hook->clock_offset_ns;
    mark->ticks_offset = *hook->ticks_offset;
    mark->valid = true;
    if (uses_kvm(hook)) {
        struct kvm_clock_data data = {0};
        if (hook->qemu.kvm_vm_ioctl(*hook->qemu.kvm_state, (int)KVM_GET_CLOCK, &data) == 0 &&
            (data.flags & KVM_CLOCK_REALTIME)) {
            mark->kvm_clock_ns = data.clock;
            mark->kvm_realtime_ns = data.realtime;
            mark->kvm_valid = true;
        }
    }
}

void hook_clock_before_start(struct hook *hook, const struct hook_clock_mark *mark)
{
    if (!mark->valid)
        return;
    *hook->clock_offset_ns = mark->clock_offset_ns + host_clock_ns();
    *hook->ticks_offset = mark->ticks_offset + host_ticks();
}

void hook_clock_after_start(struct hook *hook, const struct hook_clock_mark *mark)
{
    if (!mark->valid)
        return;
    __atomic_store_n(hook->clock_offset_ns, mark->clock_offset_ns, __ATOMIC_RELAXED);
    __atomic_store_n(hook->ticks_offset, mark->ticks_offset, __ATOMIC_RELAXED);
    if (mark->kvm_valid) {
        struct kvm_clock_data data = {
            .clock = mark->kvm_clock_ns, .flags = KVM_CLOCK_REALTIME, .realtime = mark->kvm_realtime_ns};
        hook->qemu.kvm_vm_ioctl(*hook->qemu.kvm_state, (int)KVM_SET_CLOCK, &data);
    }
}

/* Host ticks per nanosecond, from how far the two have run since the hook was asked. */
static int64_t ticks_in(uint64_t ns)
{
    int64_t clock = host_clock_ns(), ticks = host_ticks(), elapsed;
    do
        elapsed = host_clock_ns() - clock;
    while (elapsed < 200000);
    return (int64_t)((double)(host_ticks() - ticks) / (double)elapsed * (double)ns);
}

int hook_clock_advance(struct hook *hook, uint64_t ns)
{
    if (!hook->qemu.runstate_is_running() || hook_clock_probe(hook) != NULL)
        return -EOPNOTSUPP;
    int64_t ticks = ticks_in(ns);
    __atomic_fetch_add(hook->clock_offset_ns, (int64_t)ns, __ATOMIC_RELAXED);
    __atomic_fetch_add(hook->ticks_offset, ticks, __ATOMIC_RELAXED);
    if (uses_kvm(hook)) {
        struct kvm_clock_data data = {0};
        if (hook->qemu.kvm_vm_ioctl(*hook->qemu.kvm_state, (int)KVM_GET_CLOCK, &data) == 0) {
            data.clock += ns;
            data.flags = 0;
            hook->qemu.kvm_vm_ioctl(*hook->qemu.kvm_state, (int)KVM_SET_CLOCK, &data);
        }
    }
    return 0;
}
