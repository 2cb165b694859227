/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps the last VMs that ended here, in a queue under a mutex: it changes when a VM ends, and is read when a
 * command asks. Also removes run folders.
 */
#include "daemon/endings.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

struct ending {
    Understudy__Ending said;
    char *dir; /* NULL: another VM's by now */
};

static GMutex lock;
static GQueue endings = G_QUEUE_INIT; /* the oldest first */

void run_folder_remove(const char *dir)
{
    GDir *folder = g_dir_open(dir, 0, NULL);
    const char *name;
    while (folder && (name = g_dir_read_name(folder))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        g_unlink(path);
    }
    if (folder)
        g_dir_close(folder);
    g_rmdir(dir);
}

static void forget(struct ending *ending)
{
    if (ending->dir)
        run_folder_remove(ending->dir);
    g_free(ending->said.vm);
    g_free(ending->said.reason);
    g_free(ending->said.message);
    g_free(ending->dir);
    g_free(ending);
}

/* Takes the folder away from the ending that owns it. The lock is held. */
static void release_dir(const char *dir)
{
    for (GList *at = endings.head; at; at = at->next) {
        struct ending *ending = at->data;
        if (g_strcmp0(ending->dir, dir) == 0)
            g_clear_pointer(&ending->dir, g_free);
    }
}

void endings_release_dir(const char *dir)
{
    g_mutex_lock(&lock);
    release_dir(dir);
    g_mutex_unlock(&lock);
}

void endings_add(const char *vm, Understudy__Role role, uint64_t term, enum session_end_reason reason,
                 const char *said, const char *dir)
{
    struct ending *ending = g_new0(struct ending, 1);
    understudy__ending__init(&ending->said);
    ending->said.vm = g_strdup(vm);
    ending->said.role = role;
    ending->said.term = term;
    ending->said.reason = g_strdup(session_end_reason_words(reason));
    ending->said.message = g_strdup(said);
    ending->said.at_s = (uint64_t)(g_get_real_time() / G_USEC_PER_SEC);
    ending->dir = g_strdup(dir);
    g_mutex_lock(&lock);
    if (dir)
        release_dir(dir); /* a folder has one owner: the last */
    g_queue_push_tail(&endings, ending);
    struct ending *oldest = endings.length > ENDINGS_MAX ? g_queue_pop_head(&endings) : NULL;
    g_mutex_unlock(&lock);
    if (oldest)
        forget(oldest);
}

GPtrArray *endings_list(const char *vm)
{
    GPtrArray *out = g_ptr_array_new();
    g_mutex_lock(&lock);
    for (GList *at = endings.head; at; at = at->next) {
        const struct ending *ending = at->data;
        if (vm && vm[0] && strcmp(vm, ending->said.vm) != 0)
            continue;
        size_t len = understudy__ending__get_packed_size(&ending->said);
        g_autofree uint8_t *packed = g_malloc(len + 1);
        understudy__ending__pack(&ending->said, packed);
        g_ptr_array_add(out, understudy__ending__unpack(NULL, len, packed));
    }
    g_mutex_unlock(&lock);
    return out;
}

void endings_clear(void)
{
    struct ending *ending;
    g_mutex_lock(&lock);
    while ((ending = g_queue_pop_head(&endings))) {
        g_clear_pointer(&ending->dir, g_free);
        forget(ending);
    }
    g_mutex_unlock(&lock);
}
