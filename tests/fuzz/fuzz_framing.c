/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: the parser of control messages, on the input as it is and on the input as the body of a
 * message whose length is right. Whatever comes, no more memory is taken than its length allows, and what is
 * taken can be shown and checked, as the daemon does with a peer's.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/framing.h"
#include "proto/limits.h"
#include "proto/readable.h"

#define WORDS_LEN 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct heap {
    size_t held, most;
};

static void *heap_alloc(void *opaque, size_t len)
{
    struct heap *heap = opaque;
    size_t *block = malloc(sizeof(max_align_t) + len);
    assert(block);
    *block = len;
    heap->held += len;
    if (heap->held > heap->most)
        heap->most = heap->held;
    return (char *)block + sizeof(max_align_t);
}

static void heap_free(void *opaque, void *pointer)
{
    struct heap *heap = opaque;
    if (!pointer)
        return;
    size_t *block = (size_t *)((char *)pointer - sizeof(max_align_t));
    heap->held -= *block;
    free(block);
}

static void measure(const guint8 *bytes, gsize len)
{
    struct heap heap = {0};
    ProtobufCAllocator memory = {.alloc = heap_alloc, .free = heap_free, .allocator_data = &heap};
    Understudy__Envelope *out = NULL;
    framing_parse_in(bytes, len, &out, &memory);
    if (out)
        understudy__envelope__free_unpacked(out, &memory);
    assert(heap.held == 0 && heap.most <= framing_cost_max(len));
}

static void use(Understudy__Envelope *message)
{
    if (message->body_case == UNDERSTUDY__ENVELOPE__BODY_PREPARE_STANDBY &&
        message->prepare_standby->protection)
        limits_hold(message->prepare_standby->protection, NULL);
    envelope_make_readable(message, WORDS_LEN);
}

static void parse(const guint8 *bytes, gsize len)
{
    Understudy__Envelope *out = NULL;
    gssize used = framing_parse(bytes, len, &out);
    assert(used == -EPROTO || (used >= 0 && (gsize)used <= len));
    assert(used <= 0 || (out && out->body_case != UNDERSTUDY__ENVELOPE__BODY__NOT_SET));
    assert(used != 0 || !out);
    if (used > 0)
        use(out);
    if (out)
        understudy__envelope__free_unpacked(out, NULL);
    measure(bytes, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    guint32 head = GUINT32_TO_LE((guint32)size);
    guint8 *whole = g_malloc(sizeof head + size);
    memcpy(whole, &head, sizeof head);
    if (size)
        memcpy(whole + sizeof head, data, size);
    parse(data, size);
    parse(whole, sizeof head + size);
    g_free(whole);
    return 0;
}
