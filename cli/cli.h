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

/* A connection to the daemon: fd, or -1 with a sentence for the user. */
int cli_connect(char **why);
/* One request; the answer (free_unpacked), fit to be shown, or NULL after a message to the user. */
Understudy__Envelope *cli_call(const Understudy__Envelope *request, unsigned timeout_ms);
/* For requests that are answered with yes or no. Exit code; a no is printed. */
int cli_call_simple(const Understudy__Envelope *request, unsigned timeout_ms);
G_GNUC_PRINTF(1, 2) int cli_fail(const char *format, ...);

/* One request; NULL with a sentence for the user. */
Understudy__Envelope *cli_ask(const Understudy__Envelope *request, unsigned timeout_ms, char **why);

/*
 * One request that is answered by several messages: each is called with every one, fit to be shown, and says
 * whether there is more; false from it: the message was not understood. False after a message to the user.
 */
typedef bool (*cli_answer)(const Understudy__Envelope *answer, bool *more, void *opaque);
bool cli_call_each(const Understudy__Envelope *request, unsigned timeout_ms, cli_answer each, void *opaque);

/* The status of one VM (free with understudy__envelope__free_unpacked of *holder), or NULL. */
const Understudy__Status *cli_status_of(const char *vm, Understudy__Envelope **holder);

/* Why the last VM of that name ended here. GLib string, or NULL: that is not known. */
char *cli_last_ending(const char *vm);

/* Bytes of all disks that the standby has of the synchronisation, and bytes that it takes; both 0 without
 * disks. */
void cli_disk_progress(const Understudy__Status *status, uint64_t *done, uint64_t *total);

/* ---- options.c ---- */
struct cli_command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments, *what; /* for help, in one line each */
};
/* The command that runs now: its name goes before what is wrong with its words. */
void cli_begin(const struct cli_command *command);
/*
 * Takes the options (entries: NULL if there are none) out of argv. False after a message if they are wrong,
 * or if the words left are not least to most: the exit code is EXIT_USAGE then. --help prints and exits.
 */
bool cli_parse(const GOptionEntry *entries, unsigned least, unsigned most, int *argc, char ***argv);
/* What an option was given, if it was (text not NULL). False after a message. words: one|other. */
bool cli_number(const char *option, const char *text, unsigned least, unsigned most, uint32_t *value);
bool cli_word(const char *option, const char *text, const char *words);
/* Something else is wrong with the words: EXIT_USAGE. */
G_GNUC_PRINTF(1, 2) int cli_wrong(const char *format, ...);
/* Cuts argv off at "--". Everything after it, or NULL if there is none. */
char **cli_split_at_dashes(int *argc, char **argv);

/* False, after a message where it is worth one, if what was printed did not reach its reader. */
bool cli_flush(void);

int cmd_run(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_failover(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_shutdown(int argc, char **argv);
int cmd_reset(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_undrain(int argc, char **argv);
int cmd_events(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

#endif
