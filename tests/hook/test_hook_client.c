/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hook's client against a hook that lies: a thread that answers each request as a test wants. QEMU is
 * untrusted, so whatever stands in the shared memory, the client must answer with an error and never reach
 * outside its mappings.
 */
#include <errno.h>
#include <glib.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "hv-hooks/qemu/hook_client.h"
#include "hv-hooks/qemu/hook_shm.h"

#define RAM_LEN (4ull << 20)

typedef void (*answer)(struct hook_shm *shm);

static struct {
    struct hv_fds fds;
    struct hypervisor *hv;
    struct hook_shm *shm;
    size_t shm_len;
    _Atomic(answer) answer;
    pthread_t thread;
    atomic_bool over;
} t;

static void *liar(void *opaque)
{
    uint32_t done = 0;
    (void)opaque;
    while (!atomic_load(&t.over)) {
        struct pollfd kicked = {.fd = t.fds.kick, .events = POLLIN};
        uint64_t count;
        if (poll(&kicked, 1, 10) <= 0 || read(t.fds.kick, &count, sizeof count) < 0)
            continue;
        uint32_t seq = atomic_load(&t.shm->request_seq);
        if (seq == done)
            continue;
        memset(&t.shm->result, 0, sizeof t.shm->result);
        atomic_store(&t.shm->verdict, HOOK_WAITING);
        atomic_load (&t.answer)(t.shm);
        atomic_store(&t.shm->harvested_seq, seq);
        syscall(SYS_futex, &t.shm->harvested_seq, FUTEX_WAKE, 1, NULL, NULL, 0);
        atomic_store(&t.shm->done_seq, seq);
        syscall(SYS_futex, &t.shm->done_seq, FUTEX_WAKE, 1, NULL, NULL, 0);
        done = seq;
    }
    return NULL;
}

static int setup(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    if (hv_fds_create(&t.fds, "liar", RAM_LEN) < 0 || hypervisor_open(&t.hv, &t.fds, RAM_LEN) < 0)
        return -1;
    t.shm_len = (size_t)lseek(t.fds.shm, 0, SEEK_END);
    t.shm = mmap(NULL, t.shm_len, PROT_READ | PROT_WRITE, MAP_SHARED, t.fds.shm, 0);
    return t.shm == MAP_FAILED ? -1 : pthread_create(&t.thread, NULL, liar, NULL);
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&t.over, true);
    pthread_join(t.thread, NULL);
    munmap(t.shm, t.shm_len);
    hypervisor_close(t.hv);
    hv_fds_close(&t.fds);
    return 0;
}

/* Two honest blocks: main RAM and one aux block of 64 KiB. */
static void honest_blocks(struct hook_shm *shm)
{
    shm->nblocks = 2;
    memset(shm->blocks, 0, 2 * sizeof *shm->blocks);
    strcpy(shm->blocks[0].idstr, "ram0");
    shm->blocks[0].max_len = RAM_LEN;
    atomic_store(&shm->blocks[0].used_len, RAM_LEN);
    shm->blocks[0].bitmap_off = shm->bitmaps_off;
    shm->blocks[0].flags = HOOK_BLOCK_IN_RAM_MEMFD;
    strcpy(shm->blocks[1].idstr, "rom");
    shm->blocks[1].max_len = 65536;
    atomic_store(&shm->blocks[1].used_len, 65536);
    shm->blocks[1].bitmap_off = shm->bitmaps_off + 4096;
    shm->blocks[1].data_off = shm->aux_off;
    shm->blocks[1].flags = HOOK_BLOCK_AUX;
}

static void test_honest_blocks_are_taken(void **state)
{
    (void)state;
    t.answer = honest_blocks;
    assert_int_equal(hypervisor_list_blocks(t.hv), 0);
    assert_int_equal(hypervisor_nblocks(t.hv), 2);
    assert_false(hypervisor_block(t.hv, 0)->aux);
    assert_true(hypervisor_block(t.hv, 1)->aux);
}

#define LIE(name, statement)                                                                                 \
    static void name(struct hook_shm *shm)                                                                   \
    {                                                                                                        \
        honest_blocks(shm);                                                                                  \
        statement;                                                                                           \
    }
