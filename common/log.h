/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where g_message and its kin go: standard error, one readable line each (common/words.h), with its severity
 * as sd-daemon(3) marks it when the journal listens there, else with the time and in words. Files that
 * programs print into are kept from growing here too.
 */
#ifndef UNDERSTUDY_COMMON_LOG_H
#define UNDERSTUDY_COMMON_LOG_H

#include <stddef.h>
#include <stdint.h>

/* Once, before other threads. program: a literal. */
void log_open(const char *program);

/*
 * Keeps the newest half of max bytes of a file that has grown beyond max. Programs that have it open for
 * appending go on in it; what they print at the very moment may be lost. Any thread.
 */
void log_file_bound(const char *path, size_t max);

#endif
