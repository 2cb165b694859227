/* SPDX-License-Identifier: GPL-2.0-or-later */
/* understudy: a table of subcommands, which drives help, usage and what is run. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "proto/framing.h"

static int cmd_version(int argc, char **argv)
{
    if (!cli_parse(NULL, 0, 0, &argc, &argv))
        return EXIT_USAGE;
    printf("understudy %s\n", UNDERSTUDY_VERSION);
    return EXIT_OK;
}

static int cmd_help(int argc, char **argv);

static const struct cli_command commands[] = {
    {"run", cmd_run, "--peer HOST[:PORT] [OPTIONS] -- qemu-system-x86_64 ARGS...",
     "start a VM and protect it"},
    {"status", cmd_status, "[NAME] [--all] [--watch] [--json] [--figures] [--check]",
     "show VMs and their figures"},
    {"failover", cmd_failover, "NAME --planned [--force]|--force", "move a VM to the other host"},
    {"stop", cmd_stop, "NAME [--yes] [--no-wait]",
     "turn a VM off on both hosts; on the standby's host: stop standing by"},
    {"shutdown", cmd_shutdown, "NAME [--timeout-s N] [--no-wait]", "ask a VM's guest to shut down"},
    {"reset", cmd_reset, "NAME", "press a VM's reset button"},
    {"pause", cmd_pause, "NAME", "pause a VM's guest"},
    {"resume", cmd_resume, "NAME", "let a paused guest go on"},
    {"drain", cmd_drain, "[--timeout-s N] [--shutdown]", "empty this host: its VMs go to their other hosts"},
    {"undrain", cmd_undrain, "", "let this host stand by again"},
    {"events", cmd_events, "[NAME] [--since WHEN] [--json]", "show what happened on this host"},
    {"pair", cmd_pair, "--invite | HOST[:PORT] [CODE]",
     "make this host and another one trust each other, by a one-time code"},
    {"trust", cmd_trust, "--list | NAME KEY [--may ROLES] | --remove NAME",
     "show, change or remove the hosts that this one trusts"},
    {"key", cmd_key, "", "show this host's public key"},
    {"doctor", cmd_doctor, "[--peer HOST[:PORT] [-- qemu-system-x86_64 ARGS...]]",
     "check whether this host, or a pair of hosts, can protect VMs"},
    {"version", cmd_version, "", "print the version"},
    {"help", cmd_help, "[COMMAND]", "show this list, or the help of a command"},
};

static const struct cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    cli_fail("%s is not a command; 'understudy help' lists what there is", name);
    return NULL;
}

static void print_commands(void)
{
    printf("usage: understudy [--run-dir DIR] COMMAND ...\n\n");
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        printf("  %s %s\n            %s\n", commands[i].name, commands[i].arguments, commands[i].what);
    printf("\n'understudy COMMAND --help' lists a command's options; see understudy(1).\n");
}

static int cmd_help(int argc, char **argv)
{
    if (!cli_parse(NULL, 0, 1, &argc, &argv))
        return EXIT_USAGE;
    if (argc == 1) {
        print_commands();
        return EXIT_OK;
    }
    const struct cli_command *command = find_command(argv[1]);
    if (!command)
        return EXIT_USAGE;
    char *words[] = {argv[1], (char *)"--help", NULL};
    cli_begin(command);
    return command->run(2, words);
}

static int run_command(int argc, char **argv)
{
    const struct cli_command *command = find_command(argv[0]);
    if (!command)
        return EXIT_USAGE;
    cli_begin(command);
    int code = command->run(argc, argv);
    return cli_flush() || code != EXIT_OK ? code : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    const char *env = g_getenv("UNDERSTUDY_RUN_DIR");
    /*
     * A reader that closes its end (head) ends this process too, even where the starting process ignores
     * SIGPIPE. Sockets are written without the signal.
     */
    signal(SIGPIPE, SIG_DFL);
    if (env)
        cli_run_dir = env;
    while (argc > 1 && g_str_has_prefix(argv[1], "-")) {
        if (strcmp(argv[1], "--run-dir") == 0 && argc > 2) {
            cli_run_dir = argv[2];
            argc--, argv++;
        } else if (g_str_has_prefix(argv[1], "--run-dir=")) {
            cli_run_dir = argv[1] + strlen("--run-dir=");
        } else if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
            print_commands();
            return cli_flush() ? EXIT_OK : EXIT_FAILED;
        } else if (strcmp(argv[1], "--version") == 0) {
            char *words[] = {(char *)"version", NULL};
            return run_command(1, words);
        } else {
            cli_fail("%s is not an option, or lacks its value; 'understudy help' lists what there is",
                     argv[1]);
            return EXIT_USAGE;
        }
        argc--, argv++;
    }
    if (argc < 2) {
        cli_fail("a command is missing; 'understudy help' lists what there is");
        return EXIT_USAGE;
    }
    return run_command(argc - 1, argv + 1);
}
