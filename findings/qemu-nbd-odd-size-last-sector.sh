#!/usr/bin/env bash
# QEMU and nbdkit: the last sector of an export whose size is no multiple of 512 can be read and not written.
#
# Guess:     a disk image of 1000001 bytes is served as 1953 whole sectors, or as 1954 of which the last is padded for
#            reading and extends the file when it is written, as QEMU itself does with such a file.
# Behaviour: QEMU rounds the export's size up and shows the guest 1954 sectors. It fills up what it reads of the last one
#            with zeros, and its write to it goes to the server whole: nbdkit's file plugin refuses that as beyond the
#            end, and QEMU reports "no space left on device".
# Version:   QEMU 7.2 (Debian 12, qemu-utils 1:7.2+dfsg-7+deb12u18+b3), nbdkit 1.32.5 (nbdkit 1.32.5-1).
# Matters:   "no space" is the error on which QEMU by default pauses the VM (werror=enospc), and a VM continued runs into it
#            again: an image that worked as a file stops its guest once it is served by NBD to be replicated. Refuse
#            such images, or make the server's size whole (nbdkit's truncate filter, round-up=512).
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

command -v jq >/dev/null || skip "jq is not installed"
unpack nbdkit=1.32.5-1 qemu-utils=1:7.2+dfsg-7+deb12u18+b3
needs nbdkit qemu-img qemu-io
plugins=$(echo "$work"/root/usr/lib/*/nbdkit/plugins)
cd "$work"
bytes=1000001
last=$((bytes / 512 * 512))
truncate -s $bytes served
truncate -s $bytes opened

nbdkit -f -U "$work/nbd" "$plugins/nbdkit-file-plugin.so" served 2>nbdkit.log &
finding_children+=("$!")
for ((i = 0; i < 300; i++)); do
    [ -S nbd ] && break
    sleep 0.1
done
uri="nbd+unix:///?socket=$work/nbd"

# qemu IMAGE COMMAND: QEMU's access to an image; "done", or what it says instead.
qemu() {
    qemu-io -f raw -c "$2" "$1" 2>&1 && echo "done"
}
size=$(qemu-img info -f raw --output=json "$uri" | jq '."virtual-size"')
read=$(qemu "$uri" "read -q -P 0 $last 512") || true
before=$(qemu "$uri" "write -q -P 5 $((last - 512)) 512") || true
write=$(qemu "$uri" "write -q -P 5 $last 512") || true
file=$(qemu opened "write -q -P 5 $last 512") || true
echo "export of $bytes bytes, size for the guest: $size"
echo "by NBD: read of the last sector: $read; write of the one before: $before; write of the last: $write"
echo "as a file: write of the last sector: $file, the file has $(stat -c %s opened) bytes then"

[ "$size" -eq $((last + 512)) ] || changed "the guest sees $size bytes"
[ "$read" = "done" ] || changed "the last sector cannot be read"
[ "$before" = "done" ] || changed "the sector before cannot be written"
[ "$file" = "done" ] || changed "the last sector of a file cannot be written"
[ "$(stat -c %s opened)" -eq $((last + 512)) ] || changed "the file does not grow to whole sectors"
[ "$write" = "write failed: No space left on device" ] || changed "the last sector's write: $write"
echo "QEMU 7.2 and nbdkit 1.32.5: the guest sees a last sector that cannot be written"
