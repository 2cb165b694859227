/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * understudy status: a table, a line that follows one VM, every figure, JSON, or a verdict for a monitor. How
 * each looks is in status_text.c and status_json.c.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/status_view.h"
#include "proto/framing.h"
#include "proto/states.h"

#define STATUS_MS 5000
#define WATCH_US  500000

/* Asks for the status. reset: the daemon resets the figures after it has read them. ended: of ended VMs as
 * well. */
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

/* Prints a line for each VM, for a monitor. Returns the exit status: whether all are protected. */
static int check(const Understudy__StatusList *list)
{
    int code = EXIT_OK;
    for (size_t i = 0; i < list->n_vms; i++) {
        const Understudy__Status *s = list->vms[i];
        const char *why = s->unprotected_why[0] ? s->unprotected_why : s->last_error;
        if (status_is_safe(s)) {
            printf("VM %s is protected (%s)\n", s->vm, state_name(s->state));
            continue;
        }
        cli_fail("VM %s is NOT PROTECTED (%s)%s%s", s->vm, state_name(s->state), why[0] ? ": " : "", why);
        code = EXIT_NOT_PROTECTED;
    }
    return code;
}

/* Prints the status again and again until nobody reads the output any more or the VM is gone. */
static int watch(const char *vm, bool as_json, bool ended)
{
    for (;;) {
        Understudy__Envelope *answer = ask(vm, false, ended);
        if (!answer)
            return EXIT_FAILED;
        bool gone = vm && answer->status_list->n_vms == 0;
        if (as_json && !gone)
            status_print_json(answer->status_list, vm, ended, JSON_COMPACT);
        else
            status_print_lines(answer->status_list, isatty(STDOUT_FILENO) && answer->status_list->n_vms == 1);
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
    gboolean as_json, follow, reset, ended, check, figures;
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
        status_print_json(list, vm, wanted->ended, JSON_INDENT(2));
    } else {
        if (wanted->figures && list->n_vms)
            status_print_figures(list);
        else if (!vm || list->n_vms)
            status_print_table(list, vm != NULL);
        status_print_endings(list);
    }
    return EXIT_OK;
}

int cmd_status(int argc, char **argv)
{
    struct wanted wanted = {0};
    const GOptionEntry entries[] = {
        {"all", 'a', 0, G_OPTION_ARG_NONE, &wanted.ended, "Also the VMs that ended here, and why", NULL},
        {"check", 'c', 0, G_OPTION_ARG_NONE, &wanted.check, "Exit with 0 only if protected (else 3)", NULL},
        {"figures", 'f', 0, G_OPTION_ARG_NONE, &wanted.figures, "Print every figure, one per line", NULL},
        {"json", 'j', 0, G_OPTION_ARG_NONE, &wanted.as_json, "Print JSON", NULL},
        {"watch", 'w', 0, G_OPTION_ARG_NONE, &wanted.follow,
         "Print a line twice a second; with --json, each line is a JSON document", NULL},
        {"reset", 'r', 0, G_OPTION_ARG_NONE, &wanted.reset, "Show, then reset the percentiles", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    if (!cli_parse(entries, 0, 1, &argc, &argv))
        return EXIT_USAGE;
    if (wanted.check && (wanted.follow || wanted.as_json))
        return cli_wrong("--check does not go with --watch or --json: its exit status is the answer");
    if (wanted.figures && (wanted.follow || wanted.as_json || wanted.check))
        return cli_wrong("--figures does not go with --watch, --json or --check");
    const char *vm = argc == 2 ? argv[1] : NULL;
    Understudy__Envelope *answer = ask(vm, wanted.reset, wanted.ended);
    if (!answer)
        return EXIT_FAILED;
    bool known = !vm || answer->status_list->n_vms > 0;
    int code = wanted.follow && known ? EXIT_OK : show(answer->status_list, vm, &wanted);
    understudy__envelope__free_unpacked(answer, NULL);
    return wanted.follow && known ? watch(vm, wanted.as_json, wanted.ended) : code;
}
