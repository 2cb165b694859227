/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VMs that ended on this host: the last twenty, with the reason in words, for `status --all`. Each has
 * its run folder with console.log for as long as it is remembered, unless another VM has taken the name
 * since; then the folder goes. Main thread, but for endings_list (any thread).
 */
#ifndef UNDERSTUDY_DAEMON_ENDINGS_H
#define UNDERSTUDY_DAEMON_ENDINGS_H

#include <glib.h>
#include <stdbool.h>

#include "proto/control.pb-c.h"

#define ENDINGS_MAX 20

/* What the session's name for the end of a VM means. The name itself if it is none of those known. */
const char *ending_in_words(const char *reason);

/* said: its own last sentence, or "". dir: the run folder, or NULL. */
void endings_add(const char *vm, Understudy__Role role, uint64_t term, const char *reason, const char *said,
                 const char *dir);
/* The name is taken again, and with it the folder: forget the folder, keep the ending. */
void endings_release_dir(const char *dir);
/* Copies of all, or of those of one VM, the latest last; free each with understudy__ending__free_unpacked. */
GPtrArray *endings_list(const char *vm);
/* At the daemon's end. The folders stay. */
void endings_clear(void);

/* Removes a VM's run folder: its files, and nothing below a folder or behind a link. */
void run_folder_remove(const char *dir);

#endif
