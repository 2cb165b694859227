/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See applier.h. */
#include "replicator/applier.h"

#include "replicator/note.h"

struct applier {
    GThread *thread;
    struct mailbox box;
    struct image *image;
    struct staging *staging;
    struct mailbox *control;
};

static void apply(struct applier *applier, struct staged_epoch *epoch, bool discard)
{
    struct note *done = note_new(NOTE_STAGING_ROOM, NULL, 0);
    if (!discard) {
        done->status = image_apply(applier->image, applier->staging, epoch);
        done->letter.kind = epoch->kind == STAGED_EPOCH ? NOTE_EPOCH_APPLIED : NOTE_BATCH_APPLIED;
        done->epoch = epoch->epoch;
        done->arg = epoch->npages;
    }
    staging_free(applier->staging, epoch);
    mailbox_post(applier->control, &done->letter);
}

static gpointer applier_run(gpointer opaque)
{
    struct applier *applier = opaque;
    for (;;) {
        struct note *note = note_take(&applier->box);
        if (!note) {
            mailbox_wait(&applier->box, -1);
            continue;
        }
        bool quit = note->letter.kind == NOTE_QUIT;
        if (note->letter.kind == NOTE_DISCARD_IMAGE)
            image_discard(applier->image);
        else if (!quit)
            apply(applier, note->staged, note->letter.kind == NOTE_DISCARD);
        g_free(note);
        if (quit)
            return NULL;
    }
}

struct applier *applier_new(struct image *image, struct staging *staging, struct mailbox *control)
{
    struct applier *applier = g_new0(struct applier, 1);
    applier->image = image;
    applier->staging = staging;
    applier->control = control;
    if (mailbox_open(&applier->box) < 0) {
        g_free(applier);
        return NULL;
    }
    applier->thread = g_thread_new("applier", applier_run, applier);
    return applier;
}

void applier_free(struct applier *applier)
{
    if (!applier)
        return;
    mailbox_post(&applier->box, &note_new(NOTE_QUIT, NULL, 0)->letter);
    g_thread_join(applier->thread);
    mailbox_close(&applier->box);
    g_free(applier);
}

static void post(struct applier *applier, struct staged_epoch *epoch, enum note_kind kind)
{
    struct note *note = note_new(kind, NULL, 0);
    note->staged = epoch;
    mailbox_post(&applier->box, &note->letter);
}

void applier_post(struct applier *applier, struct staged_epoch *epoch)
{
    post(applier, epoch, NOTE_APPLY);
}

void applier_post_discard(struct applier *applier, struct staged_epoch *epoch)
{
    post(applier, epoch, NOTE_DISCARD);
}

void applier_post_discard_image(struct applier *applier)
{
    mailbox_post(&applier->box, &note_new(NOTE_DISCARD_IMAGE, NULL, 0)->letter);
}
