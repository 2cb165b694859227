/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Prints the transitions of the session as a table in Markdown: see scripts/session-table.sh. */
#include <stdio.h>

#include "failover/transitions.h"

int main(void)
{
    size_t n;
    const struct transition *table = transitions(&n);
    printf("| role | from | to | when |\n|---|---|---|---|\n");
    for (size_t i = 0; i < n; i++)
        printf("| %s | `%s` | `%s` | %s |\n", session_role_name(table[i].role),
               session_state_name(table[i].from), session_state_name(table[i].to), table[i].when);
    return 0;
}
