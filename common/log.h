/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Output of g_message and its relatives: standard error, one readable line each (common/words.h). If the
 * journal listens there, each line has its severity as sd-daemon(3) marks it; otherwise the time, and the
 * severity as a word. This file also keeps files that programs print into from growing without bound.
 */
#ifndef UNDERSTUDY_COMMON_LOG_H
#define UNDERSTUDY_COMMON_LOG_H

#include <stddef.h>
#include <stdint.h>

/* A message that has this field (g_log_structured_array) is an event: the journal of systemd gets all its
 * fields. */
#define LOG_FIELD_EVENT "UNDERSTUDY_EVENT"

/* Makes all messages of the process go there. Called once, before other threads. program: a literal. */
void log_open(const char *program);

/* Limits a message that somebody outside can cause without limit to one a minute. Initialise with zeroes. */
struct log_seldom {
    int64_t logged_us;
    unsigned unlogged;
};
/*
 * Decides whether the message may be logged now. NULL: no; it is counted. Otherwise returns the text to put
 * at its end, which says how many were not logged before it (GLib string, may be empty). Not thread-safe.
 */
char *log_seldom(struct log_seldom *seldom);

/*
 * Keeps the newest half of max bytes of a file that has grown beyond max. Programs that have it open for
 * appending go on in it; what they print at the very moment may be lost. Any thread.
 */
void log_file_bound(const char *path, size_t max);

#endif
