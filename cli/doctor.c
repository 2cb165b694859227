/* SPDX-License-Identifier: GPL-2.0-or-later */
/* understudy doctor: what this host, and the pair, lack; each line says what to do. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/words.h"
#include "hv-hooks/line.h"
#include "proto/framing.h"
#include "proto/readable.h"

/* How long the daemon may take to answer: it starts programs, and for a pair it examines both hosts. */
#define HOST_MS 60000
#define PAIR_MS 60000
#define PEER_MS (HOST_MS + 15000) /* this host's daemon also connects to the other one */

static int failures;

G_GNUC_PRINTF(4, 5)
static void say(const char *what, bool good, bool needed, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *words = g_strdup_vprintf(format, args);
    g_autofree char *text = words_make_readable(words, WORDS_MAX); /* an error may name what the user gave */
    va_end(args);
    printf("%-5s %-22s %s\n", good ? "ok" : needed ? "FAIL" : "warn", what, text);
    failures += !good && needed;
}

static void check_qemu(void)
{
    const struct line_program *program = line_default_program();
    g_autofree char *path = g_find_program_in_path(program->name);
    if (!path) {
        say("QEMU", false, true, "%s is not installed: %s", program->name, program->install);
        return;
    }
    say("QEMU", true, true, "%s", path);
    g_autofree char *bytes = NULL;
    gsize len = 0;
    /* The last one's name begins with cpu_ before QEMU 11: only its end is searched for. */
    static const char *const symbols[] = {"qemu_save_device_state", "memory_global_dirty_log_sync",
                                          "qemu_ram_foreach_block",
                                          "physical_memory_snapshot_and_clear_dirty"};
    size_t found = 0;
    bool read = g_file_get_contents(path, &bytes, &len, NULL);
    while (read && found < G_N_ELEMENTS(symbols) &&
           memmem(bytes, len, symbols[found], strlen(symbols[found]) + 1) != NULL)
        found++;
    if (found == G_N_ELEMENTS(symbols))
        say("QEMU's functions", true, true, "exported");
    else
        say("QEMU's functions", false, true,
            "%s lacks the function %s that checkpoints need: use your distribution's build, 7.2 to 11.1",
            path, symbols[found]);
}

