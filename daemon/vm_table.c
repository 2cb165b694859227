/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of VMs that status reads while it changes: an RCU-protected list of packed status messages. The
 * main thread is the only writer and replaces whole entries; readers never wait for it, nor it for them.
 */
#include <string.h>
#include <urcu/urcu-memb.h>

#include <urcu/rculist.h>

#include "daemon/daemon.h"

struct entry {
    struct cds_list_head link;
    struct rcu_head rcu;
    char *name;
    size_t len;
    uint8_t packed[];
};

static CDS_LIST_HEAD(entries);

static void free_entry(struct rcu_head *head)
{
    struct entry *entry = caa_container_of(head, struct entry, rcu);
    g_free(entry->name);
    g_free(entry);
}

static struct entry *find(const char *name)
{
    struct entry *entry;
    cds_list_for_each_entry (entry, &entries, link) {
        /* cppcheck-suppress uninitvar // set by the list macro */
        if (strcmp(entry->name, name) == 0)
            return entry;
    }
    return NULL;
}

void vm_table_put(const Understudy__Status *status)
{
    size_t len = understudy__status__get_packed_size(status);
    struct entry *fresh = g_malloc0(sizeof *fresh + len);
    struct entry *old = find(status->vm);
    fresh->name = g_strdup(status->vm);
    fresh->len = understudy__status__pack(status, fresh->packed);
    if (old) {
        cds_list_replace_rcu(&old->link, &fresh->link);
        urcu_memb_call_rcu(&old->rcu, free_entry);
    } else {
        cds_list_add_tail_rcu(&fresh->link, &entries);
    }
}

void vm_table_remove(const char *name)
{
    struct entry *entry = find(name);
    if (!entry)
        return;
    cds_list_del_rcu(&entry->link);
    urcu_memb_call_rcu(&entry->rcu, free_entry);
}

GPtrArray *vm_table_snapshot(const char *name)
{
    GPtrArray *out = g_ptr_array_new();
    struct entry *entry;
    urcu_memb_read_lock();
    cds_list_for_each_entry_rcu (entry, &entries, link) {
        /* cppcheck-suppress uninitvar // set by the list macro */
        if (!name || !name[0] || strcmp(entry->name, name) == 0)
            g_ptr_array_add(out, understudy__status__unpack(NULL, entry->len, entry->packed));
    }
    urcu_memb_read_unlock();
    return out;
}

void vm_table_enter(void)
{
    urcu_memb_register_thread();
}

void vm_table_leave(void)
{
    urcu_memb_unregister_thread();
}
