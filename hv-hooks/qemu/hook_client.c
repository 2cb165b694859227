/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hypervisor.h over the hook's shared memory: the engine's end. Everything read from the shared memory is a
 * claim by QEMU, which the guest may control: block descriptors are copied out once and checked against the
 * mapping's size that this side knows itself.
 *
 * Waiting is by futex on the hook's sequence words, in slices, with a look at whether QEMU still lives.
 */
#include "hv-hooks/qemu/hook_client.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/words.h"
#include "hv-hooks/qemu/hook_shm.h"

#define REQUEST_TIMEOUT_MS 5000
#define WAIT_SLICE_NS      50000000ull
#define SPIN_NS            30000ull
#define MAX_ERRNO          4095

struct hypervisor {
    struct hook_shm *shm;
    size_t shm_len;
    uint8_t *ram;
    uint64_t ram_len;
    const uint8_t *devstate;
    int kick, ram_fd;
    pid_t pid;
    int pidfd;
    uint32_t seq;
    bool copied; /* this side won the verdict of the present checkpoint */
    _Atomic bool interrupted;
    struct hv_block blocks[HV_MAX_BLOCKS];
    unsigned nblocks;
    char message[HOOK_MESSAGE_LEN];
    char version[64];
};

static uint64_t bitmaps_len_for(uint64_t ram_len)
{
    /* Main RAM, the aux mirror, and one cache line of slack for each block. */
    uint64_t pages = (ram_len + HOOK_AUX_MAX) / HOOK_PAGE_LEN;
    return ((pages / 8 + HOOK_MAX_BLOCKS * 64ull) + 4095) & ~4095ull;
}

static uint64_t shm_len_for(uint64_t ram_len)
{
    return HOOK_SHM_HEADER_LEN + bitmaps_len_for(ram_len) + HOOK_AUX_MAX;
}

static int sealed_memfd(const char *kind, const char *vm_name, uint64_t len)
{
    g_autofree char *name = g_strdup_printf("understudy-%s-%s", kind, vm_name);
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)len) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    return fd;
}

/* Makes the descriptors. ram: the descriptor of main RAM, or -errno. */
static int create_fds(struct hv_fds *fds, const char *vm_name, uint64_t ram_len, int ram)
{
    *fds = (struct hv_fds){.shm = -1, .devstate = -1, .ram = ram, .kick = -1};
    fds->shm = sealed_memfd("shm", vm_name, shm_len_for(ram_len));
    fds->devstate = sealed_memfd("devstate", vm_name, HOOK_DEVSTATE_MAX);
    fds->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int status = fds->shm < 0 ? fds->shm : fds->devstate < 0 ? fds->devstate : fds->ram < 0 ? fds->ram : 0;
    if (status == 0 && fds->kick < 0)
        status = -errno;
    if (status < 0)
        hv_fds_close(fds);
    return status;
}

int hv_fds_create(struct hv_fds *fds, const char *vm_name, uint64_t ram_len)
{
    return create_fds(fds, vm_name, ram_len, sealed_memfd("ram", vm_name, ram_len));
}

int hv_fds_create_beside(struct hv_fds *fds, const char *vm_name, uint64_t ram_len, int ram)
{
    int copy = fcntl(ram, F_DUPFD_CLOEXEC, 0);
    return create_fds(fds, vm_name, ram_len, copy < 0 ? -errno : copy);
}

void hv_fds_close(struct hv_fds *fds)
{
    int *all[] = {&fds->shm, &fds->devstate, &fds->ram, &fds->kick};
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
        if (*all[i] >= 0)
            close(*all[i]);
        *all[i] = -1;
    }
}

char *hv_fds_environment(const struct hv_fds *fds)
{
    return g_strdup_printf("shm=%d,devstate=%d,kick=%d,ram=%d", fds->shm, fds->devstate, fds->kick, fds->ram);
}

static void write_header(struct hypervisor *hv)
{
    struct hook_shm *shm = hv->shm;
    shm->shm_len = hv->shm_len;
    shm->ram_len = hv->ram_len;
    shm->bitmaps_off = HOOK_SHM_HEADER_LEN;
    shm->bitmaps_len = bitmaps_len_for(hv->ram_len);
    shm->aux_off = shm->bitmaps_off + shm->bitmaps_len;
    shm->aux_len = HOOK_AUX_MAX;
    shm->version = HOOK_SHM_VERSION;
    shm->magic = HOOK_SHM_MAGIC;
}

