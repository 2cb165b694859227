/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Prints a list of the manual page from the table that the programs use: `print_lists figures` and the like.
 * scripts/man-lists.sh puts it between its markers.
 */
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "proto/events.h"
#include "proto/figures.h"
#include "proto/states.h"

#define ROFF_LINE_LEN 100

/* As roff wants it: a hyphen that is typed is \-, a line does not begin with a dot. In lines that can be
 * read. */
static void print_text(const char *text)
{
    size_t column = 0;
    for (; *text; text++, column++) {
        if (*text == ' ' && column >= ROFF_LINE_LEN) {
            putchar('\n');
            column = 0;
        } else if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\\')
            fputs("\\e", stdout);
        else
            putchar(*text);
    }
}

static void print_item(const char *before, const char *name, const char *kind, const char *unit,
                       const char *help)
{
    printf(".TP\n\\fB%s", before);
    print_text(name);
    printf("\\fR (%s%s%s)\n", kind, unit[0] ? ", " : "", unit);
    print_text(help);
    putchar('\n');
}

static void print_figures(void)
{
    static const char *const before[FIGURES_NSCOPES] = {"", "disks[].", "heartbeats[].", "ended[]."};
    for (int scope = 0; scope < FIGURES_NSCOPES; scope++) {
        size_t n;
        const struct figure *figures = figures_of((enum figure_scope)scope, &n);
        for (size_t i = 0; i < n; i++)
            print_item(before[scope], figures[i].name, figure_kind_name(figures[i].kind), figures[i].unit,
                       figures[i].help);
    }
}

static void print_states(void)
{
    const ProtobufCEnumDescriptor *all = &understudy__state__descriptor;
    for (unsigned i = 1; i < all->n_values; i++) {
        printf("%s", i == 1 ? "" : i % 7 == 1 ? ",\n" : ", ");
        print_text(state_name((Understudy__State)all->values[i].value));
    }
    printf("\n");
}

static void print_events(void)
{
    for (int i = 0; i < EVENTS_N; i++)
        print_item("", event_kinds[i].name, severity_name(event_kinds[i].severity), "", event_kinds[i].help);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "figures") == 0)
        print_figures();
    else if (argc == 2 && strcmp(argv[1], "states") == 0)
        print_states();
    else if (argc == 2 && strcmp(argv[1], "events") == 0)
        print_events();
    else
        return 2;
    return 0;
}
