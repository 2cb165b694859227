/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The newest term in which this host let a VM's output out, in a file of the VM's state folder. Written by a
 * thread of its own: to a new file, fsync, rename over the old one, fsync of the folder. So after a crash the
 * file has the old term or the new one, whole. What cannot be written is tried again until it can.
 *
 * The file says to which pair it belongs (a digest of the pair's token): another pair's terms say nothing
 * about this one's.
 */
#ifndef UNDERSTUDY_REPLICATOR_TERM_FILE_H
#define UNDERSTUDY_REPLICATOR_TERM_FILE_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mailbox;
struct term_file;

/*
 * Reads what the file at path (copied) has for the pair of this token into *term, 0: nothing yet. NULL and
 * error: there is a file that cannot be read, or is none of ours. Notes go to control: NOTE_TERM_KEPT (term),
 * and NOTE_TERM_FAILED (term, status) for the first of the attempts that fail. Control thread.
 */
struct term_file *term_file_open(const char *path, const uint8_t *token, size_t token_len,
                                 struct mailbox *control, uint64_t *term, GError **error);
/* Starts writing; a newer term overtakes an older one that has not been written yet. Does not block. Control
 * thread. */
void term_file_keep(struct term_file *file, uint64_t term);
/* Ends the thread; what is being written is finished first, what fails is not tried again. NULL: nothing. */
void term_file_close(struct term_file *file);

#endif
