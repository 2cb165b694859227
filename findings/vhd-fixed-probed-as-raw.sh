#!/usr/bin/env bash
# qemu-img: a fixed VHD is taken for a raw disk unless one names its format, and its footer becomes a sector of the disk.
#
# Guess:     qemu-img finds the format of an image by itself. It does for a dynamic VHD, and a fixed one carries the same
#            "conectix" record.
# Behaviour: a fixed VHD has that record only behind its data, and probing looks at the start. So `info` says raw, and the
#            size includes the footer; `convert` without -f copies the footer as the disk's last sector. Each round of
#            conversion to fixed VHD and back by probing makes the disk larger. With "-f vpc" all is well.
# Version:   qemu-img 7.2 (Debian 12, qemu-utils 1:7.2+dfsg-7+deb12u18+b3).
# Matters:   both hosts of a pair must see the same disk. One that probes has a larger disk than the one that is told,
#            the guest on it sees a sector more, and may write where the footer is. Formats are named, never probed.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

command -v jq >/dev/null || skip "jq is not installed"
unpack qemu-utils=1:7.2+dfsg-7+deb12u18+b3
needs qemu-img
cd "$work"
size=$((8 << 20))

# info IMAGE OPTION...: format and size in bytes.
info() {
    qemu-img info --output=json "${@:2}" "$1" | jq -r '"\(.format) \(."virtual-size")"'
}
# force_size: without it the size of both would be rounded to a geometry of cylinders, heads and sectors.
qemu-img create -q -f vpc -o subformat=dynamic,force_size=on dynamic.vhd $size
qemu-img create -q -f vpc -o subformat=fixed,force_size=on fixed.vhd $size
dynamic=$(info dynamic.vhd)
probed=$(info fixed.vhd)
named=$(info fixed.vhd -f vpc)
qemu-img convert -O raw fixed.vhd probed.raw
last=$(tail -c 512 probed.raw | head -c 8)
qemu-img convert -O vpc -o subformat=fixed,force_size=on fixed.vhd again.vhd
again=$(info again.vhd -f vpc)
echo "disks of $size bytes"
echo "dynamic, probed: $dynamic"
echo "fixed, probed:   $probed"
echo "fixed, -f vpc:   $named"
echo "fixed, converted to raw by probing: $(stat -c %s probed.raw) bytes, the last sector begins with '$last'"
echo "fixed, converted to fixed by probing: $again"

[ "$dynamic" = "vpc $size" ] || changed "a dynamic VHD is not found out"
[ "$named" = "vpc $size" ] || changed "a fixed VHD with force_size is not exact"
[ "$probed" = "raw $((size + 512))" ] || changed "a fixed VHD is probed as $probed"
[ "$(stat -c %s probed.raw),$last" = "$((size + 512)),conectix" ] || changed "the footer is not converted along"
[ "$again" = "vpc $((size + 512))" ] || changed "a round by probing does not add a sector"
echo "qemu-img 7.2: a fixed VHD whose format is not named is a raw disk that is 512 bytes too large"
