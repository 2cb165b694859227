/* SPDX-License-Identifier: GPL-2.0-or-later */
/* understudy run: hands the user's QEMU command line to the daemon, then shows the first synchronisation. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "proto/framing.h"
#include "proto/limits.h"
#include "proto/states.h"

#define RUN_MS       60000
#define POLL_US      100000
#define PAGE_LEN     4096
#define BAR_WIDTH    40
#define WAIT_DEFAULT 300

/* Draws the progress: the bar is for RAM and disks together, the figures are for each. */
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

/* Waits until the VM is protected, has failed, or `seconds` have passed. */
static int wait_protected(const char *vm, unsigned seconds)
{
    gint64 until = g_get_monotonic_time() + (gint64)seconds * G_USEC_PER_SEC;
    g_autofree char *why = NULL;
    while (g_get_monotonic_time() < until) {
        Understudy__Envelope *holder = NULL;
        const Understudy__Status *status = cli_status_of(vm, &holder);
        if (!status) {
            g_autofree char *ending = cli_last_ending(vm);
            return cli_fail("VM %s ended before it was protected%s%s; see console.log in %s/%s", vm,
                            ending ? ": " : "", ending ? ending : "", cli_run_dir, vm);
        }
        bool is_protected = status->state == UNDERSTUDY__STATE__STATE_PROTECTED;
        bool failed = status->state == UNDERSTUDY__STATE__STATE_FAILED ||
                      status->state == UNDERSTUDY__STATE__STATE_HYPERVISOR_DIED ||
                      status->state == UNDERSTUDY__STATE__STATE_ENDED;
        draw_bar(status, is_protected);
        if (is_protected && isatty(STDERR_FILENO))
            fputc('\n', stderr);
        if (is_protected)
            printf("VM %s is protected by %s\n", vm, status->peer);
        for (size_t i = 0; is_protected && i < status->n_warnings; i++)
            fprintf(stderr, "understudy: warning: %s\n", status->warnings[i]);
        if (failed)
            cli_fail("VM %s: %s", vm, status->last_error[0] ? status->last_error : state_name(status->state));
        g_free(why);
        why = g_strdup(status->unprotected_why);
        understudy__envelope__free_unpacked(holder, NULL);
        if (is_protected || failed)
            return failed ? EXIT_FAILED : EXIT_OK;
        g_usleep(POLL_US);
    }
    bool refused = why && why[0];
    cli_fail("VM %s runs, but is not protected after %u s%s%s; 'understudy status %s' says how far it is", vm,
             seconds, refused ? ": " : "", refused ? why : "", vm);
    return EXIT_NOT_PROTECTED;
}

/* Finds a word that looks like the beginning of a QEMU command line without "--" before it. */
static const char *find_qemu(char **argv)
{
    for (char **word = argv + 1; *word; word++) {
        const char *slash = strrchr(*word, '/'), *base = slash ? slash + 1 : *word;
        if (g_str_has_prefix(base, "qemu") || strcmp(base, "kvm") == 0)
            return *word;
    }
    return NULL;
}

struct numbers {
    const char *epoch_ms, *deadline_ms, *silence_ms, *heartbeat_ms, *wait_s;
};

static bool read_number(int which, const char *given, uint32_t *value)
{
    const struct limit *limit = &limits[which];
    return cli_number(limit->option, given, limit->least, limit->most, value);
}

/* Reads the numbers. False after a message. A number that was not given stays 0: the daemon uses its default.
 */
static bool read_numbers(const struct numbers *given, Understudy__RunRequest *run, uint32_t *wait_s)
{
    if (!read_number(LIMIT_EPOCH_MS, given->epoch_ms, &run->epoch_ms) ||
        !read_number(LIMIT_DEADLINE_MS, given->deadline_ms, &run->deadline_ms) ||
        !read_number(LIMIT_SILENCE_MS, given->silence_ms, &run->silence_ms) ||
        !read_number(LIMIT_HEARTBEAT_MS, given->heartbeat_ms, &run->heartbeat_ms) ||
        !cli_number("--wait-s", given->wait_s, 0, 1000000, wait_s))
        return false;
    uint32_t beat = run->heartbeat_ms ? run->heartbeat_ms : limits[LIMIT_HEARTBEAT_MS].usual;
    uint32_t silence = run->silence_ms ? run->silence_ms : limits[LIMIT_SILENCE_MS].usual;
    if (silence >= LIMIT_BEATS * beat)
        return true;
    cli_wrong("--silence-ms %u: give three heartbeats (--heartbeat-ms %u) or more", silence, beat);
    return false;
}

