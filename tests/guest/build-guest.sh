#!/usr/bin/env bash
# Builds the test guest on the spot: the kernel from Debian's cloud kernel package (extracted, not installed), busybox from
# busybox-static, and tests/guest/guest.c. Usage: build-guest.sh OUTDIR; makes OUTDIR/vmlinuz and OUTDIR/initrd.img.
# What is there and still current is kept: the kernel until Debian has a newer one, the initramfs until a part of it changes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build-guest.sh OUTDIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)

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

# The newest cloud kernel apt knows, as NAME=VERSION.
kernel_package() {
    local name version
    name=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-[0-9]/ {print $2; exit}')
    version=$(apt-cache policy "${name:-none}" 2>/dev/null | awk '/Candidate:/ {print $2}')
    [ -z "$version" ] || echo "$name=$version"
}

# Apt drops its rights to download, so it needs a folder that others may enter.
download_kernel() {
    rm -rf "$work/deb"
    mkdir -m 777 "$work/deb"
    (cd "$work/deb" && apt-get download -qq "$1") >"$work/apt.log" 2>&1
}

chmod 755 "$work"
package=$(kernel_package)
if [ -z "$package" ]; then
    apt-get update -qq || die "apt-get update failed"
    package=$(kernel_package)
fi
[ -n "$package" ] || die "apt knows no linux-image-cloud-amd64: is this Debian with its package lists?"

if [ "$(cat "$out/kernel.package" 2>/dev/null)" != "$package" ] || [ ! -s "$out/vmlinuz" ]; then
    rm -f "$out/kernel.package" "$out/initrd.img"
    if ! download_kernel "$package"; then
        # The lists may be older than the archive, which keeps the newest version only.
        apt-get update -qq || die "apt-get update failed"
        package=$(kernel_package)
        download_kernel "$package" || die "$package cannot be downloaded: $(tail -n 1 "$work/apt.log")"
    fi
    rm -rf "$out/kernel"
    dpkg-deb -x "$work"/deb/*.deb "$out/kernel"
    cp "$out"/kernel/boot/vmlinuz-* "$out/vmlinuz"
    echo "$package" >"$out/kernel.package"
fi

current=1
for part in "$here/build-guest.sh" "$here/init.sh" "$here/guest.c" "$busybox" "$out/kernel.package"; do
    [ "$out/initrd.img" -nt "$part" ] || current=0
done
[ $current -eq 0 ] || exit 0

root=$work/root
mkdir -p "$root/bin" "$root/modules"
cp "$busybox" "$root/bin/busybox"
cp "$here/init.sh" "$root/init"
chmod 755 "$root/init" "$root/bin/busybox"
cc -O2 -static -Wall -Wextra -Werror -o "$root/guest" "$here/guest.c"

# What the guest's NICs need, each module after those it depends on; what the kernel has built in is not found and left out.
modules=$(echo "$out"/kernel/lib/modules/*)
touch "$root/modules/order"
add_module() {
    local name=$1 file depend
    ! grep -qx "$name.ko" "$root/modules/order" || return 0
    file=$(find "$modules" \( -name "$name.ko*" -o -name "${name//_/-}.ko*" \) -print -quit)
    [ -n "$file" ] || return 0
    case "$file" in
    *.xz) xz -dc "$file" >"$root/modules/$name.ko" ;;
    *.zst) zstd -qdc "$file" >"$root/modules/$name.ko" ;;
    *) cp "$file" "$root/modules/$name.ko" ;;
    esac
    for depend in $(modinfo -F depends "$root/modules/$name.ko" | tr ',' ' '); do
        add_module "${depend//-/_}"
    done
    echo "$name.ko" >>"$root/modules/order"
}
for name in virtio_pci virtio_mmio virtio_net e1000; do
    add_module "$name"
done
(cd "$root" && find . -print0 | cpio --null --quiet -o -H newc | gzip -1) >"$out/initrd.img.new"
mv "$out/initrd.img.new" "$out/initrd.img"
