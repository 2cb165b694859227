#!/usr/bin/env bash
# A guest that is taken over must be heard. Where the other host's tap device is missing, down, in no bridge, of a smaller MTU, or in
# another network, `run` and `doctor` say so before a guest starts; `status` says so when it comes to that later, and a planned failover
# is refused until it is mended, or insisted on.
#   black_hole.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"
# shellcheck source=tests/cli/refused.sh
. "$(dirname "$0")/../cli/refused.sh"

vm=(qemu-system-x86_64 -accel tcg -m 64 -nodefaults -display none
    -netdev "tap,id=n0,ifname=tap0,script=no,downscript=no" -device "virtio-net-pci,netdev=n0")
on_b() { ip -n "$prefix-b" "$@"; }
on_a() { ip -n "$prefix-a" "$@"; }
mend() {
    on_b link show tap0 >/dev/null 2>&1 || on_b tuntap add tap0 mode tap
    on_b link set tap0 mtu 1500
    on_b link set tap0 master br0 up
}
doctor_says() {
    understudy a doctor --peer 10.77.0.2 -- "${vm[@]}" >"$work/doctor" 2>&1 || true
    grep -qE -- "^$1 .*$2" "$work/doctor" || fail "doctor does not say '$1 $2': $(cat "$work/doctor")"
    echo "ok: doctor: $(grep -E -- "^$1 .*$2" "$work/doctor")"
}
both_say() {
    run_refused "$1" --peer 10.77.0.2 -- "${vm[@]}"
    doctor_says FAIL "$1"
}
warns() { grep -qE "warning: .*$2" <<<"$(understudy "$1" status web 2>/dev/null)"; }
is_quiet() { field_is "$1" state "$2" && ! grep -q warning <<<"$(understudy "$1" status web)"; }

hosts_up "$prefix"
# Of its own: a bridge takes the lowest address of its ports, and another one with each change, which other hosts hear of late.
on_a link set br0 address 52:54:00:77:01:01
on_b link set br0 address 52:54:00:77:01:02
start_daemon b
start_daemon a

echo "-- host b's part is not fit"
on_b link set tap0 down
both_say "NIC n0: tap0 is down on 10.77.0.2: ip link set tap0 up"
on_b link set tap0 up nomaster
both_say "NIC n0: tap0 is in the bridge br0 on this host, but in none on 10.77.0.2"
on_b link set tap0 master br0 mtu 1400
both_say "NIC n0: tap0 has an MTU of 1500 on this host, but of 1400 on 10.77.0.2"
on_b link del tap0
both_say "NIC n0: the tap device tap0 does not exist on 10.77.0.2"
mend

echo "-- both parts are fit, and lead to different networks"
on_b link add br1 type bridge stp_state 0 forward_delay 0
on_b link set br1 up
on_b link set tap0 master br1
both_say "NIC n0: a frame sent on the bridge br0 of this host does not arrive at the bridge br1 of 10.77.0.2"
mend
# A switch between the hosts that takes shorter frames only.
ip -n "$prefix-sw" link set to-b mtu 1300
both_say "NIC n0: frames of 1514 bytes .* do not arrive .*, shorter ones do"
ip -n "$prefix-sw" link set to-b mtu 1500

echo "-- this host's part is not fit"
on_a link set tap0 down
both_say "NIC n0: tap0 is down on this host"
on_a link set tap0 up

echo "-- nothing is wrong"
doctor_says ok "NIC n0: frames of 1514 bytes pass from the bridge br0 of this host to br0 of 10.77.0.2"
understudy a run --name web --peer 10.77.0.2 --wait-s 60 --silence-ms 2000 -- "${vm[@]}" >"$work/run.log" 2>&1 || fail "the VM could not be protected"
await 10 "a quiet status" is_quiet a protected

echo "-- it comes to that while the VM is protected"
on_b link set tap0 down
await 20 "host a to warn" warns a "tap0 is down on 10.77.0.2"
await 20 "host b to warn" warns b "tap0 is down on this host"
field_is a state protected || fail "protection ended: $(field a state)"
refused 1 "VM web stays here: NIC n0: tap0 is down on 10.77.0.2.*--planned --force" a failover web --planned
doctor_says FAIL "network of web .*tap0 is down on 10.77.0.2"
on_b link set tap0 up master br1
await 20 "host a to warn" warns a "a frame sent on the bridge br0"
refused 1 "a frame sent on the bridge br0 of this host does not arrive" a failover web --planned
on_b link set tap0 master br0
await 20 "host a to be quiet again" is_quiet a protected
await 20 "host b to be quiet again" is_quiet b standby

echo "-- insisting moves it, mended it comes back"
on_a link set tap0 down
understudy a failover web --planned --force || fail "it does not move"
await 60 "protection by host a" field_is b state protected
await 20 "host b to warn" warns b "tap0 is down on 10.77.0.1"
refused 1 "tap0 is down on 10.77.0.1" b failover web --planned
on_a link set tap0 up
understudy b failover web --planned || fail "it does not come back"
await 60 "protection by host b" field_is a state protected
understudy a stop web
await 10 "host a to be clean" no_vm a
await 10 "host b to be clean" no_vm b

echo "-- who knows better may start it"
on_b link set tap0 down
understudy a run --name web --no-network-check --peer 10.77.0.2 --wait-s 60 --silence-ms 2000 -- "${vm[@]}" >"$work/run.log" 2>&1 || fail "the VM could not be protected"
await 20 "host a to warn" warns a "tap0 is down on 10.77.0.2"
pair_leftovers
echo "black_hole: nobody is sent where nobody hears"
