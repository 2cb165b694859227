/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal's queue, its writer thread, and its two files. `lock` guards the queue and the counts. `files`
 * guards against an exchange of the two files.
 */
#include "daemon/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/events.h"

#define RETRY_US (10 * G_USEC_PER_SEC) /* a journal that cannot be opened is tried again */

struct journal {
    char *dir, *current, *older;
    GThread *thread;
    pthread_mutex_t lock, files; /* not GLib's, which the thread sanitizer does not see */
    pthread_cond_t changed;
    GQueue lines;    /* GBytes: a line each */
    uint64_t serial; /* of the newest event */
    uint64_t lost;   /* events that no events-lost has counted yet */
    bool writing, closing;
    /* The thread's own. */
    int fd;
    gint64 retry_us;
    bool complained;
};

/* ---- reading ---- */

static void free_event(gpointer event)
{
    understudy__event__free_unpacked(event, NULL);
}

/* Adds a file's events to out. Reads at most 2 * JOURNAL_FILE_MAX bytes: the journal's files are shorter. */
static void read_file(const char *path, const char *vm, uint64_t since_us, GPtrArray *out)
{
    struct stat status;
    g_autofree char *bytes = g_malloc(2 * JOURNAL_FILE_MAX);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return;
    gsize len = 0;
    gssize n = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? 1 : 0;
    while (n > 0 && len < 2 * JOURNAL_FILE_MAX) {
        n = read(fd, bytes + len, 2 * JOURNAL_FILE_MAX - len);
        len += n > 0 ? (gsize)n : 0;
    }
    close(fd);
    const char *at = bytes, *end = bytes + len, *newline;
    for (; at < end && (newline = memchr(at, '\n', (size_t)(end - at))); at = newline + 1) {
        Understudy__Event *event = event_from_json(at, (size_t)(newline - at));
        bool wanted = event && event->at_us >= since_us && (!vm || !vm[0] || strcmp(vm, event->vm) == 0);
        if (wanted)
            g_ptr_array_add(out, event);
        else if (event)
            free_event(event);
    }
}

GPtrArray *journal_read(struct journal *journal, const char *vm, uint64_t since_us)
{
    GPtrArray *events = g_ptr_array_new_with_free_func(free_event);
    pthread_mutex_lock(&journal->files);
    read_file(journal->older, vm, since_us, events);
    read_file(journal->current, vm, since_us, events);
    pthread_mutex_unlock(&journal->files);
    return events;
}

/* ---- writing: the journal's thread ---- */

static void complain(struct journal *journal, const char *what, int error)
{
    if (!journal->complained)
        g_warning("the journal of events %s: %s: %s", journal->current, what, g_strerror(error));
    journal->complained = true;
}

/* Ends a line that a crash has torn, so that the next event begins a new line. */
static void end_torn_line(int fd, off_t len)
{
    char last = '\n';
    if (len > 0 && pread(fd, &last, 1, len - 1) == 1 && last != '\n' && write(fd, "\n", 1) < 0)
        g_debug("a torn line could not be ended");
}

static bool open_current(struct journal *journal)
{
    struct stat status;
    if (journal->fd >= 0)
        return true;
    if (g_get_monotonic_time() < journal->retry_us)
        return false;
    journal->retry_us = g_get_monotonic_time() + RETRY_US;
    g_mkdir_with_parents(journal->dir, 0700);
    int fd = open(journal->current, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd >= 0 && (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))) {
        close(fd);
        fd = -1;
        errno = EINVAL;
    }
    if (fd < 0) {
        complain(journal, "it cannot be opened", errno);
        return false;
    }
    end_torn_line(fd, status.st_size);
    journal->fd = fd;
    journal->retry_us = 0;
    return true;
}

static void exchange_files(struct journal *journal)
{
    close(journal->fd);
    journal->fd = -1;
    pthread_mutex_lock(&journal->files);
    if (rename(journal->current, journal->older) < 0)
        g_unlink(journal->current);
    pthread_mutex_unlock(&journal->files);
}

/* Writes the line completely, or removes the part that was written. False: it was not written. */
static bool write_line(struct journal *journal, GBytes *line)
{
    struct stat status;
    gsize len;
    const char *bytes = g_bytes_get_data(line, &len);
    if (!open_current(journal))
        return false;
    if (fstat(journal->fd, &status) == 0 && (gsize)status.st_size + len > JOURNAL_FILE_MAX) {
        exchange_files(journal);
        if (!open_current(journal) || fstat(journal->fd, &status) < 0)
            return false;
    }
    errno = ENOSPC;
    if (write(journal->fd, bytes, len) == (gssize)len) {
        journal->complained = false;
        return true;
    }
    complain(journal, "it cannot be written", errno);
    if (ftruncate(journal->fd, status.st_size) < 0)
        g_debug("a line that was cut could not be taken back");
    return false;
}

static GBytes *line_of(const Understudy__Event *event)
{
    json_t *json = event_to_json(event);
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    char *line = g_strconcat(text ? text : "", "\n", NULL);
    free(text);
    return g_bytes_new_take(line, strlen(line));
}