int cmd_run(int argc, char **argv)
{
    g_autofree char *name = NULL, *peer = NULL, *loss = NULL, *tracker = NULL, *transport = NULL,
                    *durability = NULL, *security = NULL;
    g_auto(GStrv) peer_disks = NULL, shared_disks = NULL, paths = NULL;
    g_autofree char *epoch_ms = NULL, *deadline_ms = NULL, *silence_ms = NULL, *heartbeat_ms = NULL,
                    *wait = NULL;
    uint32_t wait_s = WAIT_DEFAULT;
    gboolean no_wait = FALSE, no_network_check = FALSE;
    const GOptionEntry entries[] = {
        {"name", 'n', 0, G_OPTION_ARG_FILENAME, &name, "The VM's name (default vm)", "NAME"},
        {"peer", 'p', 0, G_OPTION_ARG_FILENAME, &peer, "The host that stands by", "HOST[:PORT]"},
        {"epoch-ms", 0, 0, G_OPTION_ARG_FILENAME, &epoch_ms, "Time between checkpoints (default 20)", "N"},
        {"deadline-ms", 0, 0, G_OPTION_ARG_FILENAME, &deadline_ms,
         "Longest that a checkpoint may hold a stopped guest (default 20)", "N"},
        {"silence-ms", 0, 0, G_OPTION_ARG_FILENAME, &silence_ms,
         "Silence after which a host counts as dead (default 100)", "N"},
        {"heartbeat-ms", 0, 0, G_OPTION_ARG_FILENAME, &heartbeat_ms, "Time between heartbeats (default 10)",
         "N"},
        {"heartbeat-path", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &paths,
         "Both hosts' addresses on another network, for heartbeats there too (may be repeated)",
         "HERE=THERE"},
        {"on-peer-loss", 0, 0, G_OPTION_ARG_FILENAME, &loss,
         "When the standby is lost: release output, or hold it (default continue)", "continue|hold"},
        {"tracker", 0, 0, G_OPTION_ARG_FILENAME, &tracker, "How dirty pages are found (default auto)",
         "auto|qemu-log|uffd"},
        {"transport", 0, 0, G_OPTION_ARG_FILENAME, &transport,
         "What carries checkpoints (default auto: RDMA where both hosts can)", "auto|rdma|tcp"},
        {"peer-disk", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &peer_disks,
         "The standby's image of disk ID (default: the same path; may be repeated)", "ID=PATH"},
        {"shared-disk", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &shared_disks,
         "Both hosts reach the same image of disk ID (may be repeated)", "ID"},
        {"durability", 0, 0, G_OPTION_ARG_FILENAME, &durability,
         "Where the standby must have an epoch before it acks it (default memory)", "memory|disk"},
        {"link-security", 0, 0, G_OPTION_ARG_FILENAME, &security,
         "Encrypt what the hosts send each other, or not (default sealed)", "sealed|none"},
        {"no-network-check", 0, 0, G_OPTION_ARG_NONE, &no_network_check,
         "Start even if clients could not reach the guest on the other host", NULL},
        {"wait-s", 0, 0, G_OPTION_ARG_FILENAME, &wait, "How long to wait for protection (default 300)", "N"},
        {"no-wait", 0, 0, G_OPTION_ARG_NONE, &no_wait, "Return as soon as the guest runs", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    char **qemu = cli_split_at_dashes(&argc, argv);
    const char *program = qemu ? NULL : find_qemu(argv);
    if (program)
        return cli_wrong("put '--' before %s: understudy run --peer HOST -- %s ...", program, program);
    /* Reads the options before it checks what is missing, so that a wrong option is named first. */
    if (!cli_parse(entries, 0, 0, &argc, &argv))
        return EXIT_USAGE;
    if (!peer || !peer[0])
        return cli_wrong("--peer is missing: name the host that is to stand by");
    if (!qemu || !qemu[0])
        return cli_wrong(
            "the QEMU command line is missing: understudy run --peer %s -- qemu-system-x86_64 ...", peer);
    if (!cli_word("--on-peer-loss", loss, "continue|hold") ||
        !cli_word("--tracker", tracker, "auto|qemu-log|uffd") ||
        !cli_word("--transport", transport, "auto|rdma|tcp") ||
        !cli_word("--durability", durability, "memory|disk") ||
        !cli_word("--link-security", security, "sealed|none"))
        return EXIT_USAGE;
    g_autofree char *cwd = g_get_current_dir();
    Understudy__RunRequest run = UNDERSTUDY__RUN_REQUEST__INIT;
    const struct numbers numbers = {epoch_ms, deadline_ms, silence_ms, heartbeat_ms, wait};
    if (!read_numbers(&numbers, &run, &wait_s))
        return EXIT_USAGE;
    run.vm = name ? name : (char *)"vm";
    run.peer = peer;
    run.argv = qemu;
    run.n_argv = g_strv_length(qemu);
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
    run.link_security = g_strcmp0(security, "none") == 0 ? UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_NONE
                                                         : UNDERSTUDY__LINK_SECURITY__LINK_SECURITY_SEALED;
    run.durability = g_strcmp0(durability, "disk") == 0 ? UNDERSTUDY__DURABILITY__DURABILITY_DISK
                                                        : UNDERSTUDY__DURABILITY__DURABILITY_MEMORY;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(RUN_REQUEST, run_request, &run);
    int code = cli_call_simple(&request, RUN_MS);
    return code != EXIT_OK || no_wait ? code : wait_protected(run.vm, wait_s);
}
