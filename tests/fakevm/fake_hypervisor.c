/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See fake_hypervisor.h. One mutex is the guest's virtual CPU: who holds it decides whether the guest runs.
 */
#include "tests/fakevm/fake_hypervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FAKE_BLOCKS       2u
#define FAKE_DEVSTATE_LEN 3000u

struct fake_block {
    struct hv_block seen; /* what the engine sees */
    uint8_t *guest_bytes; /* what the guest writes; the same memory as seen.bytes unless aux */
    uint64_t *log;        /* guarded by vcpu */
    uint8_t *photograph;
    size_t nwords;
    uint64_t used_len_to_be;
};

struct hypervisor {
    struct fake_block blocks[FAKE_BLOCKS];
    pthread_mutex_t vcpu;
    _Atomic unsigned wanted; /* someone waits for the guest to stand still */
    bool paused, expiring;
    int ram_fd;
    pid_t pid;
    unsigned expire, fail_finish, change_blocks, begun;
    _Atomic unsigned tracks;
    pthread_mutex_t answer; /* guards the three below */
    pthread_cond_t answers;
    bool stands_still, interrupted, waited_for;
    bool fail_discard, listed;
    uint64_t clock_advanced_ns;
    uint8_t devstate[FAKE_DEVSTATE_LEN];
    void (*in_pause)(void *opaque);
    void *opaque;
};

static void *must(void *memory)
{
    if (!memory || memory == MAP_FAILED) {
        perror("fake hypervisor");
        abort();
    }
    return memory;
}

static void add_block(struct hypervisor *hv, unsigned i, const char *name, uint64_t pages, bool aux)
{
    struct fake_block *block = &hv->blocks[i];
    snprintf(block->seen.idstr, sizeof block->seen.idstr, "%s", name);
    block->nwords = (pages + 63) / 64;
    block->seen.max_len = block->seen.used_len = block->used_len_to_be = pages * HV_PAGE_LEN;
    block->seen.aux = aux;
    block->seen.bitmap = must(calloc(block->nwords + 1, 8));
    block->log = must(calloc(block->nwords + 1, 8));
    block->photograph = must(calloc(pages, HV_PAGE_LEN));
    if (aux) {
        block->seen.bytes = must(calloc(pages, HV_PAGE_LEN));
        block->guest_bytes = must(calloc(pages, HV_PAGE_LEN));
    } else {
        block->seen.bytes =
            must(mmap(NULL, pages * HV_PAGE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, hv->ram_fd, 0));
        block->guest_bytes = block->seen.bytes;
    }
}

struct hypervisor *fake_hypervisor_new(uint64_t main_pages, uint64_t aux_pages)
{
    struct hypervisor *hv = must(calloc(1, sizeof *hv));
    pthread_mutex_init(&hv->vcpu, NULL);
    pthread_mutex_init(&hv->answer, NULL);
    pthread_cond_init(&hv->answers, NULL);
    hv->ram_fd = memfd_create("fake-ram", MFD_CLOEXEC);
    if (hv->ram_fd < 0 || ftruncate(hv->ram_fd, (off_t)(main_pages * HV_PAGE_LEN)) < 0)
        must(NULL);
    add_block(hv, FAKE_MAIN, "pc.ram", main_pages, false);
    add_block(hv, FAKE_AUX, "vga.vram", aux_pages, true);
    return hv;
}

void fake_hypervisor_free(struct hypervisor *hv)
{
    for (unsigned i = 0; i < FAKE_BLOCKS; i++) {
        struct fake_block *block = &hv->blocks[i];
        free((void *)block->seen.bitmap);
        free(block->log);
        free(block->photograph);
        if (block->seen.aux) {
            free(block->seen.bytes);
            free(block->guest_bytes);
        } else {
            munmap(block->seen.bytes, block->seen.max_len);
        }
    }
    close(hv->ram_fd);
    pthread_mutex_destroy(&hv->vcpu);
    pthread_mutex_destroy(&hv->answer);
    pthread_cond_destroy(&hv->answers);
    free(hv);
}

static void stop_guest(struct hypervisor *hv)
{
    atomic_fetch_add(&hv->wanted, 1);
    pthread_mutex_lock(&hv->vcpu);
    atomic_fetch_sub(&hv->wanted, 1);
}

static void start_guest(struct hypervisor *hv)
{
    pthread_mutex_unlock(&hv->vcpu);
}

/* The engine copies while this runs, and is meant to: see copiers.c. */
__attribute__((no_sanitize("thread"))) static void store(uint64_t *at, uint64_t value)
{
    for (size_t i = 0; i < HV_PAGE_LEN / 8; i++)
        ((volatile uint64_t *)at)[i] = value ? value + i : 0;
}

