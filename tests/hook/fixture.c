/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See fixture.h. Runs QEMU from UNDERSTUDY_QEMU, or qemu-system-x86_64. Kills only the process it started. */
#include "tests/hook/fixture.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { CHILD_SHM = 60, CHILD_DEVSTATE, CHILD_KICK, CHILD_RAM }; /* as hv-hooks/qemu/qemu_process.h has them */

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static const char *qemu_program(void)
{
    const char *program = g_getenv("UNDERSTUDY_QEMU");
    return program && *program ? program : "qemu-system-x86_64";
}

static const char *default_accel(void)
{
    const char *accel = g_getenv("UNDERSTUDY_TEST_ACCEL");
    return accel && *accel ? accel : "tcg";
}

bool guest_can_run(void)
{
    g_autofree char *path = g_find_program_in_path(qemu_program());
    if (!path)
        fprintf(stderr, "SKIPPED: %s is not installed\n", qemu_program());
    if (strcmp(default_accel(), "kvm") == 0 && !guest_can_use_kvm()) {
        fprintf(stderr, "SKIPPED: /dev/kvm cannot be opened\n");
        return false;
    }
    return path != NULL;
}

bool guest_can_use_kvm(void)
{
    return access("/dev/kvm", R_OK | W_OK) == 0;
}

GPtrArray *guest_line(const struct guest *guest, const struct guest_options *options)
{
    GPtrArray *line = g_ptr_array_new_with_free_func(g_free);
    const char *fixed[] = {"-nodefaults", "-no-user-config", "-display", "none", "-vga", "std", "-smp", "1"};
    g_ptr_array_add(line, g_strdup(qemu_program()));
    for (size_t i = 0; i < G_N_ELEMENTS(fixed); i++)
        g_ptr_array_add(line, g_strdup(fixed[i]));
    g_ptr_array_add(line, g_strdup("-machine"));
    /* Newer machines have the paravirtual clock's device under KVM, and only there, whatever the CPU has. */
    g_ptr_array_add(line, g_strdup_printf("%s,memory-backend=ram0,suppress-vmdesc=on",
                                          options->portable ? "pc-i440fx-5.1" : "pc"));
    g_ptr_array_add(line, g_strdup("-accel"));
    g_ptr_array_add(line, g_strdup(options->accel ? options->accel : default_accel()));
    g_ptr_array_add(line, g_strdup("-m"));
    g_ptr_array_add(line, g_strdup_printf("%uM", (unsigned)(GUEST_RAM_LEN >> 20)));
    g_ptr_array_add(line, g_strdup("-object"));
    g_ptr_array_add(
        line, g_strdup_printf("memory-backend-file,id=ram0,size=%uM,share=%s,mem-path=/proc/self/fd/%d",
                              (unsigned)(GUEST_RAM_LEN >> 20), options->trial ? "off" : "on", CHILD_RAM));
    g_ptr_array_add(line, g_strdup("-bios"));
    g_ptr_array_add(line, g_strdup(options->image ? options->image : BOOTSECTOR_BUSY));
    g_ptr_array_add(line, g_strdup("-qmp"));
    g_ptr_array_add(line, g_strdup_printf("unix:%s/%s,server=on,wait=off", guest->dir,
                                          options->trial ? "us-trial" : "qmp"));
    g_ptr_array_add(line, g_strdup("-global"));
    g_ptr_array_add(line, g_strdup("migration.send-configuration=off"));
    if (options->portable) {
        g_ptr_array_add(line, g_strdup("-cpu"));
        g_ptr_array_add(line, g_strdup("qemu64,kvmclock=off"));
    }
    if (options->device) {
        g_ptr_array_add(line, g_strdup("-device"));
        g_ptr_array_add(line, g_strdup(options->device));
    }
    if (options->trial)
        g_ptr_array_add(line, g_strdup("-S"));
    if (options->standby || options->trial) {
        g_ptr_array_add(line, g_strdup("-incoming"));
        g_ptr_array_add(line, g_strdup("defer"));
    }
    g_ptr_array_add(line, NULL);
    return line;
}

