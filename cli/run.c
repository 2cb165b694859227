/* SPDX-License-Identifier: GPL-2.0-or-later */
/* understudy run: hands the user's QEMU command line to the daemon, then shows the first synchronisation. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "proto/defaults.h"
#include "proto/framing.h"

#define RUN_MS       60000
#define POLL_US      100000
#define PAGE_LEN     4096
#define BAR_WIDTH    40
#define WAIT_DEFAULT 300

/* RAM and disks go side by side: the bar is both, the figures each. */
static void draw_bar(const Understudy__Status *status, bool whole)
{
    uint64_t disk_done, disk_total, ram_total = status->sync_total_pages * PAGE_LEN;
    uint64_t ram_done = whole ? ram_total : status->sync_done_pages * PAGE_LEN;
    cli_disk_progress(status, &disk_done, &disk_total);
    if (whole)
        disk_done = disk_total;
    uint64_t total = ram_total + disk_total;
    if (!isatty(STDERR_FILENO) || total == 0)
        return;
    double part = (double)(ram_done + disk_done) / (double)total;
    fprintf(stderr, "\rsynchronising [");
    for (unsigned i = 0; i < BAR_WIDTH; i++)
        fputc(i < (unsigned)(part * BAR_WIDTH) ? '#' : '.', stderr);
    fprintf(stderr, "] %3u %%  RAM %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " MiB",
            (unsigned)(part * 100), ram_done >> 20, ram_total >> 20);
    if (disk_total)
        fprintf(stderr, "  disks %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " MiB", disk_done >> 20,
                disk_total >> 20);
    fprintf(stderr, "\033[K");
    fflush(stderr);
}

/* Until protected, failed, or out of patience. */
static int wait_protected(const char *vm, int seconds)
{
    gint64 until = g_get_monotonic_time() + (gint64)seconds * G_USEC_PER_SEC;
    g_autofree char *why = NULL;
    while (g_get_monotonic_time() < until) {
        Understudy__Envelope *holder = NULL;
        const Understudy__Status *status = cli_status_of(vm, &holder);
        if (!status) {
            cli_fail("VM %s ended before it was protected; see console.log in %s/%s", vm, cli_run_dir, vm);
            return EXIT_FAILED;
        }
        bool is_protected = strcmp(status->state, "protected") == 0;
        bool failed = strcmp(status->state, "failed") == 0 || strcmp(status->state, "hypervisor-died") == 0 ||
                      strcmp(status->state, "ended") == 0;
        draw_bar(status, is_protected);
        if (is_protected && isatty(STDERR_FILENO))
            fputc('\n', stderr);
        if (is_protected)
            printf("VM %s is protected by %s\n", vm, status->peer);
        if (is_protected && status->warning[0])
            fprintf(stderr, "understudy: warning: %s\n", status->warning);
        if (failed)
            cli_fail("VM %s: %s", vm, status->last_error[0] ? status->last_error : status->state);
        g_free(why);
        why = g_strdup(status->unprotected_why);
        understudy__envelope__free_unpacked(holder, NULL);
        if (is_protected || failed)
            return failed ? EXIT_FAILED : EXIT_OK;
        g_usleep(POLL_US);
    }
    bool refused = why && why[0];
    cli_fail("VM %s runs, but is not protected after %d s%s%s; 'understudy status %s' says how far it is", vm,
             seconds, refused ? ": " : "", refused ? why : "", vm);
    return EXIT_NOT_PROTECTED;
}

/* NULL, or one of the words between bars. */
static bool is_one_of(const char *word, const char *words)
{
    g_auto(GStrv) list = g_strsplit(words, "|", -1);
    return !word || g_strv_contains((const char *const *)list, word);
}

