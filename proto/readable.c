/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Walks a message by its protobuf descriptor, so that no field, present or future, is forgotten. */
#include "proto/readable.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "common/words.h"

static void make_readable(ProtobufCMessage *message, size_t max);

/* A text that was not sent is the library's own empty one, which is not to be freed: it is readable. */
static void text_make_readable(char **text, size_t max)
{
    if (!*text || words_are_readable(*text, max))
        return;
    char *readable = words_make_readable(*text, max);
    free(*text);
    *text = readable; /* g_malloc is malloc */
}

static void repeated_make_readable(void *const *array, size_t *n, ProtobufCType type, size_t max)
{
    if (type == PROTOBUF_C_TYPE_STRING) {
        for (size_t i = READABLE_LINES_MAX; i < *n; i++)
            free(((char **)*array)[i]);
        *n = MIN(*n, READABLE_LINES_MAX);
    }
    for (size_t i = 0; i < *n; i++) {
        if (type == PROTOBUF_C_TYPE_STRING)
            text_make_readable((char **)*array + i, max);
        else
            make_readable(((ProtobufCMessage **)*array)[i], max);
    }
}

static void make_readable(ProtobufCMessage *message, size_t max)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        char *base = (char *)message;
        void **member = (void **)(base + field->offset);
        if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            repeated_make_readable(member, (size_t *)(base + field->quantifier_offset), field->type, max);
        else if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
                 *(uint32_t *)(base + field->quantifier_offset) != field->id)
            continue; /* another member of the union is there */
        else if (field->type == PROTOBUF_C_TYPE_STRING)
            text_make_readable((char **)member, max);
        else if (*member)
            make_readable(*member, max);
    }
}

void envelope_make_readable(Understudy__Envelope *message, size_t max)
{
    make_readable(&message->base, max);
}
