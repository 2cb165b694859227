/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Prints the answer of the daemon for `understudy status`, by the table of figures (proto/figures.h). */
#ifndef UNDERSTUDY_CLI_STATUS_VIEW_H
#define UNDERSTUDY_CLI_STATUS_VIEW_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/control.pb-c.h"

/* ---- status_text.c ---- */
/* Prints a row for each VM, and lines with more about it below. named: the user named the VM. */
void status_print_table(const Understudy__StatusList *list, bool named);
/* Prints a line for each VM. over: overwrites the line before. */
void status_print_lines(const Understudy__StatusList *list, bool over);
/* Prints every figure, one per line. */
void status_print_figures(const Understudy__StatusList *list);
/* Prints the VMs that ended, the latest first. */
void status_print_endings(const Understudy__StatusList *list);

/* ---- status_json.c ---- */
/* Prints the JSON document. vm: the one that the user named, or NULL. ended: includes the VMs that ended.
 * flags: jansson's. */
void status_print_json(const Understudy__StatusList *list, const char *vm, bool ended, size_t flags);

#endif
