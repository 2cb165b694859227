/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A capture that cannot stop at once: the real capture thread, inside the first synchronisation of a disk
 * whose reads hang, or waiting for a hypervisor that stands still. The control thread, here a GLib main loop
 * with a beating heart and an output gate, is told to stop it and goes on all the same.
 */
#include "tests/disk/two_hosts.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on
#include <endian.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/disk_wire.h"
#include "replicator/control/capture_stop.h"
#include "replicator/note.h"
#include "tests/fakevm/fake_hypervisor.h"

#define TERM       3u
#define PATIENCE_S 60 /* then a test has hung */
#define BEAT_MS    5
#define BEATS      10 /* while the disk hangs */

/* ---- a disk that hangs ---- */

static pthread_mutex_t disk_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t disk_goes_on = PTHREAD_COND_INITIALIZER;
static bool disk_hangs;                  /* guarded */
static _Atomic unsigned reads_that_hang; /* under way */

ssize_t __real_pread(int fd, void *buffer, size_t len, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t len, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t len, off_t offset)
{
    pthread_mutex_lock(&disk_mutex);
    atomic_fetch_add(&reads_that_hang, disk_hangs);
    bool hung = disk_hangs;
    while (disk_hangs)
        pthread_cond_wait(&disk_goes_on, &disk_mutex);
    atomic_fetch_sub(&reads_that_hang, hung);
    pthread_mutex_unlock(&disk_mutex);
    return __real_pread(fd, buffer, len, offset);
}

static void let_disk(bool hang)
{
    pthread_mutex_lock(&disk_mutex);
    disk_hangs = hang;
    pthread_cond_broadcast(&disk_goes_on);
    pthread_mutex_unlock(&disk_mutex);
}

/* ---- the control thread ---- */

struct world {
    struct hypervisor *hv;
    struct staging *staging;
    struct mailbox control;
    struct host *host; /* NULL: a VM without disks */
    struct output_gate *gate;
    struct input_log *input_log;
    int guest, network; /* the gate's other ends */
    struct histogram *bytes;
    struct sender *sender;
    struct disk_sync *sync;
    struct capture_thread *capture;
    struct capture_stop stop;
    guint notes, heart;
    unsigned beats, lates, overs, resumes, connects, stopped_notes;
    bool over_first; /* over came before what was deferred */
};

static void on_late(void *opaque)
{
    ((struct world *)opaque)->lates++;
}

static void on_over(void *opaque, gint64 took_us)
{
    struct world *world = opaque;
    (void)took_us;
    world->overs++;
    world->over_first = world->resumes == 0 && world->connects == 0;
}

static void on_resume(void *opaque)
{
    ((struct world *)opaque)->resumes++;
}

/* A peer is there at once, and its synchronisation begins. */
static void on_connect(void *opaque)
{
    struct world *world = opaque;
    world->connects++;
    disk_sync_connected(world->sync);
    capture_thread_precopy(world->capture, NULL, TERM);
}

static const struct capture_stop_calls calls = {
    .late = on_late, .over = on_over, .connect = on_connect, .resume = on_resume};

static gboolean on_notes(gint fd, GIOCondition condition, gpointer opaque)
{
    struct world *world = opaque;
    struct note *note;
    (void)fd;
    (void)condition;
    mailbox_clear_wake(&world->control);
    while ((note = note_take(&world->control))) {
        if (note->letter.kind == NOTE_CAPTURE_STOPPED) {
            world->stopped_notes++;
            capture_stop_answered(&world->stop, note->generation);
        }
        g_free(note);
    }
    return G_SOURCE_CONTINUE;
}

static gboolean on_beat(gpointer opaque)
{
    ((struct world *)opaque)->beats++;
    return G_SOURCE_CONTINUE;
}

static void room(void *opaque)
{
    if (opaque)
        capture_thread_room(opaque);
}

static int open_pair(int *other)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    *other = fds[1];
    return fds[0];
}

