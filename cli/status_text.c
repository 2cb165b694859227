/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The text of `understudy status`. Columns are the figures that have a title, in the order of their table;
 * the lines below a VM are those that have a label and a text. Each column is as wide as its widest cell.
 */
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/status_view.h"
#include "proto/figures.h"
#include "proto/states.h"
#include "proto/term.h"

#define SILENT_MS   1000 /* a path is worth a line after this */
#define COLUMNS_MAX 16

static unsigned percent(uint64_t done, uint64_t total)
{
    return total ? (unsigned)((double)MIN(done, total) / (double)total * 100) : 100;
}

static char *state_shown(const Understudy__Status *s)
{
    const char *name = state_name(s->state);
    return status_is_unprotected(s) ? g_strdup_printf("UNPROTECTED (%s)", name) : g_strdup(name);
}

/* ---- the table ---- */

struct column {
    const struct figure *figure;
    enum { WHOLE, P50, P99 } part;
    bool is_number, is_last;
    char *title;
    int width;
};

static void add_column(struct column *columns, unsigned *n, const struct figure *figure, int part)
{
    static const char *const parts[] = {"", "P50 ", "P99 "};
    if (*n == COLUMNS_MAX)
        return;
    columns[(*n)++] = (struct column){
        .figure = figure,
        .part = part,
        .is_number = part != WHOLE || figure->kind == FIGURE_COUNTER || figure->kind == FIGURE_GAUGE,
        .title = part == WHOLE ? g_strdup(figure->title)
                               : g_strconcat(figure->title, parts[part], figure->unit, NULL),
    };
}

static unsigned make_columns(struct column *columns)
{
    size_t nfigures;
    unsigned n = 0;
    const struct figure *figures = figures_of(FIGURES_OF_VM, &nfigures);
    for (size_t i = 0; i < nfigures; i++) {
        if (!figures[i].title)
            continue;
        if (figures[i].kind == FIGURE_DISTRIBUTION) {
            add_column(columns, &n, &figures[i], P50);
            add_column(columns, &n, &figures[i], P99);
        } else {
            add_column(columns, &n, &figures[i], WHOLE);
        }
    }
    columns[n - 1].is_last = true;
    return n;
}

static char *cell(const struct column *column, const Understudy__Status *s)
{
    struct figure_value value;
    if (strcmp(column->figure->name, "state") == 0)
        return state_shown(s);
    if (strcmp(column->figure->name, "term") == 0)
        return g_strdup_printf("%" G_GUINT64_FORMAT ".%u", term_count(s->term), term_host(s->term));
    figure_read(column->figure, s, &value);
    if (column->part != WHOLE)
        return g_strdup_printf("%" G_GUINT64_FORMAT,
                               column->part == P50 ? value.percentiles->p50 : value.percentiles->p99);
    char *text = figure_text(&value);
    if (text[0] || column->is_last)
        return text;
    g_free(text);
    return g_strdup("-");
}

static void print_cell(const struct column *column, const char *text)
{
    int padding = column->width - (int)g_utf8_strlen(text, -1);
    if (column->is_last)
        printf(" %s\n", text);
    else
        printf("%*s%s%*s ", column->is_number ? padding : 0, "", text, column->is_number ? 0 : padding, "");
}

/* ---- the lines below ---- */

static void print_disk(const Understudy__DiskStatus *d)
{
    printf("  disk %-12s %-13s", d->id, disk_state_name(d->state));
    if (d->total_bytes && d->done_bytes < d->total_bytes)
        printf(" %3u %% of %" G_GUINT64_FORMAT " MiB", percent(d->done_bytes, d->total_bytes),
               d->total_bytes >> 20);
    if (d->dirty_bytes && d->state != UNDERSTUDY__DISK_STATE__DISK_STATE_PROTECTED)
        printf("  differs in %" G_GUINT64_FORMAT " MiB", (d->dirty_bytes + (1 << 20) - 1) >> 20);
    printf("  %s%s%s\n", d->path, d->message[0] ? ": " : "", d->message);
}

/* Prints what is wrong with a heartbeat path: it cannot send, or it is silent and not the only path. */
static void print_path(const Understudy__Status *s, const Understudy__HeartbeatStatus *path)
{
    if (path->send_error[0])
        printf("  heartbeats cannot be sent by way of %s: %s (%" G_GUINT64_FORMAT " were not)\n", path->there,
               path->send_error, path->send_errors);
    bool paired =
        s->state == UNDERSTUDY__STATE__STATE_PROTECTED || s->state == UNDERSTUDY__STATE__STATE_STANDBY;
    if (paired && s->n_heartbeats > 1 && path->silent_ms > SILENT_MS)
        printf("  no heartbeat by way of %s for %" G_GUINT64_FORMAT " s\n", path->there,
               path->silent_ms / 1000);
}

static void print_labelled(const struct figure *figure, const char *text)
{
    if (text[0])
        printf("  %s%s%s\n", figure->label, figure->label[0] ? ": " : "", text);
}

static void print_label(const struct figure *figure, const Understudy__Status *s, bool named)
{
    struct figure_value value;
    bool said = strcmp(figure->name, "split") == 0 && strcmp(s->split, s->last_error) == 0;
    /* The reason against RDMA is shown only if the user named this VM. */
    if (said || (!named && strcmp(figure->name, "transport_why") == 0))
        return;
    figure_read(figure, s, &value);
    if (value.type == VALUE_LIST) {
        for (size_t i = 0; i < value.nlist; i++)
            print_labelled(figure, value.list[i]);
        return;
    }
    g_autofree char *text = figure_text(&value);
    print_labelled(figure, text);
}

