/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Splits a list of VMs into messages of bounded size, and joins such messages again. */
#include "proto/status_answer.h"

#include <gio/gio.h>
#include <stdbool.h>
#include <string.h>

/* Bytes of an entry beside itself: its tag and its length. And of a message beside its entries. */
#define ENTRY_HEAD_LEN 11u
#define ROOM_LEN       (FRAMING_MAX_LEN - 64)

static size_t entry_len(const ProtobufCMessage *entry)
{
    return protobuf_c_message_get_packed_size(entry) + ENTRY_HEAD_LEN;
}

static gboolean send_page(struct stream *stream, Understudy__StatusList *page, bool more, unsigned timeout_ms,
                          GError **error)
{
    page->more = more;
    Understudy__Envelope envelope = UNDERSTUDY_ENVELOPE(STATUS_LIST, status_list, page);
    return framing_write(stream, &envelope, timeout_ms, error);
}

/* Makes a short status that is sent instead of one that is too long. */
static void shorten(const Understudy__Status *status, Understudy__Status *brief)
{
    understudy__status__init(brief);
    brief->vm = status->vm;
    brief->role = status->role;
    brief->state = status->state;
    brief->term = status->term;
    brief->guest_here = status->guest_here;
    brief->last_error = (char *)"there is more to say of this VM than one message holds";
}

struct entry {
    Understudy__Status *vm;
    Understudy__Ending *ending;
    size_t len;
};

static void add(Understudy__StatusList *page, const struct entry *entry)
{
    if (entry->vm)
        page->vms[page->n_vms++] = entry->vm;
    else
        page->endings[page->n_endings++] = entry->ending;
}

gboolean status_answer_write(struct stream *stream, const Understudy__StatusList *list, unsigned timeout_ms,
                             GError **error)
{
    size_t n = list->n_vms + list->n_endings, len = 0;
    g_autofree struct entry *entries = g_new0(struct entry, n + 1);
    g_autofree Understudy__Status *briefs = g_new0(Understudy__Status, list->n_vms + 1);
    g_autofree Understudy__Status **vms = g_new0(Understudy__Status *, list->n_vms + 1);
    g_autofree Understudy__Ending **endings = g_new0(Understudy__Ending *, list->n_endings + 1);
    Understudy__StatusList page = *list;
    page.vms = vms;
    page.endings = endings;
    page.n_vms = page.n_endings = 0;
    for (size_t i = 0; i < n; i++) {
        struct entry *entry = &entries[i];
        bool is_vm = i < list->n_vms;
        entry->vm = is_vm ? list->vms[i] : NULL;
        entry->ending = is_vm ? NULL : list->endings[i - list->n_vms];
        entry->len = is_vm ? entry_len(&entry->vm->base) : entry_len(&entry->ending->base);
        if (is_vm && entry->len > ROOM_LEN) {
            shorten(entry->vm, &briefs[i]);
            entry->vm = &briefs[i];
            entry->len = entry_len(&entry->vm->base);
        }
        if (len + entry->len > ROOM_LEN) {
            if (!send_page(stream, &page, true, timeout_ms, error))
                return FALSE;
            page.n_vms = page.n_endings = 0;
            len = 0;
        }
        add(&page, entry);
        len += entry->len;
    }
    return send_page(stream, &page, false, timeout_ms, error);
}

/* Appends the elements of `from` to `to` and returns the new array. The arrays are protobuf-c's, from malloc.
 */
static void **join(void **to, size_t *nto, void **from, size_t *nfrom)
{
    if (*nfrom == 0)
        return to;
    void **joined = g_realloc_n(to, *nto + *nfrom, sizeof *to);
    memcpy(joined + *nto, from, *nfrom * sizeof *from);
    *nto += *nfrom;
    *nfrom = 0; /* who frees the message frees its array only */
    return joined;
}

gboolean status_answer_read_rest(struct stream *stream, Understudy__StatusList *first, unsigned timeout_ms,
                                 GError **error)
{
    for (unsigned i = 1; first->more; i++) {
        Understudy__Envelope *next =
            i < STATUS_ANSWER_MESSAGES ? framing_read(stream, timeout_ms, error) : NULL;
        if (!next) {
            if (error && !*error)
                g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "the answer has no end");
            return FALSE;
        }
        Understudy__StatusList *page =
            next->body_case == UNDERSTUDY__ENVELOPE__BODY_STATUS_LIST ? next->status_list : NULL;
        gboolean fits = page && first->n_vms + page->n_vms <= STATUS_ANSWER_MAX &&
                        first->n_endings + page->n_endings <= STATUS_ANSWER_MAX;
        if (fits) {
            first->more = page->more;
            first->vms = (Understudy__Status **)join((void **)first->vms, &first->n_vms, (void **)page->vms,
                                                     &page->n_vms);
            first->endings = (Understudy__Ending **)join((void **)first->endings, &first->n_endings,
                                                         (void **)page->endings, &page->n_endings);
        } else {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "what came was not understood");
        }
        understudy__envelope__free_unpacked(next, NULL);
        if (!fits)
            return FALSE;
    }
    return TRUE;
}
