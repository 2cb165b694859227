/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Keeps the trust store (store.h): its file, its list, and the mutex around both. */
#include "daemon/trust/store.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/refusal.h"
#include "daemon/trust/roles.h"

#define FILE_MAX (256u << 10)

static const char head[] =
    "# Hosts that this one trusts: name, public key, roles. Written by 'understudy trust'.\n";

struct store {
    char *dir, *path;
    GMutex mutex;
    GArray *hosts; /* of struct trusted; under mutex */
};

bool store_name_is_fit(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t len = strlen(name);
    for (const char *at = name; *at; at++) {
        if (!strchr(letters, *at) && (at == name || !strchr(".-_", *at)))
            return false;
    }
    return len > 0 && len <= STORE_NAME_MAX;
}

static struct trusted *find(const GArray *hosts, const char *name, const uint8_t *key)
{
    for (guint i = 0; i < hosts->len; i++) {
        struct trusted *host = &g_array_index(hosts, struct trusted, i);
        if (name ? strcmp(host->name, name) == 0 : memcmp(host->key, key, KEY_LEN) == 0)
            return host;
    }
    return NULL;
}

/* ---- the file's text ---- */

static bool parse_line(const char *line, struct trusted *host, GError **error)
{
    g_auto(GStrv) words = g_strsplit_set(line, " \t", -1);
    const char *found[3] = {NULL};
    unsigned n = 0;
    for (char **word = words; *word; word++) {
        if (!**word)
            continue;
        if (n == G_N_ELEMENTS(found))
            return refuse(error, "there are more than three words");
        found[n++] = *word;
    }
    if (n < G_N_ELEMENTS(found))
        return refuse(error, "a name, a key and roles are wanted");
    if (!store_name_is_fit(found[0]))
        return refuse(error, "the first word is no name of a host");
    if (!key_parse(found[1], host->key))
        return refuse(error, "the second word is no key");
    g_strlcpy(host->name, found[0], sizeof host->name);
    host->may = roles_parse(found[2], error);
    return host->may != 0;
}

static bool add_line(GArray *hosts, char *line, GError **error)
{
    struct trusted host = {.may = 0};
    g_strstrip(line);
    if (!line[0] || line[0] == '#')
        return true;
    if (!parse_line(line, &host, error))
        return false;
    if (hosts->len >= STORE_MAX)
        return refuse(error, "there are more than %u hosts", STORE_MAX);
    if (find(hosts, host.name, NULL) || find(hosts, NULL, host.key))
        return refuse(error, "the name or the key is in the file twice");
    g_array_append_val(hosts, host);
    return true;
}

GArray *store_parse(const char *text, size_t len, GError **error)
{
    GArray *hosts = g_array_new(FALSE, FALSE, sizeof(struct trusted));
    g_autofree char *copy = g_strndup(text, len);
    g_auto(GStrv) lines = g_strsplit(copy, "\n", -1);
    bool good = strlen(copy) == len || refuse(error, "it is no text: ");
    for (unsigned i = 0; good && lines[i]; i++) {
        good = add_line(hosts, lines[i], error);
        if (!good)
            g_prefix_error(error, "line %u: ", i + 1);
    }
    if (!good)
        g_clear_pointer(&hosts, g_array_unref);
    return hosts;
}

static char *text_of(const GArray *hosts)
{
    GString *text = g_string_new(head);
    for (guint i = 0; i < hosts->len; i++) {
        const struct trusted *host = &g_array_index(hosts, struct trusted, i);
        g_autofree char *key = key_text(host->key), *roles = roles_text(host->may);
        g_string_append_printf(text, "%s %s %s\n", host->name, key, roles);
    }
    return g_string_free(text, FALSE);
}

/* ---- the file ---- */

/* Writes the list under another name and renames it. False with a sentence. */
static bool write_file(const struct store *store, const GArray *hosts, GError **error)
{
    g_autofree char *temporary = g_build_filename(store->dir, ".trust-XXXXXX", NULL), *text = text_of(hosts);
    size_t len = strlen(text);
    int fd = g_mkstemp_full(temporary, O_RDWR | O_CLOEXEC, 0600), failed = fd < 0 ? errno : 0;
    if (fd >= 0) {
        if (write(fd, text, len) != (ssize_t)len || fsync(fd) < 0 || rename(temporary, store->path) < 0) {
            failed = errno ? errno : EIO;
            unlink(temporary);
        }
        close(fd);
    }
    int dir_fd = failed ? -1 : open(store->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd >= 0) {
        fsync(dir_fd);
        close(dir_fd);
    }
    return !failed || refuse(error, "%s cannot be written: %s", store->path, g_strerror(failed));
}

