/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See term_file.h. */
#include "replicator/control/term_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/term.h"
#include "replicator/note.h"

#define HEADER   "understudy-term 1"
#define FILE_MAX 256
#define RETRY_S  1

struct term_file {
    char *path, *new_path, *folder;
    char *pair; /* hexadecimal digest of the token */
    struct mailbox *control;
    GThread *thread;
    pthread_mutex_t mutex; /* not GLib's: the thread sanitizer sees this one */
    pthread_cond_t changed;
    /* Under the mutex. */
    uint64_t wanted, kept;
    bool quit;
};

static bool write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        text += n;
        len -= (size_t)n;
    }
    return true;
}

static int sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int status = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return status;
}

/* 0 or -errno. */
static int write_term(const struct term_file *file, uint64_t term)
{
    g_autofree char *text = g_strdup_printf(HEADER "\n%s\n%" PRIu64 "\n", file->pair, term);
    int fd = open(file->new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int status = write_all(fd, text, strlen(text)) && fsync(fd) == 0 ? 0 : -(errno ? errno : EIO);
    if (close(fd) < 0 && status == 0)
        status = -errno;
    if (status == 0 && rename(file->new_path, file->path) < 0)
        status = -errno;
    if (status == 0)
        status = sync_folder(file->folder);
    return status;
}

static void tell(struct term_file *file, enum note_kind kind, uint64_t term, int status)
{
    struct note *note = note_new(kind, NULL, 0);
    note->term = term;
    note->status = status;
    mailbox_post(file->control, &note->letter);
}

static gpointer run(gpointer opaque)
{
    struct term_file *file = opaque;
    bool complained = false;
    pthread_mutex_lock(&file->mutex);
    while (!file->quit) {
        uint64_t term = file->wanted;
        if (term <= file->kept) {
            pthread_cond_wait(&file->changed, &file->mutex);
            continue;
        }
        pthread_mutex_unlock(&file->mutex);
        int status = write_term(file, term);
        if (status == 0)
            tell(file, NOTE_TERM_KEPT, term, 0);
        else if (!complained)
            tell(file, NOTE_TERM_FAILED, term, status);
        complained = status < 0;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += RETRY_S;
        pthread_mutex_lock(&file->mutex);
        if (status == 0)
            file->kept = term;
        while (status < 0 && !file->quit && pthread_cond_timedwait(&file->changed, &file->mutex, &until) == 0)
            ;
    }
    pthread_mutex_unlock(&file->mutex);
    return NULL;
}

/* What the file says, which somebody may have damaged. False: it is no file of ours. */
static bool parse(const struct term_file *file, const char *text, uint64_t *term)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", 5);
    if (g_strv_length(lines) != 4 || strcmp(lines[0], HEADER) != 0 ||
        strlen(lines[1]) != strlen(file->pair) || lines[3][0])
        return false;
    if (!g_ascii_string_to_unsigned(lines[2], 10, 1, UINT64_MAX, term, NULL) || !term_is_believable(0, *term))
        return false;
    if (strcmp(lines[1], file->pair) != 0)
        *term = 0;
    return true;
}

static bool read_term(const struct term_file *file, uint64_t *term, GError **error)
{
    char text[FILE_MAX + 1];
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    *term = 0;
    if (fd < 0 && errno == ENOENT)
        return true;
    ssize_t n = fd < 0 ? -1 : read(fd, text, FILE_MAX);
    int status = n < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (n >= 0) {
        text[n] = 0;
        if (parse(file, text, term))
            return true;
    }
    *term = 0;
    g_set_error(error, G_IO_ERROR, n < 0 ? (int)g_io_error_from_errno(status) : G_IO_ERROR_INVALID_DATA,
                "%s, which has the newest term that this host used, cannot be read: %s", file->path,
                n < 0 ? g_strerror(status) : "it is damaged");
    return false;
}

struct term_file *term_file_open(const char *path, const uint8_t *token, size_t token_len,
                                 struct mailbox *control, uint64_t *term, GError **error)
{
    struct term_file *file = g_new0(struct term_file, 1);
    file->path = g_strdup(path);
    file->new_path = g_strconcat(path, ".new", NULL);
    file->folder = g_path_get_dirname(path);
    file->pair = g_compute_checksum_for_data(G_CHECKSUM_SHA256, token, token_len);
    file->control = control;
    pthread_mutex_init(&file->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&file->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    if (!read_term(file, term, error)) {
        term_file_close(file);
        return NULL;
    }
    file->wanted = file->kept = *term;
    file->thread = g_thread_try_new("term", run, file, error);
    if (!file->thread) {
        term_file_close(file);
        return NULL;
    }
    return file;
}

void term_file_keep(struct term_file *file, uint64_t term)
{
    pthread_mutex_lock(&file->mutex);
    if (term > file->wanted)
        file->wanted = term;
    pthread_cond_signal(&file->changed);
    pthread_mutex_unlock(&file->mutex);
}

void term_file_close(struct term_file *file)
{
    if (!file)
        return;
    if (file->thread) {
        pthread_mutex_lock(&file->mutex);
        file->quit = true;
        pthread_cond_signal(&file->changed);
        pthread_mutex_unlock(&file->mutex);
        g_thread_join(file->thread);
    }
    pthread_mutex_destroy(&file->mutex);
    pthread_cond_destroy(&file->changed);
    g_free(file->path);
    g_free(file->new_path);
    g_free(file->folder);
    g_free(file->pair);
    g_free(file);
}