G_NORETURN static void run_qemu(const struct guest *guest, const struct guest_options *options, char **line)
{
    struct hv_fds inside = {
        .shm = CHILD_SHM, .devstate = CHILD_DEVSTATE, .kick = CHILD_KICK, .ram = CHILD_RAM};
    g_autofree char *environment = hv_fds_environment(&inside);
    g_autofree char *log = g_strdup_printf("%s/log", guest->dir);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no QEMU outlives a test that crashed */
    dup2(out, 1);
    dup2(out, 2);
    dup2(guest->fds.shm, inside.shm);
    dup2(guest->fds.devstate, inside.devstate);
    dup2(guest->fds.kick, inside.kick);
    dup2(guest->fds.ram, inside.ram);
    g_setenv("UNDERSTUDY_HOOK", environment, TRUE);
    g_setenv("LD_PRELOAD", options->fault || options->hide ? HOOK_CHAOS_LIBRARY : HOOK_LIBRARY, TRUE);
    if (options->fault)
        g_setenv("UNDERSTUDY_HOOK_CHAOS", options->fault, TRUE);
    if (options->hide)
        g_setenv("UNDERSTUDY_HOOK_TEST_HIDE", options->hide, TRUE);
    execvp(line[0], line);
    _exit(127);
}

void guest_spawn(struct guest *guest, const struct guest_options *options)
{
    memset(guest, 0, sizeof *guest);
    guest->dir = g_dir_make_tmp("understudy-hook-XXXXXX", NULL);
    assert_non_null(guest->dir);
    assert_int_equal(hv_fds_create(&guest->fds, "test", GUEST_RAM_LEN), 0);
    assert_int_equal(hypervisor_open(&guest->hv, &guest->fds, GUEST_RAM_LEN), 0);
    g_autoptr(GPtrArray) line = guest_line(guest, options);
    guest->pid = fork();
    assert_true(guest->pid >= 0);
    if (guest->pid == 0)
        run_qemu(guest, options, (char **)line->pdata);
    hypervisor_set_pid(guest->hv, guest->pid);
}

static void on_closed(struct qmp *qmp, const GError *error, void *opaque)
{
    (void)qmp;
    (void)error;
    (void)opaque;
}

void guest_start(struct guest *guest, const struct guest_options *options)
{
    guest_spawn(guest, options);
    int status = hypervisor_wait_ready(guest->hv, 20000);
    if (status < 0) {
        g_autofree char *output = guest_output(guest);
        fail_msg("QEMU is not ready (%d): %s; it printed: %s", status, hypervisor_last_message(guest->hv),
                 output);
    }
    assert_int_equal(hypervisor_list_blocks(guest->hv), 0);
    g_autofree char *path = g_strdup_printf("%s/qmp", guest->dir);
    guest->qmp = qmp_open(path, 10000, NULL, on_closed, NULL);
}

void guest_stop(struct guest *guest)
{
    qmp_close(guest->qmp);
    if (guest->pid > 0) {
        kill(guest->pid, SIGKILL);
        waitpid(guest->pid, NULL, 0);
    }
    hypervisor_close(guest->hv);
    hv_fds_close(&guest->fds);
    if (guest->dir) {
        const char *names[] = {"log", "qmp"};
        for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
            g_autofree char *path = g_build_filename(guest->dir, names[i], NULL);
            g_unlink(path);
        }
        g_rmdir(guest->dir);
    }
    g_free(guest->dir);
    memset(guest, 0, sizeof *guest);
}

char *guest_output(const struct guest *guest)
{
    g_autofree char *path = g_build_filename(guest->dir, "log", NULL);
    char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) ? text : g_strdup("");
}

uint32_t guest_word(const uint8_t *ram, uint64_t address)
{
    return *(const volatile uint32_t *)(ram + address);
}

const uint8_t *guest_ram(const struct guest *guest)
{
    for (unsigned i = 0; i < hypervisor_nblocks(guest->hv); i++) {
        if (!hypervisor_block(guest->hv, i)->aux)
            return hypervisor_block(guest->hv, i)->bytes;
    }
    fail_msg("the guest has no main RAM");
    return NULL;
}

static bool guest_starts(const struct guest *guest, unsigned timeout_ms)
{
    const uint8_t *ram = guest_ram(guest);
    uint64_t until = now_ns() + timeout_ms * 1000000ull;
    while (guest_word(ram, 0x8000) != GUEST_MAGIC || guest_word(ram, 0x8004) < 3) {
        if (now_ns() > until)
            return false;
        g_usleep(1000);
    }
    return true;
}

