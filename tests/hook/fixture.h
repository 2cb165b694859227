/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A real QEMU with the hook inside, and a boot-sector guest in it: started in one line, gone at the end
 * whatever happened.
 */
#ifndef UNDERSTUDY_TESTS_HOOK_FIXTURE_H
#define UNDERSTUDY_TESTS_HOOK_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "hv-hooks/qemu/hook_client.h"
#include "hv-hooks/qemu/qmp.h"

#define GUEST_RAM_LEN    (64ull << 20)
#define GUEST_PAGES      64u /* as tests/hook/CMakeLists.txt assembles it */
#define GUEST_BASE       0x200000u
#define GUEST_WIDE_PAGES 8192u /* of the wide guest: a round outlasts a checkpoint or two */
#define GUEST_MAGIC      0x54534b42u

struct guest_options {
    const char *image;  /* boot sector; NULL: the busy one */
    const char *fault;  /* planted in the hook: loads the hook that has faults in it */
    const char *hide;   /* a QEMU symbol the hook must not find */
    const char *accel;  /* NULL: UNDERSTUDY_TEST_ACCEL, or tcg */
    bool portable;      /* as both KVM and TCG can load it: without the paravirtual clock */
    const char *device; /* one more, as -device takes it */
    bool standby;       /* waits for a takeover */
    bool trial;         /* the same, for a trial load: see guest_line */
};

struct guest {
    struct hv_fds fds;
    struct hypervisor *hv;
    pid_t pid;
    struct qmp *qmp;
    char *dir;
};

/* True where QEMU can be run, with KVM if UNDERSTUDY_TEST_ACCEL asks for it; else says why on stderr. */
bool guest_can_run(void);
bool guest_can_use_kvm(void);
/* QEMU's command line, ended by NULL. For a trial: memory mapped privately, the monitor's socket is us-trial.
 */
GPtrArray *guest_line(const struct guest *guest, const struct guest_options *options);
/* Starts QEMU and opens the hook's client; does not wait. */
void guest_spawn(struct guest *guest, const struct guest_options *options);
/* guest_spawn, then waits for hello, lists the blocks and opens the monitor. */
void guest_start(struct guest *guest, const struct guest_options *options);
/* Waits until the boot sector counts rounds; fails the test if it does not. */
void guest_wait_rounds(const struct guest *guest);
void guest_stop(struct guest *guest);
/* What QEMU printed. GLib-allocated. */
char *guest_output(const struct guest *guest);

uint32_t guest_word(const uint8_t *ram, uint64_t address);
/* Main RAM as mapped here. */
const uint8_t *guest_ram(const struct guest *guest);
/* NULL if RAM is a snapshot of one instant of the boot sector's life; else what is wrong, GLib-allocated. */
char *guest_ram_inconsistency(const uint8_t *ram);
/* Whether the rounds go on within timeout_ms. */
bool guest_moves(const struct guest *guest, unsigned timeout_ms);
/* Copies len bytes of QEMU's own memory. */
bool guest_read_process(const struct guest *guest, uint64_t address, void *to, uint64_t len);

/* The engine's copy of the guest, made only of harvested pages. */
struct shadow {
    uint8_t *bytes[HV_MAX_BLOCKS];
};
void shadow_open(struct shadow *shadow, const struct guest *guest);
void shadow_close(struct shadow *shadow);
/* Copies every page. */
void shadow_copy_all(struct shadow *shadow, const struct guest *guest);
/* Takes the bits out and copies their pages. Returns the number of pages. */
uint64_t shadow_take(struct shadow *shadow, const struct guest *guest);
/* Pages in which the shadow differs from the paused guest. */
uint64_t shadow_differences(const struct shadow *shadow, const struct guest *guest);

uint64_t now_ns(void);

#endif
