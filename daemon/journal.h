/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal of events keeps the newest events in two files of JSON lines, which outlive the daemon. When
 * the current file is full, it replaces the older file. So the size is bounded, and at least half of the
 * bound is kept.
 *
 * Appending does not wait for the disk: a thread of the journal writes and syncs, one line a write. A reader
 * skips a line that a crash has torn. The writer removes a line that a full disk has cut. Events that could
 * not be kept are counted, and the event events-lost gives their number when there is room again.
 */
#ifndef UNDERSTUDY_DAEMON_JOURNAL_H
#define UNDERSTUDY_DAEMON_JOURNAL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/control.pb-c.h"

#define JOURNAL_FILE_MAX  (1u << 20) /* bytes of each of the two files */
#define JOURNAL_QUEUE_MAX 2048u      /* events that wait for the thread */

struct journal;

/* Main thread. dir is made if it is missing. A journal that cannot be written to is opened all the same. */
struct journal *journal_open(const char *dir);
/* Writes what waits. */
void journal_close(struct journal *journal);

/* Any thread; does not block. Gives the event its serial number. The event stays the caller's. */
void journal_append(struct journal *journal, Understudy__Event *event);
/* Any thread; waits until what was appended before is on its way to the disk, for timeout_ms at most. */
bool journal_flush(struct journal *journal, unsigned timeout_ms);
/*
 * Any thread. Those of that VM (empty: all) since then, the oldest first. Array that owns its Events, with
 * understudy__event__free_unpacked.
 */
GPtrArray *journal_read(struct journal *journal, const char *vm, uint64_t since_us);

#endif
