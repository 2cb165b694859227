#!/usr/bin/env bash
# Runs a command in a machine of its own that has soft-RoCE: Debian's full kernel in QEMU (TCG), the host's file system
# read-only under a layer that is thrown away. Its output is the machine's console; its exit code becomes this script's.
#   vm.sh FOLDER SECONDS COMMAND...     FOLDER: where the kernel is kept between runs; SECONDS: the time it may take
# From the environment: VM_MEMORY (MiB), VM_KEEP (a folder that shows up as /vm and stays).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: vm.sh FOLDER SECONDS COMMAND...} limit_s=$2
shift 2
mkdir -p "$out"
out=$(cd "$out" && pwd)
# shellcheck source=tests/guest/kernel.sh
. "$here/../guest/kernel.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() {
    local busybox root=$work/root
    busybox=$(command -v busybox) || kernel_die "busybox-static is missing: scripts/install-deps.sh installs it"
    kernel_fetch linux-image-amd64 "$out" "$work"
    local current=1 part
    for part in "$here/vm.sh" "$here/../guest/kernel.sh" "$here/init.sh" "$busybox" "$out/kernel.package"; do
        [ "$out/initrd.img" -nt "$part" ] || current=0
    done
    [ $current -eq 0 ] || return 0
    mkdir -p "$root/bin"
    cp "$busybox" "$root/bin/busybox"
    cp "$here/init.sh" "$root/init"
    chmod 755 "$root/init" "$root/bin/busybox"
    for name in virtio_pci 9pnet_virtio 9p overlay virtio_rng crc32_generic crc32_pclmul rdma_rxe rdma_ucm veth sch_netem sch_prio cls_u32; do
        kernel_add_module "$out" "$root" "$name"
    done
    (cd "$root" && find . -print0 | cpio --null --quiet -o -H newc | gzip -1) >"$out/initrd.img.new"
    mv "$out/initrd.img.new" "$out/initrd.img"
}

# One builds, the others wait and find it done.
(flock 9 && build) 9>"$out/lock"

share=${VM_KEEP:-$work/share}
mkdir -p "$share"
printf '#!/bin/sh\ncd %q\nexec' "$PWD" >"$share/command"
printf ' %q' "$@" >>"$share/command"
echo >>"$share/command"
chmod 755 "$share/command"
rm -f "$share/status"
timeout --foreground "$limit_s" "${UNDERSTUDY_QEMU:-qemu-system-x86_64}" -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m "${VM_MEMORY:-2048}" \
    -nodefaults -nographic -no-reboot -serial stdio -kernel "$out/vmlinuz" -initrd "$out/initrd.img" \
    -append "console=ttyS0 quiet panic=-1 net.ifnames=0 tsc=reliable clocksource=tsc" -device virtio-rng-pci \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
    -virtfs "local,path=$share,mount_tag=work,security_model=none" </dev/null || {
    echo "vm.sh: the machine did not end within $limit_s s, or its QEMU failed" >&2
    exit 1
}
[ -s "$share/status" ] || { echo "vm.sh: the machine ended without a result" >&2; exit 1; }
exit "$(cat "$share/status")"
