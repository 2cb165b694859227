/* SPDX-License-Identifier: GPL-2.0-or-later */
/* understudy: a table of subcommands. Each talks to the local daemon and prints; errors are one sentence on
 * stderr. */
#include "cli/cli.h"

#include <errno.h>
#include <gio/gio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/framing.h"

const char *cli_run_dir = "/run/understudy";

int cli_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    fprintf(stderr, "understudy: %s\n", text);
    return EXIT_FAILED;
}

int cli_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *path = g_build_filename(cli_run_dir, "control.sock", NULL);
    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path) {
        cli_fail("%s is too long for a socket: use a shorter --run-dir", path);
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    if (errno == EACCES || errno == EPERM)
        cli_fail("%s may not be used by you: become root", path);
    else
        cli_fail("understudyd does not run on this host (%s: %s): start it first", path, g_strerror(errno));
    close(fd);
    return -1;
}

static void show_progress(const Understudy__Progress *progress)
{
    fprintf(stderr, "comparing %s: %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " MiB\n", progress->what,
            progress->done >> 20, progress->total >> 20);
}

Understudy__Envelope *cli_call(const Understudy__Envelope *request, unsigned timeout_ms)
{
    g_autoptr(GError) error = NULL;
    int fd = cli_connect();
    if (fd < 0)
        return NULL;
    Understudy__Envelope *answer = framing_call(fd, request, timeout_ms, &error);
    while (answer && answer->body_case == UNDERSTUDY__ENVELOPE__BODY_PROGRESS) {
        show_progress(answer->progress);
        understudy__envelope__free_unpacked(answer, NULL);
        answer = framing_read(fd, timeout_ms, &error);
    }
    close(fd);
    if (!answer)
        cli_fail("%s", error ? error->message : "the daemon closed the connection");
    return answer;
}

int cli_call_simple(const Understudy__Envelope *request, unsigned timeout_ms)
{
    Understudy__Envelope *answer = cli_call(request, timeout_ms);
    int code = EXIT_FAILED;
    if (!answer)
        return code;
    if (answer->body_case != UNDERSTUDY__ENVELOPE__BODY_ANSWER)
        cli_fail("the daemon's answer was not understood");
    else if (answer->answer->ok)
        code = EXIT_OK;
    else
        cli_fail("%s", answer->answer->message);
    understudy__envelope__free_unpacked(answer, NULL);
    return code;
}

char **cli_split_at_dashes(int *argc, char **argv)
{
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            *argc = i;
            argv[i] = NULL;
            return argv + i + 1;
        }
    }
    return NULL;
}

int cmd_stop(int argc, char **argv)
{
    if (argc != 2) {
        cli_fail("usage: understudy stop NAME");
        return EXIT_USAGE;
    }
    Understudy__StopRequest stop = UNDERSTUDY__STOP_REQUEST__INIT;
    stop.vm = argv[1];
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(STOP_REQUEST, stop_request, &stop);
    return cli_call_simple(&request, 10000);
}

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("understudy %s\n", UNDERSTUDY_VERSION);
    return EXIT_OK;
}

static int cmd_help(int argc, char **argv);

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments, *what;
} commands[] = {
    {"run", cmd_run, "--peer HOST[:PORT] [OPTIONS] -- QEMU ARGS...", "start a VM and protect it"},
    {"status", cmd_status, "[NAME] [--watch] [--json]", "show VMs and their figures"},
    {"failover", cmd_failover, "NAME --planned|--force", "move a VM to the other host"},
    {"stop", cmd_stop, "NAME", "stop a VM, on both hosts; on the standby: stop standing by"},
    {"doctor", cmd_doctor, "[--peer HOST[:PORT]]", "check whether this host, or a pair, is fit"},
    {"version", cmd_version, "", "print the version"},
    {"help", cmd_help, "", "this"},
};

static int cmd_help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("usage: understudy [--run-dir DIR] COMMAND ...\n\n");
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        printf("  %-9s %-46s %s\n", commands[i].name, commands[i].arguments, commands[i].what);
    printf("\n'understudy COMMAND --help' lists a command's options; see understudy(1).\n");
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    const char *env = g_getenv("UNDERSTUDY_RUN_DIR");
    signal(SIGPIPE, SIG_IGN);
    if (env)
        cli_run_dir = env;
    while (argc > 1 && g_str_has_prefix(argv[1], "--")) {
        if (strcmp(argv[1], "--run-dir") == 0 && argc > 2) {
            cli_run_dir = argv[2];
            argc--, argv++;
        } else if (strcmp(argv[1], "--help") == 0) {
            return cmd_help(argc, argv);
        } else if (strcmp(argv[1], "--version") == 0) {
            return cmd_version(argc, argv);
        } else {
            cli_fail("%s is not an option; 'understudy help' lists what there is", argv[1]);
            return EXIT_USAGE;
        }
        argc--, argv++;
    }
    if (argc < 2) {
        cmd_help(argc, argv);
        return EXIT_USAGE;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        g_autofree char *title = g_strdup_printf("understudy %s", commands[i].name);
        g_set_prgname(title);
        return commands[i].run(argc - 1, argv + 1);
    }
    cli_fail("%s is not a command; 'understudy help' lists what there is", argv[1]);
    return EXIT_USAGE;
}
