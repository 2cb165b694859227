/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads and writes "key=value,key=value" as QEMU does: two commas stand for one in a value, a key without a
 * value means on, the last of equal keys counts, and dots in keys make a tree. Pure.
 *
 * A key's whole name, with those above it ("file.file.filename"), has at most CMDLINE_KEY_MAX bytes where it
 * is a part of a tree. QEMU's own have a few dozen. Without a limit, each inner object of a long name would
 * hold that name again for each of its keys, so the memory would grow with the square of the text's length,
 * and the depth of the tree with its length.
 */
#ifndef UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_KEYS_H
#define UNDERSTUDY_HV_HOOKS_QEMU_CMDLINE_KEYS_H

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

#define CMDLINE_KEY_MAX 256u

struct cmdline_key {
    char *key, *value;
};

/* Parses text. A first element without '=' is the value of the key `implied` (may be NULL). Returns an array
 * that owns its struct cmdline_key *. */
GPtrArray *cmdline_keys_parse(const char *text, const char *implied);
/* Parses text that may also be a JSON object, as some options take it: booleans become on and off, and the
 * keys of an inner object get its name as prefix. NULL: the text begins as JSON and is not, or a name in it
 * is too long. */
GPtrArray *cmdline_keys_read(const char *text, const char *implied);
/* Returns the value that counts, or NULL. The string stays the array's. */
const char *cmdline_keys_get(const GPtrArray *keys, const char *key);
/* Removes every key that is prefix followed by key. */
void cmdline_keys_remove(GPtrArray *keys, const char *prefix, const char *key);
/* Sets the key that is prefix followed by key; replaces equal keys. */
void cmdline_keys_set(GPtrArray *keys, const char *prefix, const char *key, const char *value);
/* Returns the keys as text. GLib string. */
char *cmdline_keys_format(const GPtrArray *keys);
/* Returns value with its commas doubled. GLib string. */
char *cmdline_keys_escape(const char *value);
/* Returns the tree that the dots make, of objects and strings; json_decref it. A key that is both a leaf and
 * a branch is taken as the branch. NULL: a name is too long. */
json_t *cmdline_keys_tree(const GPtrArray *keys);
/* Returns what JSON text holds; flags are json_loads's. json_decref it. NULL: it is not JSON, or a name in it
 * is too long. */
json_t *cmdline_keys_load(const char *text, size_t flags);

/* Returns the protocol of a file's name like "nbd:host:port": the part before a colon that comes before any
 * slash. GLib string or NULL. */
char *cmdline_keys_protocol(const char *name);

#endif
