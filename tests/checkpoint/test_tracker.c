/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The trackers. The log tracker against the hypervisor made of memory; the userfaultfd tracker against the
 * kernel, with a child process as the guest that shares the RAM memfd and is write-protected asynchronously,
 * as the hook would do it in QEMU. Skipped, loudly, where the kernel is older than 6.7 or userfaultfd is not
 * allowed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/tracker.h"
#include "tests/fakevm/fake_hypervisor.h"

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

#define MAIN_PAGES 4096u
#define AUX_PAGES  4u

static uint64_t dirty_count(const struct dirty_map *map, unsigned block)
{
    uint64_t n = 0;
    for (uint64_t w = 0; w < map->blocks[block].nwords; w++)
        n += (uint64_t)__builtin_popcountll(map->blocks[block].words[w]);
    return n;
}

static bool is_dirty(const struct dirty_map *map, unsigned block, uint64_t page)
{
    return map->blocks[block].words[page / 64] >> (page % 64) & 1;
}

static void test_log_tracker_moves_the_hypervisors_bits(void **state)
{
    (void)state;
    struct hypervisor *hv = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    struct tracker *tracker;
    struct dirty_map map;
    assert_int_equal(dirty_map_open(&map, hv), 0);
    assert_int_equal(tracker_open(&tracker, hv, HV_TRACKER_QEMU_LOG), 0);
    guest_write(hv, FAKE_MAIN, 1, 1); /* before tracking: nobody's business */
    assert_int_equal(tracker_start(tracker), 0);
    guest_write(hv, FAKE_MAIN, 2, 1);
    guest_write(hv, FAKE_AUX, 3, 1);
    assert_int_equal(tracker_harvest(tracker, &map), 0);
    assert_int_equal(map.count, 2);
    assert_true(is_dirty(&map, FAKE_MAIN, 2));
    assert_true(is_dirty(&map, FAKE_AUX, 3));
    assert_int_equal(tracker_stop(tracker), 0);
    tracker_close(tracker);
    dirty_map_close(&map);
    fake_hypervisor_free(hv);
}

static void test_userfaultfd_tracker_wants_a_process(void **state)
{
    (void)state;
    struct hypervisor *hv = fake_hypervisor_new(64, 1);
    struct tracker *tracker;
    fake_set_pid(hv, 0, 0);
    assert_true(tracker_open(&tracker, hv, HV_TRACKER_UFFD) < 0);
    fake_hypervisor_free(hv);
}

/* What the child is asked to do. One at a time, answered by a byte. */
struct order {
    char what; /* w: write pages first, first + step, … below end; r: read them; g: write for ever; s: stop
                  that */
    uint32_t first, end, step;
    uint64_t value;
};

struct world {
    struct hypervisor *hv;
    struct tracker *tracker;
    struct dirty_map map;
    pid_t child;
    int socket;
};

static char protect_all(uint8_t *bytes, size_t len)
{
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
                                         UFFD_FEATURE_WP_HUGETLBFS_SHMEM};
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0)
        return 'n';
    struct uffdio_register range = {.range = {.start = (uintptr_t)bytes, .len = len},
                                    .mode = UFFDIO_REGISTER_MODE_WP};
    struct uffdio_writeprotect protect = {.range = range.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    return ioctl(uffd, UFFDIO_REGISTER, &range) < 0 || ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) < 0 ? 'n'
                                                                                                      : 'y';
}

static void fill(uint8_t *page, uint64_t value)
{
    for (size_t i = 0; i < HV_PAGE_LEN / 8; i++)
        ((volatile uint64_t *)(void *)page)[i] = value + i;
}

static void write_for_ever(uint8_t *bytes, int socket)
{
    uint64_t random = 12345;
    char more;
    while (recv(socket, &more, 1, MSG_DONTWAIT | MSG_PEEK) < 0) {
        for (unsigned i = 0; i < 100; i++) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            fill(bytes + (random >> 40) % MAIN_PAGES * HV_PAGE_LEN, random);
        }
    }
}