LIE(no_blocks, shm->nblocks = 0)
LIE(too_many_blocks, shm->nblocks = HOOK_MAX_BLOCKS + 1)
LIE(huge_nblocks, shm->nblocks = UINT32_MAX)
LIE(name_without_end, memset(shm->blocks[0].idstr, 'x', HOOK_IDSTR_LEN))
LIE(empty_block, shm->blocks[0].max_len = 0)
LIE(odd_length, shm->blocks[0].max_len = RAM_LEN - 1)
LIE(longer_than_ram, shm->blocks[0].max_len = 2 * RAM_LEN)
LIE(huge_length, shm->blocks[0].max_len = UINT64_MAX - 4095)
LIE(used_beyond_max, atomic_store(&shm->blocks[0].used_len, RAM_LEN + 4096))
LIE(data_beyond_ram, shm->blocks[0].data_off = 4096)
LIE(data_wraps, shm->blocks[0].data_off = UINT64_MAX - 4095)
LIE(unaligned_data, shm->blocks[1].data_off += 8)
LIE(bitmap_in_header, shm->blocks[0].bitmap_off = 0)
LIE(bitmap_in_aux, shm->blocks[0].bitmap_off = shm->aux_off)
LIE(bitmap_wraps, shm->blocks[0].bitmap_off = UINT64_MAX - 63)
LIE(unaligned_bitmap, shm->blocks[0].bitmap_off += 4)
LIE(aux_in_header, shm->blocks[1].data_off = 0)
LIE(aux_in_bitmaps, shm->blocks[1].data_off = shm->bitmaps_off)
LIE(aux_beyond_end, shm->blocks[1].data_off = shm->shm_len - 4096)
LIE(neither_kind, shm->blocks[1].flags = 0)
LIE(both_kinds, shm->blocks[1].flags = HOOK_BLOCK_AUX | HOOK_BLOCK_IN_RAM_MEMFD)
LIE(positive_status, shm->result.status = 5)
LIE(no_error_number, shm->result.status = INT32_MIN)

static void test_lies_about_blocks_are_refused(void **state)
{
    static const answer lies[] = {
        no_blocks,        too_many_blocks, huge_nblocks,    name_without_end, empty_block,    odd_length,
        longer_than_ram,  huge_length,     used_beyond_max, data_beyond_ram,  data_wraps,     unaligned_data,
        bitmap_in_header, bitmap_in_aux,   bitmap_wraps,    unaligned_bitmap, aux_in_header,  aux_in_bitmaps,
        aux_beyond_end,   neither_kind,    both_kinds,      positive_status,  no_error_number};
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(lies); i++) {
        t.answer = lies[i];
        if (hypervisor_list_blocks(t.hv) != -EPROTO)
            fail_msg("lie %zu was believed", i);
    }
}

static void noise(struct hook_shm *shm)
{
    static GRand *random;
    if (!random)
        random = g_rand_new_with_seed(1);
    uint8_t *bytes = (uint8_t *)shm->blocks;
    honest_blocks(shm);
    for (int i = 0; i < 6; i++)
        bytes[g_rand_int_range(random, 0, 2 * sizeof *shm->blocks)] = (uint8_t)g_rand_int(random);
}

static void test_noise_never_leads_outside_the_mappings(void **state)
{
    (void)state;
    t.answer = noise;
    for (int i = 0; i < 3000; i++) {
        if (hypervisor_list_blocks(t.hv) < 0)
            continue;
        for (unsigned b = 0; b < hypervisor_nblocks(t.hv); b++) { /* what is believed can be touched */
            const struct hv_block *block = hypervisor_block(t.hv, b);
            volatile uint8_t touched = block->bytes[0];
            touched = block->bytes[block->max_len - 1];
            (void)touched;
            atomic_load(&block->bitmap[0]);
            atomic_load(&block->bitmap[(block->max_len / HV_PAGE_LEN - 1) / 64]);
            assert_true(block->used_len <= block->max_len);
        }
    }
}

static void endless_devstate(struct hook_shm *shm)
{
    shm->result.devstate_len = UINT64_MAX;
}

static void test_device_state_longer_than_its_memory_is_refused(void **state)
{
    struct hv_checkpoint c;
    (void)state;
    t.answer = endless_devstate;
    assert_int_equal(hypervisor_checkpoint_begin(t.hv, 1000, false), 0);
    assert_int_equal(hypervisor_checkpoint_finish(t.hv, &c), -EPROTO);
}

static void claims_copied(struct hook_shm *shm)
{
    shm->result.verdict = HOOK_COPIED;
}

static void test_verdict_is_not_the_hooks_to_claim(void **state)
{
    struct hv_checkpoint c;
    (void)state;
    t.answer = claims_copied;
    assert_int_equal(hypervisor_checkpoint_begin(t.hv, 1000, false), 0);
    assert_int_equal(hypervisor_checkpoint_finish(t.hv, &c), 0);
    assert_true(c.expired); /* this side never said COPIED */
}

