#!/usr/bin/env bash
# Command lines of many forms, with no more in them than QEMU's firmware: each VM is protected, moved to the other host, and protected
# there. What a device's state lacks, or a standby cannot load, ends one of these. shapes.sh has fewer, with Linux inside.
#   forms.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

# Two VMs at a time, each of a lane of its own: the name in vm. A busy machine is no dead host.
vm=
field() {
    understudy "$1" status "$vm" --json 2>/dev/null | sed -n "s/^ *\"$2\": *\"\{0,1\}\([^\",{]*\)\"\{0,1\},\{0,1\}$/\1/p" | head -n 1
}
moves() {
    understudy a run --name "$vm" --peer 10.77.0.2 --wait-s 30 --silence-ms 2000 -- "${UNDERSTUDY_QEMU:-qemu-system-x86_64}" -accel tcg "$@" \
        >"$work/$vm-run.log" 2>&1 </dev/null || fail "$*: could not be protected"
    understudy a failover "$vm" --planned >"$work/$vm-run.log" 2>&1 || fail "$*: did not move"
    await 30 "$*: protection by host a" field_is b state protected
    understudy b stop "$vm"
    await 10 "$*: host a to end" gone a
    await 10 "$*: host b to end" gone b
    echo "ok: $*"
}

# Those with the hosts' tap device, and those with much memory.
lane_web() {
    vm=web
    # Memory above and below the PCI hole.
    moves -m 5G -M q35 -nodefaults
    moves -m 3.5G -M pc -nodefaults
    moves -m 128 -vga std -nodefaults -nic user -nic user,model=e1000 -nic tap,ifname=tap0,script=no,downscript=no,model=rtl8139
    moves -m 128 -nodefaults -netdev '{"type":"tap","id":"a","ifname":"tap0","script":"no","downscript":"no","vhost":false}' \
        -device '{"driver":"virtio-net-pci","netdev":"a"}'
    moves -m 128 -nodefaults -netdev user,id=a,hostfwd=tcp::5555-:22 -device e1000e,netdev=a -netdev socket,id=b,udp=127.0.0.1:1234,localaddr=127.0.0.1:1235 \
        -device vmxnet3,netdev=b
    moves -m 128 -vga cirrus -nodefaults
}
lane_mail() {
    vm=mail
    # QEMU's own defaults: a VGA, a NIC, a CD drive and a floppy drive.
    moves -m 128
    moves -m 128 -M q35
    moves -m size=128M,slots=2,maxmem=1G -M pc -smp 4,maxcpus=8 -nodefaults -vga none
    moves -m 128 -M microvm -nodefaults
    moves -m 128 -M microvm,rtc=on -nodefaults -netdev user,id=n -device virtio-net-device,netdev=n
    moves -m 128 -nodefaults -usb -device usb-tablet -device qemu-xhci -device virtio-balloon-pci -device virtio-serial-pci -device virtio-rng-pci
}

hosts_up "$prefix"
start_daemon b
start_daemon a
lane_web &
first=$!
lane_mail &
second=$!
status=0
wait $first || status=1
wait $second || status=1
[ $status -eq 0 ] || exit 1 # what was wrong has been said
pair_leftovers
echo "forms: each moved"
