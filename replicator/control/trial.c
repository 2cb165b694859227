/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See trial.h. */
#include "replicator/control/trial.h"

#include "replicator/note.h"

#define PARK_MS 10000 /* until the applier has done what waits for it */

struct trial {
    struct trial_config config;
    struct trial_load_config load_config;
    struct trial_load *load;
    GThread *thread;
    uint64_t epoch; /* the thread's */
};

static bool hold(struct hypervisor *hv, struct trial_image *image, char **why, void *opaque)
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
    trial_load_run(trial->load, &report);
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
    trial->load_config = (struct trial_load_config){
        .argv = config->argv,
        .hook_path = config->hook_path,
        .vm_name = config->vm_name,
        .dir = config->vm_dir,
        .ram_len = config->ram_len,
        .ram_fd = config->ram_fd,
        .source = {.hold = hold, .let_go = let_go, .opaque = trial},
    };
    trial->load = trial_load_new(&trial->load_config, error);
    if (!trial->load) {
        g_free(trial);
        return NULL;
    }
    trial->thread = g_thread_try_new("trial", run, trial, error);
    if (trial->thread)
        return trial;
    trial_load_free(trial->load);
    g_free(trial);
    return NULL;
}

void trial_cancel(struct trial *trial)
{
    trial_load_cancel(trial->load);
    applier_cancel_park(trial->config.applier);
}

void trial_end(struct trial *trial)
{
    if (!trial)
        return;
    trial_cancel(trial);
    g_thread_join(trial->thread);
    trial_load_free(trial->load);
    g_free(trial);
}
