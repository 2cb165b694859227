/* SPDX-License-Identifier: GPL-2.0-or-later */
/* understudy status: a table, a line that follows one VM, or JSON. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "proto/framing.h"
#include "proto/term.h"

#define STATUS_MS 5000
#define WATCH_US  500000
#define SILENT_MS 1000 /* a path is worth a line after this */

/* reset: the figures begin anew after the ones that come back. */
static Understudy__Envelope *ask(const char *vm, bool reset)
{
    Understudy__StatusRequest status = UNDERSTUDY__STATUS_REQUEST__INIT;
    status.vm = (char *)(vm ? vm : "");
    status.reset = reset;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(STATUS_REQUEST, status_request, &status);
    Understudy__Envelope *answer = cli_call(&request, STATUS_MS);
    if (answer && answer->body_case != UNDERSTUDY__ENVELOPE__BODY_STATUS_LIST) {
        cli_fail("the daemon's answer was not understood");
        understudy__envelope__free_unpacked(answer, NULL);
        return NULL;
    }
    return answer;
}

const Understudy__Status *cli_status_of(const char *vm, Understudy__Envelope **holder)
{
    *holder = ask(vm, false);
    if (*holder && (*holder)->status_list->n_vms == 1)
        return (*holder)->status_list->vms[0];
    if (*holder)
        understudy__envelope__free_unpacked(*holder, NULL);
    *holder = NULL;
    return NULL;
}

void cli_disk_progress(const Understudy__Status *status, uint64_t *done, uint64_t *total)
{
    *done = *total = 0;
    for (size_t i = 0; i < status->n_disks; i++) {
        *done += MIN(status->disks[i]->done_bytes, status->disks[i]->total_bytes);
        *total += status->disks[i]->total_bytes;
    }
}

static const char *role_name(Understudy__Role role)
{
    return role == UNDERSTUDY__ROLE__ROLE_PRIMARY     ? "primary"
           : role == UNDERSTUDY__ROLE__ROLE_SECONDARY ? "secondary"
                                                      : "none";
}

static json_t *percentiles_json(const Understudy__Percentiles *p)
{
    static const Understudy__Percentiles none = {0};
    p = p ? p : &none;
    return json_pack("{s:I, s:I, s:I}", "p50", (json_int_t)p->p50, "p99", (json_int_t)p->p99, "max",
                     (json_int_t)p->max);
}

static json_t *disks_json(const Understudy__Status *s)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < s->n_disks; i++) {
        const Understudy__DiskStatus *d = s->disks[i];
        json_array_append_new(
            disks,
            json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "id", d->id, "path", d->path,
                      "state", d->state, "done_bytes", (json_int_t)d->done_bytes, "total_bytes",
                      (json_int_t)d->total_bytes, "dirty_bytes", (json_int_t)d->dirty_bytes, "log_bytes",
                      (json_int_t)d->log_bytes, "candidate_bytes", (json_int_t)d->candidate_bytes,
                      "sent_bytes", (json_int_t)d->sent_bytes, "message", d->message));
    }
    return disks;
}

static json_t *heartbeats_json(const Understudy__Status *s)
{
    json_t *paths = json_array();
    for (size_t i = 0; i < s->n_heartbeats; i++)
        json_array_append_new(paths, json_pack("{s:s, s:I, s:I, s:s}", "there", s->heartbeats[i]->there,
                                               "silent_ms", (json_int_t)s->heartbeats[i]->silent_ms,
                                               "send_errors", (json_int_t)s->heartbeats[i]->send_errors,
                                               "send_error", s->heartbeats[i]->send_error));
    return paths;
}

