/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compares a list of files between two hosts (files.h). The guest's host sends its digests, and the other
 * host answers whether its own are the same. So a client of the daemon's port learns nothing about a file
 * that it does not know already.
 */
#include <gio/gio.h>
#include <string.h>

#include "common/refusal.h"
#include "daemon/files/files.h"
#include "proto/answer.h"
#include "proto/framing.h"

#define WRITE_MS  10000
#define QUIET_MS  30000 /* without a word of progress */
#define LONGEST_S 7200  /* in all, with progress: FILES_MAX files of FILES_WHOLE_MAX, at 40 MB/s */

static void free_fact(gpointer opaque)
{
    Understudy__FileFact *fact = opaque;
    g_free(fact->path);
    g_free(fact->sha256.data);
    g_free(fact);
}

GPtrArray *files_describe(const GPtrArray *paths, const struct files_progress *progress, GError **error)
{
    g_autoptr(GPtrArray) facts = g_ptr_array_new_with_free_func(free_fact);
    if (paths->len > FILES_MAX) {
        refuse(error, "the VM names %u files that both hosts must have, at most %u are compared", paths->len,
               FILES_MAX);
        return NULL;
    }
    for (guint i = 0; i < paths->len; i++) {
        struct file_digest digest;
        const char *path = g_ptr_array_index(paths, i);
        if (!file_digest(path, &digest, progress, error))
            return NULL;
        if (!digest.has_content)
            continue;
        Understudy__FileFact *fact = g_new(Understudy__FileFact, 1);
        understudy__file_fact__init(fact);
        fact->path = g_strdup(path);
        fact->len = digest.len;
        fact->sampled = digest.sampled;
        fact->sha256.data = g_memdup2(digest.sha256, FILES_DIGEST_LEN);
        fact->sha256.len = FILES_DIGEST_LEN;
        g_ptr_array_add(facts, fact);
    }
    return g_steal_pointer(&facts);
}

static bool is_the_same(const Understudy__FileFact *fact, const struct files_progress *progress,
                        GError **error)
{
    struct file_digest digest;
    if (!g_path_is_absolute(fact->path) || fact->sha256.len != FILES_DIGEST_LEN)
        return refuse(error, "the request was not understood");
    if (!file_digest(fact->path, &digest, progress, error)) {
        g_prefix_error(error, "both hosts must have this file, so copy it there: ");
        return false;
    }
    if (!digest.has_content || digest.len != fact->len)
        return refuse(error,
                      "the file %s has %" G_GUINT64_FORMAT " bytes on host %s, but %" G_GUINT64_FORMAT
                      " where the guest runs: copy that one there",
                      fact->path, digest.len, g_get_host_name(), fact->len);
    if (digest.sampled != fact->sampled)
        return refuse(error, "%s is a file on one host and a device on the other, which cannot be compared",
                      fact->path);
    if (memcmp(digest.sha256, fact->sha256.data, FILES_DIGEST_LEN) == 0)
        return true;
    return refuse(
        error,
        "the file %s has the same length on host %s as where the guest runs, but other content: copy "
        "that one there",
        fact->path, g_get_host_name());
}

bool files_are_the_same(Understudy__FileFact *const *facts, size_t n, const struct files_progress *progress,
                        GError **error)
{
    if (n > FILES_MAX)
        return refuse(error, "the request was not understood");
    for (size_t i = 0; i < n; i++) {
        if (!is_the_same(facts[i], progress, error))
            return false;
    }
    return true;
}

/* ---- between the daemons ---- */

static void tell_progress(const char *path, uint64_t done, uint64_t total, void *opaque)
{
    struct stream *stream = opaque;
    answer_write_progress(stream, path, done, total, WRITE_MS);
}

void files_serve(struct stream *stream, const Understudy__FilesRequest *request)
{
    g_autoptr(GError) error = NULL;
    const struct files_progress progress = {.told = tell_progress, .opaque = stream};
    bool ok = files_are_the_same(request->files, request->n_files, &progress, &error);
    answer_write(stream, ok, error ? error->message : NULL, WRITE_MS);
}

bool files_ask_peer(struct stream *stream, const GPtrArray *facts, const char *peer,
                    const struct files_progress *progress, GError **error)
{
    g_autofree char *what = g_strdup_printf("the files on %s", peer);
    Understudy__FilesRequest body = UNDERSTUDY__FILES_REQUEST__INIT;
    body.files = (Understudy__FileFact **)facts->pdata;
    body.n_files = facts->len;
    Understudy__Envelope request = UNDERSTUDY_ENVELOPE(FILES_REQUEST, files_request, &body);
    gint64 until = g_get_monotonic_time() + (gint64)LONGEST_S * G_USEC_PER_SEC;
    Understudy__Envelope *answer = framing_call(stream, &request, QUIET_MS, error);
    while (answer && answer->body_case == UNDERSTUDY__ENVELOPE__BODY_PROGRESS) {
        if (progress)
            progress->told(what, answer->progress->done, answer->progress->total, progress->opaque);
        understudy__envelope__free_unpacked(answer, NULL);
        GError *cause = NULL;
        bool late = g_get_monotonic_time() > until;
        answer = late ? NULL : framing_read(stream, QUIET_MS, &cause);
        if (late)
            refuse(error, "its files are not compared after %d s", LONGEST_S);
        else if (cause)
            g_propagate_error(error, cause);
        else if (!answer)
            refuse(error, "its daemon closed the connection");
    }
    bool ok = answer && answer->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER && answer->answer->ok;
    if (answer && answer->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER && !ok)
        refuse(error, "%s", answer->answer->message);
    else if (answer && !ok)
        refuse(error, "it does not report its files: install one version of understudy on both hosts");
    if (answer)
        understudy__envelope__free_unpacked(answer, NULL);
    return ok;
}
