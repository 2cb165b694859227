/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libFuzzer target: the parser of control messages, on the input as it is and on the input as the body of a
 * message whose length is right.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proto/framing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const guint8 *bytes, gsize len)
{
    Understudy__Envelope *out = NULL;
    gssize used = framing_parse(bytes, len, &out);
    assert(used == -EPROTO || (used >= 0 && (gsize)used <= len));
    assert(used <= 0 || (out && out->body_case != UNDERSTUDY__ENVELOPE__BODY__NOT_SET));
    assert(used != 0 || !out);
    if (out)
        understudy__envelope__free_unpacked(out, NULL);
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
