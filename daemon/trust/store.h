/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hosts that this one trusts: name, public key, roles. They are in the file `trust` of the configuration
 * folder, one line each, and in memory. Each change writes the whole file anew under another name and
 * renames it, so the file always holds either the old list or the new one. All functions: any thread.
 */
#ifndef UNDERSTUDY_DAEMON_TRUST_STORE_H
#define UNDERSTUDY_DAEMON_TRUST_STORE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/trust/key.h"

#define STORE_MAX      256u /* hosts */
#define STORE_NAME_MAX 64u

struct trusted {
    char name[STORE_NAME_MAX + 1];
    uint8_t key[KEY_LEN];
    unsigned may; /* roles.h */
};

struct store;

/* Returns whether the text may be a host's name here: 1 to STORE_NAME_MAX letters, digits, dots, hyphens,
 * underscores, beginning with a letter or a digit. Pure. */
bool store_name_is_fit(const char *name);
/* Parses the file's text. Returns an array of struct trusted, or NULL with a sentence that names the line.
 * Pure. */
GArray *store_parse(const char *text, size_t len, GError **error);

/* Opens DIR/trust, which need not exist. NULL with a sentence. Free with store_free. */
struct store *store_open(const char *dir, GError **error);
void store_free(struct store *store);

/*
 * Adds the host, or gives a known one (the same name and key) these roles. False with a sentence: the name is
 * not fit, or belongs to another key, or the key to another name; or the file cannot be written, and then
 * nothing has changed.
 */
bool store_add(struct store *store, const struct trusted *host, GError **error);
/* Adds the host, or adds the roles to those of a host with this key, which keeps its name. *kept: a copy of
 * what is trusted now. False with a sentence, as store_add. */
bool store_add_key(struct store *store, const struct trusted *host, struct trusted *kept, GError **error);
/* Removes the host. *removed: a copy of it. False with a sentence. */
bool store_remove(struct store *store, const char *name, struct trusted *removed, GError **error);
/* Copies the host with this key, or this name, to *found. False: there is none. */
bool store_find_key(struct store *store, const uint8_t *key, struct trusted *found);
bool store_find_name(struct store *store, const char *name, struct trusted *found);
/* Returns copies of all, as an array of struct trusted. */
GArray *store_list(struct store *store);

#endif