static struct world *world_new(bool has_disk)
{
    struct world *world = g_new0(struct world, 1);
    world->hv = fake_hypervisor_new(64, 16);
    world->host = has_disk ? host_new(1, false) : NULL;
    struct disks *disks = has_disk ? host_disks(world->host) : NULL;
    assert_int_equal(staging_open(&world->staging, 4096, 1 << 16), 0);
    assert_int_equal(mailbox_open(&world->control), 0);
    world->gate = gate_new(1 << 16);
    int out = open_pair(&world->guest), in = open_pair(&world->network);
    assert_int_equal(gate_add_nic(world->gate, out, in), 0);
    world->input_log = input_log_new(NULL, NULL);
    world->bytes = histogram_new();
    const struct capture_thread_config config = {.hv = world->hv,
                                                 .staging = world->staging,
                                                 .gate = world->gate,
                                                 .input_log = world->input_log,
                                                 .disks = disks,
                                                 .control = &world->control,
                                                 .epoch_ms = 20,
                                                 .deadline_ms = 20};
    world->capture = capture_thread_new(&config);
    assert_non_null(world->capture);
    world->sender = sender_new(world->staging, &world->control, world->bytes, room, world->capture);
    world->sync = disk_sync_new(disks, world->staging, room, world->capture);
    capture_thread_set_sender(world->capture, world->sender);
    capture_thread_set_disk_sync(world->capture, world->sync);
    capture_stop_init(&world->stop, world->capture, &calls, world);
    world->notes = g_unix_fd_add(world->control.event_fd, G_IO_IN, on_notes, world);
    world->heart = g_timeout_add(BEAT_MS, on_beat, world);
    alarm(PATIENCE_S);
    return world;
}

static void world_free(struct world *world)
{
    alarm(0);
    capture_stop_clear(&world->stop);
    g_source_remove(world->notes);
    g_source_remove(world->heart);
    capture_thread_free(world->capture);
    disk_sync_free(world->sync);
    sender_free(world->sender);
    on_notes(-1, 0, world);
    mailbox_close(&world->control);
    gate_free(world->gate);
    input_log_free(world->input_log);
    close(world->guest);
    close(world->network);
    histogram_free(world->bytes);
    staging_close(world->staging);
    if (world->host)
        host_free(world->host);
    fake_hypervisor_free(world->hv);
    g_free(world);
}

static void turn(void)
{
    g_main_context_iteration(NULL, TRUE);
}

/* ---- the standby ---- */

/* It knows nothing of the image: every chunk is compared. */
static void standby_says_what_it_has(struct world *world)
{
    struct wire_disk_state state = {.len = TEST_DISK_LEN, .trusted = false};
    uint8_t bytes[WIRE_DISK_STATE_LEN];
    wire_disk_state_encode(&state, bytes);
    const struct transport_message message = {
        .type = MESSAGE_DISK_STATE, .term = TERM, .len = sizeof bytes, .payload = bytes};
    assert_true(disk_sync_message(world->sync, &message));
}

/* Of the first window. Those that nobody has asked for yet are dropped, so they are said again and again. */
static void standby_says_hashes(struct world *world)
{
    static uint8_t hashes[WIRE_MAX_HASHES * WIRE_HASH_LEN];
    const struct transport_message message = {
        .type = MESSAGE_DISK_HASHES, .term = TERM, .len = sizeof hashes, .payload = hashes};
    assert_true(disk_sync_message(world->sync, &message));
}

/* Until the capture thread hashes the image, and the image hangs. */
static void synchronise_until_the_disk_hangs(struct world *world)
{
    let_disk(true);
    disk_sync_connected(world->sync);
    capture_thread_precopy(world->capture, NULL, TERM);
    standby_says_what_it_has(world);
    while (atomic_load(&reads_that_hang) == 0) {
        standby_says_hashes(world);
        turn();
    }
}

static void beat(struct world *world)
{
    unsigned until = world->beats + BEATS;
    while (world->beats < until)
        turn();
}

static void of_map(struct world *world, int protection)
{
    size_t nwords;
    struct disk_map *map = disks_map(host_disks(world->host), 0);
    uint8_t *bits = (uint8_t *)disk_map_words(map, 0, &nwords);
    uint8_t *page = bits - (uintptr_t)bits % 4096;
    assert_int_equal(mprotect(page, 4096, protection), 0);
}

/* A frame of the guest leaves by the gate. */
static void assert_frames_leave(struct world *world)
{
    uint8_t frame[4 + 60] = {0}, got[sizeof frame];
    uint32_t len = htobe32(60);
    ssize_t n = -1;
    memcpy(frame, &len, sizeof len);
    assert_int_equal(write(world->guest, frame, sizeof frame), sizeof frame);
    while ((n = recv(world->network, got, sizeof got, MSG_DONTWAIT)) < 0)
        turn();
    assert_int_equal(n, sizeof frame);
}

/* ---- tests ---- */

static void test_heart_and_gate_go_on_while_the_capture_reads_a_disk_that_hangs(void **state)
{
    struct world *world = world_new(true);
    (void)state;
    synchronise_until_the_disk_hangs(world);
    capture_stop_order(&world->stop);
    beat(world);
    assert_frames_leave(world);
    assert_int_equal(atomic_load(&reads_that_hang), 1);
    assert_int_equal(world->overs, 0);
    let_disk(false);
    while (world->overs == 0)
        turn();
    world_free(world);
}

