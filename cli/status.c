/* SPDX-License-Identifier: GPL-2.0-or-later */
/* understudy status: a table, a line that follows one VM, JSON, or a verdict for a monitor. */
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

/* reset: the figures begin anew after the ones that come back. ended: those that ended too. */
static Understudy__Envelope *ask(const char *vm, bool reset, bool ended)
{
    Understudy__StatusRequest status = UNDERSTUDY__STATUS_REQUEST__INIT;
    status.vm = (char *)(vm ? vm : "");
    status.reset = reset;
    status.ended = ended;
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
    *holder = ask(vm, false, false);
    if (*holder && (*holder)->status_list->n_vms == 1)
        return (*holder)->status_list->vms[0];
    if (*holder)
        understudy__envelope__free_unpacked(*holder, NULL);
    *holder = NULL;
    return NULL;
}

char *cli_last_ending(const char *vm)
{
    Understudy__Envelope *answer = ask(vm, false, true);
    char *words = NULL;
    if (answer && answer->status_list->n_endings > 0) {
        const Understudy__Ending *last = answer->status_list->endings[answer->status_list->n_endings - 1];
        words = g_strconcat(last->reason, last->message[0] ? ": " : "", last->message, NULL);
    }
    if (answer)
        understudy__envelope__free_unpacked(answer, NULL);
    return words;
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

static bool is_one_of(const char *word, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(word, words[i]) == 0)
            return true;
    return false;
}

/* The guest runs here, and its host must not die now. */
static bool is_unprotected(const Understudy__Status *s)
{
    static const char *const states[] = {"connecting", "synchronising", "arming", "peer-lost"};
    return s->role == UNDERSTUDY__ROLE__ROLE_PRIMARY && is_one_of(s->state, states, G_N_ELEMENTS(states));
}

/* As far as this host knows, the guest would go on if its host died. */
static bool is_safe(const Understudy__Status *s)
{
    static const char *const states[] = {"protected", "handing-over", "handover-unsure", "standby"};
    return is_one_of(s->state, states, G_N_ELEMENTS(states));
}

