/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer target: whatever the words are, what is shown is one bounded line of UTF-8; in messages too. */
#include <assert.h>
#include <glib.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/words.h"
#include "proto/readable.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void is_fit(const char *line, size_t max)
{
    assert(strlen(line) <= max);
    assert(g_utf8_validate(line, -1, NULL));
    for (const char *at = line; *at; at = g_utf8_next_char(at)) {
        gunichar c = g_utf8_get_char(at);
        assert(c >= 0x20 && !(c >= 0x7f && c < 0xa0));
    }
    assert(words_are_readable(line, max));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (size_t max = 4; max < 3000; max *= 7) {
        g_autofree char *line = words_make_readable_len((const char *)data, size, max);
        is_fit(line, max);
    }
    Understudy__Envelope *message = understudy__envelope__unpack(NULL, size, data);
    if (!message)
        return 0;
    envelope_make_readable(message, 100);
    if (message->body_case == UNDERSTUDY__ENVELOPE__BODY_ANSWER)
        is_fit(message->answer->message, 100);
    understudy__envelope__free_unpacked(message, NULL);
    return 0;
}
