/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls the daemon for every command, and prints one sentence on stderr if the call fails. */
#include "cli/cli.h"

#include <errno.h>
#include <gio/gio.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/stream.h"
#include "common/words.h"
#include "proto/framing.h"
#include "proto/readable.h"
#include "proto/status_answer.h"

#define ANSWERS_MAX 1024 /* messages of one answer */

const char *cli_run_dir = "/run/understudy";

int cli_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *words = g_strdup_vprintf(format, args);
    g_autofree char *text = words_make_readable(words, WORDS_PATH_MAX);
    va_end(args);
    fprintf(stderr, "understudy: %s\n", text);
    return EXIT_FAILED;
}

int cli_connect(char **why)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *path = g_build_filename(cli_run_dir, "control.sock", NULL);
    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path) {
        *why = g_strdup_printf("%s is too long for a socket: use a shorter --run-dir", path);
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    if (errno == EACCES || errno == EPERM)
        *why = g_strdup_printf("%s may not be used by you: become root", path);
    else
        *why = g_strdup_printf("understudyd does not run on this host (%s: %s): start it first", path,
                               g_strerror(errno));
    close(fd);
    return -1;
}

static void show_progress(const Understudy__Progress *progress)
{
    fprintf(stderr, "comparing %s: %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " MiB\n", progress->what,
            progress->done >> 20, progress->total >> 20);
}

static void free_envelope(Understudy__Envelope *envelope)
{
    understudy__envelope__free_unpacked(envelope, NULL);
}

Understudy__Envelope *cli_ask(const Understudy__Envelope *request, unsigned timeout_ms, char **why)
{
    g_autoptr(GError) error = NULL;
    int fd = cli_connect(why);
    if (fd < 0)
        return NULL;
    Understudy__Envelope *answer = framing_call(STREAM_FD(fd), request, timeout_ms, &error);
    if (answer && answer->body_case == UNDERSTUDY__ENVELOPE__BODY_STATUS_LIST &&
        !status_answer_read_rest(STREAM_FD(fd), answer->status_list, timeout_ms, &error))
        g_clear_pointer(&answer, free_envelope);
    while (answer && answer->body_case == UNDERSTUDY__ENVELOPE__BODY_PROGRESS) {
        envelope_make_readable(answer, WORDS_PATH_MAX);
        show_progress(answer->progress);
        understudy__envelope__free_unpacked(answer, NULL);
        answer = framing_read(STREAM_FD(fd), timeout_ms, &error);
    }
    close(fd);
    if (!answer)
        *why = g_strdup(error ? error->message : "the daemon closed the connection");
    else
        envelope_make_readable(answer, WORDS_PATH_MAX);
    return answer;
}

Understudy__Envelope *cli_call(const Understudy__Envelope *request, unsigned timeout_ms)
{
    g_autofree char *why = NULL;
    Understudy__Envelope *answer = cli_ask(request, timeout_ms, &why);
    if (!answer)
        cli_fail("%s", why);
    return answer;
}

bool cli_call_each(const Understudy__Envelope *request, unsigned timeout_ms, cli_answer each, void *opaque)
{
    g_autofree char *why = NULL;
    g_autoptr(GError) error = NULL;
    int fd = cli_connect(&why);
    if (fd < 0) {
        cli_fail("%s", why);
        return false;
    }
    bool more = true, ok = true;
    Understudy__Envelope *answer = framing_call(STREAM_FD(fd), request, timeout_ms, &error);
    for (unsigned i = 0; ok && more; i++) {
        more = false;
        if (answer)
            envelope_make_readable(answer, WORDS_PATH_MAX);
        bool refused =
            answer && answer->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER && !answer->answer->ok;
        ok = answer && i < ANSWERS_MAX && !refused && each(answer, &more, opaque);
        if (!ok)
            cli_fail("%s", refused  ? answer->answer->message
                           : answer ? "the daemon's answer was not understood"
                           : error  ? error->message
                                    : "the daemon closed the connection");
        g_clear_pointer(&answer, free_envelope);
        if (ok && more)
            answer = framing_read(STREAM_FD(fd), timeout_ms, &error);
    }
    close(fd);
    return ok;
}

void cli_disk_progress(const Understudy__Status *status, uint64_t *done, uint64_t *total)
{
    *done = *total = 0;
    for (size_t i = 0; i < status->n_disks; i++) {
        *done += MIN(status->disks[i]->done_bytes, status->disks[i]->total_bytes);
        *total += status->disks[i]->total_bytes;
    }
}

bool cli_flush(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    if (errno != EPIPE)
        cli_fail("the output could not be written: %s", g_strerror(errno));
    return false;
}

bool cli_call_answer(const Understudy__Envelope *request, unsigned timeout_ms, char **message)
{
    Understudy__Envelope *answer = cli_call(request, timeout_ms);
    if (!answer)
        return false;
    bool ok = answer->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER && answer->answer->ok;
    if (answer->body_case != UNDERSTUDY__ENVELOPE__BODY_ANSWER)
        cli_fail("the daemon's answer was not understood");
    else if (!ok)
        cli_fail("%s", answer->answer->message);
    else
        *message = g_strdup(answer->answer->message);
    understudy__envelope__free_unpacked(answer, NULL);
    return ok;
}

int cli_call_simple(const Understudy__Envelope *request, unsigned timeout_ms)
{
    g_autofree char *message = NULL;
    return cli_call_answer(request, timeout_ms, &message) ? EXIT_OK : EXIT_FAILED;
}
