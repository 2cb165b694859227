/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replaces what a terminal or a reader could take for something else. Bytes that are not UTF-8 become
 * U+FFFD. White space and line separators become spaces, several of them one. Characters that draw nothing
 * but change how the rest is drawn become "?": control characters, among them the C1 ones that many
 * terminals obey, and bidirectional overrides.
 */
#include "common/words.h"

#include <glib.h>
#include <string.h>

#define ELLIPSIS "..."

/* Returns the character to show for c. */
static gunichar shown(gunichar c)
{
    switch (g_unichar_type(c)) {
    case G_UNICODE_CONTROL:
        return c == '\n' || c == '\r' || c == '\t' || c == '\v' || c == '\f' ? ' ' : '?';
    case G_UNICODE_LINE_SEPARATOR:
    case G_UNICODE_PARAGRAPH_SEPARATOR:
        return ' ';
    case G_UNICODE_FORMAT:
    case G_UNICODE_SURROGATE:
    case G_UNICODE_UNASSIGNED:
    case G_UNICODE_PRIVATE_USE:
        return '?';
    default:
        return c;
    }
}

/* Shortens text to at most max bytes, at the beginning of a character, and ends it with an ellipsis. */
static void cut(GString *text, size_t max)
{
    if (text->len <= max)
        return;
    const char *end = g_utf8_find_prev_char(text->str, text->str + max - strlen(ELLIPSIS) + 1);
    g_string_truncate(text, end ? (gsize)(end - text->str) : 0);
    g_string_append(text, ELLIPSIS);
}

char *words_make_readable_len(const char *words, size_t len, size_t max)
{
    size_t n = words ? strnlen(words, len) : 0;
    /*
     * Bounds the work. A character has at most 4 bytes, so 4 * max bytes are enough for max bytes of result,
     * unless they are mostly white space; then the rest is dropped.
     */
    size_t taken = MIN(n, 4 * max);
    g_autofree char *valid = g_utf8_make_valid(words ? words : "", (gssize)taken);
    GString *text = g_string_sized_new(MIN(taken, max) + 1);
    for (const char *at = valid; *at; at = g_utf8_next_char(at)) {
        gunichar c = shown(g_utf8_get_char(at));
        bool again = c == ' ' && (text->len == 0 || text->str[text->len - 1] == ' ');
        if (!again)
            g_string_append_unichar(text, c);
    }
    if (text->len > 0 && text->str[text->len - 1] == ' ')
        g_string_truncate(text, text->len - 1);
    cut(text, max);
    return g_string_free(text, FALSE);
}

char *words_make_readable(const char *words, size_t max)
{
    return words_make_readable_len(words, words ? strlen(words) : 0, max);
}

bool words_are_readable(const char *words, size_t max)
{
    g_autofree char *readable = words_make_readable(words, max);
    return strcmp(readable, words) == 0;
}