static json_t *status_json(const Understudy__Status *s)
{
    json_t *parts =
        json_pack("{s:o, s:o, s:o, s:o, s:o}", "stop", percentiles_json(s->stop_us), "harvest",
                  percentiles_json(s->harvest_us), "save", percentiles_json(s->save_us), "copy_wait",
                  percentiles_json(s->copy_wait_us), "resume", percentiles_json(s->resume_us));
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:f, s:f}", "name", s->vm, "role",
                  role_name(s->role), "state", s->state, "term", (json_int_t)term_count(s->term), "peer",
                  s->peer, "accel", s->accel, "qemu_version", s->qemu_version, "memory_mib",
                  (json_int_t)s->memory_mib, "epochs", (json_int_t)s->epochs, "acked_epoch",
                  (json_int_t)s->acked_epoch, "epochs_per_s", s->epochs_per_s, "bytes_per_s", s->bytes_per_s);
    json_object_set_new(json, "term_host", json_integer(term_host(s->term)));
    json_object_set_new(json, "pause_us", percentiles_json(s->pause_us));
    json_object_set_new(json, "pause_parts_us", parts);
    json_object_set_new(json, "dirty_pages", percentiles_json(s->dirty_pages));
    json_object_set_new(json, "epoch_bytes", percentiles_json(s->epoch_bytes));
    json_object_set_new(json, "hold_us", percentiles_json(s->hold_us));
    json_object_set_new(json, "sync",
                        json_pack("{s:I, s:I, s:I, s:f, s:b}", "done_pages", (json_int_t)s->sync_done_pages,
                                  "total_pages", (json_int_t)s->sync_total_pages, "sent_pages",
                                  (json_int_t)s->sync_sent_pages, "ms", s->sync_ms, "difference",
                                  s->sync_difference));
    json_object_set_new(json, "expired", json_integer((json_int_t)s->expired));
    json_object_set_new(json, "transport", json_string(s->transport));
    json_object_set_new(json, "transport_why", json_string(s->transport_why));
    json_object_set_new(json, "split", json_string(s->split));
    json_object_set_new(json, "warning", json_string(s->warning));
    json_object_set_new(json, "unprotected_why", json_string(s->unprotected_why));
    json_object_set_new(json, "frames_dropped", json_integer((json_int_t)s->frames_dropped));
    json_object_set_new(json, "detect_ms", json_real(s->detect_ms));
    json_object_set_new(json, "promote_ms", json_real(s->promote_ms));
    json_object_set_new(json, "guest_here", json_boolean(s->guest_here));
    json_object_set_new(json, "qemu_pid", json_integer(s->qemu_pid));
    json_object_set_new(
        json, "on_peer_loss",
        json_string(s->on_peer_loss == UNDERSTUDY__PEER_LOSS__PEER_LOSS_HOLD ? "hold" : "continue"));
    json_object_set_new(
        json, "durability",
        json_string(s->durability == UNDERSTUDY__DURABILITY__DURABILITY_DISK ? "disk" : "memory"));
    json_object_set_new(json, "disks", disks_json(s));
    json_object_set_new(json, "heartbeats", heartbeats_json(s));
    json_t *warnings = json_array();
    for (size_t i = 0; i < s->n_warnings; i++)
        json_array_append_new(warnings, json_string(s->warnings[i]));
    json_object_set_new(json, "warnings", warnings);
    json_object_set_new(json, "last_error", json_string(s->last_error));
    return json;
}

static void print_json(const Understudy__StatusList *list, const char *vm)
{
    json_t *json;
    if (vm && list->n_vms == 1) {
        json = status_json(list->vms[0]);
    } else {
        json = json_array();
        for (size_t i = 0; i < list->n_vms; i++)
            json_array_append_new(json, status_json(list->vms[i]));
    }
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(json);
}

static unsigned percent(uint64_t done, uint64_t total)
{
    return total ? (unsigned)((double)MIN(done, total) / (double)total * 100) : 100;
}

/* On one line: how far RAM and disks are while they are being synchronised, or what is wrong with a disk. */
static void print_sync(const Understudy__Status *s)
{
    uint64_t done, total;
    cli_disk_progress(s, &done, &total);
    if (strcmp(s->state, "synchronising") == 0)
        printf("  RAM %u %%", percent(s->sync_done_pages, s->sync_total_pages));
    if (strcmp(s->state, "synchronising") == 0 && total)
        printf("  disks %u %%", percent(done, total));
    for (size_t i = 0; i < s->n_disks; i++) {
        if (s->disks[i]->message[0])
            printf("  disk %s: %s", s->disks[i]->id, s->disks[i]->message);
    }
}

static void print_disk(const Understudy__DiskStatus *d)
{
    printf("  disk %-12s %-13s", d->id, d->state);
    if (d->total_bytes && d->done_bytes < d->total_bytes)
        printf(" %3u %% of %" G_GUINT64_FORMAT " MiB", percent(d->done_bytes, d->total_bytes),
               d->total_bytes >> 20);
    if (d->dirty_bytes && strcmp(d->state, "protected") != 0)
        printf("  differs in %" G_GUINT64_FORMAT " MiB", (d->dirty_bytes + (1 << 20) - 1) >> 20);
    printf("  %s%s%s\n", d->path, d->message[0] ? ": " : "", d->message);
}

static void print_line(const Understudy__Status *s)
{
    const char *warning = s->n_warnings ? s->warnings[0] : "";
    printf("%-12s %-9s %-13s %5.1f epochs/s  pause p50 %" G_GUINT64_FORMAT " p99 %" G_GUINT64_FORMAT
           " us  dirty %" G_GUINT64_FORMAT " pages  %6.2f MB/s%s%s%s%s",
           s->vm, role_name(s->role), s->state, s->epochs_per_s, s->pause_us ? s->pause_us->p50 : 0,
           s->pause_us ? s->pause_us->p99 : 0, s->dirty_pages ? s->dirty_pages->p50 : 0, s->bytes_per_s / 1e6,
           s->last_error[0] ? "  " : "", s->last_error, warning[0] ? "  warning: " : "", warning);
    print_sync(s);
}