int hypervisor_open(struct hypervisor **out, const struct hv_fds *fds, uint64_t ram_len)
{
    struct hypervisor *hv = g_new0(struct hypervisor, 1);
    hv->shm_len = shm_len_for(ram_len);
    hv->ram_len = ram_len;
    hv->kick = fds->kick;
    hv->ram_fd = fds->ram;
    hv->pidfd = -1;
    void *shm = mmap(NULL, hv->shm_len, PROT_READ | PROT_WRITE, MAP_SHARED, fds->shm, 0);
    void *ram = mmap(NULL, ram_len, PROT_READ | PROT_WRITE, MAP_SHARED, fds->ram, 0);
    void *devstate = mmap(NULL, HOOK_DEVSTATE_MAX, PROT_READ, MAP_SHARED, fds->devstate, 0);
    hv->shm = shm == MAP_FAILED ? NULL : shm;
    hv->ram = ram == MAP_FAILED ? NULL : ram;
    hv->devstate = devstate == MAP_FAILED ? NULL : devstate;
    if (!hv->shm || !hv->ram || !hv->devstate) {
        hypervisor_close(hv);
        return -ENOMEM;
    }
    if (hv->shm->magic != HOOK_SHM_MAGIC)
        write_header(hv);
    hv->seq = atomic_load(&hv->shm->request_seq);
    *out = hv;
    return 0;
}

void hypervisor_close(struct hypervisor *hv)
{
    if (!hv)
        return;
    if (hv->shm)
        munmap(hv->shm, hv->shm_len);
    if (hv->ram)
        munmap(hv->ram, hv->ram_len);
    if (hv->devstate)
        munmap((void *)hv->devstate, HOOK_DEVSTATE_MAX);
    if (hv->pidfd >= 0)
        close(hv->pidfd);
    g_free(hv);
}

int hypervisor_set_pid(struct hypervisor *hv, pid_t pid)
{
    if (hv->pidfd >= 0)
        close(hv->pidfd);
    hv->pid = pid;
    hv->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return hv->pidfd < 0 ? -errno : 0;
}

