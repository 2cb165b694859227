/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The words behind a command, read the same way for all of them. What is wrong is named in one short
 * sentence; how the command is used follows only where words are missing or too many.
 */
#include <gio/gio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static const struct cli_command *running; /* one command a process */

void cli_begin(const struct cli_command *command)
{
    g_autofree char *title = g_strdup_printf("understudy %s", command->name);
    g_set_prgname(title);
    running = command;
}

int cli_wrong(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    cli_fail("%s: %s", running->name, text);
    return EXIT_USAGE;
}

bool cli_parse(const GOptionEntry *entries, unsigned least, unsigned most, int *argc, char ***argv)
{
    static const GOptionEntry none[] = {{NULL, 0, 0, 0, NULL, NULL, NULL}};
    g_autoptr(GOptionContext) context = g_option_context_new(running->arguments);
    g_autoptr(GError) error = NULL;
    g_option_context_set_summary(context, running->what);
    g_option_context_add_main_entries(context, entries ? entries : none, NULL);
    if (!g_option_context_parse(context, argc, argv, &error)) {
        cli_wrong("%s; 'understudy %s --help' lists the options", error->message, running->name);
        return false;
    }
    /* GOption may leave a "--" in argv. It counts as a word. */
    unsigned n = (unsigned)*argc - 1;
    if (n > most)
        cli_wrong("%s is one word too many: understudy %s %s", (*argv)[most + 1], running->name,
                  running->arguments);
    else if (n < least)
        cli_wrong("a word is missing: understudy %s %s", running->name, running->arguments);
    return n >= least && n <= most;
}

bool cli_number(const char *option, const char *text, unsigned least, unsigned most, uint32_t *value)
{
    guint64 number = 0;
    if (!text)
        return true;
    if (!g_ascii_string_to_unsigned(text, 10, least, most, &number, NULL)) {
        cli_wrong("%s %s: give a number from %u to %u", option, text, least, most);
        return false;
    }
    *value = (uint32_t)number;
    return true;
}

bool cli_word(const char *option, const char *text, const char *words)
{
    g_auto(GStrv) list = g_strsplit(words, "|", -1);
    if (!text || g_strv_contains((const char *const *)list, text))
        return true;
    g_autofree char *choice = g_strjoinv(", ", list);
    cli_wrong("%s %s: give one of %s", option, text, choice);
    return false;
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