void guest_write(struct hypervisor *hv, unsigned i, uint64_t page, uint64_t value)
{
    struct fake_block *block = &hv->blocks[i];
    pthread_mutex_lock(&hv->vcpu);
    block->log[page / 64] |= 1ull << (page % 64);
    store((uint64_t *)(void *)(block->guest_bytes + page * HV_PAGE_LEN), value);
    pthread_mutex_unlock(&hv->vcpu);
}

void guest_yield(struct hypervisor *hv)
{
    while (atomic_load(&hv->wanted))
        sched_yield();
}

void fake_expire(struct hypervisor *hv, unsigned checkpoints)
{
    hv->expire = checkpoints;
}

void fake_fail_finish(struct hypervisor *hv, unsigned checkpoints)
{
    hv->fail_finish = checkpoints;
}

void fake_change_blocks(struct hypervisor *hv, unsigned checkpoints)
{
    hv->change_blocks = checkpoints;
}

void fake_resize_aux(struct hypervisor *hv, uint64_t used_len)
{
    hv->blocks[FAKE_AUX].used_len_to_be = used_len;
}

void fake_fail_discard(struct hypervisor *hv, bool fail)
{
    hv->fail_discard = fail;
}

void fake_set_pid(struct hypervisor *hv, pid_t pid, uint64_t host_addr)
{
    hv->pid = pid;
    hv->blocks[FAKE_MAIN].seen.host_addr = host_addr;
}

void fake_in_pause(struct hypervisor *hv, void (*function)(void *opaque), void *opaque)
{
    hv->in_pause = function;
    hv->opaque = opaque;
}

const uint8_t *fake_photograph(const struct hypervisor *hv, unsigned block)
{
    return hv->blocks[block].photograph;
}

const uint8_t *fake_guest_bytes(const struct hypervisor *hv, unsigned block)
{
    return hv->blocks[block].guest_bytes;
}

void fake_set_bitmap_word(struct hypervisor *hv, unsigned block, uint64_t word, uint64_t bits)
{
    atomic_fetch_or(&hv->blocks[block].seen.bitmap[word], bits);
}