/* Makes the line of an event that tells how many events were lost. The lock is held. */
static GBytes *line_of_lost(struct journal *journal, uint64_t lost)
{
    g_autofree char *n = g_strdup_printf("%" G_GUINT64_FORMAT, lost);
    g_autofree char *message = g_strdup_printf("%s events could not be kept", n);
    Understudy__EventField field = UNDERSTUDY__EVENT_FIELD__INIT, *fields[] = {&field};
    Understudy__Event event = UNDERSTUDY__EVENT__INIT;
    field.key = (char *)"n";
    field.value = n;
    event.serial = ++journal->serial;
    event.at_us = (uint64_t)g_get_real_time();
    event.name = (char *)event_kinds[EVENT_LOST].name;
    event.severity = event_kinds[EVENT_LOST].severity;
    event.message = message;
    event.fields = fields;
    event.n_fields = 1;
    return line_of(&event);
}

static void write_and_count(struct journal *journal, GBytes *line, uint64_t tells_of)
{
    bool ok = write_line(journal, line);
    g_bytes_unref(line);
    pthread_mutex_lock(&journal->lock);
    if (ok)
        journal->lost -= tells_of;
    else if (!tells_of)
        journal->lost++;
    pthread_mutex_unlock(&journal->lock);
}

static gpointer run(gpointer opaque)
{
    struct journal *journal = opaque;
    pthread_mutex_lock(&journal->lock);
    while (!journal->closing || journal->lines.length > 0) {
        GBytes *line = g_queue_pop_head(&journal->lines);
        if (!line) {
            journal->writing = false;
            pthread_cond_broadcast(&journal->changed);
            pthread_cond_wait(&journal->changed, &journal->lock);
            continue;
        }
        journal->writing = true;
        bool is_last = journal->lines.length == 0;
        uint64_t lost = journal->lost;
        GBytes *of_lost = lost ? line_of_lost(journal, lost) : NULL;
        pthread_mutex_unlock(&journal->lock);
        if (of_lost)
            write_and_count(journal, of_lost, lost);
        write_and_count(journal, line, 0);
        if (is_last && journal->fd >= 0)
            fdatasync(journal->fd);
        pthread_mutex_lock(&journal->lock);
    }
    journal->writing = false;
    pthread_cond_broadcast(&journal->changed);
    pthread_mutex_unlock(&journal->lock);
    return NULL;
}

/* ---- any thread ---- */

void journal_append(struct journal *journal, Understudy__Event *event)
{
    pthread_mutex_lock(&journal->lock);
    event->serial = ++journal->serial;
    if (journal->lines.length < JOURNAL_QUEUE_MAX)
        g_queue_push_tail(&journal->lines, line_of(event));
    else
        journal->lost++;
    pthread_cond_broadcast(&journal->changed);
    pthread_mutex_unlock(&journal->lock);
}

bool journal_flush(struct journal *journal, unsigned timeout_ms)
{
    gint64 until_us = g_get_monotonic_time() + (gint64)timeout_ms * 1000;
    const struct timespec until = {.tv_sec = until_us / G_USEC_PER_SEC,
                                   .tv_nsec = until_us % G_USEC_PER_SEC * 1000};
    bool in_time = true;
    pthread_mutex_lock(&journal->lock);
    while (in_time && (journal->lines.length > 0 || journal->writing))
        in_time = pthread_cond_timedwait(&journal->changed, &journal->lock, &until) == 0;
    pthread_mutex_unlock(&journal->lock);
    return in_time;
}

struct journal *journal_open(const char *dir)
{
    struct journal *journal = g_new0(struct journal, 1);
    journal->dir = g_strdup(dir);
    /* No VM can have this name, since a VM's name does not begin with a dot. */
    journal->current = g_build_filename(dir, ".events", NULL);
    journal->older = g_build_filename(dir, ".events.1", NULL);
    journal->fd = -1;
    pthread_mutex_init(&journal->lock, NULL);
    pthread_mutex_init(&journal->files, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&journal->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    g_queue_init(&journal->lines);
    g_autoptr(GPtrArray) before = journal_read(journal, NULL, 0);
    for (guint i = 0; i < before->len; i++)
        journal->serial = MAX(journal->serial, ((Understudy__Event *)g_ptr_array_index(before, i))->serial);
    journal->thread = g_thread_new("events", run, journal);
    return journal;
}

void journal_close(struct journal *journal)
{
    if (!journal)
        return;
    pthread_mutex_lock(&journal->lock);
    journal->closing = true;
    pthread_cond_broadcast(&journal->changed);
    pthread_mutex_unlock(&journal->lock);
    g_thread_join(journal->thread);
    if (journal->fd >= 0)
        close(journal->fd);
    pthread_mutex_destroy(&journal->lock);
    pthread_mutex_destroy(&journal->files);
    pthread_cond_destroy(&journal->changed);
    g_free(journal->dir);
    g_free(journal->current);
    g_free(journal->older);
    g_free(journal);
}
