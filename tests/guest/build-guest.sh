#!/usr/bin/env bash
# Builds the test guest on the spot: the kernel from Debian's cloud kernel package (extracted, not installed), busybox from
# busybox-static, and tests/guest/guest.c. Usage: build-guest.sh OUTDIR; makes OUTDIR/vmlinuz and OUTDIR/initrd.img.
# What is there and still current is kept: the kernel until Debian has a newer one, the initramfs until a part of it changes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build-guest.sh OUTDIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)
# shellcheck source=tests/guest/kernel.sh
. "$here/kernel.sh"

die() {
    echo "build-guest: $*" >&2
    exit 1
}

busybox=$(command -v busybox) || die "busybox-static is missing: scripts/install-deps.sh installs it"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Tests may start side by side; one builds, the others wait and find it done.
exec 9>"$out/lock"
flock 9

kernel_fetch linux-image-cloud-amd64 "$out" "$work"

current=1
for part in "$here/build-guest.sh" "$here/kernel.sh" "$here/init.sh" "$here/guest.c" "$busybox" "$out/kernel.package"; do
    [ "$out/initrd.img" -nt "$part" ] || current=0
done
[ $current -eq 0 ] || exit 0

root=$work/root
mkdir -p "$root/bin"
cp "$busybox" "$root/bin/busybox"
cp "$here/init.sh" "$root/init"
chmod 755 "$root/init" "$root/bin/busybox"
cc -O2 -static -Wall -Wextra -Werror -o "$root/guest" "$here/guest.c"

# What the guest's NICs need.
for name in virtio_pci virtio_mmio virtio_net e1000; do
    kernel_add_module "$out" "$root" "$name"
done
(cd "$root" && find . -print0 | cpio --null --quiet -o -H newc | gzip -1) >"$out/initrd.img.new"
mv "$out/initrd.img.new" "$out/initrd.img"
