#!/usr/bin/env bash
# Builds the test guest on the spot: the kernel from Debian's cloud kernel package (extracted, not installed), busybox from
# busybox-static, and tests/guest/guest.c. Usage: build-guest.sh OUTDIR; makes OUTDIR/vmlinuz and OUTDIR/initrd.img.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build-guest.sh OUTDIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)

[ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || { echo "build-guest: busybox-static is missing: scripts/install-deps.sh installs it" >&2; exit 1; }
busybox=$(command -v busybox)

kernel_package() {
    apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-[0-9]/ {print $2; exit}'
}

package=$(kernel_package)
[ -n "$package" ] || { apt-get update -qq; package=$(kernel_package); }
[ -n "$package" ] || { echo "build-guest: apt knows no linux-image-cloud-amd64: is this Debian with its package lists?" >&2; exit 1; }

if [ "$(cat "$out/kernel.package" 2>/dev/null)" != "$package" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    (cd "$work" && apt-get download -qq "$package" 2>/dev/null >&2)
    rm -rf "$out/kernel"
    dpkg-deb -x "$work"/*.deb "$out/kernel"
    cp "$out"/kernel/boot/vmlinuz-* "$out/vmlinuz"
    rm -rf "$work"
    trap - EXIT
    echo "$package" > "$out/kernel.package"
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/modules"
cp "$busybox" "$root/bin/busybox"
cp "$here/init.sh" "$root/init"
chmod 755 "$root/init" "$root/bin/busybox"
cc -O2 -static -Wall -Wextra -o "$root/guest" "$here/guest.c"

# What the guest's NICs need, each module after those it depends on; what the kernel has built in is not found and left out.
modules=$(echo "$out"/kernel/lib/modules/*)
touch "$root/modules/order"
add_module() {
    local name=$1 file depends
    grep -qx "$name.ko" "$root/modules/order" && return 0
    file=$(find "$modules" \( -name "$name.ko" -o -name "${name//_/-}.ko" -o -name "$name.ko.xz" \) -print -quit)
    [ -n "$file" ] || return 0
    case "$file" in
    *.xz) xz -dc "$file" > "$root/modules/$name.ko" ;;
    *) cp "$file" "$root/modules/$name.ko" ;;
    esac
    depends=$(modinfo -F depends "$root/modules/$name.ko" | tr ',' ' ')
    for depend in $depends; do
        add_module "${depend//-/_}"
    done
    echo "$name.ko" >> "$root/modules/order"
}
for name in virtio_pci virtio_mmio virtio_net e1000; do
    add_module "$name"
done
(cd "$root" && find . -print0 | cpio --null --quiet -o -H newc | gzip -1) > "$out/initrd.img.new"
mv "$out/initrd.img.new" "$out/initrd.img"