uint64_t fake_resident_bytes(const struct hypervisor *hv)
{
    struct stat st;
    return fstat(hv->ram_fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

unsigned fake_checkpoints_begun(const struct hypervisor *hv)
{
    return hv->begun;
}

unsigned fake_tracks_begun(const struct hypervisor *hv)
{
    return atomic_load(&hv->tracks);
}

void fake_stand_still(struct hypervisor *hv, bool still)
{
    pthread_mutex_lock(&hv->answer);
    hv->stands_still = still;
    pthread_cond_broadcast(&hv->answers);
    pthread_mutex_unlock(&hv->answer);
}

bool fake_is_waited_for(struct hypervisor *hv)
{
    pthread_mutex_lock(&hv->answer);
    bool is = hv->waited_for;
    pthread_mutex_unlock(&hv->answer);
    return is;
}

uint64_t fake_clock_advanced_ns(const struct hypervisor *hv)
{
    return hv->clock_advanced_ns;
}

/* Guest standing still. The log goes to the bitmaps, dirty aux pages to the mirror. */
static void harvest(struct hypervisor *hv)
{
    for (unsigned i = 0; i < FAKE_BLOCKS; i++) {
        struct fake_block *block = &hv->blocks[i];
        block->seen.used_len = block->used_len_to_be;
        for (size_t w = 0; w < block->nwords; w++) {
            uint64_t bits = block->log[w];
            block->log[w] = 0;
            for (uint64_t left = bits; left && block->seen.aux; left &= left - 1) {
                size_t at = (w * 64 + (size_t)__builtin_ctzll(left)) * HV_PAGE_LEN;
                memcpy(block->seen.bytes + at, block->guest_bytes + at, HV_PAGE_LEN);
            }
            if (bits)
                atomic_fetch_or_explicit(&block->seen.bitmap[w], bits, memory_order_release);
        }
    }
}

/* hv-hooks/hypervisor.h */

int hypervisor_list_blocks(struct hypervisor *hv)
{
    stop_guest(hv);
    struct fake_block *aux = &hv->blocks[FAKE_AUX];
    memcpy(aux->seen.bytes, aux->guest_bytes, aux->seen.max_len);
    start_guest(hv);
    hv->listed = true;
    return 0;
}

unsigned hypervisor_nblocks(const struct hypervisor *hv)
{
    (void)hv;
    return FAKE_BLOCKS;
}

const struct hv_block *hypervisor_block(const struct hypervisor *hv, unsigned i)
{
    return &hv->blocks[i].seen;
}

pid_t hypervisor_pid(const struct hypervisor *hv)
{
    return hv->pid;
}

int hypervisor_track_start(struct hypervisor *hv, enum hv_tracker tracker)
{
    (void)tracker;
    atomic_fetch_add(&hv->tracks, 1);
    stop_guest(hv);
    harvest(hv);
    for (unsigned i = 0; i < FAKE_BLOCKS; i++)
        memset((void *)hv->blocks[i].seen.bitmap, 0, hv->blocks[i].nwords * 8);
    start_guest(hv);
    return 0;
}

int hypervisor_track_stop(struct hypervisor *hv)
{
    (void)hv;
    return 0;
}

void hypervisor_interrupt(struct hypervisor *hv, bool on)
{
    pthread_mutex_lock(&hv->answer);
    hv->interrupted = on;
    pthread_cond_broadcast(&hv->answers);
    pthread_mutex_unlock(&hv->answer);
}

const char *hypervisor_last_message(const struct hypervisor *hv)
{
    (void)hv;
    return "";
}

static int wait_for_answer(struct hypervisor *hv)
{
    pthread_mutex_lock(&hv->answer);
    hv->waited_for = true;
    while (hv->stands_still && !hv->interrupted)
        pthread_cond_wait(&hv->answers, &hv->answer);
    hv->waited_for = false;
    int status = hv->stands_still ? -ECANCELED : 0;
    pthread_mutex_unlock(&hv->answer);
    return status;
}

int hypervisor_harvest(struct hypervisor *hv)
{
    int status = wait_for_answer(hv);
    if (status < 0)
        return status;
    stop_guest(hv);
    harvest(hv);
    start_guest(hv);
    return 0;
}

static bool due(unsigned *count)
{
    if (*count == 0)
        return false;
    --*count;
    return true;
}

int hypervisor_checkpoint_begin(struct hypervisor *hv, unsigned deadline_us, bool stay_paused)
{
    (void)deadline_us;
    (void)stay_paused;
    hv->begun++;
    stop_guest(hv);
    harvest(hv);
    for (unsigned i = 0; i < FAKE_BLOCKS; i++)
        memcpy(hv->blocks[i].photograph, hv->blocks[i].guest_bytes, hv->blocks[i].seen.max_len);
    for (size_t i = 0; i < sizeof hv->devstate; i++)
        hv->devstate[i] = (uint8_t)(hv->begun + i / 256);
    if (hv->in_pause)
        hv->in_pause(hv->opaque);
    hv->expiring = due(&hv->expire);
    hv->paused = !hv->expiring;
    if (hv->expiring)
        start_guest(hv); /* before a single page is copied: the worst case */
    return 0;
}

int hypervisor_checkpoint_copied(struct hypervisor *hv)
{
    if (hv->expiring)
        return -ETIME;
    hv->paused = false;
    start_guest(hv);
    return 0;
}

void hypervisor_checkpoint_abort(struct hypervisor *hv)
{
    if (hv->paused) {
        hv->paused = false;
        hv->expiring = true;
        start_guest(hv);
    }
}

int hypervisor_checkpoint_finish(struct hypervisor *hv, struct hv_checkpoint *out)
{
    if (due(&hv->fail_finish))
        return -EIO;
    *out = (struct hv_checkpoint){
        .pause_began_ns = hv->begun,
        .devstate = hv->devstate,
        .devstate_len = sizeof hv->devstate,
        .expired = hv->expiring,
        .was_running = true,
        .blocks_changed = due(&hv->change_blocks),
    };
    return 0;
}

int hypervisor_discard_ram(struct hypervisor *hv)
{
    if (hv->fail_discard)
        return -EOPNOTSUPP;
    return fallocate(hv->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                     (off_t)hv->blocks[FAKE_MAIN].seen.max_len) < 0
               ? -errno
               : 0;
}

int hypervisor_next_present(const struct hypervisor *hv, uint64_t *first, uint64_t *npages)
{
    off_t begin = lseek(hv->ram_fd, (off_t)(*first * HV_PAGE_LEN), SEEK_DATA);
    off_t end = begin < 0 ? -1 : lseek(hv->ram_fd, begin, SEEK_HOLE);
    if (begin < 0 || end < 0)
        return -ENXIO;
    *first = (uint64_t)begin / HV_PAGE_LEN;
    *npages = (uint64_t)end / HV_PAGE_LEN - *first;
    return 0;
}

const char *hypervisor_version(const struct hypervisor *hv)
{
    (void)hv;
    return "1";
}

int hypervisor_advance_clock(struct hypervisor *hv, uint64_t ns)
{
    hv->clock_advanced_ns += ns;
    return 0;
}
