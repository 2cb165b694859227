/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * understudy key, trust, pair: who may talk to this host's daemon. The daemon has the key and the list; this
 * shows them. A code that is given as an argument is wiped from the process's arguments at once, and may be
 * given on standard input instead.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "proto/framing.h"

#define ORDER_MS 10000
#define JOIN_MS  30000
#define CODE_MAX 128

static bool print_answer(const Understudy__Envelope *request, unsigned timeout_ms)
{
    g_autofree char *message = NULL;
    if (!cli_call_answer(request, timeout_ms, &message))
        return false;
    printf("%s\n", message);
    return true;
}

int cmd_key(int argc, char **argv)
{
    Understudy__KeyRequest key = UNDERSTUDY__KEY_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(KEY_REQUEST, key_request, &key);
    if (!cli_parse(NULL, 0, 0, &argc, &argv))
        return EXIT_USAGE;
    return print_answer(&request, ORDER_MS) ? EXIT_OK : EXIT_FAILED;
}

/* ---- trust ---- */

static bool print_hosts(const Understudy__Envelope *answer, bool *more, void *opaque)
{
    (void)more;
    (void)opaque;
    if (answer->body_case != UNDERSTUDY__ENVELOPE__BODY_TRUST_LIST)
        return false;
    for (size_t i = 0; i < answer->trust_list->n_hosts; i++) {
        const Understudy__TrustedHost *host = answer->trust_list->hosts[i];
        printf("%-16s %s %s\n", host->name, host->key, host->may);
    }
    return true;
}

int cmd_trust(int argc, char **argv)
{
    gboolean list = FALSE;
    g_autofree char *may = NULL, *gone = NULL;
    const GOptionEntry entries[] = {
        {"list", 0, 0, G_OPTION_ARG_NONE, &list, "List the trusted hosts: name, key, roles", NULL},
        {"remove", 0, 0, G_OPTION_ARG_STRING, &gone,
         "Trust this host no longer; its connections end, and its standbys here stop", "NAME"},
        {"may", 0, 0, G_OPTION_ARG_STRING, &may,
         "What the host may be: standby, primary, witness, with commas (standby,primary)", "ROLES"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    Understudy__TrustRequest trust = UNDERSTUDY__TRUST_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(TRUST_REQUEST, trust_request, &trust);
    if (!cli_parse(entries, 0, 2, &argc, &argv))
        return EXIT_USAGE;
    bool adds = argc == 3;
    if (list + (gone != NULL) + adds != 1 || (argc == 2) || (may && !adds))
        return cli_wrong("give one of --list, --remove NAME, or NAME KEY with or without --may ROLES");
    if (list)
        return cli_call_each(&request, ORDER_MS, print_hosts, NULL) ? EXIT_OK : EXIT_FAILED;
    trust.action = adds ? UNDERSTUDY__TRUST_ACTION__TRUST_ADD : UNDERSTUDY__TRUST_ACTION__TRUST_REMOVE;
    trust.name = adds ? argv[1] : gone;
    trust.key = adds ? argv[2] : (char *)"";
    trust.may = may ? may : (char *)"";
    return cli_call_simple(&request, ORDER_MS);
}

/* ---- pair ---- */

static int invite(const char *may)
{
    Understudy__InviteRequest invitation = UNDERSTUDY__INVITE_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(INVITE_REQUEST, invite_request, &invitation);
    invitation.may = (char *)(may ? may : "");
    if (!print_answer(&request, ORDER_MS) || !cli_flush())
        return EXIT_FAILED;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "Within ten minutes, on the other host: understudy pair THIS-HOST CODE\n");
    return EXIT_OK;
}

/* Moves the code out of the arguments, or reads it from standard input. False after a message. */
static bool take_code(char *argument, char code[CODE_MAX])
{
    if (argument) {
        bool fits = g_strlcpy(code, argument, CODE_MAX) < CODE_MAX;
        memset(argument, 'x', strlen(argument));
        if (!fits)
            cli_wrong("this is no code: 'understudy pair --invite' on the other host shows one");
        return fits;
    }
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "The code that 'understudy pair --invite' shows on the other host: ");
    if (fgets(code, CODE_MAX, stdin))
        return true;
    cli_wrong("a code is missing: 'understudy pair --invite' on the other host shows one");
    return false;
}

int cmd_pair(int argc, char **argv)
{
    gboolean invites = FALSE;
    g_autofree char *may = NULL, *name = NULL;
    const GOptionEntry entries[] = {
        {"invite", 0, 0, G_OPTION_ARG_NONE, &invites,
         "Print a code with which one host can be paired with this one, once, within ten minutes", NULL},
        {"may", 0, 0, G_OPTION_ARG_STRING, &may,
         "What the other host may be: standby, primary, witness, with commas (standby,primary)", "ROLES"},
        {"name", 0, 0, G_OPTION_ARG_STRING, &name, "What the other host calls this one (its host name)",
         "NAME"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    char code[CODE_MAX] = "";
    if (!cli_parse(entries, 0, 2, &argc, &argv))
        return EXIT_USAGE;
    if (invites ? argc != 1 || name : argc < 2)
        return cli_wrong("give --invite on one host, and on the other that host and the code");
    if (invites)
        return invite(may);
    if (!take_code(argc == 3 ? argv[2] : NULL, code))
        return EXIT_USAGE;
    Understudy__JoinRequest join = UNDERSTUDY__JOIN_REQUEST__INIT;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(JOIN_REQUEST, join_request, &join);
    join.peer = argv[1];
    join.code = code;
    join.may = may ? may : (char *)"";
    join.name = name ? name : (char *)"";
    return print_answer(&request, JOIN_MS) ? EXIT_OK : EXIT_FAILED;
}
