/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: the hook's client on shared memory that says anything. The input is laid over an honest
 * hook's answer, so that both sides of every check are reached. Whatever the client accepts lies within its
 * mappings: each first and last byte is touched.
 *
 * The client kicks by writing to an eventfd and then waits; write is wrapped (--wrap=write), so that the
 * answer stands there when it looks, without a second thread.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv-hooks/qemu/hook_client.h"
#include "hv-hooks/qemu/hook_shm.h"

#define RAM_LEN (4ull << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
ssize_t __real_write(int fd, const void *bytes, size_t len);
ssize_t __wrap_write(int fd, const void *bytes, size_t len);

static struct hv_fds fds;
static struct hypervisor *hv;
static struct hook_shm *shm;
static const uint8_t *input;
static size_t input_len;

/* The next len bytes of the input, as far as there are any, over what stands at `at`. */
static void lay_over(void *at, size_t len)
{
    uint8_t *bytes = at;
    for (size_t i = 0; i < len && input_len > 0; i++, input++, input_len--)
        bytes[i] ^= *input;
}

static void answer(void)
{
    memset(&shm->result, 0, sizeof shm->result);
    memset(shm->blocks, 0, 2 * sizeof *shm->blocks);
    shm->nblocks = 2;
    strcpy(shm->blocks[0].idstr, "ram0");
    shm->blocks[0].max_len = RAM_LEN;
    shm->blocks[0].used_len = RAM_LEN;
    shm->blocks[0].bitmap_off = shm->bitmaps_off;
    shm->blocks[0].flags = HOOK_BLOCK_IN_RAM_MEMFD;
    strcpy(shm->blocks[1].idstr, "rom");
    shm->blocks[1].max_len = 65536;
    shm->blocks[1].used_len = 65536;
    shm->blocks[1].bitmap_off = shm->bitmaps_off + 4096;
    shm->blocks[1].data_off = shm->aux_off;
    shm->blocks[1].flags = HOOK_BLOCK_AUX;
    lay_over(&shm->nblocks, sizeof shm->nblocks);
    lay_over(&shm->result.status, sizeof shm->result.status);
    lay_over(&shm->result.devstate_len, sizeof shm->result.devstate_len);
    for (size_t i = 0; i < 2; i++) {
        lay_over((void *)&shm->blocks[i].used_len, sizeof shm->blocks[i] - HOOK_IDSTR_LEN);
        lay_over(shm->blocks[i].idstr, HOOK_IDSTR_LEN);
    }
    atomic_store(&shm->verdict, HOOK_WAITING);
    atomic_store(&shm->harvested_seq, atomic_load(&shm->request_seq));
    atomic_store(&shm->done_seq, atomic_load(&shm->request_seq));
}

ssize_t __wrap_write(int fd, const void *bytes, size_t len)
{
    if (fd != fds.kick || len != sizeof(uint64_t))
        return __real_write(fd, bytes, len);
    answer();
    return (ssize_t)len;
}

static void open_client(void)
{
    if (hv_fds_create(&fds, "fuzz", RAM_LEN) < 0 || hypervisor_open(&hv, &fds, RAM_LEN) < 0)
        abort();
    shm = mmap(NULL, (size_t)lseek(fds.shm, 0, SEEK_END), PROT_READ | PROT_WRITE, MAP_SHARED, fds.shm, 0);
    if (shm == MAP_FAILED)
        abort();
}

static volatile uint64_t seen; /* so that no read is left out */

static void touch(const struct hv_block *block)
{
    assert(block->used_len <= block->max_len && block->max_len > 0 && block->max_len % HV_PAGE_LEN == 0);
    assert(memchr(block->idstr, 0, sizeof block->idstr));
    uint64_t words = (block->max_len / HV_PAGE_LEN + 63) / 64;
    seen = block->bytes[0];
    seen = block->bytes[block->max_len - 1];
    seen = atomic_load(&block->bitmap[0]);
    seen = atomic_load(&block->bitmap[words - 1]);
}

static void touch_all(void)
{
    assert(hypervisor_nblocks(hv) <= HV_MAX_BLOCKS);
    for (unsigned i = 0; i < hypervisor_nblocks(hv); i++)
        touch(hypervisor_block(hv, i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hv_checkpoint checkpoint;
    if (!hv)
        open_client();
    input = data;
    input_len = size;
    hypervisor_list_blocks(hv);
    touch_all();
    hypervisor_harvest(hv);
    touch_all();
    if (hypervisor_checkpoint_begin(hv, 1000, false) < 0)
        return 0;
    touch_all();
    hypervisor_checkpoint_copied(hv);
    if (hypervisor_checkpoint_finish(hv, &checkpoint) == 0 && checkpoint.devstate_len > 0)
        seen = ((const uint8_t *)checkpoint.devstate)[checkpoint.devstate_len - 1];
    return 0;
}
