/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps the last twenty VMs that ended on this host, with the reason in words, for `status --all`. The run
 * folder of each, with console.log, is removed when its entry is dropped, unless a new VM of the same name
 * uses the folder. Main thread, except endings_list (any thread).
 */
#ifndef UNDERSTUDY_DAEMON_ENDINGS_H
#define UNDERSTUDY_DAEMON_ENDINGS_H

#include <glib.h>
#include <stdbool.h>

#include "proto/control.pb-c.h"
#include "proto/end_reason.h"

#define ENDINGS_MAX 20

/* Adds a VM that ended now. said: the last message of its replicator, or "". dir: its run folder, or NULL. */
void endings_add(const char *vm, Understudy__Role role, uint64_t term, enum session_end_reason reason,
                 const char *said, const char *dir);
/* Keeps the ending and gives the folder up, because a new VM of that name uses it. */
void endings_release_dir(const char *dir);
/* Returns copies of all endings, or of those of one VM, the latest last. Free each with
 * understudy__ending__free_unpacked. */
GPtrArray *endings_list(const char *vm);
/* Frees all endings at the daemon's end. The folders stay. */
void endings_clear(void);

/* Removes a VM's run folder and its files. Does not descend into folders and follows no link. */
void run_folder_remove(const char *dir);

#endif