static void test_nothing_starts_anew_before_the_old_capture_has_let_go(void **state)
{
    struct world *world = world_new(true);
    (void)state;
    synchronise_until_the_disk_hangs(world);
    unsigned tracks = fake_tracks_begun(world->hv);
    capture_stop_order(&world->stop);
    capture_stop_resume(&world->stop);
    capture_stop_connect(&world->stop);
    while (world->lates == 0) /* a peer would have come a hundred times */
        turn();
    assert_int_equal(world->connects + world->resumes, 0);
    assert_int_equal(fake_tracks_begun(world->hv), tracks);
    let_disk(false);
    while (fake_tracks_begun(world->hv) == tracks)
        turn();
    assert_true(world->over_first);
    assert_int_equal(world->lates, 1);
    assert_int_equal(world->resumes, 1);
    assert_int_equal(world->connects, 1);
    assert_int_equal(world->stopped_notes, 1);
    world_free(world);
}

static void test_what_is_not_wanted_any_more_is_not_done(void **state)
{
    struct world *world = world_new(true);
    (void)state;
    synchronise_until_the_disk_hangs(world);
    capture_stop_order(&world->stop);
    capture_stop_resume(&world->stop);
    capture_stop_connect(&world->stop);
    capture_stop_cancel(&world->stop, DEFER_RESUME);
    capture_stop_cancel(&world->stop, DEFER_CONNECT);
    let_disk(false);
    while (world->overs == 0)
        turn();
    beat(world);
    assert_int_equal(world->connects + world->resumes, 0);
    world_free(world);
}

static void test_the_newest_of_several_stops_is_answered_once(void **state)
{
    struct world *world = world_new(true);
    (void)state;
    synchronise_until_the_disk_hangs(world);
    capture_stop_order(&world->stop);
    capture_stop_connect(&world->stop);
    capture_stop_order(&world->stop);
    let_disk(false);
    while (world->overs == 0)
        turn();
    beat(world);
    assert_int_equal(world->overs, 1);
    assert_int_equal(world->stopped_notes, 1);
    assert_int_equal(world->connects, 1);
    world_free(world);
}

/* Another order in its place, before the thread has seen it. */
static void test_a_stop_that_was_overtaken_is_answered_all_the_same(void **state)
{
    struct world *world = world_new(true);
    (void)state;
    synchronise_until_the_disk_hangs(world);
    unsigned tracks = fake_tracks_begun(world->hv);
    capture_stop_order(&world->stop);
    capture_thread_forget(world->capture);
    capture_thread_precopy(world->capture, NULL, TERM);
    let_disk(false);
    while (world->overs == 0 || fake_tracks_begun(world->hv) == tracks)
        turn();
    world_free(world);
}

/* Its file may be on storage that hangs, too: a write to it would wait. Here it ends the process. */
static void test_the_control_thread_does_not_write_to_the_dirty_block_map(void **state)
{
    struct world *world = world_new(true);
    uint8_t bits[8] = {0xff};
    const struct transport_message message = {
        .type = MESSAGE_DISK_BITS, .term = TERM, .len = sizeof bits, .payload = bits};
    (void)state;
    disk_sync_connected(world->sync);
    of_map(world, PROT_READ);
    assert_true(disk_sync_message(world->sync, &message));
    standby_says_what_it_has(world);
    of_map(world, PROT_READ | PROT_WRITE);
    world_free(world);
}

static void test_a_hypervisor_that_stands_still_is_not_waited_for(void **state)
{
    struct world *world = world_new(false);
    (void)state;
    fake_stand_still(world->hv, true);
    capture_thread_precopy(world->capture, NULL, TERM);
    while (!fake_is_waited_for(world->hv))
        turn();
    capture_stop_order(&world->stop);
    while (world->overs == 0)
        turn();
    assert_true(world->beats > 0);
    /* What interrupted it is over: the next order's requests are waited for again. */
    capture_stop_connect(&world->stop);
    while (!fake_is_waited_for(world->hv))
        turn();
    beat(world);
    assert_true(fake_is_waited_for(world->hv));
    fake_stand_still(world->hv, false);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heart_and_gate_go_on_while_the_capture_reads_a_disk_that_hangs),
        cmocka_unit_test(test_nothing_starts_anew_before_the_old_capture_has_let_go),
        cmocka_unit_test(test_what_is_not_wanted_any_more_is_not_done),
        cmocka_unit_test(test_the_newest_of_several_stops_is_answered_once),
        cmocka_unit_test(test_a_stop_that_was_overtaken_is_answered_all_the_same),
        cmocka_unit_test(test_the_control_thread_does_not_write_to_the_dirty_block_map),
        cmocka_unit_test(test_a_hypervisor_that_stands_still_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
