/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See trial.h. */
#include "replicator/control/trial.h"

#include "replicator/note.h"

#define PARK_MS 10000 /* until the applier has done what waits for it */

struct trial {
    struct trial_config config;
    struct trial_source source;
    struct machine_trial *trial;
    GThread *thread;
    uint64_t epoch; /* the thread's */
};

static bool hold(struct hypervisor *hv, struct machine_image *image, char **why, void *opaque)
{
    struct trial *trial = opaque;
    const struct image *from = trial->config.image;
    const char *block = "";
    if (!applier_park(trial->config.applier, PARK_MS))
        return false;
    trial->epoch = image_epoch(from);
    if (trial->epoch != 0 && image_copy_aux(from, hv, &block) == 0) {
        image->devstate = image_devstate(from, &image->devstate_len);
        image->used_len = image_used_len(from, &image->nblocks);
        return true;
    }
    if (trial->epoch != 0)
        *why = g_strdup_printf("it has other memory than the guest: block %s differs", block);
    applier_unpark(trial->config.applier);
    return false;
}

static void let_go(void *opaque)
{
    struct trial *trial = opaque;
    applier_unpark(trial->config.applier);
}

static gpointer run(gpointer opaque)
{
    struct trial *trial = opaque;
    struct trial_report report;
    machine_trial_run(trial->trial, &report);
    struct note *note = note_new(NOTE_TRIED, report.why, report.why ? strlen(report.why) : 0);
    note->arg = report.verdict;
    note->epoch = trial->epoch;
    note->status = (int)MIN(report.load_us, G_MAXINT);
    g_free(report.why);
    mailbox_post(trial->config.control, &note->letter);
    return NULL;
}

struct trial *trial_begin(const struct trial_config *config, GError **error)
{
    struct trial *trial = g_new0(struct trial, 1);
    trial->config = *config;
    trial->source = (struct trial_source){.hold = hold, .let_go = let_go, .opaque = trial};
    trial->trial = machine_trial_new(config->machine, config->argv, &trial->source, error);
    if (!trial->trial) {
        g_free(trial);
        return NULL;
    }
    trial->thread = g_thread_try_new("trial", run, trial, error);
    if (trial->thread)
        return trial;
    machine_trial_free(trial->trial);
    g_free(trial);
    return NULL;
}

void trial_cancel(struct trial *trial)
{
    machine_trial_cancel(trial->trial);
    applier_cancel_park(trial->config.applier);
}

void trial_end(struct trial *trial)
{
    if (!trial)
        return;
    trial_cancel(trial);
    g_thread_join(trial->thread);
    machine_trial_free(trial->trial);
    g_free(trial);
}
