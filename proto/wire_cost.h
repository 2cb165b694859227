/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Computes from the bytes of a message how much memory it would take to unpack it, before anything is
 * unpacked. A field of two bytes can become a structure of hundreds of bytes, so the length of a message does
 * not limit its memory. Pure; any thread; allocates nothing.
 */
#ifndef UNDERSTUDY_PROTO_WIRE_COST_H
#define UNDERSTUDY_PROTO_WIRE_COST_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Greatest nesting of messages. understudy's own need 6: Envelope, Adopted, Start, Protection, Disk, backing
 * file. */
#define WIRE_DEPTH_MAX 7u

/*
 * Returns whether the bytes are a message of this type that takes at most `limit` bytes of memory while it is
 * unpacked and afterwards. *cost: what it takes, at least as much as protobuf-c asks its allocator for. Also
 * false if the bytes are not a message, if messages are nested deeper than WIRE_DEPTH_MAX, or if a field that
 * holds one message comes twice (protobuf-c would merge the two, in a time that grows with the square of the
 * length). Strings and enumerations are not checked.
 */
bool wire_cost(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t len, size_t limit,
               size_t *cost);

#endif
