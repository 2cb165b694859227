#!/usr/bin/env bash
# protobuf-c: a proto3 submessage that comes in two parts loses the numbers of the first part.
#
# Guess:     protobuf says that parts of the same submessage are merged: what the second part does not set stays as the
#            first set it. That is what makes it right to append fields to a message that is packed already.
# Behaviour: strings, repeated fields and nested submessages of the first part are kept; numbers that only the first
#            part sets are gone (0), and unpack reports nothing. Google's protoc decodes the same bytes with all of them.
# Version:   protobuf-c 1.4.1 (Debian 12, libprotobuf-c1, libprotobuf-c-dev and protobuf-c-compiler 1.4.1-1+b1), against
#            protoc 3.21.12 (protobuf-compiler 3.21.12-3+deb12u1). proto3 only; proto2's fields have a flag each.
# Matters:   a proxy, or a peer in another language, that appends an update to a packed message sends bytes that mean
#            another thing to protobuf-c: a term or an epoch number that reads as 0. Refuse a message in which a
#            submessage appears twice, or never send one.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

unpack libprotobuf-c1=1.4.1-1+b1 libprotobuf-c-dev=1.4.1-1+b1 protobuf-c-compiler=1.4.1-1+b1 \
    protobuf-compiler=3.21.12-3+deb12u1 libprotobuf32=3.21.12-3+deb12u1 libprotoc32=3.21.12-3+deb12u1
needs protoc protoc-c
cd "$work"
cat >state.proto <<'P'
syntax = "proto3";
message Disk { uint32 blocks = 1; }
message Epoch { uint64 number = 1; uint32 pages = 2; string name = 3; repeated uint32 sizes = 4; Disk disk = 5; }
message State { Epoch epoch = 1; }
P
protoc-c --c_out=. state.proto
cat >merge.c <<'C'
#include "state.pb-c.h"
#include <stdio.h>

int main(void)
{
    static uint8_t bytes[4096];
    size_t size = fread(bytes, 1, sizeof bytes, stdin);
    State *state = state__unpack(NULL, size, bytes);
    if (!state || !state->epoch)
        return 1;
    const Epoch *epoch = state->epoch;
    printf("number %lu, pages %u, name '%s', %zu sizes, %s\n", (unsigned long)epoch->number, epoch->pages, epoch->name,
           epoch->n_sizes, epoch->disk ? "a disk" : "no disk");
    state__free_unpacked(state, NULL);
    return 0;
}
C
cc -w -I. -Iroot/usr/include -o merge merge.c state.pb-c.c -L"$LD_LIBRARY_PATH" -lprotobuf-c

# Two packed messages; one after the other they are the merged message.
protoc --encode=State state.proto <<<'epoch { number: 7 name: "web" sizes: [1] disk { blocks: 9 } }' >first
protoc --encode=State state.proto <<<'epoch { pages: 5 sizes: [2] }' >second
cat first second >both
reference=$(protoc --decode=State state.proto <both | tr -s ' \n' ' ')
echo "protoc:                 $reference"
first=$(./merge <first)
both=$(./merge <both)
echo "protobuf-c, first part: $first"
echo "protobuf-c, both parts: $both"

[ "$reference" = 'epoch { number: 7 pages: 5 name: "web" sizes: 1 sizes: 2 disk { blocks: 9 } } ' ] ||
    changed "protoc does not merge"
[ "$first" = "number 7, pages 0, name 'web', 1 sizes, a disk" ] || changed "the first part alone is read otherwise"
[ "$both" = "number 0, pages 5, name 'web', 2 sizes, a disk" ] || changed "protobuf-c merges otherwise now"
echo "protobuf-c 1.4.1: merging submessages drops the numbers that only the first part sets"