static void print_below(const Understudy__Status *s, bool named)
{
    size_t n;
    const struct figure *figures = figures_of(FIGURES_OF_VM, &n);
    for (size_t i = 0; i < n; i++)
        if (figures[i].label)
            print_label(&figures[i], s, named);
    for (size_t i = 0; i < s->n_disks; i++)
        print_disk(s->disks[i]);
    for (size_t i = 0; i < s->n_heartbeats; i++)
        print_path(s, s->heartbeats[i]);
}

void status_print_table(const Understudy__StatusList *list, bool named)
{
    struct column columns[COLUMNS_MAX];
    unsigned n = make_columns(columns);
    if (list->drained)
        printf("this host is drained: it gives its VMs away and stands by for none ('understudy undrain')\n");
    if (list->n_vms == 0)
        printf("no VMs on this host\n");
    for (unsigned c = 0; c < n; c++) {
        columns[c].width = (int)g_utf8_strlen(columns[c].title, -1);
        for (size_t i = 0; i < list->n_vms; i++) {
            g_autofree char *text = cell(&columns[c], list->vms[i]);
            columns[c].width = MAX(columns[c].width, (int)g_utf8_strlen(text, -1));
        }
    }
    for (unsigned c = 0; list->n_vms && c < n; c++)
        print_cell(&columns[c], columns[c].title);
    for (size_t i = 0; i < list->n_vms; i++) {
        for (unsigned c = 0; c < n; c++) {
            g_autofree char *text = cell(&columns[c], list->vms[i]);
            print_cell(&columns[c], text);
        }
        print_below(list->vms[i], named);
    }
    for (unsigned c = 0; c < n; c++)
        g_free(columns[c].title);
}

/* ---- every figure ---- */

static void print_figure(const char *before, const struct figure *figure, const void *message)
{
    struct figure_value value;
    figure_read(figure, message, &value);
    g_autofree char *text = figure_text(&value);
    g_autofree char *name = g_strconcat(before, figure->name, NULL);
    printf("%-28s %s%s%s\n", name, text[0] ? text : "-", text[0] && figure->unit[0] ? " " : "",
           text[0] ? figure->unit : "");
}

static void print_figures(const char *before, enum figure_scope scope, const void *message)
{
    size_t n;
    const struct figure *figures = figures_of(scope, &n);
    for (size_t i = 0; i < n; i++)
        print_figure(before, &figures[i], message);
}

static void print_array(const char *name, enum figure_scope scope, const void *const *messages, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        g_autofree char *before = g_strdup_printf("%s[%zu].", name, i);
        print_figures(before, scope, messages[i]);
    }
}

void status_print_figures(const Understudy__StatusList *list)
{
    for (size_t i = 0; i < list->n_vms; i++) {
        const Understudy__Status *s = list->vms[i];
        printf("%s", i ? "\n" : "");
        print_figures("", FIGURES_OF_VM, s);
        print_array("disks", FIGURES_OF_DISK, (const void *const *)s->disks, s->n_disks);
        print_array("heartbeats", FIGURES_OF_HEARTBEAT, (const void *const *)s->heartbeats, s->n_heartbeats);
    }
}

/* ---- a line that follows a VM ---- */

/* Prints how far RAM and disks are during a synchronisation, and what is wrong with a disk. */
static void print_sync(const Understudy__Status *s)
{
    uint64_t done, total;
    bool synchronises = s->state == UNDERSTUDY__STATE__STATE_SYNCHRONISING;
    cli_disk_progress(s, &done, &total);
    if (synchronises)
        printf("  RAM %u %%", percent(s->sync_done_pages, s->sync_total_pages));
    if (synchronises && total)
        printf("  disks %u %%", percent(done, total));
    for (size_t i = 0; i < s->n_disks; i++) {
        if (s->disks[i]->message[0])
            printf("  disk %s: %s", s->disks[i]->id, s->disks[i]->message);
    }
}

static void print_line(const Understudy__Status *s, int name_width)
{
    g_autofree char *state = state_shown(s);
    const char *warning = s->n_warnings ? s->warnings[0] : "";
    printf("%-*s %-9s %-13s %5.1f epochs/s  pause p50 %" G_GUINT64_FORMAT " p99 %" G_GUINT64_FORMAT
           " us  dirty %" G_GUINT64_FORMAT " pages  %6.2f MB/s%s%s%s%s",
           name_width, s->vm, role_name(s->role), state, s->epochs_per_s, s->pause_us ? s->pause_us->p50 : 0,
           s->pause_us ? s->pause_us->p99 : 0, s->dirty_pages ? s->dirty_pages->p50 : 0, s->bytes_per_s / 1e6,
           s->last_error[0] ? "  " : "", s->last_error, warning[0] ? "  warning: " : "", warning);
    print_sync(s);
}

void status_print_lines(const Understudy__StatusList *list, bool over)
{
    int width = 12;
    for (size_t i = 0; i < list->n_vms; i++)
        width = MAX(width, (int)strlen(list->vms[i]->vm));
    for (size_t i = 0; i < list->n_vms; i++) {
        printf("%s", over ? "\r\033[K" : "");
        print_line(list->vms[i], width);
        printf("%s", over ? "" : "\n");
    }
}

/* ---- those that ended ---- */

void status_print_endings(const Understudy__StatusList *list)
{
    printf("%s", list->n_endings ? "\nended here:\n" : "");
    for (size_t i = list->n_endings; i > 0; i--) {
        const Understudy__Ending *e = list->endings[i - 1];
        g_autoptr(GDateTime) time = g_date_time_new_from_unix_local((gint64)e->at_s);
        g_autofree char *at = time ? g_date_time_format(time, "%F %T") : g_strdup("?");
        printf("%s  %s  %s: %s%s%s\n", at, e->vm, role_name(e->role), e->reason, e->message[0] ? ": " : "",
               e->message);
    }
}
