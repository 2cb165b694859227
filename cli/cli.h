/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The understudy command: what its files share. */
#ifndef UNDERSTUDY_CLI_CLI_H
#define UNDERSTUDY_CLI_CLI_H

#include <glib.h>
#include <stdbool.h>

#include "proto/control.pb-c.h"

/* Exit codes, as the manual page lists them. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NOT_PROTECTED = 3 };

extern const char *cli_run_dir;

/* A connection to the daemon: fd, or -1 after a message to the user. */
int cli_connect(void);
/* One request; the answer (free_unpacked), or NULL after a message to the user. */
Understudy__Envelope *cli_call(const Understudy__Envelope *request, unsigned timeout_ms);
/* For requests that are answered with yes or no. Exit code; a no is printed. */
int cli_call_simple(const Understudy__Envelope *request, unsigned timeout_ms);
/* Cuts argv off at "--". Everything after it, or NULL if there is none. */
char **cli_split_at_dashes(int *argc, char **argv);
G_GNUC_PRINTF(1, 2) int cli_fail(const char *format, ...);

/* The status of one VM (free with understudy__envelope__free_unpacked of *holder), or NULL. */
const Understudy__Status *cli_status_of(const char *vm, Understudy__Envelope **holder);

/* Bytes of all disks that the standby has of the synchronisation, and bytes that it takes; both 0 without
 * disks. */
void cli_disk_progress(const Understudy__Status *status, uint64_t *done, uint64_t *total);

int cmd_run(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_failover(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

#endif
