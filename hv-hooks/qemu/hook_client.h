/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hypervisor.h for QEMU with the hook: how one is opened, and what only QEMU's machine and the tests of the
 * hook do with it. Threads and errors as hypervisor.h says.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_HOOK_CLIENT_H
#define UNDERSTUDY_HV_HOOKS_QEMU_HOOK_CLIENT_H

#include "hv-hooks/hypervisor.h"

/* The memfds and the eventfd that one QEMU process shares with the engine. The caller of hv_fds_create owns
 * them. */
struct hv_fds {
    int shm, devstate, ram, kick;
};

/* Makes the memfds (sealed) and the eventfd for a guest with ram_len bytes of main RAM. Returns 0 or -errno.
 */
int hv_fds_create(struct hv_fds *fds, const char *vm_name, uint64_t ram_len);
/* Does the same for a temporary process that maps another one's main RAM: duplicates the descriptor ram. */
int hv_fds_create_beside(struct hv_fds *fds, const char *vm_name, uint64_t ram_len, int ram);
/* Closes the descriptors. */
void hv_fds_close(struct hv_fds *fds);
/* Returns the value of UNDERSTUDY_HOOK for these fds. GLib string. */
char *hv_fds_environment(const struct hv_fds *fds);

/* Maps the memfds, which stay the caller's. Returns 0 or -errno. */
int hypervisor_open(struct hypervisor **out, const struct hv_fds *fds, uint64_t ram_len);
/* Unmaps everything. NULL is allowed. */
void hypervisor_close(struct hypervisor *hv);
/* Sets the hypervisor's process, once it is known. Returns 0, or -errno if its end could not be noticed. */
int hypervisor_set_pid(struct hypervisor *hv, pid_t pid);

/*
 * Waits until the hook is ready. Returns 0 or -errno. -ENOEXEC: the hook refused (hypervisor_last_message
 * says why). -ECANCELED: see hypervisor_interrupt. After 0 the last message is empty, or says what the hook
 * cannot do with this QEMU (add the lost time to the guest's clock).
 */
int hypervisor_wait_ready(struct hypervisor *hv, unsigned timeout_ms);

/* Pauses the guest and leaves it paused. Returns 0 or -errno. */
int hypervisor_pause(struct hypervisor *hv);
/* Lets the guest run. Returns 0 or -errno. */
int hypervisor_resume(struct hypervisor *hv);
/*
 * On the standby, before the device state is loaded: gives each of the nblocks blocks the used length that it
 * had in the epoch, and copies the aux mirror into the hypervisor's own blocks. Waits at most timeout_ms for
 * the request before it, and as long for the copy. Returns 0 or -errno.
 */
int hypervisor_load_aux(struct hypervisor *hv, const uint64_t *used_len, unsigned nblocks,
                        unsigned timeout_ms);

#endif