static void check_kernel(void)
{
    struct utsname uts;
    uname(&uts);
    int memfd = memfd_create("understudy-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    say("memfd", memfd >= 0, true, "%s", memfd >= 0 ? "works" : "memfd_create fails: use Linux 5.6 or later");
    if (memfd >= 0)
        close(memfd);
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    say("pidfd", pidfd >= 0, true, "Linux %s%s", uts.release, pidfd >= 0 ? "" : ": use Linux 5.6 or later");
    if (pidfd >= 0)
        close(pidfd);
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = kvm >= 0 ? ioctl(kvm, KVM_CREATE_VM, 0) : -1;
    say("KVM", vm >= 0, false, "%s",
        vm >= 0 ? "a VM can be created" : "not usable: guests run under TCG, slowly");
    if (vm >= 0)
        close(vm);
    if (kvm >= 0)
        close(kvm);
    say("tap devices", access("/dev/net/tun", R_OK | W_OK) == 0, false, "%s",
        access("/dev/net/tun", R_OK | W_OK) == 0
            ? "/dev/net/tun can be opened"
            : "/dev/net/tun cannot be opened: only user netdevs will work");
    say("processors", sysconf(_SC_NPROCESSORS_ONLN) >= 2, false, "%ld", sysconf(_SC_NPROCESSORS_ONLN));
}

/* Prints what replicated disks need. Nothing here is necessary for a VM without disks. */
static void check_disks(const char *where, const Understudy__Host *host)
{
    for (size_t i = 0; i < host->n_disk; i++)
        say(where, true, false, "%s", host->disk[i]);
    for (size_t i = 0; i < host->n_disk_faults; i++)
        say(where, false, false, "%s", host->disk_faults[i]);
}

/* Prints the daemon's report, since the limits of the daemon's process count, not those of this command. */
static void check_rdma(const char *where, const Understudy__Host *host)
{
    if (host->n_rdma + host->n_rdma_faults == 0)
        say(where, true, false, "no device: checkpoints go over TCP (docs/rdma.md)");
    for (size_t i = 0; i < host->n_rdma; i++)
        say(where, true, false, "%s", host->rdma[i]);
    for (size_t i = 0; i < host->n_rdma_faults; i++)
        say(where, false, false, "%s", host->rdma_faults[i]);
}

/* Asks this host's daemon what the host has. NULL with a sentence in *why. */
static Understudy__Envelope *ask_local(char **why)
{
    Understudy__HostRequest host = UNDERSTUDY__HOST_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(HOST_REQUEST, host_request, &host);
    Understudy__Envelope *answer = cli_ask(&request, HOST_MS, why);
    if (!answer || answer->body_case == UNDERSTUDY__ENVELOPE__BODY_HOST)
        return answer;
    *why = g_strdup("its answer was not understood: install one version of understudy");
    understudy__envelope__free_unpacked(answer, NULL);
    return NULL;
}

/* Asks the peer's daemon by this host's, which has the key that the peer trusts. */
static Understudy__Envelope *ask_peer(const char *peer)
{
    g_autofree char *why = NULL;
    Understudy__HostRequest host = UNDERSTUDY__HOST_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(HOST_REQUEST, host_request, &host);
    host.peer = (char *)peer;
    Understudy__Envelope *answer = cli_ask(&request, PEER_MS, &why);
    if (answer && answer->body_case == UNDERSTUDY__ENVELOPE__BODY_HOST)
        return answer;
    say("peer", false, true, "%s",
        why                                                      ? why
        : answer->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER ? answer->answer->message
                                                                 : "its answer was not understood");
    if (answer)
        understudy__envelope__free_unpacked(answer, NULL);
    return NULL;
}

static void compare(const Understudy__Host *here, const Understudy__Host *there)
{
    bool same = here->wire_version == there->wire_version;
    say("understudy, both", same, true, "%s (link version %u) here, %s (%u) there%s", here->version,
        here->wire_version, there->version, there->wire_version, same ? "" : ": install one version");
    same = strcmp(here->qemu_version, there->qemu_version) == 0;
    say("QEMU, both", same, true, "%s here, %s there%s", here->qemu_version, there->qemu_version,
        same ? "" : ": install one version");
    same = strcmp(here->cpu_model, there->cpu_model) == 0;
    say("processor, both", same, false, "%s here, %s there%s", here->cpu_model, there->cpu_model,
        same ? "" : ": -cpu host will be refused");
    say("KVM, both", here->kvm == there->kvm, false, "%s here, %s there", here->kvm ? "yes" : "no",
        there->kvm ? "yes" : "no");
    check_rdma("RDMA there", there);
    check_disks("disks there", there);
    say("memory there", there->memory_available_mib > 256, true, "%" G_GUINT64_FORMAT " MiB free",
        there->memory_available_mib);
}

/* Prints what the daemons find on both hosts: for a command line, for VMs that run, and for other taps. */
static void check_pair(const char *peer, char **argv)
{
    g_autofree char *cwd = g_get_current_dir();
    Understudy__PairRequest pair = UNDERSTUDY__PAIR_REQUEST__INIT;
    pair.peer = (char *)peer;
    pair.argv = argv;
    pair.n_argv = argv ? g_strv_length(argv) : 0;
    pair.cwd = cwd;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(PAIR_REQUEST, pair_request, &pair);
    Understudy__Envelope *answer = cli_call(&request, PAIR_MS);
    if (answer && answer->body_case == UNDERSTUDY__ENVELOPE__BODY_FINDINGS) {
        for (size_t i = 0; i < answer->findings->n_findings; i++) {
            const Understudy__Finding *finding = answer->findings->findings[i];
            say(finding->what, finding->level == 0, finding->level > 1, "%s", finding->text);
        }
    } else if (answer) {
        say("both hosts", false, true, "%s",
            answer->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER ? answer->answer->message
                                                                   : "the answer was not understood");
    }
    if (answer)
        understudy__envelope__free_unpacked(answer, NULL);
}

int cmd_doctor(int argc, char **argv)
{
    g_autofree char *peer = NULL;
    char **qemu = cli_split_at_dashes(&argc, argv);
    const GOptionEntry entries[] = {
        {"peer", 0, 0, G_OPTION_ARG_STRING, &peer, "Compare with this host", "HOST[:PORT]"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    if (!cli_parse(entries, 0, 0, &argc, &argv))
        return EXIT_USAGE;
    if (qemu && !peer)
        return cli_wrong("--peer is missing: name the host to compare with");
    check_qemu();
    check_kernel();
    g_autofree char *why = NULL;
    Understudy__Envelope *here = ask_local(&why);
    say("understudyd", here != NULL, true, "%s", here ? "answers" : why);
    if (here) {
        check_rdma("RDMA", here->host);
        check_disks("disks", here->host);
    }
    Understudy__Envelope *there = peer && here ? ask_peer(peer) : NULL;
    if (there && here->host->instance.len > 0 && there->host->instance.len == here->host->instance.len &&
        memcmp(there->host->instance.data, here->host->instance.data, here->host->instance.len) == 0)
        say("peer", false, true, "%s is this host itself: name the other host", peer);
    if (there) {
        compare(here->host, there->host);
        check_pair(peer, qemu);
        understudy__envelope__free_unpacked(there, NULL);
    }
    if (here)
        understudy__envelope__free_unpacked(here, NULL);
    return failures ? EXIT_FAILED : EXIT_OK;
}
