#!/usr/bin/env bash
# Debian kernels for guests, extracted from their packages, not installed. To be sourced; the caller has set -euo pipefail.

kernel_die() {
    echo "kernel: $*" >&2
    exit 1
}

# The newest kernel apt knows for a meta package, as NAME=VERSION, or nothing.
kernel_package() {
    local name version
    name=$(apt-cache depends "$1" 2>/dev/null | awk '/Depends: linux-image-[0-9]/ {print $2; exit}')
    version=$(apt-cache policy "${name:-none}" 2>/dev/null | awk '/Candidate:/ {print $2}')
    [ -z "$version" ] || echo "$name=$version"
}

# Apt drops its rights to download, so it needs a folder that others may enter.
kernel_download() {
    local package=$1 work=$2
    rm -rf "$work/deb"
    mkdir -m 777 "$work/deb"
    (cd "$work/deb" && apt-get download -qq "$package") >"$work/apt.log" 2>&1
}

# kernel_fetch META OUT WORK: makes OUT/vmlinuz, OUT/kernel (the package's tree) and OUT/kernel.package, unless they are the
# newest already; apt is asked once an hour, for every test that starts a guest comes here. WORK: a folder for the time being.
kernel_fetch() {
    local meta=$1 out=$2 work=$3 package
    if [ -s "$out/kernel.package" ] && [ -s "$out/vmlinuz" ] && [ -n "$(find "$out/kernel.asked" -mmin -60 2>/dev/null)" ]; then
        return 0
    fi
    chmod 755 "$work"
    package=$(kernel_package "$meta")
    if [ -z "$package" ]; then
        apt-get update -qq || kernel_die "apt-get update failed"
        package=$(kernel_package "$meta")
    fi
    [ -n "$package" ] || kernel_die "apt knows no $meta: is this Debian with its package lists?"
    if [ "$(cat "$out/kernel.package" 2>/dev/null)" = "$package" ] && [ -s "$out/vmlinuz" ]; then
        touch "$out/kernel.asked"
        return 0
    fi
    rm -f "$out/kernel.package" "$out/initrd.img" "$out/initrd-disk.img"
    if ! kernel_download "$package" "$work"; then
        # The lists may be older than the archive, which keeps the newest version only.
        apt-get update -qq || kernel_die "apt-get update failed"
        package=$(kernel_package "$meta")
        kernel_download "$package" "$work" || kernel_die "$package cannot be downloaded: $(tail -n 1 "$work/apt.log")"
    fi
    rm -rf "$out/kernel"
    dpkg-deb -x "$work"/deb/*.deb "$out/kernel"
    [ -d "$out/kernel/lib/modules" ] || ln -s usr/lib "$out/kernel/lib" # Debian 13 and later have them there
    cp "$out"/kernel/boot/vmlinuz-* "$out/vmlinuz"
    echo "$package" >"$out/kernel.package"
    touch "$out/kernel.asked"
}

# kernel_add_module OUT ROOT NAME: the module after those it depends on, in ROOT/modules, named in ROOT/modules/order. What
# the kernel has built in is not found and left out.
kernel_add_module() {
    local out=$1 root=$2 name=$3 file depend
    mkdir -p "$root/modules"
    touch "$root/modules/order"
    ! grep -qx "$name.ko" "$root/modules/order" || return 0
    file=$(find "$out"/kernel/lib/modules/* \( -name "$name.ko*" -o -name "${name//_/-}.ko*" \) -print -quit)
    [ -n "$file" ] || return 0
    case "$file" in
    *.xz) xz -dc "$file" >"$root/modules/$name.ko" ;;
    *.zst) zstd -qdc "$file" >"$root/modules/$name.ko" ;;
    *) cp "$file" "$root/modules/$name.ko" ;;
    esac
    for depend in $(modinfo -F depends "$root/modules/$name.ko" | tr ',' ' '); do
        kernel_add_module "$out" "$root" "${depend//-/_}"
    done
    echo "$name.ko" >>"$root/modules/order"
}
