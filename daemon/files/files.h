/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files that both hosts must have: media, kernels, firmware, ROMs, and what an image stands on. The guest
 * reads on after a takeover where it stopped, so what it reads must be the same: length and SHA-256 are
 * compared. A file above FILES_WHOLE_MAX is compared by samples, spread over its length.
 *
 *   digest.c    one file's digest, remembered as long as the file is what it was
 *   backing.c   what a qcow2 image stands on; pure but for reading the image's head
 *   compare.c   a list of files: told by one host, compared by the other
 *
 * Any thread but the main one: files are read, for minutes at worst. Only one is read at a time.
 */
#ifndef UNDERSTUDY_DAEMON_FILES_FILES_H
#define UNDERSTUDY_DAEMON_FILES_FILES_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/control.pb-c.h"

#define FILES_MAX        64u
#define FILES_DIGEST_LEN 32u
#define FILES_WHOLE_MAX  (4ull << 30)

/* How far it is, about once a second while a file is read. NULL: nobody wants to know. */
struct files_progress {
    void (*told)(const char *path, uint64_t done, uint64_t total, void *opaque);
    void *opaque;
};

/* ---- digest.c ---- */
struct file_digest {
    bool has_content; /* a file or a block device; of anything else there is nothing to compare */
    bool sampled;
    uint64_t len;
    uint8_t sha256[FILES_DIGEST_LEN];
};
/* False and error: a sentence that names the file. */
bool file_digest(const char *path, struct file_digest *digest, const struct files_progress *progress,
                 GError **error);
/* Of how many files a digest was computed since the program began: for tests. */
unsigned file_digest_count(void);

/* ---- backing.c ---- */
/* The files that the image at path stands on, through all layers, are added to paths (char *). */
void files_add_backing(GPtrArray *paths, const char *path);

/* ---- compare.c ---- */
/* What this host has of paths. Array of FileFact *, freed with the array. NULL and error. */
GPtrArray *files_describe(const GPtrArray *paths, const struct files_progress *progress, GError **error);
/* This host has the same. False with a sentence of the first that differs. */
bool files_are_the_same(Understudy__FileFact *const *facts, size_t n, const struct files_progress *progress,
                        GError **error);
/* The other host, whose daemon fd leads to, has the same. peer: its name, for progress. */
bool files_ask_peer(int fd, const GPtrArray *facts, const char *peer, const struct files_progress *progress,
                    GError **error);
/* The peer's side: answers on fd. */
void files_serve(int fd, const Understudy__FilesRequest *request);

#endif
