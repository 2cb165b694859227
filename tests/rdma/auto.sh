#!/usr/bin/env bash
# --transport auto: RDMA where both hosts have a device for it, and status says why where not. A boot-sector guest is protected
# over RDMA; the standby's device is taken out, and protection comes back over TCP; the device is put back, and the next
# connection is made over RDMA. Only in the machine of tests/rdma/vm.sh.   auto.sh BUILD
set -euo pipefail
BUILD=$1
here=$(cd "$(dirname "$0")" && pwd)
# Emulation inside an emulation is slow.
# shellcheck disable=SC2034 # pair.sh uses them
PATIENCE=10 POLL_S=1
# shellcheck source=tests/failover/pair.sh
. "$here/../failover/pair.sh"
# shellcheck source=tests/rdma/hosts.sh
. "$here/hosts.sh"

protected_over() { field_is a state protected && field_is a transport "$1"; }

hosts_up "$prefix"
start_daemon b
start_daemon a

echo "-- doctor knows the devices of both hosts"
understudy a doctor --peer 10.77.0.2 >"$work/doctor.log" 2>&1 || true # other things may be amiss in such a machine
[ "$(grep -c "rxe-[ab]: port 1 active, Ethernet, 4096 bytes a packet" "$work/doctor.log")" -ge 2 ] || fail "doctor does not tell of the devices"

echo "-- RDMA where both hosts can"
understudy a run --name web --peer 10.77.0.2 --wait-s 300 --epoch-ms 200 --deadline-ms 1000 --silence-ms 10000 --heartbeat-ms 100 -- \
    "${UNDERSTUDY_QEMU:-qemu-system-x86_64}" -machine pc -accel tcg -m 64 -nodefaults -display none -vga std \
    -bios "$BUILD/tests/hook/bootsector-busy.rom" >"$work/run.log" 2>&1 || fail "the VM could not be protected"
await 300 "protection over RDMA" protected_over rdma
[ -z "$(field a transport_why)" ] || fail "a reason for what is as it should be: $(field a transport_why)"

echo "-- TCP once the device is gone"
rdma_wire gone b
await 300 "protection over TCP" protected_over tcp
field a transport_why | grep -q "10.77.0.2" || fail "status does not say why: '$(field a transport_why)'"
understudy a status web >"$work/status.log"
grep -q "checkpoints go over TCP, not RDMA: " "$work/status.log" || fail "status does not say why"

echo "-- RDMA again, over the next connection"
rdma_wire back
hosts_kill "$prefix" b 2>/dev/null
await 100 "host b to be missed" field_is a state connecting
revive b
await 300 "protection over RDMA again" protected_over rdma
field_is a guest_here true || fail "the guest has moved, though its host was well"
pair_leftovers
echo "auto: as documented"
