/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Declarations that the hook's files share. All functions run on QEMU's main thread with the big lock held,
 * except the constructor. Nothing here is visible outside the shared object.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_HOOK_INTERNAL_H
#define UNDERSTUDY_HV_HOOKS_QEMU_HOOK_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "hv-hooks/qemu/hook_shm.h"

/* QEMU's types, opaque here. */
struct Error;
struct RAMBlock;
struct MemoryRegion;
struct QIOChannelFile;
struct QEMUFile;
struct QEnumLookup;

/* DirtyBitmapSnapshot (QEMU system/physmem.c, 7.2 to 11.1): bit 0 is the page at start. */
struct qemu_dirty_snapshot {
    uint64_t start, end;
    unsigned long dirty[];
};

/*
 * The functions of QEMU that the hook calls, found by dlsym at start. The executable of stock builds exports
 * all of them, since QEMU's own modules need them. A call passes the longest argument list of the supported
 * versions: the calling conventions of x86-64 and aarch64 ignore surplus integer arguments.
 */
struct qemu_symbols {
    /* run state */
    int (*vm_stop)(int run_state);
    void (*vm_start)(void);
    void (*qmp_cont)(struct Error **errp); /* vm_start if the guest may run; takes its disks back first */
    bool (*runstate_is_running)(void);
    /* Run states that are errors (optional: without these functions, a guest that stands still because of an
     * error is saved like any other). */
    bool (*runstate_check)(int run_state);
    bool (*qemu_vmstop_requested)(int *run_state); /* takes a stop request that waits for the main loop */
    void (*qemu_system_vmstop_request_prepare)(void);
    void (*qemu_system_vmstop_request)(int run_state);
    void (*global_state_store_running)(void);
    int (*global_state_store)(void);
    /* dirty log */
    bool (*memory_global_dirty_log_start)(unsigned flags, struct Error **errp);
    void (*memory_global_dirty_log_stop)(unsigned flags);
    void (*memory_global_dirty_log_sync)(bool last_stage);
    void (*memory_global_after_dirty_log_sync)(void);
    struct qemu_dirty_snapshot *(*cpu_physical_memory_snapshot_and_clear_dirty)(struct MemoryRegion *mr,
                                                                                uint64_t offset,
                                                                                uint64_t length,
                                                                                unsigned client);
    /* RAM */
    int (*qemu_ram_foreach_block)(int (*func)(struct RAMBlock *rb, void *opaque), void *opaque);
    const char *(*qemu_ram_get_idstr)(struct RAMBlock *rb);
    void *(*qemu_ram_get_host_addr)(struct RAMBlock *rb);
    uint64_t (*qemu_ram_get_used_length)(struct RAMBlock *rb);
    uint64_t (*qemu_ram_get_max_length)(struct RAMBlock *rb);
    uint64_t (*qemu_ram_get_offset)(struct RAMBlock *rb);
    int (*qemu_ram_get_fd)(struct RAMBlock *rb);
    bool (*qemu_ram_is_migratable)(struct RAMBlock *rb);
    int (*qemu_ram_resize)(struct RAMBlock *rb, uint64_t newsize, struct Error **errp);
    struct MemoryRegion *(*memory_region_from_host)(void *ptr, uint64_t *offset);
    /* device state */
    struct QIOChannelFile *(*qio_channel_file_new_fd)(int fd);
    struct QEMUFile *(*qemu_file_new_output)(void *ioc);
    int (*qemu_save_device_state)(struct QEMUFile *f);
    int (*qemu_fclose)(struct QEMUFile *f);
    void (*object_unref)(void *obj);
    void (*qmp_xen_save_devices_state)(const char *path, bool has_live, bool live, struct Error **errp);
    bool (*migration_is_blocked)(struct Error **errp);
    /* errors and versions */
    const char *(*error_get_pretty)(const struct Error *err);
    void (*error_free)(struct Error *err);
    /* clock (optional: without these, lost time is not added to the guest's clock) */
    void (*cpu_enable_ticks)(void);
    void (*cpu_disable_ticks)(void);
    int64_t (*cpu_get_clock)(void);
    int64_t (*cpu_get_ticks)(void);
    void *timers_state;
    /* KVM's guest clock (optional) */
    bool *kvm_allowed;
    void **kvm_state;
    int (*kvm_vm_ioctl)(void *kvm_state, int type, ...);
    /* names of run states (optional) */
    const struct QEnumLookup *RunState_lookup;
    const char *(*qapi_enum_lookup)(const struct QEnumLookup *lookup, int value);
};

/*
 * QEMU's RunState values are generated and differ between versions; the first five have been the same
 * since 1.x. At start, hook_run_states_are_known checks that this QEMU has them.
 */
#define QEMU_RUN_STATE_INTERNAL_ERROR 2
#define QEMU_RUN_STATE_IO_ERROR       3
#define QEMU_RUN_STATE_PAUSED         4
#define QEMU_DIRTY_MIGRATION          1u /* GLOBAL_DIRTY_MIGRATION */
#define QEMU_CLIENT_MIGRATION         2u /* DIRTY_MEMORY_MIGRATION */

struct hook_local_block {
    struct RAMBlock *rb;
    struct MemoryRegion *mr;
    uint8_t *host;
};

