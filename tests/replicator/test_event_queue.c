/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Events that are raised while another one is handled: none is lost, nor what came with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "replicator/control/event_queue.h"

#define EPOCHS (EVENT_QUEUE_MAX + 10)

struct world {
    struct event_queue queue;
    unsigned handled, depth, refused;
    unsigned nested; /* events to raise while the first one is handled */
    struct queued_event list[EPOCHS];
};

static void handler(void *opaque, const struct session_event *event, struct staged_epoch *offered);

static struct session_event epoch(uint64_t number)
{
    return (struct session_event){.type = SESSION_EVENT_EPOCH_RECEIVED, .epoch = number};
}

/* Any pointer will do: the queue never looks behind it. */
static struct staged_epoch *staged(uint64_t number)
{
    return (struct staged_epoch *)(uintptr_t)(0x1000 + number);
}

static bool post(struct world *world, uint64_t number)
{
    struct session_event event = epoch(number);
    return event_queue_post(&world->queue, &event, staged(number), handler, world);
}

static void handler(void *opaque, const struct session_event *event, struct staged_epoch *offered)
{
    struct world *world = opaque;
    assert_int_equal(world->depth++, 0); /* never one inside another */
    world->list[world->handled++] = (struct queued_event){.event = *event, .offered = offered};
    for (unsigned i = 1; world->handled == 1 && i <= world->nested; i++)
        world->refused += !post(world, i);
    world->depth--;
}

static void test_an_event_raised_inside_another_keeps_its_epoch(void **state)
{
    struct world world = {.nested = 3};
    (void)state;
    assert_true(post(&world, 0));
    assert_int_equal(world.handled, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(world.list[i].event.epoch, i);
        assert_ptr_equal(world.list[i].offered, staged(i));
    }
    assert_false(event_queue_runs(&world.queue));
}

static void test_a_full_queue_gives_the_epoch_back(void **state)
{
    struct world world = {.nested = EVENT_QUEUE_MAX + 5};
    (void)state;
    assert_true(post(&world, 0));
    assert_int_equal(world.refused, 5);
    assert_int_equal(world.handled, EVENT_QUEUE_MAX + 1);
    assert_true(post(&world, 7)); /* there is room again */
    assert_int_equal(world.list[world.handled - 1].event.epoch, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_event_raised_inside_another_keeps_its_epoch),
        cmocka_unit_test(test_a_full_queue_gives_the_epoch_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
