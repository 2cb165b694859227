/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Takeover inside the standby's QEMU, which waits with -incoming defer and whose main RAM (the ram memfd) and
 * aux mirror already hold the epoch's image. Its command line needs, besides:
 *
 *   -incoming defer -global migration.send-configuration=off -machine suppress-vmdesc=on
 *
 * One QEMU process can take over once.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_STANDBY_H
#define UNDERSTUDY_HV_HOOKS_QEMU_STANDBY_H

#include <glib.h>
#include <stddef.h>
#include <stdint.h>

#include "hv-hooks/hypervisor.h"
#include "hv-hooks/qemu/qmp.h"

struct standby;

/*
 * Once. ok: the guest runs, or, if the saved guest stood still, is loaded and stands still; message is QEMU's
 * run state ("running", "paused", "io-error" and so on). Otherwise message is one sentence saying why not.
 * elapsed_us counts from standby_takeover. The standby is freed after this returns.
 */
typedef void (*standby_done)(bool ok, const char *message, uint64_t elapsed_us, void *opaque);

/*
 * Carries the aux blocks into QEMU and loads the device state (copied: the caller may reuse its memory).
 * used_len has the length of each RAM block at the epoch's boundary. Returns at once; done is called later,
 * from qmp's main context. NULL if nothing was begun (error is set; done is not called). If QEMU does neither
 * within timeout_ms, done says so.
 */
struct standby *standby_takeover(struct hypervisor *hv, const uint64_t *used_len, unsigned nblocks,
                                 struct qmp *qmp, const void *devstate, size_t devstate_len,
                                 unsigned timeout_ms, standby_done done, void *opaque, GError **error);
/*
 * The second half alone, the aux blocks being in QEMU already: the device state (copied). With -S on its
 * line QEMU loads it and leaves the guest standing still, which done calls ok.
 */
struct standby *standby_load(struct qmp *qmp, const void *devstate, size_t devstate_len, unsigned timeout_ms,
                             standby_done done, void *opaque, GError **error);
/* Gives up without a callback: before qmp_close, if done has not come. */
void standby_cancel(struct standby *standby);

#endif
