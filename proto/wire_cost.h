/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What it would cost to unpack a message, found out from its bytes before anything is unpacked. A field of
 * two bytes can become a structure of hundreds, so the length of a message does not bound its memory. Pure;
 * any thread; allocates nothing.
 */
#ifndef UNDERSTUDY_PROTO_WIRE_COST_H
#define UNDERSTUDY_PROTO_WIRE_COST_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Messages within messages. The deepest of ours has 7: Envelope, Adopted, Start, Protection, Disk, its
 * backing file, and one to spare. */
#define WIRE_DEPTH_MAX 7u

/*
 * Whether the bytes are a message of this type that takes no more than `limit` bytes of memory while it is
 * unpacked and afterwards; *cost is what it takes, never less than protobuf-c asks its allocator for. False,
 * too, for bytes that are no message, for nesting deeper than WIRE_DEPTH_MAX, and where a field that holds
 * one message comes twice: protobuf-c would merge the two, which takes time with the square of the length.
 * Strings and enumerations are not checked.
 */
bool wire_cost(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t len, size_t limit,
               size_t *cost);

#endif
