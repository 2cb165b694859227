/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Adds the length of each pause to the guest's clock. A pause stops QEMU's virtual clock: with 50 pauses of
 * 0.7 ms a second the guest's clock would be 3.5 % slow. While ticks are enabled QEMU computes
 *
 *     clock = host monotonic clock + timers_state.cpu_clock_offset
 *     ticks = host cycle counter   + timers_state.cpu_ticks_offset
 *
 * and while ticks are disabled the two fields hold the frozen values themselves. So setting the two offsets
 * back to their values before the pause adds exactly the lost time. They are set to nearly right values
 * before the vCPUs start, so that no guest instruction sees the old time, and to exact values just after.
 *
 * timers_state is exported, but its layout is private to QEMU (system/cpu-timers.c). With ticks disabled, the
 * hook searches for the 8-byte word that equals cpu_get_clock(), and for the one that equals cpu_get_ticks().
 * If there is not exactly one match for each, or if the accessor does not follow a trial change, the hook
 * does not change the clock.
 *
 * Under KVM the guest reads kvmclock, which QEMU sets back at each start (hw/i386/kvm/clock.c). The kernel
 * moves it on when it is set with KVM_CLOCK_REALTIME and the time at which the value was right (Linux 5.16).
 */
#include <dlfcn.h>
#include <errno.h>
#include <glib.h>
#include <link.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "hv-hooks/qemu/hook/hook_internal.h"

#ifndef KVM_CLOCK_REALTIME
#define KVM_CLOCK_REALTIME (1 << 2)
#endif

#define PROBE_LEN ((size_t)256)

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

/* The index of the one word that equals value, or -1. */
static int find_word(const int64_t *words, size_t n, int64_t value)
{
    int found = -1;
    for (size_t i = 0; i < n; i++) {
        if (words[i] != value)
            continue;
        if (found >= 0)
            return -1;
        found = (int)i;
    }
    return found;
}

/*
 * Checks that get() follows the word. Forward only: cpu_get_ticks never goes back (it would move the word
 * itself).
 */
static bool follows(int64_t *word, int64_t (*get)(void))
{
    int64_t value = get();
    *word += 1;
    return get() == value + 1;
}

static bool ticks_are_enabled(const struct qemu_symbols *qemu)
{
    int64_t was = qemu->cpu_get_clock(), until = host_clock_ns() + 2000;
    while (host_clock_ns() < until)
        continue;
    return qemu->cpu_get_clock() != was;
}

/* Returns how many words of timers_state may be read: its size is in the symbol table. */
static size_t words_in(void *timers_state)
{
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    if (!dladdr1(timers_state, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
        return 0;
    return MIN((size_t)symbol->st_size, PROBE_LEN) / sizeof(int64_t);
}

static bool probe(struct hook *hook)
{
    const struct qemu_symbols *qemu = &hook->qemu;
    int64_t *state = qemu->timers_state, before[PROBE_LEN / sizeof(int64_t)],
            frozen[PROBE_LEN / sizeof(int64_t)];
    size_t n = words_in(state);
    bool enabled = ticks_are_enabled(qemu);

    memcpy(before, state, n * sizeof *state);
    if (!enabled)
        qemu->cpu_enable_ticks(); /* both clocks move on a little, away from zero and from each other */
    qemu->cpu_disable_ticks();
    /* Before cpu_get_ticks is called: it leaves a copy of what it returns in cpu_ticks_prev, and two would
     * match. */
    memcpy(frozen, state, n * sizeof *state);
    int clock = find_word(frozen, n, qemu->cpu_get_clock());
    int ticks = find_word(frozen, n, qemu->cpu_get_ticks());
    bool right = clock >= 0 && ticks >= 0 && clock != ticks && follows(&state[clock], qemu->cpu_get_clock) &&
                 follows(&state[ticks], qemu->cpu_get_ticks);
    if (enabled)
        qemu->cpu_enable_ticks();
    if (!right)
        return false;
    if (enabled) { /* give back what the probe itself took */
        __atomic_store_n(&state[clock], before[clock], __ATOMIC_RELAXED);
        __atomic_store_n(&state[ticks], before[ticks], __ATOMIC_RELAXED);
    }
    hook->clock_offset_ns = &state[clock];
    hook->ticks_offset = &state[ticks];
    return true;
}

const char *hook_clock_probe(struct hook *hook)
{
    const struct qemu_symbols *qemu = &hook->qemu;
    if (!qemu->cpu_disable_ticks || !qemu->cpu_enable_ticks || !qemu->cpu_get_clock || !qemu->cpu_get_ticks ||
        !qemu->timers_state)
        return "this QEMU does not export its clock";
    if (!hook->clock_probed)
        probe(hook);
    hook->clock_probed = true;
    return hook->clock_offset_ns ? NULL : "this QEMU keeps its clock in a way that is not known";
}

static bool uses_kvm(const struct hook *hook)
{
    return hook->qemu.kvm_allowed && *hook->qemu.kvm_allowed && hook->qemu.kvm_vm_ioctl &&
           hook->qemu.kvm_state;
}

void hook_clock_before_stop(struct hook *hook, struct hook_clock_mark *mark)
{
    mark->valid = mark->kvm_valid = false;
    if (hook_clock_probe(hook) != NULL || hook_chaos("lose-time"))
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
