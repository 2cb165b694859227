/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "key=value,key=value" as QEMU reads it: two commas stand for one in a value, a key alone means on, the last
 * of equal keys counts, and dots in keys make a tree. Pure.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_KEYS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_KEYS_H

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

struct cmdline_key {
    char *key, *value;
};

/* The first element, where it has no '=', is the value of `implied` (may be NULL). Array of struct
 * cmdline_key *. */
GPtrArray *cmdline_keys_parse(const char *text, const char *implied);
/* The same of text that may also be a JSON object, as some options take it: booleans are on and off, what
 * lies within another object has its name before it. NULL where it is not JSON. */
GPtrArray *cmdline_keys_read(const char *text, const char *implied);
/* The value that counts, or NULL; the array's. */
const char *cmdline_keys_get(const GPtrArray *keys, const char *key);
/* Takes prefix followed by key, each time it stands there, out. */
void cmdline_keys_remove(GPtrArray *keys, const char *prefix, const char *key);
/* Sets prefix followed by key. */
void cmdline_keys_set(GPtrArray *keys, const char *prefix, const char *key, const char *value);
/* As text again. GLib string. */
char *cmdline_keys_format(const GPtrArray *keys);
/* value with its commas doubled. GLib string. */
char *cmdline_keys_escape(const char *value);
/* The tree that the dots make: objects and strings. A key that is both a leaf and a branch is the branch. */
json_t *cmdline_keys_tree(const GPtrArray *keys);

/* The protocol of a file's name like "nbd:host:port": what stands before a colon that comes before any slash.
 * GLib string or NULL. */
char *cmdline_keys_protocol(const char *name);

#endif
