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

/* Opens the journal in the folder dir, which is made if it is missing, and starts the thread. Succeeds even
 * if nothing can be written: then events are counted as lost. Main thread. */
struct journal *journal_open(const char *dir);
/* Writes what waits, ends the thread and frees the journal. Main thread. */
void journal_close(struct journal *journal);

/* Sets the event's serial number and appends it to the queue. Does not wait for the disk. The event stays the
 * caller's. Any thread. */
void journal_append(struct journal *journal, Understudy__Event *event);
/* Waits until what was appended before has been written, for at most timeout_ms. Returns whether it was. Any
 * thread. */
bool journal_flush(struct journal *journal, unsigned timeout_ms);
/*
 * Returns the events of that VM (empty: all) since since_us (microseconds since 1970), the oldest first. The
 * array owns its Events. Any thread.
 */
GPtrArray *journal_read(struct journal *journal, const char *vm, uint64_t since_us);

#endif