static char *state_shown(const Understudy__Status *s)
{
    return is_unprotected(s) ? g_strdup_printf("UNPROTECTED (%s)", s->state) : g_strdup(s->state);
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
    json_object_set_new(json, "protected", json_boolean(is_safe(s)));
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
    json_object_set_new(json, "guest_state", json_string(s->guest_state));
    json_object_set_new(json, "guest_event", json_string(s->guest_event));
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

static char *time_of(const Understudy__Ending *ending, const char *format)
{
    g_autoptr(GDateTime) at = g_date_time_new_from_unix_local((gint64)ending->at_s);
    return at ? g_date_time_format(at, format) : g_strdup("?");
}

static json_t *endings_json(const Understudy__StatusList *list)
{
    json_t *endings = json_array();
    for (size_t i = 0; i < list->n_endings; i++) {
        const Understudy__Ending *e = list->endings[i];
        g_autofree char *at = time_of(e, "%FT%T%:z");
        json_array_append_new(endings, json_pack("{s:s, s:s, s:I, s:s, s:s, s:s}", "name", e->vm, "role",
                                                 role_name(e->role), "term", (json_int_t)e->term, "at", at,
                                                 "reason", e->reason, "message", e->message));
    }
    return endings;
}

/* One VM by name is an object, several are an array; with those that ended: an object of two arrays. */
static json_t *list_json(const Understudy__StatusList *list, const char *vm, bool ended)
{
    if (vm && list->n_vms == 1 && !ended)
        return status_json(list->vms[0]);
    json_t *vms = json_array();
    for (size_t i = 0; i < list->n_vms; i++)
        json_array_append_new(vms, status_json(list->vms[i]));
    return ended ? json_pack("{s:o, s:o}", "vms", vms, "ended", endings_json(list)) : vms;
}

/* flags: JSON_INDENT(2) for one document, JSON_COMPACT for one a line. */
static void print_json(const Understudy__StatusList *list, const char *vm, bool ended, size_t flags)
{
    json_t *json = list_json(list, vm, ended);
    json_dumpf(json, stdout, flags | JSON_REAL_PRECISION(6));
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

/* name_width: of the longest name. */
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

/* ---- the table: as wide as what stands in it ---- */

enum { NAME, ROLE, STATE, PEER, LINK, TERM, EPOCHS, P50, P99, NCOLUMNS };

static const struct {
    const char *title;
    bool is_number;
} columns[NCOLUMNS] = {{"NAME", false}, {"ROLE", false},  {"STATE", false}, {"PEER", false}, {"LINK", false},
                       {"TERM", true},  {"EPOCHS", true}, {"P50 us", true}, {"P99 us", true}};

struct row {
    char *cells[NCOLUMNS];
};

static void fill_row(struct row *row, const Understudy__Status *s)
{
    char **cells = row->cells;
    cells[NAME] = g_strdup(s->vm);
    cells[ROLE] = g_strdup(role_name(s->role));
    cells[STATE] = state_shown(s);
    cells[PEER] = g_strdup(s->peer);
    cells[LINK] = g_strdup(s->transport[0] ? s->transport : "-");
    cells[TERM] = g_strdup_printf("%" G_GUINT64_FORMAT ".%u", term_count(s->term), term_host(s->term));
    cells[EPOCHS] = g_strdup_printf("%" G_GUINT64_FORMAT, s->epochs);
    cells[P50] = g_strdup_printf("%" G_GUINT64_FORMAT, s->pause_us ? s->pause_us->p50 : 0);
    cells[P99] = g_strdup_printf("%" G_GUINT64_FORMAT, s->pause_us ? s->pause_us->p99 : 0);
}

static void print_row(char *const *cells, const int *widths, const char *last)
{
    for (unsigned c = 0; c < NCOLUMNS; c++) {
        int padding = widths[c] - (int)g_utf8_strlen(cells[c], -1);
        printf("%*s%s%*s ", columns[c].is_number ? padding : 0, "", cells[c],
               columns[c].is_number ? 0 : padding, "");
    }
    printf(" %s\n", last);
}

static void print_more(const Understudy__Status *s, bool why)
{
    if (why && s->transport_why[0])
        printf("  checkpoints go over TCP, not RDMA: %s\n", s->transport_why);
    if (s->split[0] && strcmp(s->split, s->last_error) != 0)
        printf("  split: %s\n", s->split);
    if (s->warning[0])
        printf("  warning: %s\n", s->warning);
    if (s->guest_state[0])
        printf("  its guest stands still: %s\n", s->guest_state);
    if (s->guest_event[0])
        printf("  %s\n", s->guest_event);
    if (s->unprotected_why[0])
        printf("  not protected: %s\n", s->unprotected_why);
    for (size_t k = 0; k < s->n_warnings; k++)
        printf("  warning: %s\n", s->warnings[k]);
    for (size_t k = 0; k < s->n_disks; k++)
        print_disk(s->disks[k]);
    for (size_t k = 0; k < s->n_heartbeats; k++)
        print_path(s, s->heartbeats[k]);
}

/* why: also say why a link is not RDMA, where it might have been. */
static void print_table(const Understudy__StatusList *list, bool why)
{
    g_autofree struct row *rows = g_new0(struct row, list->n_vms + 1);
    int widths[NCOLUMNS];
    for (unsigned c = 0; c < NCOLUMNS; c++)
        rows[0].cells[c] = g_strdup(columns[c].title);
    for (size_t i = 0; i < list->n_vms; i++)
        fill_row(&rows[i + 1], list->vms[i]);
    for (unsigned c = 0; c < NCOLUMNS; c++) {
        widths[c] = 0;
        for (size_t i = 0; i <= list->n_vms; i++)
            widths[c] = MAX(widths[c], (int)g_utf8_strlen(rows[i].cells[c], -1));
    }
    if (list->drained)
        printf("this host is drained: it gives its VMs away and stands by for none ('understudy undrain')\n");
    if (list->n_vms == 0)
        printf("no VMs on this host\n");
    for (size_t i = 0; list->n_vms && i <= list->n_vms; i++) {
        print_row(rows[i].cells, widths, i ? list->vms[i - 1]->last_error : "LAST ERROR");
        if (i)
            print_more(list->vms[i - 1], why);
    }
    for (size_t i = 0; i <= list->n_vms; i++)
        for (unsigned c = 0; c < NCOLUMNS; c++)
            g_free(rows[i].cells[c]);
}

static int name_width(const Understudy__StatusList *list)
{
    int width = 12;
    for (size_t i = 0; i < list->n_vms; i++)
        width = MAX(width, (int)strlen(list->vms[i]->vm));
    return width;
}

/* The latest first. */
static void print_endings(const Understudy__StatusList *list)
{
    printf("%s", list->n_endings ? "\nended here:\n" : "");
    for (size_t i = list->n_endings; i > 0; i--) {
        const Understudy__Ending *e = list->endings[i - 1];
        g_autofree char *at = time_of(e, "%F %T");
        printf("%s  %s  %s: %s%s%s\n", at, e->vm, role_name(e->role), e->reason, e->message[0] ? ": " : "",
               e->message);
    }
}

/* For a monitor: a line for each VM, and whether all are protected. */
static int check(const Understudy__StatusList *list)
{
    int code = EXIT_OK;
    for (size_t i = 0; i < list->n_vms; i++) {
        const Understudy__Status *s = list->vms[i];
        const char *why = s->unprotected_why[0] ? s->unprotected_why : s->last_error;
        if (is_safe(s)) {
            printf("VM %s is protected (%s)\n", s->vm, s->state);
            continue;
        }
        cli_fail("VM %s is NOT PROTECTED (%s)%s%s", s->vm, s->state, why[0] ? ": " : "", why);
        code = EXIT_NOT_PROTECTED;
    }
    return code;
}

static void print_lines(const Understudy__StatusList *list)
{
    bool over = isatty(STDOUT_FILENO) && list->n_vms == 1; /* one line, written over and over */
    for (size_t i = 0; i < list->n_vms; i++) {
        printf("%s", over ? "\r\033[K" : "");
        print_line(list->vms[i], name_width(list));
        printf("%s", over ? "" : "\n");
    }
}

/* Until nobody reads it any more, or the VM is gone. */
static int watch(const char *vm, bool as_json, bool ended)
{
    for (;;) {
        Understudy__Envelope *answer = ask(vm, false, ended);
        if (!answer)
            return EXIT_FAILED;
        bool gone = vm && answer->status_list->n_vms == 0;
        if (as_json && !gone)
            print_json(answer->status_list, vm, ended, JSON_COMPACT);
        else
            print_lines(answer->status_list);
        understudy__envelope__free_unpacked(answer, NULL);
        if (gone && isatty(STDOUT_FILENO))
            putchar('\n');
        if (!cli_flush())
            return EXIT_FAILED;
        if (gone)
            return cli_fail(
                "there is no VM %s on this host any more; 'understudy status --all' says how it ended", vm);
        g_usleep(WATCH_US);
    }
}

struct wanted {
    gboolean as_json, follow, reset, ended, check;
};

static int show(const Understudy__StatusList *list, const char *vm, const struct wanted *wanted)
{
    bool unknown = vm && list->n_vms == 0 && !(wanted->ended && list->n_endings > 0);
    if (unknown)
        return cli_fail(
            "there is no VM %s on this host: 'understudy status --all' lists those there are and were", vm);
    if (wanted->check)
        return check(list);
    if (wanted->as_json) {
        print_json(list, vm, wanted->ended, JSON_INDENT(2));
    } else {
        if (!vm || list->n_vms)
            print_table(list, vm != NULL);
        print_endings(list);
    }
    return EXIT_OK;
}

int cmd_status(int argc, char **argv)
{
    struct wanted wanted = {0};
    const GOptionEntry entries[] = {
        {"all", 'a', 0, G_OPTION_ARG_NONE, &wanted.ended, "Also the VMs that ended here, and why", NULL},
        {"check", 'c', 0, G_OPTION_ARG_NONE, &wanted.check, "Exit with 0 only if protected (else 3)", NULL},
        {"json", 'j', 0, G_OPTION_ARG_NONE, &wanted.as_json, "Print JSON", NULL},
        {"watch", 'w', 0, G_OPTION_ARG_NONE, &wanted.follow,
         "Follow, twice a second; with --json a document a line", NULL},
        {"reset", 'r', 0, G_OPTION_ARG_NONE, &wanted.reset, "Show, then begin the percentiles anew", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    if (!cli_parse(entries, 0, 1, &argc, &argv))
        return EXIT_USAGE;
    if (wanted.check && (wanted.follow || wanted.as_json))
        return cli_wrong("--check stands alone: its exit code is the answer");
    const char *vm = argc == 2 ? argv[1] : NULL;
    Understudy__Envelope *answer = ask(vm, wanted.reset, wanted.ended);
    if (!answer)
        return EXIT_FAILED;
    bool known = !vm || answer->status_list->n_vms > 0;
    int code = wanted.follow && known ? EXIT_OK : show(answer->status_list, vm, &wanted);
    understudy__envelope__free_unpacked(answer, NULL);
    return wanted.follow && known ? watch(vm, wanted.as_json, wanted.ended) : code;
}
