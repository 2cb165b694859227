/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The applier thread. It takes notes from its mailbox in order: epochs, batches, and the orders in between
 * that must not overtake them (empty the image, keep it, change a disk's pair, end standby). The state it
 * keeps is two flags: whether a synchronisation is under way, and whether it has begun to overwrite the
 * disks.
 */
#include "replicator/pipeline/applier.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "replicator/note.h"

/* Most of the peer's messages that may wait. Everything else that waits is bounded by staging. */
#define MAX_MESSAGES 256u

struct applier {
    GThread *thread;
    struct mailbox box;
    struct image *image;
    struct disks *disks;
    bool durable_acks;
    struct staging *staging;
    struct mailbox *control;
    /* Under park_mutex. */
    pthread_mutex_t park_mutex;
    pthread_cond_t park_changed; /* of CLOCK_MONOTONIC */
    bool park_wanted;
    uint64_t park_asked, parked; /* numbers of parks: the last one asked for, the last one that came about */
    /* The thread's own. */
    bool synchronising;     /* no whole epoch since the image was discarded */
    bool overwriting_disks; /* and batches have gone to the disks meanwhile */
};

static struct note *answer_to(const struct note *note, enum note_kind kind, int status)
{
    struct note *answer = note_new(kind, NULL, 0);
    answer->link = note->link;
    answer->term = note->term;
    answer->status = status;
    return answer;
}

static int apply_batch(struct applier *applier, const struct staged_epoch *batch)
{
    int status = 0;
    if (batch->disk_len && !applier->overwriting_disks) {
        status = disks_begin_synchronisation(applier->disks);
        applier->overwriting_disks = true;
    }
    if (status == 0)
        status = image_apply(applier->image, applier->staging, batch);
    return status == 0 ? disks_apply(applier->disks, applier->staging, batch) : status;
}

static int apply_epoch(struct applier *applier, const struct note *note)
{
    const struct staged_epoch *epoch = note->staged;
    int status = disks_journal(applier->disks, applier->staging, epoch, note->term, applier->durable_acks);
    if (applier->durable_acks && status == 0) {
        struct note *journalled = answer_to(note, NOTE_EPOCH_JOURNALLED, 0);
        journalled->epoch = epoch->epoch;
        mailbox_post(applier->control, &journalled->letter);
    }
    if (status == 0)
        status = image_apply(applier->image, applier->staging, epoch);
    if (status == 0)
        status = disks_apply(applier->disks, applier->staging, epoch);
    if (status == 0 && applier->synchronising)
        status = disks_whole(applier->disks);
    applier->synchronising = applier->overwriting_disks = false;
    return status;
}

static void free_staged(struct applier *applier, struct staged_epoch *epoch, struct note *done)
{
    staging_free(applier->staging, epoch);
    mailbox_post(applier->control, &done->letter);
}

static void apply(struct applier *applier, const struct note *note)
{
    struct staged_epoch *epoch = note->staged;
    bool batch = epoch->kind != STAGED_EPOCH;
    int status = batch ? apply_batch(applier, epoch) : apply_epoch(applier, note);
    struct note *done = answer_to(note, batch ? NOTE_BATCH_APPLIED : NOTE_EPOCH_APPLIED, status);
    done->epoch = epoch->epoch;
    done->arg = epoch->npages;
    free_staged(applier, epoch, done);
}

static void take_pair(struct applier *applier, const struct note *note)
{
    int status = -EPROTO;
    if (note->arg < disks_count(applier->disks) && note->len == DISK_PAIR_ID_LEN) {
        struct disk_map *map = disks_map(applier->disks, note->arg);
        disk_map_clear_all(map, 0);
        disk_map_clear_all(map, 1);
        status = disk_map_set_pair(map, note->payload);
    }
    if (status < 0) {
        struct note *done = answer_to(note, NOTE_BATCH_APPLIED, status);
        mailbox_post(applier->control, &done->letter);
    }
}

/*
 * Begins another synchronisation. Withheld writes to shared disks are dropped: the primary writes them
 * itself.
 */
static void begin_synchronisation(struct applier *applier)
{
    if (applier->disks)
        disks_forget_held(applier->disks);
    applier->synchronising = true;
    applier->overwriting_disks = false;
}

static void discard_image(struct applier *applier)
{
    image_discard(applier->image);
    begin_synchronisation(applier);
}

static void keep_image(struct applier *applier)
{
    image_keep(applier->image);
    begin_synchronisation(applier);
}

static void end_standby(struct applier *applier, const struct note *note)
{
    struct note *done = answer_to(note, NOTE_STANDBY_ENDED, disks_end_standby(applier->disks, note->arg));
    mailbox_post(applier->control, &done->letter);
}

/* A note of a park that was given up is out of date. */
static void park(struct applier *applier, const struct note *note)
{
    uint64_t number = note->generation;
    pthread_mutex_lock(&applier->park_mutex);
    if (applier->park_wanted && applier->park_asked == number) {
        applier->parked = number;
        pthread_cond_broadcast(&applier->park_changed);
    }
    while (applier->park_wanted && applier->park_asked == number)
        pthread_cond_wait(&applier->park_changed, &applier->park_mutex);
    pthread_mutex_unlock(&applier->park_mutex);
}

static void handle(struct applier *applier, struct note *note)
{
    switch ((enum note_kind)note->letter.kind) {
    case NOTE_DISCARD_IMAGE:
        discard_image(applier);
        break;
    case NOTE_KEEP_IMAGE:
        keep_image(applier);
        break;
    case NOTE_DISK_PAIR:
        take_pair(applier, note);
        break;
    case NOTE_DISK_FLUSHED:
        if (applier->disks)
            disks_flushed(applier->disks, note->arg, note->epoch);
        break;
    case NOTE_END_STANDBY:
        end_standby(applier, note);
        break;
    case NOTE_PARK:
        park(applier, note);
        break;
    case NOTE_DISCARD:
        free_staged(applier, note->staged, note_new(NOTE_STAGING_ROOM, NULL, 0));
        break;
    case NOTE_APPLY:
        apply(applier, note);
        break;
    default:
        break;
    }
}

static gpointer applier_run(gpointer opaque)
{
    struct applier *applier = opaque;
    for (bool quit = false; !quit;) {
        struct note *note = note_take(&applier->box);
        if (!note) {
            mailbox_wait(&applier->box, -1);
            continue;
        }
        quit = note->letter.kind == NOTE_QUIT;
        handle(applier, note);
        g_free(note);
    }
    return NULL;
}

struct applier *applier_new(struct image *image, struct disks *disks, bool durable_acks,
                            struct staging *staging, struct mailbox *control)
{
    struct applier *applier = g_new0(struct applier, 1);
    applier->image = image;
    applier->disks = disks;
    applier->durable_acks = durable_acks;
    applier->staging = staging;
    applier->control = control;
    applier->synchronising = true;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&applier->park_mutex, NULL);
    pthread_cond_init(&applier->park_changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int status = mailbox_open(&applier->box);
    if (status == 0 && !(applier->thread = g_thread_try_new("applier", applier_run, applier, NULL)))
        status = -EAGAIN;
    if (status == 0)
        return applier;
    mailbox_close(&applier->box);
    pthread_mutex_destroy(&applier->park_mutex);
    pthread_cond_destroy(&applier->park_changed);
    g_free(applier);
    errno = -status;
    return NULL;
}

void applier_free(struct applier *applier)
{
    if (!applier)
        return;
    mailbox_post(&applier->box, &note_new(NOTE_QUIT, NULL, 0)->letter);
    g_thread_join(applier->thread);
    mailbox_close(&applier->box);
    pthread_mutex_destroy(&applier->park_mutex);
    pthread_cond_destroy(&applier->park_changed);
    g_free(applier);
}

static void post(struct applier *applier, enum note_kind kind, struct staged_epoch *epoch, uint64_t term,
                 uint64_t link)
{
    struct note *note = note_new(kind, NULL, 0);
    note->staged = epoch;
    note->term = term;
    note->link = link;
    mailbox_post(&applier->box, &note->letter);
}

void applier_post(struct applier *applier, struct staged_epoch *epoch, uint64_t term, uint64_t link)
{
    post(applier, NOTE_APPLY, epoch, term, link);
}

void applier_post_discard(struct applier *applier, struct staged_epoch *epoch)
{
    post(applier, NOTE_DISCARD, epoch, 0, 0);
}

void applier_post_discard_image(struct applier *applier)
{
    post(applier, NOTE_DISCARD_IMAGE, NULL, 0, 0);
}

void applier_post_keep_image(struct applier *applier)
{
    post(applier, NOTE_KEEP_IMAGE, NULL, 0, 0);
}

static bool try_post(struct applier *applier, struct note *note)
{
    if (mailbox_try_post(&applier->box, &note->letter, MAX_MESSAGES))
        return true;
    g_free(note);
    return false;
}

bool applier_post_pair(struct applier *applier, unsigned disk, const uint8_t *pair_id, size_t len)
{
    struct note *note = note_new(NOTE_DISK_PAIR, pair_id, len);
    note->arg = disk;
    return try_post(applier, note);
}

bool applier_post_flushed(struct applier *applier, unsigned disk, uint64_t epoch)
{
    struct note *note = note_new(NOTE_DISK_FLUSHED, NULL, 0);
    note->arg = disk;
    note->epoch = epoch;
    return try_post(applier, note);
}

void applier_post_end_standby(struct applier *applier, bool sync_disks)
{
    struct note *note = note_new(NOTE_END_STANDBY, NULL, 0);
    note->arg = sync_disks;
    mailbox_post(&applier->box, &note->letter);
}

bool applier_park(struct applier *applier, unsigned timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000 + 1; /* a second more or less does not matter */
    struct note *note = note_new(NOTE_PARK, NULL, 0);
    pthread_mutex_lock(&applier->park_mutex);
    applier->park_wanted = true;
    note->generation = ++applier->park_asked;
    mailbox_post(&applier->box, &note->letter);
    while (applier->park_wanted && applier->parked != applier->park_asked) {
        if (pthread_cond_timedwait(&applier->park_changed, &applier->park_mutex, &until) == ETIMEDOUT)
            applier->park_wanted = applier->parked == applier->park_asked;
    }
    bool parked = applier->park_wanted;
    pthread_mutex_unlock(&applier->park_mutex);
    return parked;
}

void applier_unpark(struct applier *applier)
{
    pthread_mutex_lock(&applier->park_mutex);
    applier->park_wanted = false;
    pthread_cond_broadcast(&applier->park_changed);
    pthread_mutex_unlock(&applier->park_mutex);
}

void applier_cancel_park(struct applier *applier)
{
    pthread_mutex_lock(&applier->park_mutex);
    if (applier->parked != applier->park_asked)
        applier->park_wanted = false;
    pthread_cond_broadcast(&applier->park_changed);
    pthread_mutex_unlock(&applier->park_mutex);
}
