/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes sentences from outside (QEMU, a disk's server, qemu-img, the peer) safe to show to people and to put
 * into JSON: they must not control a terminal, look like a line of ours, or break the JSON. Each sentence
 * passes these functions where it enters. Any thread; allocates.
 */
#ifndef UNDERSTUDY_COMMON_WORDS_H
#define UNDERSTUDY_COMMON_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#define WORDS_MAX      1000 /* bytes of a sentence */
#define WORDS_PATH_MAX 4096 /* and where a path may be in it */

/*
 * Returns the words as one line of valid UTF-8 without control characters, of at most max bytes (at least
 * 4); a longer text ends in "...". GLib string, never NULL; words may be NULL.
 */
char *words_make_readable(const char *words, size_t max);
/* Does the same for words that end after len bytes, or at a zero byte before. */
char *words_make_readable_len(const char *words, size_t len, size_t max);
/* Returns whether words_make_readable would not change the words. */
bool words_are_readable(const char *words, size_t max);

#endif
