#!/usr/bin/env bash
# qemu-img: a "fixed" VHDX has room for all its data when it is made, and grows by a block at the first write to each.
#
# Guess:     subformat=fixed means that every block has its place in the file from the start; a write changes data only.
# Behaviour: the file is made with its full length, but its blocks are marked as zero, and the first write to a block
#            puts it behind the end of the file (8 MiB each here). When the whole disk has been written, the file is
#            twice as long as the disk. With block_state_zero=off the blocks are in place and the file never grows.
# Version:   qemu-img and qemu-io 7.2 (Debian 12, qemu-utils 1:7.2+dfsg-7+deb12u18+b3).
# Matters:   a volume of the image's exact size runs full on the second host although the disk was "fixed"; and a
#            write changes the file's table of blocks and its log as well as the data.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

unpack qemu-utils=1:7.2+dfsg-7+deb12u18+b3
needs qemu-img qemu-io
cd "$work"
disk=$((64 << 20))

# grow IMAGE: the file's length new, after one write of 4 KiB, and after the whole disk was written.
grow() {
    stat -c %s "$1"
    qemu-io -f vhdx -c 'write -q -P 1 40M 4k' "$1"
    stat -c %s "$1"
    qemu-io -f vhdx -c "write -q -P 2 0 $disk" "$1"
    stat -c %s "$1"
}
qemu-img create -q -f vhdx -o subformat=fixed plain.vhdx $disk
qemu-img create -q -f vhdx -o subformat=fixed,block_state_zero=off placed.vhdx $disk
mapfile -t plain < <(grow plain.vhdx)
mapfile -t placed < <(grow placed.vhdx)
echo "fixed VHDX of $disk bytes: file ${plain[0]}, after one write of 4096 ${plain[1]}, when full ${plain[2]}"
echo "with block_state_zero=off: file ${placed[0]}, after one write of 4096 ${placed[1]}, when full ${placed[2]}"

[ "${plain[0]}" -ge $disk ] || changed "a fixed VHDX is not made with its full length"
[ "${plain[1]}" -eq $((plain[0] + (8 << 20))) ] || changed "a write adds $((plain[1] - plain[0])) bytes to the file"
[ "${plain[2]}" -eq $((plain[0] + disk)) ] || changed "a full disk adds $((plain[2] - plain[0])) bytes to the file"
[ "${placed[0]}" -eq "${placed[2]}" ] || changed "block_state_zero=off does not keep the file from growing"
echo "qemu-img 7.2: a fixed VHDX grows until it is twice as large"