static void endless_message(struct hook_shm *shm)
{
    shm->result.status = -EIO;
    memset(shm->result.message, 'x', sizeof shm->result.message);
}

static void test_message_without_end_is_cut(void **state)
{
    (void)state;
    t.answer = endless_message;
    assert_int_equal(hypervisor_harvest(t.hv), -EIO);
    assert_int_equal(strlen(hypervisor_last_message(t.hv)), HOOK_MESSAGE_LEN - 1);
}

static void test_request_of_a_dead_engine_that_never_kicked_does_not_block(void **state)
{
    (void)state;
    t.answer = honest_blocks;
    atomic_fetch_add(&t.shm->request_seq, 1);
    hypervisor_close(t.hv);
    assert_int_equal(hypervisor_open(&t.hv, &t.fds, RAM_LEN), 0);
    assert_int_equal(hypervisor_list_blocks(t.hv), 0);
}

/* A main loop that stands still: it has seen the request, and goes on when it is told to. */
static sem_t seen, go_on;
static void stands_still(struct hook_shm *shm)
{
    honest_blocks(shm);
    sem_post(&seen);
    sem_wait(&go_on);
}

static void *ask(void *opaque)
{
    *(int *)opaque = hypervisor_list_blocks(t.hv);
    return NULL;
}

static void test_a_wait_for_a_hypervisor_that_stands_still_can_be_given_up(void **state)
{
    pthread_t asking;
    int status = 0;
    (void)state;
    sem_init(&seen, 0, 0);
    sem_init(&go_on, 0, 0);
    t.answer = stands_still;
    assert_int_equal(pthread_create(&asking, NULL, ask, &status), 0);
    sem_wait(&seen);
    hypervisor_interrupt(t.hv, true);
    pthread_join(asking, NULL);
    assert_int_equal(status, -ECANCELED); /* and not -ETIMEDOUT */
    /* The next one waits until the hypervisor is done with that. */
    hypervisor_interrupt(t.hv, false);
    assert_int_equal(pthread_create(&asking, NULL, ask, &status), 0);
    sem_post(&go_on);
    sem_wait(&seen);
    sem_post(&go_on);
    pthread_join(asking, NULL);
    assert_int_equal(status, 0);
    assert_int_equal(hypervisor_nblocks(t.hv), 2);
}

/* A list that is given up, and one that lies: the blocks that QEMU had it still has. */
static void test_a_list_that_fails_leaves_the_one_before(void **state)
{
    pthread_t asking;
    int status = 0;
    (void)state;
    sem_init(&seen, 0, 0);
    sem_init(&go_on, 0, 0);
    t.answer = honest_blocks;
    assert_int_equal(hypervisor_list_blocks(t.hv), 0);
    t.answer = stands_still;
    assert_int_equal(pthread_create(&asking, NULL, ask, &status), 0);
    sem_wait(&seen);
    hypervisor_interrupt(t.hv, true);
    pthread_join(asking, NULL);
    hypervisor_interrupt(t.hv, false);
    sem_post(&go_on);
    assert_int_equal(status, -ECANCELED);
    assert_int_equal(hypervisor_nblocks(t.hv), 2);
    t.answer = longer_than_ram;
    assert_int_equal(hypervisor_list_blocks(t.hv), -EPROTO);
    assert_int_equal(hypervisor_nblocks(t.hv), 2);
    assert_string_equal(hypervisor_block(t.hv, 0)->idstr, "ram0");
    assert_true(hypervisor_block(t.hv, 0)->max_len == RAM_LEN);
    assert_string_equal(hypervisor_block(t.hv, 1)->idstr, "rom");
}

static void test_memory_is_sealed(void **state)
{
    (void)state;
    const int fds[] = {t.fds.shm, t.fds.ram, t.fds.devstate};
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
        assert_int_equal(ftruncate(fds[i], 0), -1);
        assert_int_equal(ftruncate(fds[i], 1ll << 40), -1);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_honest_blocks_are_taken),
        TEST(test_lies_about_blocks_are_refused),
        TEST(test_noise_never_leads_outside_the_mappings),
        TEST(test_device_state_longer_than_its_memory_is_refused),
        TEST(test_verdict_is_not_the_hooks_to_claim),
        TEST(test_message_without_end_is_cut),
        TEST(test_request_of_a_dead_engine_that_never_kicked_does_not_block),
        TEST(test_a_wait_for_a_hypervisor_that_stands_still_can_be_given_up),
        TEST(test_a_list_that_fails_leaves_the_one_before),
        TEST(test_memory_is_sealed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