int cmd_run(int argc, char **argv)
{
    g_autofree char *name = NULL, *peer = NULL, *loss = NULL, *tracker = NULL, *transport = NULL,
                    *durability = NULL;
    g_auto(GStrv) peer_disks = NULL, shared_disks = NULL, paths = NULL;
    int epoch_ms = 0, deadline_ms = 0, silence_ms = 0, heartbeat_ms = 0, wait_s = WAIT_DEFAULT;
    gboolean no_wait = FALSE, no_network_check = FALSE;
    const GOptionEntry entries[] = {
        {"name", 'n', 0, G_OPTION_ARG_STRING, &name, "The VM's name (default vm)", "NAME"},
        {"peer", 'p', 0, G_OPTION_ARG_STRING, &peer, "The host that stands by", "HOST[:PORT]"},
        {"epoch-ms", 0, 0, G_OPTION_ARG_INT, &epoch_ms, "Time between checkpoints (default 20)", "N"},
        {"deadline-ms", 0, 0, G_OPTION_ARG_INT, &deadline_ms,
         "Longest that a checkpoint may hold a stopped guest (default 20)", "N"},
        {"silence-ms", 0, 0, G_OPTION_ARG_INT, &silence_ms,
         "Silence after which a host counts as dead (default 100)", "N"},
        {"heartbeat-ms", 0, 0, G_OPTION_ARG_INT, &heartbeat_ms, "Time between heartbeats (default 10)", "N"},
        {"heartbeat-path", 0, 0, G_OPTION_ARG_STRING_ARRAY, &paths,
         "Both hosts' addresses on another network, to be heard there too (may be repeated)", "HERE=THERE"},
        {"on-peer-loss", 0, 0, G_OPTION_ARG_STRING, &loss,
         "When the standby is lost: go on, or hold output (default continue)", "continue|hold"},
        {"tracker", 0, 0, G_OPTION_ARG_STRING, &tracker, "Where dirty pages come from (default auto)",
         "auto|qemu-log|uffd"},
        {"transport", 0, 0, G_OPTION_ARG_STRING, &transport,
         "What carries checkpoints (default auto: RDMA where both hosts can)", "auto|rdma|tcp"},
        {"peer-disk", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &peer_disks,
         "The standby's image of disk ID (default: the same path; may be repeated)", "ID=PATH"},
        {"shared-disk", 0, 0, G_OPTION_ARG_STRING_ARRAY, &shared_disks,
         "Both hosts reach the same image of disk ID (may be repeated)", "ID"},
        {"durability", 0, 0, G_OPTION_ARG_STRING, &durability,
         "Where the standby has a write before it counts (default memory)", "memory|disk"},
        {"no-network-check", 0, 0, G_OPTION_ARG_NONE, &no_network_check,
         "Start even if the guest would not be heard on the other host, as far as one can see", NULL},
        {"wait-s", 0, 0, G_OPTION_ARG_INT, &wait_s, "How long to wait for protection (default 300)", "N"},
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &no_wait, "Return as soon as the guest runs", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("-- qemu-system-x86_64 ARGS...");
    g_autoptr(GError) error = NULL;
    char **qemu = cli_split_at_dashes(&argc, argv);
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        cli_fail("%s", error->message);
        return EXIT_USAGE;
    }
    if (!peer || !qemu || !qemu[0] || argc != 1 || !is_one_of(loss, "continue|hold") || epoch_ms < 0 ||
        epoch_ms > 1000 || !is_one_of(tracker, "auto|qemu-log|uffd") ||
        !is_one_of(transport, "auto|rdma|tcp") || !is_one_of(durability, "memory|disk")) {
        cli_fail("usage: understudy run [--name NAME] --peer HOST[:PORT] [--epoch-ms 1..1000] "
                 "[--on-peer-loss=continue|hold] [--transport auto|rdma|tcp] [--peer-disk ID=PATH] "
                 "[--shared-disk ID] [--durability=memory|disk] "
                 "-- qemu-system-x86_64 ARGS...");
        return EXIT_USAGE;
    }
    /* A silence of fewer heartbeats would be a lost packet or two. */
    int beat = heartbeat_ms ? heartbeat_ms : DEFAULT_HEARTBEAT_MS;
    int silence = silence_ms ? silence_ms : DEFAULT_SILENCE_MS;
    if (deadline_ms < 0 || beat < 0 || silence < 3 * beat) {
        cli_fail("--deadline-ms, --silence-ms and --heartbeat-ms are numbers above 0, and the silence is "
                 "three heartbeats or more");
        return EXIT_USAGE;
    }
    g_autofree char *cwd = g_get_current_dir();
    Understudy__RunRequest run = UNDERSTUDY__RUN_REQUEST__INIT;
    run.vm = name ? name : (char *)"vm";
    run.peer = peer;
    run.argv = qemu;
    run.n_argv = g_strv_length(qemu);
    run.epoch_ms = (uint32_t)epoch_ms;
    run.deadline_ms = (uint32_t)MAX(deadline_ms, 0);
    run.silence_ms = (uint32_t)MAX(silence_ms, 0);
    run.heartbeat_ms = (uint32_t)MAX(heartbeat_ms, 0);
    run.on_peer_loss = g_strcmp0(loss, "hold") == 0 ? UNDERSTUDY__PEER_LOSS__PEER_LOSS_HOLD
                                                    : UNDERSTUDY__PEER_LOSS__PEER_LOSS_CONTINUE;
    run.tracker = tracker ? tracker : (char *)"auto";
    run.transport = transport ? transport : (char *)"auto";
    run.cwd = cwd;
    run.peer_disk = peer_disks;
    run.n_peer_disk = peer_disks ? g_strv_length(peer_disks) : 0;
    run.shared_disk = shared_disks;
    run.n_shared_disk = shared_disks ? g_strv_length(shared_disks) : 0;
    run.heartbeat_path = paths;
    run.n_heartbeat_path = paths ? g_strv_length(paths) : 0;
    run.network_unchecked = no_network_check;
    run.durability = g_strcmp0(durability, "disk") == 0 ? UNDERSTUDY__DURABILITY__DURABILITY_DISK
                                                        : UNDERSTUDY__DURABILITY__DURABILITY_MEMORY;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(RUN_REQUEST, run_request, &run);
    int code = cli_call_simple(&request, RUN_MS);
    return code != EXIT_OK || no_wait ? code : wait_protected(run.vm, wait_s);
}