/* Returns whether only root and this daemon's user can write to the file, which decides who is trusted. */
static bool is_ours(const struct stat *status)
{
    return S_ISREG(status->st_mode) && (status->st_uid == 0 || status->st_uid == geteuid()) &&
           (status->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static GArray *read_file(const char *path, GError **error)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT)
        return g_array_new(FALSE, FALSE, sizeof(struct trusted));
    if (fd < 0) {
        refuse(error, "%s cannot be read: %s", path, g_strerror(errno));
        return NULL;
    }
    g_autofree char *text = g_malloc(FILE_MAX + 1);
    bool ours = fstat(fd, &status) == 0 && is_ours(&status);
    ssize_t len = ours ? read(fd, text, FILE_MAX + 1) : 0;
    close(fd);
    GArray *hosts = NULL;
    if (!ours)
        refuse(error, "%s is not used: others than root and this daemon's user may write to it", path);
    else if (len < 0 || len > (ssize_t)FILE_MAX)
        refuse(error, "%s cannot be read, or is too long", path);
    else if (!(hosts = store_parse(text, (size_t)len, error)))
        g_prefix_error(error, "%s, ", path);
    return hosts;
}

struct store *store_open(const char *dir, GError **error)
{
    g_autofree char *path = g_build_filename(dir, "trust", NULL);
    GArray *hosts = read_file(path, error);
    if (!hosts)
        return NULL;
    struct store *store = g_new0(struct store, 1);
    store->dir = g_strdup(dir);
    store->path = g_steal_pointer(&path);
    store->hosts = hosts;
    g_mutex_init(&store->mutex);
    return store;
}

void store_free(struct store *store)
{
    if (!store)
        return;
    g_array_unref(store->hosts);
    g_mutex_clear(&store->mutex);
    g_free(store->path);
    g_free(store->dir);
    g_free(store);
}

/* ---- the list ---- */

/* Writes the list to the file, and then replaces the list in memory. False with a sentence: neither. */
static bool put(struct store *store, GArray *hosts, GError **error)
{
    bool written = write_file(store, hosts, error);
    if (written) {
        g_array_unref(store->hosts);
        store->hosts = g_array_ref(hosts);
    }
    return written;
}

static bool add_locked(struct store *store, const struct trusted *host, GError **error)
{
    struct trusted *same_name = find(store->hosts, host->name, NULL);
    struct trusted *same_key = find(store->hosts, NULL, host->key);
    if (!store_name_is_fit(host->name))
        return refuse(error, "'%s' is no name for a host: use letters, digits, dots, hyphens and underscores",
                      host->name);
    if (same_name && same_name != same_key)
        return refuse(error, "the name %s belongs to another key: 'understudy trust --remove %s' first",
                      host->name, host->name);
    if (same_key && same_key != same_name)
        return refuse(error, "the key belongs to host %s already", same_key->name);
    if (!same_key && store->hosts->len >= STORE_MAX)
        return refuse(error, "%u hosts are trusted already: remove one", STORE_MAX);
    g_autoptr(GArray) hosts = g_array_copy(store->hosts);
    if (same_name)
        find(hosts, host->name, NULL)->may = host->may;
    else
        g_array_append_vals(hosts, host, 1);
    return put(store, hosts, error);
}

bool store_add(struct store *store, const struct trusted *host, GError **error)
{
    g_mutex_lock(&store->mutex);
    bool added = add_locked(store, host, error);
    g_mutex_unlock(&store->mutex);
    return added;
}

bool store_add_key(struct store *store, const struct trusted *host, struct trusted *kept, GError **error)
{
    g_mutex_lock(&store->mutex);
    const struct trusted *known = find(store->hosts, NULL, host->key);
    *kept = known ? *known : *host;
    kept->may |= host->may;
    bool added = add_locked(store, kept, error);
    g_mutex_unlock(&store->mutex);
    return added;
}

bool store_remove(struct store *store, const char *name, struct trusted *removed, GError **error)
{
    g_mutex_lock(&store->mutex);
    struct trusted *known = find(store->hosts, name, NULL);
    bool done = known != NULL;
    if (done) {
        *removed = *known;
        g_autoptr(GArray) hosts = g_array_copy(store->hosts);
        g_array_remove_index(hosts, (guint)(known - (struct trusted *)(void *)store->hosts->data));
        done = put(store, hosts, error);
    } else {
        refuse(error, "no host %s is trusted; 'understudy trust --list' shows who is", name);
    }
    g_mutex_unlock(&store->mutex);
    return done;
}

static bool copy_found(struct store *store, const char *name, const uint8_t *key, struct trusted *found)
{
    g_mutex_lock(&store->mutex);
    const struct trusted *known = find(store->hosts, name, key);
    if (known)
        *found = *known;
    g_mutex_unlock(&store->mutex);
    return known != NULL;
}

bool store_find_key(struct store *store, const uint8_t *key, struct trusted *found)
{
    return copy_found(store, NULL, key, found);
}

bool store_find_name(struct store *store, const char *name, struct trusted *found)
{
    return copy_found(store, name, NULL, found);
}

GArray *store_list(struct store *store)
{
    g_mutex_lock(&store->mutex);
    GArray *copy = g_array_copy(store->hosts);
    g_mutex_unlock(&store->mutex);
    return copy;
}
