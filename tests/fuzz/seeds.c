/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes what the fuzzers begin with, a file each: control messages with something in every field (two of
 * each repeated one), and the command lines of a list, a word a line. Run by the build.
 *   seeds framing DIR
 *   seeds cmdline DIR LIST
 */
#include <glib.h>
#include <glib/gstdio.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "proto/framing.h"

#define NREPEATED 2

static void write_file(const char *dir, const char *name, const void *bytes, size_t len)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autoptr(GError) error = NULL;
    if (!g_file_set_contents(path, bytes, (gssize)len, &error))
        g_error("%s", error->message);
}

static ProtobufCMessage *filled(const ProtobufCMessageDescriptor *type);

/* A value of the field's type at `at`. Strings and messages are not freed: this program ends. */
static void fill(const ProtobufCFieldDescriptor *field, void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        *(char **)at = g_strdup(field->name);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        *(ProtobufCBinaryData *)at = (ProtobufCBinaryData){.len = 16, .data = g_malloc0(16)};
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)at = filled(field->descriptor);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = 1;
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        *(double *)at = 1.5;
        break;
    case PROTOBUF_C_TYPE_UINT64:
        *(uint64_t *)at = 300;
        break;
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
        *(uint32_t *)at = 1;
        break;
    default:
        g_error("%s: a type that no message of ours has had", field->name);
    }
}

static size_t len_of(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
        return sizeof(uint32_t);
    default:
        return sizeof(uint64_t);
    }
}

static void fill_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    char *base = (char *)message;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        char *array = g_malloc0(NREPEATED * len_of(field));
        for (size_t i = 0; i < NREPEATED; i++)
            fill(field, array + i * len_of(field));
        *(size_t *)(base + field->quantifier_offset) = NREPEATED;
        *(char **)(base + field->offset) = array;
    } else {
        fill(field, base + field->offset);
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
            *(int *)(base + field->quantifier_offset) = (int)field->id;
    }
}

static ProtobufCMessage *filled(const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *message = g_malloc0(type->sizeof_message);
    protobuf_c_message_init(type, message);
    for (unsigned i = 0; i < type->n_fields; i++)
        fill_field(message, &type->fields[i]);
    return message;
}

/* Each kind of message: with all of its fields, and with none. */
static void write_messages(const char *dir)
{
    const ProtobufCMessageDescriptor *type = &understudy__envelope__descriptor;
    for (unsigned i = 0; i < 2 * type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i / 2];
        Understudy__Envelope envelope = UNDERSTUDY__ENVELOPE__INIT;
        fill_field(&envelope.base, field);
        if (i % 2) {
            ProtobufCMessage **body = (ProtobufCMessage **)((char *)&envelope + field->offset);
            protobuf_c_message_init(field->descriptor, *body);
        }
        size_t len = understudy__envelope__get_packed_size(&envelope);
        g_autofree guint8 *body = g_malloc(len + 1);
        understudy__envelope__pack(&envelope, body);
        g_autofree char *name = g_strdup_printf("%s-%s", field->name, i % 2 ? "empty" : "full");
        write_file(dir, name, body, len);
    }
}

static void write_lines(const char *dir, const char *list)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    if (!g_file_get_contents(list, &text, NULL, &error))
        g_error("%s", error->message);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        g_auto(GStrv) argv = NULL;
        if (!lines[i][0] || lines[i][0] == '#')
            continue;
        if (!g_shell_parse_argv(lines[i], NULL, &argv, &error))
            g_error("%s: %s", lines[i], error->message);
        g_autofree char *words = g_strjoinv("\n", argv), *name = g_strdup_printf("line-%u", i);
        write_file(dir, name, words, strlen(words));
    }
}

int main(int argc, char **argv)
{
    bool framing = argc == 3 && strcmp(argv[1], "framing") == 0;
    bool cmdline = argc == 4 && strcmp(argv[1], "cmdline") == 0;
    if ((!framing && !cmdline) || g_mkdir_with_parents(argv[2], 0755) < 0) {
        fprintf(stderr, "usage: seeds framing DIR | seeds cmdline DIR LIST\n");
        return 2;
    }
    if (framing)
        write_messages(argv[2]);
    else
        write_lines(argv[2], argv[3]);
    return 0;
}
