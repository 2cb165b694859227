#!/usr/bin/env bash
# qemu-img: `convert -n` into a larger target succeeds and leaves the target's old data behind the copy.
#
# Guess:     -n keeps the target file, but after a successful convert the target reads as the source does: a target of
#            another size is refused (a smaller one is), or its rest is zeroed.
# Behaviour: status 0 and no word, also with -p; the target keeps its size, and whatever it held behind the source's
#            end is still there. `qemu-img compare` finds the difference; without -n the target would be replaced.
# Version:   qemu-img 7.2 (Debian 12, qemu-utils 1:7.2+dfsg-7+deb12u18+b3).
# Matters:   -n is the way to fill a prepared volume or NBD export on the second host. If that one was used before and
#            is larger, the VM's disk there has another size and a stranger's data at its end: compare sizes first.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

unpack qemu-utils=1:7.2+dfsg-7+deb12u18+b3
needs qemu-img
cd "$work"
truncate -s 1M source
truncate -s 2M target
qemu-io -f raw -c 'write -q -P 7 0 2M' target

output=$(qemu-img convert -n -f raw -O raw source target 2>&1) || changed "refused: $output"
[ -z "$output" ] || changed "qemu-img remarks: $output"
size=$(stat -c %s target)
[ "$size" -eq $((2 << 20)) ] || changed "the target is $size bytes now"
qemu-io -r -f raw -c 'read -q -P 0 0 1M' target || changed "the source was not copied"
qemu-io -r -f raw -c 'read -q -P 7 1M 1M' target || changed "the old data behind the copy is gone"
echo "converted 1 MiB into 2 MiB: status 0, no message, the second MiB holds what it held"

if output=$(qemu-img convert -n -f raw -O raw target source 2>&1); then
    changed "a smaller target is accepted"
fi
echo "the other way round: $output"
echo "qemu-img 7.2: convert -n does not mind a larger target, and keeps its end"
