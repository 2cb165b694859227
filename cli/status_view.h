/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How `understudy status` shows what the daemon says: from the table of figures (proto/figures.h). */
#ifndef UNDERSTUDY_CLI_STATUS_VIEW_H
#define UNDERSTUDY_CLI_STATUS_VIEW_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/control.pb-c.h"

/* ---- status_text.c ---- */
/* A row for each VM, and what else there is to say of it below. named: one VM was asked for by its name. */
void status_print_table(const Understudy__StatusList *list, bool named);
/* A line for each VM; over: the line before is overwritten. */
void status_print_lines(const Understudy__StatusList *list, bool over);
/* Every figure, one a line. */
void status_print_figures(const Understudy__StatusList *list);
/* Those that ended, the latest first. */
void status_print_endings(const Understudy__StatusList *list);

/* ---- status_json.c ---- */
/* vm: the one that was asked for, or NULL. flags: jansson's. */
void status_print_json(const Understudy__StatusList *list, const char *vm, bool ended, size_t flags);

#endif