/* A network that has failed, where the peer is heard by another one. */
static void print_path(const Understudy__Status *s, const Understudy__HeartbeatStatus *path)
{
    if (path->send_error[0])
        printf("  heartbeats cannot be sent by way of %s: %s (%" G_GUINT64_FORMAT " were not)\n", path->there,
               path->send_error, path->send_errors);
    bool paired = strcmp(s->state, "protected") == 0 || strcmp(s->state, "standby") == 0;
    if (paired && s->n_heartbeats > 1 && path->silent_ms > SILENT_MS)
        printf("  no heartbeat by way of %s for %" G_GUINT64_FORMAT " s\n", path->there,
               path->silent_ms / 1000);
}

/* why: also say why a link is not RDMA, where it might have been. */
static void print_table(const Understudy__StatusList *list, bool why)
{
    if (list->n_vms == 0)
        printf("no VMs on this host\n");
    else
        printf("%-12s %-9s %-15s %-16s %-4s %5s %9s %9s %9s  %s\n", "NAME", "ROLE", "STATE", "PEER", "LINK",
               "TERM", "EPOCHS", "P50 us", "P99 us", "LAST ERROR");
    for (size_t i = 0; i < list->n_vms; i++) {
        const Understudy__Status *s = list->vms[i];
        printf("%-12s %-9s %-15s %-16s %-4s %3" G_GUINT64_FORMAT ".%u %9" G_GUINT64_FORMAT
               " %9" G_GUINT64_FORMAT " %9" G_GUINT64_FORMAT "  %s\n",
               s->vm, role_name(s->role), s->state, s->peer, s->transport[0] ? s->transport : "-",
               term_count(s->term), term_host(s->term), s->epochs, s->pause_us ? s->pause_us->p50 : 0,
               s->pause_us ? s->pause_us->p99 : 0, s->last_error);
        if (why && s->transport_why[0])
            printf("Checkpoints go over TCP, not RDMA: %s\n", s->transport_why);
        if (s->split[0] && strcmp(s->split, s->last_error) != 0)
            printf("  split: %s\n", s->split);
        if (s->warning[0])
            printf("  warning: %s\n", s->warning);
        if (s->unprotected_why[0])
            printf("  not protected: %s\n", s->unprotected_why);
        for (size_t k = 0; k < s->n_warnings; k++)
            printf("  warning: %s\n", s->warnings[k]);
        for (size_t k = 0; k < s->n_disks; k++)
            print_disk(s->disks[k]);
        for (size_t k = 0; k < s->n_heartbeats; k++)
            print_path(s, s->heartbeats[k]);
    }
}

static int watch(const char *vm)
{
    bool tty = isatty(STDOUT_FILENO);
    for (;;) {
        Understudy__Envelope *answer = ask(vm, false);
        if (!answer)
            return EXIT_FAILED;
        if (vm && answer->status_list->n_vms == 0) {
            understudy__envelope__free_unpacked(answer, NULL);
            if (tty)
                putchar('\n');
            return cli_fail("there is no VM %s on this host any more", vm);
        }
        for (size_t i = 0; i < answer->status_list->n_vms; i++) {
            if (tty && answer->status_list->n_vms == 1)
                printf("\r\033[K");
            print_line(answer->status_list->vms[i]);
            if (!tty || answer->status_list->n_vms > 1)
                putchar('\n');
        }
        fflush(stdout);
        understudy__envelope__free_unpacked(answer, NULL);
        g_usleep(WATCH_US);
    }
}

int cmd_status(int argc, char **argv)
{
    gboolean as_json = FALSE, follow = FALSE, reset = FALSE;
    const GOptionEntry entries[] = {
        {"json", 'j', 0, G_OPTION_ARG_NONE, &as_json, "Print JSON", NULL},
        {"watch", 'w', 0, G_OPTION_ARG_NONE, &follow, "Follow, twice a second", NULL},
        {"reset", 'r', 0, G_OPTION_ARG_NONE, &reset, "Show, then begin the percentiles anew", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("[NAME]");
    g_autoptr(GError) error = NULL;
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error) || argc > 2) {
        cli_fail("%s",
                 error ? error->message : "usage: understudy status [NAME] [--watch] [--json] [--reset]");
        return EXIT_USAGE;
    }
    const char *vm = argc == 2 ? argv[1] : NULL;
    Understudy__Envelope *answer = ask(vm, reset);
    if (!answer)
        return EXIT_FAILED;
    int code = EXIT_OK;
    if (vm && answer->status_list->n_vms == 0)
        code = cli_fail("there is no VM %s on this host: 'understudy status' lists those there are", vm);
    else if (as_json)
        print_json(answer->status_list, vm);
    else if (!follow)
        print_table(answer->status_list, vm != NULL);
    understudy__envelope__free_unpacked(answer, NULL);
    return follow && code == EXIT_OK ? watch(vm) : code;
}
