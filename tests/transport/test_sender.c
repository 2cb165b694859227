/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sender keeps several epochs under way where the transport lets it, so that a link never idles while
 * pages wait, and gives memory back in order, once each. The transport is made up: it takes everything, and
 * the test says what is done.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "replicator/note.h"
#include "replicator/transport/sender.h"

#define PATIENT_MS 20000
#define CAPACITY   64u

struct fake {
    struct transport base;
    int sent_fd, done_fd; /* counts; wake-ups */
    int sent_of;          /* what send_epoch returns */
    _Atomic int64_t done, sent;
    _Atomic bool shut;
};

static int fake_send_epoch(struct transport *t, uint64_t term, const struct staging *staging,
                           const struct staged_epoch *epoch)
{
    struct fake *fake = (struct fake *)t;
    uint64_t one = 1;
    (void)term;
    (void)staging;
    (void)epoch;
    if (fake->sent_of < 0)
        return fake->sent_of;
    fake->sent++;
    return write(fake->sent_fd, &one, sizeof one) == sizeof one ? 0 : -EIO;
}

static int64_t fake_epochs_done(struct transport *t)
{
    struct fake *fake = (struct fake *)t;
    uint64_t forget;
    ssize_t ignored = read(fake->done_fd, &forget, sizeof forget);
    (void)ignored;
    return fake->done;
}

static int fake_done_fd(struct transport *t)
{
    return ((struct fake *)t)->done_fd;
}

static void fake_shutdown(struct transport *t)
{
    ((struct fake *)t)->shut = true;
}

static void fake_free(struct transport *t)
{
    struct fake *fake = (struct fake *)t;
    close(fake->sent_fd);
    close(fake->done_fd);
    g_free(fake);
}

static void fake_stats(const struct transport *t, struct transport_stats *out)
{
    *out = (struct transport_stats){.epochs_sent = (uint64_t)((const struct fake *)t)->sent};
}

static const struct transport_ops fake_ops = {.name = "fake",
                                              .send_epoch = fake_send_epoch,
                                              .epochs_done = fake_epochs_done,
                                              .done_fd = fake_done_fd,
                                              .shutdown = fake_shutdown,
                                              .free = fake_free,
                                              .stats = fake_stats};

struct world {
    struct staging *staging;
    struct mailbox control;
    struct histogram *bytes;
    struct sender *sender;
    struct fake *fake;
    struct connection *connection;
    int room_fd; /* counts epochs whose memory came back */
};

static void on_room(void *opaque)
{
    uint64_t one = 1;
    struct world *world = opaque;
    assert_int_equal(write(world->room_fd, &one, sizeof one), sizeof one);
}

static void open_world(struct world *world)
{
    *world = (struct world){.room_fd = eventfd(0, EFD_SEMAPHORE)};
    assert_int_equal(staging_open(&world->staging, CAPACITY, 4096), 0);
    assert_int_equal(mailbox_open(&world->control), 0);
    world->bytes = histogram_new();
    world->fake = g_new0(struct fake, 1);
    world->fake->base.ops = &fake_ops;
    world->fake->sent_fd = eventfd(0, EFD_SEMAPHORE);
    world->fake->done_fd = eventfd(0, EFD_NONBLOCK);
    world->connection = connection_new(&world->fake->base, 1);
    world->sender = sender_new(world->staging, &world->control, world->bytes, on_room, world);
}

static void close_world(struct world *world)
{
    struct note *note;
    sender_free(world->sender);
    connection_put(world->connection);
    while ((note = note_take(&world->control)))
        g_free(note);
    mailbox_close(&world->control);
    histogram_free(world->bytes);
    assert_int_equal(staging_free_pages(world->staging), CAPACITY);
    assert_int_equal(staging_free_epochs(world->staging), STAGING_EPOCHS);
    staging_close(world->staging);
    close(world->room_fd);
}

static void post_batches(struct world *world, uint64_t from, uint64_t to)
{
    for (uint64_t number = from; number <= to; number++) {
        struct staged_epoch *epoch = staging_begin(world->staging, number, STAGED_PRECOPY);
        assert_non_null(epoch);
        int64_t slot = staging_reserve(world->staging, epoch, 8);
        assert_true(slot >= 0);
        for (uint32_t i = 0; i < 8; i++) {
            epoch->pages[i] =
                (struct staged_page){.ref = page_ref_make(0, i, 0), .slot = ((uint32_t)slot + i) % CAPACITY};
            staging_slot(world->staging, epoch->pages[i].slot)[0] = 1;
        }
        epoch->npages = 8;
        staging_commit(world->staging, epoch);
        sender_post_epoch(world->sender, world->connection, 1, epoch);
    }
}

/* Waits until the count has gone up by n. */
static void await_count(int fd, unsigned n)
{
    uint64_t one;
    for (unsigned i = 0; i < n; i++) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, PATIENT_MS), 1);
        assert_int_equal(read(fd, &one, sizeof one), sizeof one);
    }
}

static bool has_count(int fd)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    return poll(&pfd, 1, 0) > 0;
}

static void say_done(struct world *world, int64_t done)
{
    uint64_t one = 1;
    world->fake->done = done;
    assert_int_equal(write(world->fake->done_fd, &one, sizeof one), sizeof one);
}

/* All that staging holds: a link never idles while anything waits. Memory comes back in order, once each. */
static void test_batches_are_sent_before_those_ahead_of_them_are_done(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    post_batches(&world, 1, STAGING_EPOCHS);
    await_count(world.fake->sent_fd, STAGING_EPOCHS); /* and nothing is done yet */
    assert_false(has_count(world.room_fd));
    for (int64_t done = 1; done <= STAGING_EPOCHS; done++) {
        say_done(&world, done);
        await_count(world.room_fd, 1);
        assert_int_equal(staging_free_epochs(world.staging), done);
    }
    close_world(&world);
}

/* The memory of what is done serves what comes after it, round and round. */
static void test_batches_follow_each_other_for_long(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    post_batches(&world, 1, STAGING_EPOCHS);
    for (uint64_t number = STAGING_EPOCHS + 1; number <= 5 * STAGING_EPOCHS; number++) {
        say_done(&world, (int64_t)(number - STAGING_EPOCHS));
        await_count(world.room_fd, 1);
        post_batches(&world, number, number);
    }
    await_count(world.fake->sent_fd, 5 * STAGING_EPOCHS);
    close_world(&world);
}

static void test_a_connection_that_breaks_gives_all_memory_back_at_once(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    post_batches(&world, 1, 6);
    await_count(world.fake->sent_fd, 6);
    world.fake->sent_of = -ENOTCONN;
    say_done(&world, -ENOTCONN);
    await_count(world.room_fd, 6);
    assert_true(world.fake->shut);
    close_world(&world);
}

static void test_what_was_under_way_at_the_end_is_given_back(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    post_batches(&world, 1, 3);
    await_count(world.fake->sent_fd, 3);
    close_world(&world); /* checks that staging is empty */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches_are_sent_before_those_ahead_of_them_are_done),
        cmocka_unit_test(test_batches_follow_each_other_for_long),
        cmocka_unit_test(test_a_connection_that_breaks_gives_all_memory_back_at_once),
        cmocka_unit_test(test_what_was_under_way_at_the_end_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