void guest_wait_rounds(const struct guest *guest)
{
    if (!guest_starts(guest, 20000))
        fail_msg("the boot sector did not start");
}

bool guest_moves(const struct guest *guest, unsigned timeout_ms)
{
    const uint8_t *ram = guest_ram(guest);
    uint32_t was = guest_word(ram, 0x8004);
    uint64_t until = now_ns() + timeout_ms * 1000000ull;
    do {
        if (guest_word(ram, 0x8004) != was)
            return true;
        g_usleep(100);
    } while (now_ns() < until);
    return false;
}

char *guest_ram_inconsistency(const uint8_t *ram)
{
    uint32_t rounds = guest_word(ram, 0x8004), first = guest_word(ram, GUEST_BASE);
    if (guest_word(ram, 0x8000) != GUEST_MAGIC)
        return g_strdup("the boot sector has not run");
    if (first != rounds && first != rounds + 1)
        return g_strdup_printf("page 0 holds %u after %u rounds", first, rounds);
    uint32_t expect = first;
    for (unsigned i = 1; i < GUEST_PAGES; i++) {
        uint32_t value = guest_word(ram, GUEST_BASE + i * 4096ull);
        if (value != expect && expect == rounds + 1)
            expect = rounds; /* the one step down: the round had come this far */
        if (value != expect)
            return g_strdup_printf("page %u holds %u after %u rounds", i, value, rounds);
    }
    return NULL;
}

bool guest_read_process(const struct guest *guest, uint64_t address, void *to, uint64_t len)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/mem", (int)guest->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && pread(fd, to, len, (off_t)address) == (ssize_t)len;
    if (fd >= 0)
        close(fd);
    return ok;
}

void shadow_open(struct shadow *shadow, const struct guest *guest)
{
    memset(shadow, 0, sizeof *shadow);
    for (unsigned i = 0; i < hypervisor_nblocks(guest->hv); i++)
        shadow->bytes[i] = g_malloc0(hypervisor_block(guest->hv, i)->max_len);
}

void shadow_close(struct shadow *shadow)
{
    for (unsigned i = 0; i < HV_MAX_BLOCKS; i++)
        g_free(shadow->bytes[i]);
}

void shadow_copy_all(struct shadow *shadow, const struct guest *guest)
{
    for (unsigned i = 0; i < hypervisor_nblocks(guest->hv); i++) {
        const struct hv_block *block = hypervisor_block(guest->hv, i);
        memcpy(shadow->bytes[i], block->bytes, block->used_len);
    }
}

uint64_t shadow_take(struct shadow *shadow, const struct guest *guest)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < hypervisor_nblocks(guest->hv); i++) {
        const struct hv_block *block = hypervisor_block(guest->hv, i);
        for (uint64_t w = 0; w < (block->max_len / HV_PAGE_LEN + 63) / 64; w++) {
            uint64_t bits = atomic_load_explicit(&block->bitmap[w], memory_order_relaxed);
            if (bits)
                bits = atomic_exchange_explicit(&block->bitmap[w], 0, memory_order_acquire);
            for (; bits; bits &= bits - 1) {
                uint64_t offset = (w * 64 + (uint64_t)__builtin_ctzll(bits)) * HV_PAGE_LEN;
                assert_true(offset < block->max_len);
                memcpy(shadow->bytes[i] + offset, block->bytes + offset, HV_PAGE_LEN);
                pages++;
            }
        }
    }
    return pages;
}

uint64_t shadow_differences(const struct shadow *shadow, const struct guest *guest)
{
    uint64_t differences = 0;
    for (unsigned i = 0; i < hypervisor_nblocks(guest->hv); i++) {
        const struct hv_block *block = hypervisor_block(guest->hv, i);
        g_autofree uint8_t *real = g_malloc(block->used_len);
        assert_true(guest_read_process(guest, block->host_addr, real, block->used_len));
        for (uint64_t offset = 0; offset < block->used_len; offset += HV_PAGE_LEN) {
            uint64_t len = MIN(HV_PAGE_LEN, block->used_len - offset);
            if (memcmp(shadow->bytes[i] + offset, real + offset, len) != 0) {
                if (g_getenv("UNDERSTUDY_TEST_VERBOSE"))
                    fprintf(stderr, "differs: %s + 0x%llx\n", block->idstr, (unsigned long long)offset);
                differences++;
            }
        }
    }
    return differences;
}
