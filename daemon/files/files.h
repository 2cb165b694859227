/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compares the files that both hosts must have: media, kernels, firmware, ROMs, and backing files. After a
 * takeover the guest goes on reading where it stopped, so the files must be the same: length and SHA-256 are
 * compared. A file above FILES_WHOLE_MAX is compared by samples, spread over its length.
 *
 *   digest.c    the digest of one file, remembered as long as the file is unchanged
 *   backing.c   the backing files of a qcow2 image
 *   compare.c   a list of files: one host describes its files, the other one compares
 *
 * Any thread but the main one, since files are read, for minutes at worst. Only one file is read at a time.
 */
#ifndef UNDERSTUDY_DAEMON_FILES_FILES_H
#define UNDERSTUDY_DAEMON_FILES_FILES_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/control.pb-c.h"

struct stream;

#define FILES_MAX        64u
#define FILES_DIGEST_LEN 32u
#define FILES_WHOLE_MAX  (4ull << 30)

/* Reports the progress about once a second while a file is read. A NULL pointer to it: no reports. */
struct files_progress {
    void (*told)(const char *path, uint64_t done, uint64_t total, void *opaque);
    void *opaque;
};

/* ---- digest.c ---- */
struct file_digest {
    bool has_content; /* it is a file or a block device; of others there is nothing to compare */
    bool sampled;
    uint64_t len;
    uint8_t sha256[FILES_DIGEST_LEN];
};
/* Computes the digest of the file, or recalls it. False and error: a sentence that names the file. */
bool file_digest(const char *path, struct file_digest *digest, const struct files_progress *progress,
                 GError **error);
/* Returns how many digests were computed since the program began. For tests. */
unsigned file_digest_count(void);

/* ---- backing.c ---- */
/* Adds the backing files of the image at path, through all layers, to paths (char *). */
void files_add_backing(GPtrArray *paths, const char *path);

/* ---- compare.c ---- */
/* Describes this host's files of these paths. Returns an array that owns its FileFact *; NULL and error. */
GPtrArray *files_describe(const GPtrArray *paths, const struct files_progress *progress, GError **error);
/* Checks that this host has the same files. False with a sentence about the first that differs. */
bool files_are_the_same(Understudy__FileFact *const *facts, size_t n, const struct files_progress *progress,
                        GError **error);
/* Asks the peer's daemon over the stream whether it has the same files. peer: its name, for progress. False
 * and error. */
bool files_ask_peer(struct stream *stream, const GPtrArray *facts, const char *peer,
                    const struct files_progress *progress, GError **error);
/* Answers such a request on the stream, on the peer's side. */
void files_serve(struct stream *stream, const Understudy__FilesRequest *request);

#endif