pid_t hypervisor_pid(const struct hypervisor *hv)
{
    return hv->pid;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static bool is_alive(const struct hypervisor *hv)
{
    struct pollfd pfd = {.fd = hv->pidfd, .events = POLLIN};
    return hv->pidfd < 0 || poll(&pfd, 1, 0) == 0;
}

/* Waits until *word == value. Spins a little first: the hook often answers within microseconds. */
static int wait_for(struct hypervisor *hv, _Atomic uint32_t *word, uint32_t value, unsigned timeout_ms)
{
    uint64_t began = now_ns(), now = began;
    for (;;) {
        uint32_t seen = atomic_load_explicit(word, memory_order_acquire);
        if (seen == value)
            return 0;
        if (atomic_load_explicit(&hv->interrupted, memory_order_acquire))
            return -ECANCELED;
        now = now_ns();
        if (now - began > (uint64_t)timeout_ms * 1000000)
            return -ETIMEDOUT;
        if (now - began < SPIN_NS)
            continue;
        struct timespec slice = {.tv_nsec = (long)WAIT_SLICE_NS};
        if (syscall(SYS_futex, word, FUTEX_WAIT, seen, &slice, NULL, 0) < 0 && errno == ETIMEDOUT &&
            !is_alive(hv))
            return -ENOTCONN;
    }
}

static void wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void hypervisor_interrupt(struct hypervisor *hv, bool on)
{
    atomic_store_explicit(&hv->interrupted, on, memory_order_release);
    if (on) {
        wake(&hv->shm->hello);
        wake(&hv->shm->done_seq);
        wake(&hv->shm->harvested_seq);
    }
}

/* Sets the message for a wait that failed. */
static void explain(struct hypervisor *hv, int status, const char *timed_out)
{
    snprintf(hv->message, sizeof hv->message, "%s",
             status == -ENOTCONN    ? "QEMU is gone"
             : status == -ECANCELED ? "it was given up"
                                    : timed_out);
}

/* Arguments of a request. */
struct arguments {
    uint32_t flags;
    enum hook_tracker tracker;
    uint64_t deadline_us, clock_ns;
};

/* Waits until no request runs. A request that timed out, or one of an engine that died, may still run, and
 * its arguments must not change before it is done. */
static int wait_until_idle(struct hypervisor *hv, unsigned timeout_ms)
{
    uint64_t one = 1;
    /* A dead engine may have asked without kicking. Kicking twice is harmless. */
    if (atomic_load_explicit(&hv->shm->done_seq, memory_order_acquire) != hv->seq &&
        write(hv->kick, &one, sizeof one) < 0 && errno != EAGAIN)
        return -errno;
    int status = wait_for(hv, &hv->shm->done_seq, hv->seq, timeout_ms);
    if (status < 0)
        explain(hv, status, "QEMU's main loop is still busy with the last request");
    return status;
}

static int kick(struct hypervisor *hv, enum hook_request kind, const struct arguments *arguments,
                unsigned timeout_ms)
{
    uint64_t one = 1;
    int status = wait_until_idle(hv, timeout_ms);
    if (status < 0)
        return status;
    hv->copied = false;
    hv->shm->request_kind = kind;
    hv->shm->request_flags = arguments->flags;
    hv->shm->request_tracker = arguments->tracker;
    hv->shm->request_deadline_us = arguments->deadline_us;
    hv->shm->request_clock_ns = arguments->clock_ns;
    atomic_store_explicit(&hv->shm->verdict, HOOK_IDLE, memory_order_relaxed);
    atomic_store_explicit(&hv->shm->request_seq, ++hv->seq, memory_order_release);
    return write(hv->kick, &one, sizeof one) == (ssize_t)sizeof one ? 0 : -errno;
}

/* Copies text from QEMU's process, which is untrusted. */
static void take_words(char *to, size_t room, const char *words, size_t len)
{
    g_autofree char *readable = words_make_readable_len(words, len, room - 1);
    g_strlcpy(to, readable, room);
}

/* Copies the result out of shared memory, once. Returns 0 or the hook's negative errno. */
static int take_result(struct hypervisor *hv, struct hook_result *result)
{
    memcpy(result, &hv->shm->result, sizeof *result);
    result->message[sizeof result->message - 1] = 0;
    if (result->status > 0 || result->status < -MAX_ERRNO) {
        snprintf(hv->message, sizeof hv->message, "the hook's answer is no error number");
        return -EPROTO;
    }
    if (result->status < 0)
        take_words(hv->message, sizeof hv->message,
                   result->message[0] ? result->message : strerror(-result->status), sizeof result->message);
    return result->status;
}

static int finish_request(struct hypervisor *hv, struct hook_result *result, unsigned timeout_ms)
{
    int status = wait_for(hv, &hv->shm->done_seq, hv->seq, timeout_ms);
    if (status < 0) {
        char words[64];
        snprintf(words, sizeof words, "QEMU's main loop did not answer for %u ms", timeout_ms);
        explain(hv, status, words);
        return status;
    }
    return take_result(hv, result);
}

static int request_within(struct hypervisor *hv, enum hook_request kind, const struct arguments *arguments,
                          unsigned timeout_ms)
{
    struct hook_result result;
    int status = kick(hv, kind, arguments, timeout_ms);
    return status < 0 ? status : finish_request(hv, &result, timeout_ms);
}

static int request(struct hypervisor *hv, enum hook_request kind, const struct arguments *arguments)
{
    return request_within(hv, kind, arguments, REQUEST_TIMEOUT_MS);
}

int hypervisor_wait_ready(struct hypervisor *hv, unsigned timeout_ms)
{
    uint64_t until = now_ns() + (uint64_t)timeout_ms * 1000000;
    while (atomic_load_explicit(&hv->shm->hello, memory_order_acquire) == 0) {
        struct timespec slice = {.tv_nsec = (long)WAIT_SLICE_NS};
        if (now_ns() > until) {
            snprintf(hv->message, sizeof hv->message, "QEMU did not start within %u ms", timeout_ms);
            return -ETIMEDOUT;
        }
        if (atomic_load_explicit(&hv->interrupted, memory_order_acquire)) {
            explain(hv, -ECANCELED, "");
            return -ECANCELED;
        }
        syscall(SYS_futex, &hv->shm->hello, FUTEX_WAIT, 0, &slice, NULL, 0);
        if (!is_alive(hv) && atomic_load(&hv->shm->hello) == 0) {
            snprintf(hv->message, sizeof hv->message, "QEMU exited before it was ready");
            return -ENOTCONN;
        }
    }
    take_words(hv->version, sizeof hv->version, hv->shm->qemu_version, sizeof hv->shm->qemu_version);
    take_words(hv->message, sizeof hv->message, hv->shm->hello_message, sizeof hv->shm->hello_message);
    return atomic_load(&hv->shm->hello) == 1 ? 0 : -ENOEXEC;
}

const char *hypervisor_version(const struct hypervisor *hv)
{
    return hv->version;
}

const char *hypervisor_last_message(const struct hypervisor *hv)
{
    return hv->message;
}

/* Checks one claimed block against what this side knows. */
static int import_block(struct hypervisor *hv, unsigned i, struct hv_block *block)
{
    struct hook_block claim;
    memcpy(&claim, &hv->shm->blocks[i], sizeof claim);
    uint64_t used = atomic_load(&claim.used_len);
    uint64_t bitmap_len = (claim.max_len / HOOK_PAGE_LEN + 63) / 64 * 8;
    uint64_t shm_bitmaps_end = HOOK_SHM_HEADER_LEN + bitmaps_len_for(hv->ram_len);
    bool aux = claim.flags & HOOK_BLOCK_AUX;
    uint64_t area_len = aux ? hv->shm_len : hv->ram_len;

    if (memchr(claim.idstr, 0, sizeof claim.idstr) == NULL || claim.max_len == 0 ||
        claim.max_len % HOOK_PAGE_LEN ||
        (claim.flags != HOOK_BLOCK_AUX && claim.flags != HOOK_BLOCK_IN_RAM_MEMFD) ||
        claim.data_off % HOOK_PAGE_LEN || used > claim.max_len || claim.max_len > area_len ||
        claim.data_off > area_len - claim.max_len || claim.bitmap_off % 64 ||
        claim.bitmap_off < HOOK_SHM_HEADER_LEN || bitmap_len > shm_bitmaps_end ||
        claim.bitmap_off > shm_bitmaps_end - bitmap_len || (aux && claim.data_off < shm_bitmaps_end))
        return -EPROTO;
    g_strlcpy(block->idstr, claim.idstr, sizeof block->idstr);
    block->max_len = claim.max_len;
    block->used_len = used;
    block->bytes = (aux ? (uint8_t *)hv->shm : hv->ram) + claim.data_off;
    block->bitmap = (_Atomic uint64_t *)((uint8_t *)hv->shm + claim.bitmap_off);
    block->host_addr = claim.host_addr;
    block->aux = aux;
    return 0;
}

/*
 * The present list stays until a new one is complete: a QEMU that does not answer still has its blocks, and
 * HELLO, which names them to the peer meanwhile, must be right.
 */
int hypervisor_list_blocks(struct hypervisor *hv)
{
    struct hv_block blocks[HV_MAX_BLOCKS];
    int status = request(hv, HOOK_LIST_BLOCKS, &(struct arguments){0});
    if (status < 0)
        return status;
    uint32_t n = *(volatile uint32_t *)&hv->shm->nblocks;
    status = n == 0 || n > HV_MAX_BLOCKS ? -EPROTO : 0;
    for (unsigned i = 0; status == 0 && i < n; i++)
        status = import_block(hv, i, &blocks[i]);
    if (status < 0) {
        snprintf(hv->message, sizeof hv->message, "QEMU lists RAM blocks that it cannot have");
        return status;
    }
    memcpy(hv->blocks, blocks, n * sizeof *blocks);
    hv->nblocks = n;
    return 0;
}

unsigned hypervisor_nblocks(const struct hypervisor *hv)
{
    return hv->nblocks;
}

const struct hv_block *hypervisor_block(const struct hypervisor *hv, unsigned i)
{
    return &hv->blocks[i];
}

int hypervisor_track_start(struct hypervisor *hv, enum hv_tracker tracker)
{
    enum hook_tracker wanted = tracker == HV_TRACKER_UFFD ? HOOK_TRACKER_UFFD : HOOK_TRACKER_QEMU_LOG;
    return request(hv, HOOK_TRACK_START, &(struct arguments){.tracker = wanted});
}

int hypervisor_track_stop(struct hypervisor *hv)
{
    return request(hv, HOOK_TRACK_STOP, &(struct arguments){0});
}

/* used_len may grow and shrink with resizable ROM blobs; never past max_len. */
static void refresh_used_len(struct hypervisor *hv)
{
    for (unsigned i = 0; i < hv->nblocks; i++) {
        uint64_t used = atomic_load_explicit(&hv->shm->blocks[i].used_len, memory_order_relaxed);
        hv->blocks[i].used_len = MIN(used, hv->blocks[i].max_len);
    }
}

int hypervisor_harvest(struct hypervisor *hv)
{
    int status = request(hv, HOOK_HARVEST, &(struct arguments){0});
    refresh_used_len(hv);
    return status;
}

int hypervisor_checkpoint_begin(struct hypervisor *hv, unsigned deadline_us, bool stay_paused)
{
    struct arguments arguments = {.flags = stay_paused ? HOOK_STAY_PAUSED : 0, .deadline_us = deadline_us};
    int status = kick(hv, HOOK_CHECKPOINT, &arguments, REQUEST_TIMEOUT_MS);
    if (status < 0)
        return status;
    status = wait_for(hv, &hv->shm->harvested_seq, hv->seq, REQUEST_TIMEOUT_MS);
    if (status == 0)
        refresh_used_len(hv);
    return status;
}

int hypervisor_checkpoint_copied(struct hypervisor *hv)
{
    uint32_t expected = HOOK_WAITING;
    if (!atomic_compare_exchange_strong(&hv->shm->verdict, &expected, HOOK_COPIED))
        return -ETIME;
    hv->copied = true;
    wake(&hv->shm->verdict);
    return 0;
}

int hypervisor_checkpoint_finish(struct hypervisor *hv, struct hv_checkpoint *out)
{
    struct hook_result result;
    int status = finish_request(hv, &result, REQUEST_TIMEOUT_MS);
    if (status < 0)
        return status;
    if (result.devstate_len > HOOK_DEVSTATE_MAX)
        return -EPROTO;
    *out = (struct hv_checkpoint){
        .pause_began_ns = result.pause_began_ns,
        .stop_ns = result.stop_ns,
        .harvest_ns = result.harvest_ns,
        .save_ns = result.save_ns,
        .copy_wait_ns = result.copy_wait_ns,
        .resume_ns = result.resume_ns,
        .pause_ns = result.pause_ns,
        .dirty_pages = result.dirty_pages,
        .devstate = hv->devstate,
        .devstate_len = result.devstate_len,
        .expired = !hv->copied,
        .was_running = result.was_running != 0,
        .blocks_changed = result.blocks_changed != 0,
    };
    return 0;
}

int hypervisor_pause(struct hypervisor *hv)
{
    return request(hv, HOOK_PAUSE, &(struct arguments){0});
}

int hypervisor_resume(struct hypervisor *hv)
{
    return request(hv, HOOK_RESUME, &(struct arguments){0});
}

int hypervisor_load_aux(struct hypervisor *hv, const uint64_t *used_len, unsigned nblocks,
                        unsigned timeout_ms)
{
    if (nblocks != hv->nblocks) {
        snprintf(hv->message, sizeof hv->message, "the standby has %u RAM blocks where the guest has %u",
                 hv->nblocks, nblocks);
        return -EINVAL;
    }
    int status = wait_until_idle(hv, timeout_ms);
    if (status < 0)
        return status;
    for (unsigned i = 0; i < nblocks; i++)
        atomic_store(&hv->shm->blocks[i].used_len, MIN(used_len[i], hv->blocks[i].max_len));
    return request_within(hv, HOOK_LOAD_AUX, &(struct arguments){0}, timeout_ms);
}

void hypervisor_checkpoint_abort(struct hypervisor *hv)
{
    uint32_t expected = HOOK_WAITING;
    if (atomic_compare_exchange_strong(&hv->shm->verdict, &expected, HOOK_EXPIRED))
        wake(&hv->shm->verdict);
}

int hypervisor_discard_ram(struct hypervisor *hv)
{
    return fallocate(hv->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)hv->ram_len) < 0
               ? -errno
               : 0;
}

int hypervisor_next_present(const struct hypervisor *hv, uint64_t *first, uint64_t *npages)
{
    off_t begin = lseek(hv->ram_fd, (off_t)(*first * HV_PAGE_LEN), SEEK_DATA);
    if (begin < 0)
        return -ENXIO;
    off_t end = lseek(hv->ram_fd, begin, SEEK_HOLE);
    *first = (uint64_t)begin / HV_PAGE_LEN;
    *npages = ((uint64_t)(end < 0 ? (off_t)hv->ram_len : end) + HV_PAGE_LEN - 1) / HV_PAGE_LEN - *first;
    return 0;
}

int hypervisor_advance_clock(struct hypervisor *hv, uint64_t ns)
{
    return request(hv, HOOK_ADVANCE_CLOCK, &(struct arguments){.clock_ns = ns});
}
