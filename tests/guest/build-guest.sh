#!/usr/bin/env bash
# Builds the test guest on the spot: the kernel from Debian's cloud kernel package (extracted, not installed), busybox from
# busybox-static, and tests/guest/guest.c. Usage: build-guest.sh OUTDIR; makes OUTDIR/vmlinuz, OUTDIR/initrd.img, and
# OUTDIR/initrd-disk.img, which has disk drivers, the disk workload and the disk's benchmark too.
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
for part in "$here"/*.sh "$here"/*.[ch] "$busybox" "$out/kernel.package"; do
    [ "$out/initrd-disk.img" -nt "$part" ] || current=0
done
[ $current -eq 0 ] || exit 0

root=$work/root
mkdir -p "$root/bin"
cp "$busybox" "$root/bin/busybox"
cp "$here/init.sh" "$root/init"
chmod 755 "$root/init" "$root/bin/busybox"
cc -O2 -static -Wall -Wextra -Werror -o "$root/guest" "$here/guest.c"

# What the guest's NICs need, its power button, and the device that tells the host of a panic.
for name in virtio_pci virtio_mmio virtio_net e1000 button evdev pvpanic_mmio; do
    kernel_add_module "$out" "$root" "$name"
done
archive() { (cd "$1" && find . -print0 | cpio --null --quiet -o -H newc | gzip -1); }
archive "$root" >"$out/initrd.img.new"
mv "$out/initrd.img.new" "$out/initrd.img"

# The kernel unpacks archives one after the other: with disks is the same and more. Checksums are an alias that ext4 asks
# for by name, not a module that it depends on.
more=$work/more
mkdir -p "$more/modules"
cp "$root/modules/order" "$more/modules/order"
cc -O2 -static -Wall -Wextra -Werror -pthread -o "$more/disk" "$here/disk.c" "$here/disk_streams.c"
cc -O2 -static -Wall -Wextra -Werror -pthread -o "$more/disk-bench" "$here/disk_bench.c"
for name in virtio_blk virtio_scsi ata_piix sd_mod sr_mod crc32c_generic ext4; do
    kernel_add_module "$out" "$more" "$name"
done
archive "$more" | cat "$out/initrd.img" - >"$out/initrd-disk.img.new"
mv "$out/initrd-disk.img.new" "$out/initrd-disk.img"