/* The hook's state. One per process. */
struct hook {
    struct qemu_symbols qemu;
    struct hook_shm *shm;
    size_t shm_len;
    int devstate_fd, kick_fd;
    int scratch_fd;            /* file of the slow save, made when it is first needed; or -1 */
    uint64_t ram_dev, ram_ino; /* device and inode of the guest's main RAM */
    struct hook_local_block local[HOOK_MAX_BLOCKS];
    uint32_t nlocal;
    bool tracking;
    enum hook_tracker tracker;
    int uffd;
    uint32_t last_seq;
    bool adds_header;     /* QEMU saves the device state without the stream's header, so the hook writes it */
    pid_t replicator_pid; /* process that started QEMU, or -1 */
    /* clock */
    int64_t *clock_offset_ns, *ticks_offset; /* inside timers_state, or NULL */
    bool clock_probed;
};

/* hook_symbols.c */
/* Finds QEMU's functions. Returns 0, or -1 with the name of a missing one in *missing. */
int hook_find_symbols(struct qemu_symbols *symbols, const char **missing);
/* Returns whether the QEMU_RUN_STATE_* have the expected names in this QEMU; true if QEMU does not export
 * names. */
bool hook_run_states_are_known(const struct qemu_symbols *symbols);
/* Returns whether this process is a QEMU system emulator, and not a shell that will start one. */
bool hook_process_is_qemu(void);

/* hook_blocks.c */
/* Lists QEMU's RAM blocks in the shared memory and copies all aux pages to the mirror. Returns 0, or -errno
 * with a sentence in message (message_len bytes). */
int hook_blocks_list(struct hook *hook, char *message, size_t message_len);
/* Returns whether QEMU has RAM blocks yet. */
bool hook_blocks_exist(struct hook *hook);
/* Returns whether QEMU's RAM blocks differ from those that were listed. */
bool hook_blocks_changed(struct hook *hook);
/* Copies the aux mirror into QEMU's blocks. Returns 0, or -errno with a sentence in message. */
int hook_blocks_load_aux(struct hook *hook, char *message, size_t message_len);

/* hook_harvest.c */
/* Starts the tracker. Returns 0, or -errno with a sentence in message. */
int hook_track_start(struct hook *hook, enum hook_tracker tracker, char *message, size_t message_len);
/* Stops the tracker. Returns 0 or -errno. */
int hook_track_stop(struct hook *hook);
/* Moves the dirty log into the shared bitmaps and mirrors dirty aux pages. Returns the number of dirty pages.
 */
uint64_t hook_harvest(struct hook *hook);

/* hook_clock.c */
struct hook_clock_mark {
    int64_t clock_offset_ns, ticks_offset; /* as they were before the pause */
    uint64_t kvm_clock_ns, kvm_realtime_ns;
    bool valid, kvm_valid;
};
/* Finds QEMU's clock offsets. Returns NULL, or why lost time cannot be added to the guest's clock. */
const char *hook_clock_probe(struct hook *hook);
/* Remembers the clocks before the guest is stopped. */
void hook_clock_before_stop(struct hook *hook, struct hook_clock_mark *mark);
/* Adds the length of the pause to the guest's clocks, in two steps: before and after the guest is started. */
void hook_clock_before_start(struct hook *hook, const struct hook_clock_mark *mark);
void hook_clock_after_start(struct hook *hook, const struct hook_clock_mark *mark);
/* Moves the running guest's clock forward by ns nanoseconds. Returns 0 or -errno. */
int hook_clock_advance(struct hook *hook, uint64_t ns);

/* hook_signals.c */
/* Passes the signals that would end QEMU on to the replicator. To be called once QEMU has set its own
 * handlers. */
void hook_signals_pass_on(pid_t replicator_pid);

/* hook_checkpoint.c */
/* Takes the checkpoint that request seq asks for, and fills the result in the shared memory. */
void hook_checkpoint(struct hook *hook, uint32_t seq);

/* hook_save.c */
#define HOOK_NO_STREAM                                                                                       \
    "this QEMU (version %s) saves the devices in a form that no standby could load: use QEMU 7.2 to 11.1"
/*
 * Saves the device state as a complete stream into the devstate memfd, from offset 0. Returns 0 with *len
 * bytes, or -errno. -EPROTO: what QEMU wrote is not a stream that a standby could load.
 */
int hook_save_devices(struct hook *hook, bool was_running, uint64_t *len);
/* Saves once as a test, so that a QEMU whose device state is of no use is refused at the start. Returns 0 or
 * -errno. */
int hook_prove_save(struct hook *hook);

/* hook_wait.c */
/* Returns whether the fault is planted. Faults are compiled in only for the tests that must find them. */
#ifdef UNDERSTUDY_CHAOS
bool hook_chaos(const char *fault);
#else
static inline bool hook_chaos(const char *fault)
{
    (void)fault;
    return false;
}
#endif

/* Returns CLOCK_MONOTONIC in nanoseconds. */
uint64_t hook_now_ns(void);
/* Waits while *word is value, for at most timeout_ns. Returns the system call's result. */
long hook_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns);
/* Wakes one thread that waits for word. */
void hook_futex_wake(_Atomic uint32_t *word);

#endif
