/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Shared functions of the understudy command: calls of the daemon, options, messages. One thread. */
#ifndef UNDERSTUDY_CLI_CLI_H
#define UNDERSTUDY_CLI_CLI_H

#include <glib.h>
#include <stdbool.h>

#include "proto/control.pb-c.h"

/* Exit codes, as the manual page lists them. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NOT_PROTECTED = 3 };

extern const char *cli_run_dir; /* --run-dir */

/* Connects to the daemon. Returns the fd, or -1 with a sentence for the user in *why (GLib string). */
int cli_connect(char **why);
/* Sends one request and returns the answer (free with understudy__envelope__free_unpacked), whose texts are
 * safe to print; NULL after a message to the user. */
Understudy__Envelope *cli_call(const Understudy__Envelope *request, unsigned timeout_ms);
/* Sends a request that is answered with yes or no. Returns whether it was yes, with the answer's words in
 * *message (GLib string). False after a message to the user. */
bool cli_call_answer(const Understudy__Envelope *request, unsigned timeout_ms, char **message);
/* The same without the words. Returns the exit code; prints the reason of a no. */
int cli_call_simple(const Understudy__Envelope *request, unsigned timeout_ms);
/* Prints a message on standard error. Returns EXIT_FAILED. */
G_GNUC_PRINTF(1, 2) int cli_fail(const char *format, ...);

/* As cli_call, but prints nothing: NULL with a sentence for the user in *why (GLib string). */
Understudy__Envelope *cli_ask(const Understudy__Envelope *request, unsigned timeout_ms, char **why);

/*
 * Called with each message of an answer; its texts are safe to print. Sets *more if another message follows.
 * False: the message was not understood.
 */
typedef bool (*cli_answer)(const Understudy__Envelope *answer, bool *more, void *opaque);
/* Sends one request that is answered by several messages, and calls each for every one. False after a message
 * to the user. */
bool cli_call_each(const Understudy__Envelope *request, unsigned timeout_ms, cli_answer each, void *opaque);

/* Returns the status of one VM, or NULL. It belongs to *holder, which the caller frees
 * (understudy__envelope__free_unpacked). */
const Understudy__Status *cli_status_of(const char *vm, Understudy__Envelope **holder);

/* Returns why the last VM of that name ended here (GLib string), or NULL if that is not known. */
char *cli_last_ending(const char *vm);

/* Sums up the synchronisation of all disks: *done are the bytes that the standby has, *total all bytes. Both
 * are 0 without disks. */
void cli_disk_progress(const Understudy__Status *status, uint64_t *done, uint64_t *total);

/* ---- options.c ---- */
struct cli_command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments, *what; /* for help, in one line each */
};
/* Sets the command that runs now. Its name begins the messages of cli_wrong. */
void cli_begin(const struct cli_command *command);
/*
 * Parses the options (entries: NULL if there are none) and removes them from argv. False after a message if
 * an option is wrong, or if fewer than least or more than most words are left: then the exit code is
 * EXIT_USAGE.
 * --help prints the help and exits.
 */
bool cli_parse(const GOptionEntry *entries, unsigned least, unsigned most, int *argc, char ***argv);
/* Checks the value of an option; text NULL: the option was not given. False after a message. cli_number sets
 * *value; cli_word accepts one of words ("one|other"). */
bool cli_number(const char *option, const char *text, unsigned least, unsigned most, uint32_t *value);
bool cli_word(const char *option, const char *text, const char *words);
/* Prints what is wrong with the command's words. Returns EXIT_USAGE. */
G_GNUC_PRINTF(1, 2) int cli_wrong(const char *format, ...);
/* Ends argv at "--". Returns the words after it, or NULL if there is no "--". */
char **cli_split_at_dashes(int *argc, char **argv);

/* Flushes standard output. False if not all of it could be written; prints a message unless the reader has
 * closed it. */
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
int cmd_key(int argc, char **argv);
int cmd_trust(int argc, char **argv);
int cmd_pair(int argc, char **argv);

#endif
