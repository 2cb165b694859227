/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Walks a packed message as protobuf-c 1.4 does, field by field, and adds up what that would allocate
 * (wire_cost.h). The sums, with a heap's own words for each block:
 *
 *   a message        its structure
 *   its fields       32 bytes each while it is unpacked, in blocks that double: at most twice that
 *   repeated ones    an element each in an array
 *   strings, bytes   their length, and a NUL
 *   unknown ones     24 bytes each and their contents
 *
 * Each byte is looked at twice at each level of nesting, so the time is bounded by the length.
 */
#include "proto/wire_cost.h"

#include <string.h>

#define HEAP_LEN     16u /* of a block: head and rounding */
#define SCANNED_LEN  64u
#define UNKNOWN_LEN  24u
#define SINGULAR_MAX 128u /* fields of a message type that can be told apart */

struct walk {
    size_t held, most, limit;
};

struct field {
    uint32_t tag;
    unsigned wire_type;
    const uint8_t *data;
    size_t len; /* of the contents */
};

static bool take(struct walk *walk, size_t len)
{
    walk->held += len;
    if (walk->held > walk->most)
        walk->most = walk->held;
    return walk->held <= walk->limit;
}

/* Reads a varint of at most `max` bytes and moves *at behind it. False: there is none. */
static bool read_number(const uint8_t **at, const uint8_t *end, unsigned max, uint64_t *number)
{
    *number = 0;
    for (unsigned i = 0; i < max && *at < end; i++) {
        uint8_t byte = *(*at)++;
        *number |= (uint64_t)(byte & 0x7f) << 7 * i;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool read_field(const uint8_t **at, const uint8_t *end, struct field *field)
{
    uint64_t head, number, len = 0;
    if (!read_number(at, end, 5, &head))
        return false;
    field->tag = (uint32_t)(head >> 3);
    field->wire_type = head & 7;
    field->data = *at;
    switch (field->wire_type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        if (!read_number(at, end, 10, &number))
            return false;
        field->len = (size_t)(*at - field->data);
        return true;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        len = 8;
        break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        len = 4;
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!read_number(at, end, 5, &len))
            return false;
        break;
    default:
        return false;
    }
    if (len > (size_t)(end - *at))
        return false;
    field->data = *at;
    field->len = (size_t)len;
    *at += len;
    return true;
}

static size_t element_len(const ProtobufCFieldDescriptor *known)
{
    return known->type == PROTOBUF_C_TYPE_BYTES ? sizeof(ProtobufCBinaryData) : 8;
}

/* Returns the bytes that a repeated field takes in its array: one element, or several if numbers are packed.
 */
static size_t places_len(const ProtobufCFieldDescriptor *known, const struct field *field)
{
    bool own = known->type == PROTOBUF_C_TYPE_STRING || known->type == PROTOBUF_C_TYPE_BYTES ||
               known->type == PROTOBUF_C_TYPE_MESSAGE;
    bool packed = field->wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED && !own;
    return element_len(known) * (packed ? field->len : 1);
}

/* Notes a field that may come only once. False: it came before. */
static bool note_once(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *known,
                      uint8_t *seen)
{
    size_t index = (size_t)(known - type->fields);
    if (index >= SINGULAR_MAX || seen[index / 8] & 1u << index % 8)
        return false;
    seen[index / 8] |= (uint8_t)(1u << index % 8);
    return true;
}

static size_t count_fields(const uint8_t *bytes, size_t len, bool *whole)
{
    const uint8_t *at = bytes, *end = bytes + len;
    struct field field;
    size_t n = 0;
    *whole = true;
    for (; at < end && *whole; n++)
        *whole = read_field(&at, end, &field);
    return n;
}

static bool take_message(struct walk *walk, const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
                         size_t len, unsigned depth);

static bool take_field(struct walk *walk, const ProtobufCMessageDescriptor *type, const struct field *field,
                       uint8_t *seen, unsigned depth)
{
    const ProtobufCFieldDescriptor *known = protobuf_c_message_descriptor_get_field(type, field->tag);
    if (!known)
        return take(walk, UNKNOWN_LEN + field->len + HEAP_LEN);
    bool repeated = known->label == PROTOBUF_C_LABEL_REPEATED;
    if (repeated && !take(walk, places_len(known, field) + HEAP_LEN))
        return false;
    if (field->wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
        return true;
    if (known->type == PROTOBUF_C_TYPE_STRING || known->type == PROTOBUF_C_TYPE_BYTES)
        return take(walk, field->len + 1 + HEAP_LEN);
    if (known->type != PROTOBUF_C_TYPE_MESSAGE)
        return true;
    return (repeated || note_once(type, known, seen)) &&
           take_message(walk, known->descriptor, field->data, field->len, depth + 1);
}

static bool take_message(struct walk *walk, const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
                         size_t len, unsigned depth)
{
    const uint8_t *at = bytes, *end = bytes + len;
    uint8_t seen[SINGULAR_MAX / 8] = {0};
    struct field field;
    bool whole;
    if (depth > WIRE_DEPTH_MAX)
        return false;
    size_t scanned_len = count_fields(bytes, len, &whole) * SCANNED_LEN;
    if (!whole || !take(walk, type->sizeof_message + HEAP_LEN + scanned_len))
        return false;
    while (at < end) {
        if (!read_field(&at, end, &field) || !take_field(walk, type, &field, seen, depth))
            return false;
    }
    walk->held -= scanned_len;
    return true;
}

bool wire_cost(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t len, size_t limit,
               size_t *cost)
{
    struct walk walk = {.limit = limit};
    bool fits = take_message(&walk, type, bytes, len, 1);
    *cost = walk.most;
    return fits;
}
