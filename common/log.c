/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The writer behind g_message and its relatives: one write(2) for each line, so that lines of the daemon
 * and of its replicators do not mix. log_file_bound reads the end of a file, truncates the file, and writes
 * the end back.
 */
#include "common/log.h"

#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/words.h"

static const char *program_name;
static gboolean to_journal;

struct severity {
    GLogLevelFlags level;
    const char *mark, *words;
};

static const struct severity *severity_of(GLogLevelFlags level)
{
    static const struct severity severities[] = {
        {G_LOG_LEVEL_ERROR, SD_CRIT, "fatal: "},
        {G_LOG_LEVEL_CRITICAL, SD_ERR, "error: "},
        {G_LOG_LEVEL_WARNING, SD_WARNING, "warning: "},
        {G_LOG_LEVEL_MESSAGE, SD_NOTICE, ""},
        {G_LOG_LEVEL_INFO, SD_INFO, ""},
        {G_LOG_LEVEL_DEBUG, SD_DEBUG, ""},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(severities); i++)
        if (level & severities[i].level)
            return &severities[i];
    return &severities[3];
}

static const char *field_of(const GLogField *fields, gsize n, const char *key)
{
    for (gsize i = 0; i < n; i++)
        if (strcmp(fields[i].key, key) == 0 && fields[i].length < 0)
            return fields[i].value;
    return NULL;
}

/*
 * Sends an event (LOG_FIELD_EVENT) to systemd's journal with all its fields, text in place of its message.
 * Returns false if the message is no event, or the journal did not take it.
 */
static bool write_fields(GLogLevelFlags level, const GLogField *fields, gsize n, const char *text)
{
    g_autofree GLogField *all = g_new(GLogField, n + 1);
    if (!field_of(fields, n, LOG_FIELD_EVENT))
        return false;
    for (gsize i = 0; i < n; i++)
        all[i] = strcmp(fields[i].key, "MESSAGE") == 0 ? (GLogField){"MESSAGE", text, -1} : fields[i];
    all[n] = (GLogField){"SYSLOG_IDENTIFIER", program_name, -1};
    return g_log_writer_journald(level, all, n + 1, NULL) == G_LOG_WRITER_HANDLED;
}

/* Writes a message, made readable: an event to systemd's journal, all else as a line to standard error. */
static GLogWriterOutput write_line(GLogLevelFlags level, const GLogField *fields, gsize n, gpointer opaque)
{
    const struct severity *severity = severity_of(level);
    (void)opaque;
    if (g_log_writer_default_would_drop(level, field_of(fields, n, "GLIB_DOMAIN")))
        return G_LOG_WRITER_HANDLED;
    g_autofree char *text = words_make_readable(field_of(fields, n, "MESSAGE"), WORDS_PATH_MAX);
    g_autofree char *line = NULL;
    if (to_journal && write_fields(level, fields, n, text))
        return G_LOG_WRITER_HANDLED;
    if (to_journal) {
        line = g_strdup_printf("%s%s\n", severity->mark, text);
    } else {
        g_autoptr(GDateTime) now = g_date_time_new_now_local();
        g_autofree char *time = g_date_time_format(now, "%F %T");
        line = g_strdup_printf("%s.%03d %s[%d]: %s%s\n", time, g_date_time_get_microsecond(now) / 1000,
                               program_name, (int)getpid(), severity->words, text);
    }
    ssize_t written = write(STDERR_FILENO, line, strlen(line));
    return written < 0 ? G_LOG_WRITER_UNHANDLED : G_LOG_WRITER_HANDLED;
}

void log_open(const char *program)
{
    program_name = program;
    to_journal = g_log_writer_is_journald(STDERR_FILENO);
    g_log_set_writer_func(write_line, NULL, NULL);
}

#define SELDOM_US (60 * G_USEC_PER_SEC)

char *log_seldom(struct log_seldom *seldom)
{
    gint64 now_us = g_get_monotonic_time();
    if (seldom->logged_us && now_us - seldom->logged_us < SELDOM_US) {
        seldom->unlogged++;
        return NULL;
    }
    char *before =
        seldom->unlogged ? g_strdup_printf(" (and %u more before it)", seldom->unlogged) : g_strdup("");
    *seldom = (struct log_seldom){.logged_us = now_us};
    return before;
}

void log_file_bound(const char *path, size_t max)
{
    static const char note[] = "[what was printed before was cut off]\n";
    struct stat now;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &now) < 0 || !S_ISREG(now.st_mode) || (size_t)now.st_size <= max) {
        if (fd >= 0)
            close(fd);
        return;
    }
    g_autofree char *tail = g_malloc(max / 2);
    ssize_t len = pread(fd, tail, max / 2, now.st_size - (off_t)(max / 2));
    /* Starts at the beginning of a line, if there is one. */
    const char *line = len > 0 ? memchr(tail, '\n', (size_t)len) : NULL;
    const char *from = line ? line + 1 : tail;
    size_t kept = len > 0 ? (size_t)(tail + len - from) : 0;
    /* Truncates before it writes, so that even a full file system has room. */
    if (ftruncate(fd, 0) == 0 && pwrite(fd, note, sizeof note - 1, 0) > 0 && kept > 0 &&
        pwrite(fd, from, kept, sizeof note - 1) < 0)
        g_debug("%s could not be written", path);
    close(fd);
}