static void child_run(uint8_t *bytes, int socket)
{
    struct order order;
    volatile uint64_t sum = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char answer = protect_all(bytes, MAIN_PAGES * HV_PAGE_LEN);
    while (write(socket, &answer, 1) == 1 &&
           recv(socket, &order, sizeof order, MSG_WAITALL) == sizeof order) {
        for (uint32_t page = order.first; page < order.end; page += order.step) {
            if (order.what == 'w')
                fill(bytes + (size_t)page * HV_PAGE_LEN, order.value + page);
            else if (order.what == 'r')
                sum += bytes[(size_t)page * HV_PAGE_LEN];
        }
        answer = 'y';
        if (order.what == 'g') {
            if (write(socket, &answer, 1) != 1)
                break;
            write_for_ever(bytes, socket);
            if (recv(socket, &order, sizeof order, MSG_WAITALL) != sizeof order)
                break;
        }
    }
    _exit(0);
}

static void command(struct world *world, char what, uint32_t first, uint32_t end, uint32_t step,
                    uint64_t value)
{
    struct order order = {.what = what, .first = first, .end = end, .step = step, .value = value};
    char answer = 0;
    assert_int_equal(send(world->socket, &order, sizeof order, MSG_NOSIGNAL), sizeof order);
    assert_int_equal(recv(world->socket, &answer, 1, 0), 1);
    assert_int_equal(answer, 'y');
}

/* False: not possible here, and everything is closed. */
static bool open_world(struct world *world)
{
    int sockets[2];
    char answer = 'n';
    const char *missing = tracker_uffd_missing();
    if (missing) {
        print_message("SKIPPED: %s\n", missing);
        return false;
    }
    memset(world, 0, sizeof *world);
    world->hv = fake_hypervisor_new(MAIN_PAGES, AUX_PAGES);
    uint8_t *bytes = hypervisor_block(world->hv, FAKE_MAIN)->bytes;
    for (uint32_t page = 0; page < MAIN_PAGES / 2; page++)
        fill(bytes + (size_t)page * HV_PAGE_LEN, page); /* the other half stays a hole */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    world->child = fork();
    assert_true(world->child >= 0);
    if (world->child == 0) {
        close(sockets[0]);
        child_run(bytes, sockets[1]);
    }
    close(sockets[1]);
    world->socket = sockets[0];
    if (recv(world->socket, &answer, 1, 0) != 1 || answer != 'y') {
        print_message("SKIPPED: userfaultfd's asynchronous write protection is not allowed here\n");
        close(world->socket);
        waitpid(world->child, NULL, 0);
        fake_hypervisor_free(world->hv);
        return false;
    }
    fake_set_pid(world->hv, world->child, (uintptr_t)bytes);
    assert_int_equal(dirty_map_open(&world->map, world->hv), 0);
    assert_int_equal(tracker_open(&world->tracker, world->hv, HV_TRACKER_UFFD), 0);
    assert_int_equal(tracker_start(world->tracker), 0);
    return true;
}

static void close_world(struct world *world)
{
    close(world->socket); /* the child ends */
    waitpid(world->child, NULL, 0);
    tracker_close(world->tracker);
    dirty_map_close(&world->map);
    fake_hypervisor_free(world->hv);
}

static void test_userfaultfd_tracker_sees_each_written_page_and_no_other(void **state)
{
    (void)state;
    struct world world;
    if (!open_world(&world))
        skip();
    assert_int_equal(tracker_harvest(world.tracker, &world.map), 0);
    assert_int_equal(world.map.count, 0);

    command(&world, 'r', 0, MAIN_PAGES, 1, 0); /* reading, holes too, dirties nothing */
    command(&world, 'w', 5, MAIN_PAGES, 7, 1);
    assert_int_equal(tracker_harvest(world.tracker, &world.map), 0);
    for (uint32_t page = 0; page < MAIN_PAGES; page++)
        assert_int_equal(is_dirty(&world.map, FAKE_MAIN, page), page % 7 == 5);
    close_world(&world);
}

static void test_userfaultfd_tracker_sees_the_same_page_again_and_again(void **state)
{
    (void)state;
    struct world world;
    if (!open_world(&world))
        skip();
    for (unsigned round = 0; round < 20; round++) {
        command(&world, 'w', 100, 200, 1, round);
        command(&world, 'w', MAIN_PAGES - 1, MAIN_PAGES, 1, round);
        assert_int_equal(tracker_harvest(world.tracker, &world.map), 0);
        assert_int_equal(dirty_count(&world.map, FAKE_MAIN), 101);
        dirty_map_clear_all(&world.map);
        assert_int_equal(tracker_harvest(world.tracker, &world.map), 0);
        assert_int_equal(world.map.count, 0);
    }
    close_world(&world);
}

