#!/usr/bin/env bash
# The test guest under plain QEMU on host a: it boots, a client gets its answers in sequence, it powers itself off, and
# nothing is left behind.
#   boot.sh BUILD GUEST [MACHINE]
set -euo pipefail
BUILD=$1 GUEST=$2 machine=${3:-q35}
# shellcheck source=tests/net/hosts.sh
. "$(dirname "$0")/../net/hosts.sh"

prefix=boot$$
work=$(mktemp -d)
cleanup() {
    hosts_down "$prefix"
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
fail() {
    echo "FAILED: $*" >&2
    tail -n 15 "$work"/* >&2 || true
    exit 1
}
client() { hosts_exec "$prefix" client "$BUILD/tests/client/understudy-test-client" 10.77.0.10 7000 "$@"; }

hosts_up "$prefix"
nic=virtio-net-pci
[ "$machine" != microvm ] || nic=virtio-net-device
hosts_exec "$prefix" a "${UNDERSTUDY_QEMU:-qemu-system-x86_64}" -machine "$machine" -accel tcg -m 256 -nodefaults -nographic -no-reboot \
    -serial "file:$work/serial" -kernel "$GUEST/vmlinuz" -initrd "$GUEST/initrd.img" \
    -append "console=ttyS0 quiet panic=-1 us.ip=10.77.0.10/24 us.dirty=1000" \
    -netdev tap,id=n0,ifname=tap0,script=no,downscript=no -device "$nic,netdev=n0" >"$work/qemu.out" 2>&1 &
qemu=$!
until grep -q 'understudy-guest: ready' "$work/serial" 2>/dev/null; do
    kill -0 $qemu 2>/dev/null || fail "QEMU ended"
    [ $SECONDS -lt 60 ] || fail "the guest did not come up within 60 s"
    sleep 0.1
done
echo "$machine: up after $SECONDS s"

client 2 >"$work/client.json" || fail "the client lost something"
cat "$work/client.json"
[ "$(client --ask "dirty 0")" = 0 ] || fail "the guest does not set its dirty rate"
[ "$(client --ask bench)" -gt 1000 ] || fail "the guest does not compute"
[ "$(client --ask time)" -gt 1000000000 ] || fail "the guest does not tell the time"
[ "$(client --ask nonsense)" = "what?" ] || fail "the guest took nonsense for a request"

client --ask poweroff
until ! kill -0 $qemu 2>/dev/null; do
    # Without ACPI a machine halts instead; it has to have come to that.
    [ "$machine" != microvm ] || ! grep -q 'System halted\|Power down' "$work/serial" || break
    [ $SECONDS -lt 90 ] || fail "the guest does not power itself off"
    sleep 0.1
done

hosts_down "$prefix"
! ip netns list | grep -q "^$prefix-" || fail "network namespaces are left"
! kill -0 $qemu 2>/dev/null || fail "QEMU is left"
[ ! -e "/run/us-$prefix" ] || fail "files are left in /run"
hosts_down "$prefix" || fail "taking the hosts down twice fails"
