/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What status shows of the capture thread, which is the only writer; figures are read at any time. */
#include <string.h>

#include "replicator/pipeline/capture_internal.h"

#define FIGURES 7u

static void list_figures(const struct capture_figures *f, struct histogram *all[FIGURES])
{
    struct histogram *const list[FIGURES] = {f->pause_us,     f->stop_us,   f->harvest_us, f->save_us,
                                             f->copy_wait_us, f->resume_us, f->dirty_pages};
    memcpy(all, list, sizeof list);
}

void capture_figures_open(struct capture_figures *figures)
{
    struct histogram **const all[FIGURES] = {
        &figures->pause_us,     &figures->stop_us,   &figures->harvest_us, &figures->save_us,
        &figures->copy_wait_us, &figures->resume_us, &figures->dirty_pages};
    for (size_t i = 0; i < FIGURES; i++)
        *all[i] = histogram_new();
}

void capture_figures_close(const struct capture_figures *figures)
{
    struct histogram *all[FIGURES];
    list_figures(figures, all);
    for (size_t i = 0; i < FIGURES; i++)
        histogram_free(all[i]);
}

void capture_figures_record(struct capture_thread *t, const struct capture_report *report)
{
    const struct hv_checkpoint *c = &report->checkpoint;
    histogram_record(t->figures.pause_us, c->pause_ns / 1000);
    histogram_record(t->figures.stop_us, c->stop_ns / 1000);
    histogram_record(t->figures.harvest_us, c->harvest_ns / 1000);
    histogram_record(t->figures.save_us, c->save_ns / 1000);
    histogram_record(t->figures.copy_wait_us, c->copy_wait_ns / 1000);
    histogram_record(t->figures.resume_us, c->resume_ns / 1000);
    histogram_record(t->figures.dirty_pages, report->pages);
    atomic_fetch_add_explicit(&t->figures.epochs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->figures.pages_sent, report->pages, memory_order_relaxed);
    if (t->first_epoch_due)
        atomic_fetch_add_explicit(&t->figures.sync_sent_pages, report->pages, memory_order_relaxed);
    t->first_epoch_due = false;
    atomic_fetch_add_explicit(&t->figures.pages_early, report->pages_early, memory_order_relaxed);
}

void capture_thread_reset_figures(struct capture_thread *t)
{
    struct histogram *all[FIGURES];
    list_figures(&t->figures, all);
    for (size_t i = 0; i < FIGURES; i++)
        histogram_reset_soon(all[i]);
}

const struct capture_figures *capture_thread_figures(const struct capture_thread *t)
{
    return &t->figures;
}
