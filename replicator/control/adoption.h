/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A way in for a daemon that was started after this replicator: a Unix socket in the VM's folder, which only
 * root can enter. The newest daemon that connects becomes the one that gives orders. Control thread.
 */
#ifndef UNDERSTUDY_REPLICATOR_ADOPTION_H
#define UNDERSTUDY_REPLICATOR_ADOPTION_H

#include <glib.h>
#include <stdbool.h>

struct adoption;

/* A daemon has connected: fd is the callee's. */
typedef void (*adoption_connected)(void *opaque, int fd);

/* Listens at vm_dir/us-replicator. NULL and error: no daemon could adopt. */
struct adoption *adoption_new(const char *vm_dir, adoption_connected connected, void *opaque, GError **error);
void adoption_free(struct adoption *adoption);

#endif