static void test_userfaultfd_tracker_takes_aux_blocks_from_the_hook(void **state)
{
    (void)state;
    struct world world;
    if (!open_world(&world))
        skip();
    guest_write(world.hv, FAKE_AUX, 2, 1);
    assert_int_equal(tracker_harvest(world.tracker, &world.map), 0);
    assert_true(is_dirty(&world.map, FAKE_AUX, 2));
    assert_int_equal(world.map.count, 1);
    close_world(&world);
}

static void test_more_written_ranges_than_one_scan_holds_are_all_seen(void **state)
{
    (void)state;
    struct world world;
    if (!open_world(&world))
        skip();
    command(&world, 'w', 0, MAIN_PAGES, 2, 3); /* 2048 ranges of one page */
    assert_int_equal(tracker_harvest(world.tracker, &world.map), 0);
    assert_int_equal(dirty_count(&world.map, FAKE_MAIN), MAIN_PAGES / 2);
    close_world(&world);
}

/* What the scan found is copied, while the guest writes; at the end the copy must be the guest. */
static void test_no_write_beside_a_running_harvest_is_lost(void **state)
{
    (void)state;
    struct world world;
    if (!open_world(&world))
        skip();
    const uint8_t *bytes = hypervisor_block(world.hv, FAKE_MAIN)->bytes;
    uint8_t *copy = malloc((size_t)MAIN_PAGES * HV_PAGE_LEN);
    assert_non_null(copy);
    memcpy(copy, bytes, (size_t)MAIN_PAGES * HV_PAGE_LEN);
    unsigned found = 0; /* harvests that found something; the child may need a while to be scheduled */
    bool running = true;
    command(&world, 'g', 0, 0, 1, 0);
    for (time_t until = time(NULL) + 30; running;) {
        running = found < 60 && time(NULL) < until;
        if (!running)
            command(&world, 's', 0, 0, 1, 0); /* stands still for the last */
        assert_int_equal(tracker_harvest(world.tracker, &world.map), 0);
        for (uint32_t page = 0; page < MAIN_PAGES; page++) {
            if (is_dirty(&world.map, FAKE_MAIN, page))
                memcpy(copy + (size_t)page * HV_PAGE_LEN, bytes + (size_t)page * HV_PAGE_LEN, HV_PAGE_LEN);
        }
        found += world.map.count > 0;
        dirty_map_clear_all(&world.map);
    }
    assert_memory_equal(copy, bytes, (size_t)MAIN_PAGES * HV_PAGE_LEN);
    assert_true(found >= 60);
    free(copy);
    close_world(&world);
}

static void test_memory_that_nobody_protects_is_an_error(void **state)
{
    (void)state;
    struct tracker *tracker;
    const char *missing = tracker_uffd_missing();
    if (missing) {
        print_message("SKIPPED: %s\n", missing);
        skip();
    }
    struct hypervisor *hv = fake_hypervisor_new(64, 1);
    fake_set_pid(hv, getpid(), (uintptr_t)hypervisor_block(hv, FAKE_MAIN)->bytes);
    assert_int_equal(tracker_open(&tracker, hv, HV_TRACKER_UFFD), 0);
    assert_int_equal(tracker_start(tracker), -EPERM);
    tracker_close(tracker);
    fake_hypervisor_free(hv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_tracker_moves_the_hypervisors_bits),
        cmocka_unit_test(test_userfaultfd_tracker_wants_a_process),
        cmocka_unit_test(test_userfaultfd_tracker_sees_each_written_page_and_no_other),
        cmocka_unit_test(test_userfaultfd_tracker_sees_the_same_page_again_and_again),
        cmocka_unit_test(test_userfaultfd_tracker_takes_aux_blocks_from_the_hook),
        cmocka_unit_test(test_more_written_ranges_than_one_scan_holds_are_all_seen),
        cmocka_unit_test(test_no_write_beside_a_running_harvest_is_lost),
        cmocka_unit_test(test_memory_that_nobody_protects_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
