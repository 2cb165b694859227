#!/usr/bin/env bash
# The disk workload, its client and its checker under plain QEMU: a guest that is stopped, one that dies at a random moment,
# and images that are wrong on purpose, which the checker has to notice. If this fails, the tests of replicated disks say nothing.
#   disk.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/net/hosts.sh
. "$(dirname "$0")/../net/hosts.sh"
# shellcheck source=tests/guest/disk_image.sh
. "$(dirname "$0")/disk_image.sh"

prefix=gd$$
work=$(mktemp -d)
cleanup() {
    hosts_down "$prefix"
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
fail() {
    echo "FAILED: $*" >&2
    tail -n 15 "$work"/*.out "$work"/*.json "$work"/serial >&2 || true
    exit 1
}
client() { hosts_exec "$prefix" client "$BUILD/tests/client/understudy-disk-client" 10.77.0.10 "$@"; }

start_guest() {
    rm -f "$work/serial"
    hosts_exec "$prefix" a "${UNDERSTUDY_QEMU:-qemu-system-x86_64}" -machine pc -accel tcg -m 256 -nodefaults -nographic -no-reboot \
        -serial "file:$work/serial" -kernel "$GUEST/vmlinuz" -initrd "$GUEST/initrd-disk.img" \
        -append "console=ttyS0 quiet panic=-1 us.ip=10.77.0.10/24 us.dirty=0 us.disk=vda us.bare=vdb us.blocks=2048" \
        -drive "file=$work/disk.qcow2,if=virtio,format=qcow2,discard=unmap" \
        -drive "file=$work/bare.raw,if=virtio,format=raw,discard=unmap" \
        -netdev tap,id=n0,ifname=tap0,script=no,downscript=no -device virtio-net-pci,netdev=n0 >"$work/qemu.out" 2>&1 &
    qemu=$!
    local until=$((SECONDS + 60))
    until grep -q 'understudy-guest: ready' "$work/serial" 2>/dev/null; do
        kill -0 $qemu 2>/dev/null || fail "QEMU ended"
        [ $SECONDS -lt $until ] || fail "the guest did not come up within 60 s"
        sleep 0.1
    done
}
start_client() {
    rm -f "$work/progress"
    client "$work/log" --progress "$work/progress" >"$work/client.json" 2>"$work/client.out" &
    client=$!
    local until=$((SECONDS + 60))
    until [ "$(grep -s . "$work/progress" || echo 0)" -gt "$1" ]; do
        kill -0 $client 2>/dev/null || fail "the client ended"
        [ $SECONDS -lt $until ] || fail "the guest does not write"
        sleep 0.05
    done
    client_pid=$(for p in $(ip netns pids "$prefix-client"); do
        ! grep -qx understudy-disk "/proc/$p/comm" 2>/dev/null || echo "$p"
    done)
}
check() { disk_check "$BUILD" "$work/log" "$work/disk.qcow2" --bare "$work/bare.raw" "$@"; }

hosts_up "$prefix"
disk_make "$work/disk.qcow2" qcow2 64M
disk_make_bare "$work/bare.raw" 8M

echo "-- a guest that is stopped"
start_guest
start_client 300
[[ "$(client --ask verify)" = "verified "* ]] || fail "the guest finds its own disk wrong"
[[ "$(client --ask trim)" = "trimmed "* ]] || fail "the guest does not trim"
[ "$(client --ask nonsense)" = "what?" ] || fail "the guest took nonsense for a command"
kill -TERM "$client_pid"
wait $client || fail "the client: $(cat "$work/client.json")"
cat "$work/client.json"
client --ask poweroff || true
wait $qemu || fail "QEMU"
check --stopped || fail "a guest that was stopped left a wrong disk"

echo "-- wrong disks are noticed"
# A block lost, bits turned over, operations that the client heard of and that are not there, a guest set back.
expect_wrong() {
    ! check "${@:2}" >"$work/check.out" 2>&1 || fail "not noticed: $1"
    grep -q "$1" "$work/check.out" || fail "wrong for another reason: $(cat "$work/check.out")"
    echo "noticed: $(grep -m 1 WRONG "$work/check.out")"
}
cp "$work/bare.raw" "$work/bare.good"
cp "$work/log" "$work/log.good"
# A block of the bare disk that holds data.
block=$(od -An -v -t x8 -w4096 "$work/bare.raw" | awk '!seen && $1 == "314b4c4253494455" {print NR - 1; seen = 1}')
flip() { printf '%b' "\\0$(printf %o "$2")" | dd of="$work/bare.raw" bs=1 seek=$((block * 4096 + $1)) conv=notrunc status=none; }
dd if=/dev/zero of="$work/bare.raw" bs=4096 seek="$block" count=1 conv=notrunc status=none
expect_wrong "has nothing, should have"
cp "$work/bare.good" "$work/bare.raw"
flip 2000 255
flip 2001 254
expect_wrong "garbage"
cp "$work/bare.good" "$work/bare.raw"
# Twenty, since one alone may be a hole where a hole was before.
last=$(awk '$1 == 4 {last = $2} END {print last}' "$work/log")
for ((i = 1; i <= 20; i++)); do echo "4 $((last + i)) 1"; done >>"$work/log"
expect_wrong "stream 4: WRONG" --stopped
expect_wrong "stream 4: WRONG"
cp "$work/log.good" "$work/log"
awk '/^4 [0-9]+ / && !done {$3 += 1; done = 1} {print}' "$work/log.good" >"$work/log"
expect_wrong "set back"

echo "-- a guest that dies"
start_guest
start_client 100
sleep "0.$(printf %03d $((RANDOM % 1000)))"
kill -KILL "$(for p in $(ip netns pids "$prefix-a"); do
    ! grep -q qemu "/proc/$p/comm" 2>/dev/null || echo "$p"
done)"
wait $qemu || true
kill -INT "$client_pid"
wait $client || fail "the client: $(cat "$work/client.json")"
check || fail "a guest that died left a wrong disk, or QEMU's own files are not what this test believes"

hosts_down "$prefix"
! ip netns list | grep -q "^$prefix-" || fail "network namespaces are left"
[ ! -e "/run/us-$prefix" ] || fail "files are left in /run"
