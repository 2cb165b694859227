/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds the functions of QEMU that the hook calls, by a table, so that a refusal can name the one that is
 * missing. Nothing of QEMU is called here, except the function that gives the name of a run state.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "hv-hooks/qemu/hook/hook_internal.h"

struct wanted {
    const char *name;
    const char *renamed; /* what newer versions call it; NULL: the same */
    size_t offset;
    bool optional;
};

#define REQUIRED(symbol)                                                                                     \
    {                                                                                                        \
#symbol, NULL, offsetof(struct qemu_symbols, symbol), false                                          \
    }
#define RENAMED(symbol, newer)                                                                               \
    {                                                                                                        \
#symbol, #newer, offsetof(struct qemu_symbols, symbol), false                                        \
    }
#define OPTIONAL(symbol)                                                                                     \
    {                                                                                                        \
#symbol, NULL, offsetof(struct qemu_symbols, symbol), true                                           \
    }

static const struct wanted wanted[] = {
    REQUIRED(vm_stop),
    REQUIRED(vm_start),
    REQUIRED(qmp_cont),
    REQUIRED(runstate_is_running),
    OPTIONAL(runstate_check),
    OPTIONAL(qemu_vmstop_requested),
    OPTIONAL(qemu_system_vmstop_request_prepare),
    OPTIONAL(qemu_system_vmstop_request),
    REQUIRED(global_state_store_running),
    REQUIRED(global_state_store),
    REQUIRED(memory_global_dirty_log_start),
    REQUIRED(memory_global_dirty_log_stop),
    REQUIRED(memory_global_dirty_log_sync),
    REQUIRED(memory_global_after_dirty_log_sync),
    RENAMED(cpu_physical_memory_snapshot_and_clear_dirty, physical_memory_snapshot_and_clear_dirty), /* 11 */
    REQUIRED(qemu_ram_foreach_block),
    REQUIRED(qemu_ram_get_idstr),
    REQUIRED(qemu_ram_get_host_addr),
    REQUIRED(qemu_ram_get_used_length),
    REQUIRED(qemu_ram_get_max_length),
    REQUIRED(qemu_ram_get_offset),
    REQUIRED(qemu_ram_get_fd),
    REQUIRED(qemu_ram_is_migratable),
    OPTIONAL(qemu_ram_resize),
    REQUIRED(memory_region_from_host),
    /* The fast way to save, whole or not at all; the slow one stands in (hook_checkpoint.c). */
    OPTIONAL(qio_channel_file_new_fd),
    OPTIONAL(qemu_file_new_output),
    OPTIONAL(qemu_save_device_state),
    OPTIONAL(qemu_fclose),
    OPTIONAL(object_unref),
    REQUIRED(qmp_xen_save_devices_state),
    OPTIONAL(migration_is_blocked),
    REQUIRED(error_get_pretty),
    REQUIRED(error_free),
    OPTIONAL(cpu_enable_ticks),
    OPTIONAL(cpu_disable_ticks),
    OPTIONAL(cpu_get_clock),
    OPTIONAL(cpu_get_ticks),
    OPTIONAL(timers_state),
    OPTIONAL(kvm_allowed),
    OPTIONAL(kvm_state),
    OPTIONAL(kvm_vm_ioctl),
    OPTIONAL(RunState_lookup),
    OPTIONAL(qapi_enum_lookup),
};

#ifdef UNDERSTUDY_CHAOS
/* For tests: a QEMU that lacks one of them. */
static bool is_hidden(const char *name)
{
    const char *hide = getenv("UNDERSTUDY_HOOK_TEST_HIDE");
    return hide && strcmp(hide, name) == 0;
}
#else
static bool is_hidden(const char *name)
{
    (void)name;
    return false;
}
#endif

static void *find(const char *name)
{
    return !name || is_hidden(name) ? NULL : dlsym(RTLD_DEFAULT, name);
}

int hook_find_symbols(struct qemu_symbols *symbols, const char **missing)
{
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *address = find(wanted[i].name);
        if (!address)
            address = find(wanted[i].renamed);
        if (!address && !wanted[i].optional) {
            *missing = wanted[i].name;
            return -1;
        }
        memcpy((char *)symbols + wanted[i].offset, &address, sizeof address);
    }
    return 0;
}

bool hook_run_states_are_known(const struct qemu_symbols *symbols)
{
    if (!symbols->RunState_lookup || !symbols->qapi_enum_lookup)
        return true; /* as in all versions that are known */
    static const struct {
        int value;
        const char *name;
    } states[] = {{QEMU_RUN_STATE_INTERNAL_ERROR, "internal-error"},
                  {QEMU_RUN_STATE_IO_ERROR, "io-error"},
                  {QEMU_RUN_STATE_PAUSED, "paused"}};
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        if (strcmp(symbols->qapi_enum_lookup(symbols->RunState_lookup, states[i].value), states[i].name) != 0)
            return false;
    return true;
}

bool hook_process_is_qemu(void)
{
    return dlsym(RTLD_DEFAULT, "qemu_main_loop") && dlsym(RTLD_DEFAULT, "qemu_init");
}
