#!/usr/bin/env bash
# What goes wrong before a VM is protected: each error is one clear sentence and an exit code, comes in bounded time, and
# leaves nothing behind.
#   errors.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/../failover/pair.sh"
# shellcheck source=tests/cli/refused.sh
. "$(dirname "$0")/refused.sh"

daemon_of() {
    local p
    for p in $(ip netns pids "$prefix-$1"); do
        ! grep -qx understudyd "/proc/$p/comm" 2>/dev/null || echo "$p"
    done
}
end_daemon() {
    kill -TERM "$2"
    await 5 "the daemon of host $1 to end" test ! -e "/proc/$2"
    rm -f "$(hosts_run_dir "$prefix" "$1")/control.sock"
}
# A daemon in a mount namespace, and with limits, that the shell words make; $0 is the work folder.
daemon_where() {
    local address
    address=10.77.0.$([ "$1" = a ] && echo 1 || echo 2)
    hosts_exec "$prefix" "$1" sh -c "set -e; $2"'; exec "$@"' "$work" \
        "$BUILD/daemon/understudyd" --listen "$address:7070" >>"$work/$1.log" 2>&1 &
    disown
    await 5 "understudyd on $1" test -S "$(hosts_run_dir "$prefix" "$1")/control.sock"
}

build_guest
hosts_up "$prefix"
refused 1 "understudyd" a status
start_daemon a
start_daemon b
vm=(qemu-system-x86_64 -accel tcg -m 64 -nodefaults -display none)

echo "-- unknown VMs and wrong words"
refused 1 "no VM nothere" a status nothere
refused 1 "no VM nothere" a failover nothere --planned
refused 1 "no VM nothere" a stop nothere
refused 2 "unknown|usage|command" a nonsense
refused 2 "usage" a run --name bad -- "${vm[@]}"
refused 2 "three heartbeats" a run --name bad --peer 10.77.0.2 --silence-ms 20 -- "${vm[@]}"
refused 2 "above 0" a run --name bad --peer 10.77.0.2 --deadline-ms -1 -- "${vm[@]}"
refused 1 "is no name for a VM" a run --name ../up --peer 10.77.0.2 -- "${vm[@]}"

echo "-- command lines that cannot be protected"
run_refused "-m" --peer 10.77.0.2 -- qemu-system-x86_64 -accel tcg -nodefaults -display none
run_refused "vhost" --peer 10.77.0.2 -- "${vm[@]}" -netdev tap,id=n0,vhost=on
run_refused "memory are free" --peer 10.77.0.2 -- qemu-system-x86_64 -accel tcg -m 4096G
run_refused "/nowhere/kernel" --peer 10.77.0.2 -- "${vm[@]}" -kernel /nowhere/kernel
run_refused "/nowhere/qemu" --peer 10.77.0.2 -- /nowhere/qemu -m 64
run_refused "unsupported machine type" --peer 10.77.0.2 -- "${vm[@]}" -machine nonsense
run_refused "non-migratable device" --peer 10.77.0.2 -- "${vm[@]}" -device nvme,serial=1
run_refused "vfio-pci.*passed-through" --peer 10.77.0.2 -- "${vm[@]}" -device '{"driver":"vfio-pci","host":"01:00.0"}'
run_refused "nosuchdevice" --peer 10.77.0.2 -- "${vm[@]}" -device nosuchdevice

echo "-- peers that are not what they should be"
run_refused "10.77.0.99" --peer 10.77.0.99 -- "${vm[@]}"
run_refused "10.77.0.2" --peer 10.77.0.2:9 -- "${vm[@]}"
# These hosts have no RDMA device: it is said before a guest starts.
run_refused "no RDMA device .*use --transport tcp, or see docs/rdma.md" --transport rdma --peer 10.77.0.2 -- "${vm[@]}"
refused 2 "usage" a run --transport pigeon --peer 10.77.0.2 -- "${vm[@]}"
hosts_exec "$prefix" b socat TCP-LISTEN:7071,fork,reuseaddr EXEC:"cat /dev/zero" 2>/dev/null &
hosts_exec "$prefix" b socat TCP-LISTEN:7072,fork,reuseaddr EXEC:"sleep 60" 2>/dev/null &
hosts_exec "$prefix" b socat TCP-LISTEN:7073,fork,reuseaddr SYSTEM:"echo SSH-2.0-OpenSSH_9" 2>/dev/null &
listening() { [ "$(ip netns exec "$prefix-b" ss -tlnH | grep -c ':707[123] ')" -eq 3 ]; }
await 5 "three strangers" listening
for port in 7071 7072 7073; do
    run_refused "10.77.0.2" --peer 10.77.0.2:$port -- "${vm[@]}"
done
stranger=$(daemon_of b)
kill -STOP "$stranger"
run_refused "10.77.0.2" --peer 10.77.0.2 -- "${vm[@]}"
kill -CONT "$stranger"

run_refused "the other network" --heartbeat-path 10.78.0.1 --peer 10.77.0.2 -- "${vm[@]}"
run_refused "refused: .*10.78.0.99" --heartbeat-path 10.78.0.1=10.78.0.99 --peer 10.77.0.2 -- "${vm[@]}"
run_refused "^understudy: VM bad: .*10.78.0.99" --heartbeat-path 10.78.0.99=10.78.0.2 --peer 10.77.0.2 -- "${vm[@]}"

echo "-- a port that is taken, and a name that is taken"
got=0
timeout $PATIENCE_S ip netns exec "$prefix-a" "$BUILD/daemon/understudyd" --run-dir "$work/second" --listen 10.77.0.1:7070 2>"$work/err.txt" || got=$?
[ $got -eq 1 ] && grep -q "7070" "$work/err.txt" || fail "a second daemon on one port: $got: $(cat "$work/err.txt")"
echo "ok: $(cat "$work/err.txt")"
understudy a run --name web --peer 10.77.0.2 --wait-s 30 -- "${vm[@]}" >"$work/run.log" 2>&1 || fail "a plain VM could not be protected"
refused 1 "already here" a run --name web --peer 10.77.0.2 -- "${vm[@]}"
understudy a stop web
await 10 "host a to be clean" no_vm a
await 10 "host b to be clean" no_vm b

echo "-- hosts that differ: QEMU, processor, memory, understudy"
printf '#!/bin/sh\nexec qemu-system-x86_64 "$@"\n' >"$work/qemu"
printf '#!/bin/sh\n[ "$1" != -version ] || { echo "QEMU emulator version 6.2.0"; exit 0; }\nexec qemu-system-x86_64 "$@"\n' >"$work/other-qemu"
chmod +x "$work/qemu" "$work/other-qemu"
sed 's/^model name.*/model name : Another Processor/; s/^flags.*/flags : fpu/' /proc/cpuinfo >"$work/cpuinfo"
printf 'MemTotal: 400000 kB\nMemAvailable: 300000 kB\n' >"$work/meminfo"
alien=Icelake-Server
! grep -q GenuineIntel /proc/cpuinfo || alien=EPYC
end_daemon b "$stranger"
daemon_where b 'mount --bind "$0/other-qemu" "$0/qemu"; mount --bind "$0/cpuinfo" /proc/cpuinfo; mount --bind "$0/meminfo" /proc/meminfo'
run_refused "QEMU 6.2.0" --peer 10.77.0.2 -- "$work/qemu" -accel tcg -m 64 -nodefaults -display none
run_refused "-cpu host needs equal processors, but this host has Another Processor" --peer 10.77.0.2 -- "${vm[@]}" -cpu host
if [ -w /dev/kvm ]; then
    # No processor has the features of both vendors. Where both hosts lack the same, nothing changes in a takeover.
    run_refused "support requested feature" --peer 10.77.0.2 -- qemu-system-x86_64 -accel kvm -m 64 -nodefaults -display none -cpu "$alien"
fi
run_refused "wants 512 MiB, but only 292 MiB" --peer 10.77.0.2 -- qemu-system-x86_64 -accel tcg -m 512 -nodefaults -display none
# A host whose understudy is of another age: Envelope{host: {version: "9.9.9", wire_version: 99}} after its length.
printf '\014\000\000\000\212\001\011\012\0059.9.9\070\143' >"$work/old-host"
hosts_exec "$prefix" b socat TCP-LISTEN:7074,fork,reuseaddr EXEC:"cat $work/old-host -" 2>/dev/null &
listening_as() { ip netns exec "$prefix-b" ss -tlnH | grep -q ":$1 "; }
await 5 "a stranger" listening_as 7074
run_refused "understudy 9.9.9 .link version 99., this host .*install one version" --peer 10.77.0.2:7074 -- "${vm[@]}"

echo "-- a host that lacks memory, and one whose /dev/shm is full"
end_daemon a "$(daemon_of a)"
# Twenty gigabytes of address space are less than the guest's 24, whatever the machine has.
printf 'MemTotal: 80000000 kB\nMemAvailable: 80000000 kB\n' >"$work/meminfo"
daemon_where a 'mount --bind "$0/meminfo" /proc/meminfo; ulimit -v 20000000'
end_daemon b "$(daemon_of b)"
daemon_where b 'mount --bind "$0/meminfo" /proc/meminfo; mount -t tmpfs -o size=4k tmpfs /dev/shm; head -c 4096 /dev/zero >/dev/shm/full'
run_refused "memory" --peer 10.77.0.2 -- qemu-system-x86_64 -accel tcg -m 24G -nodefaults -display none
end_daemon a "$(daemon_of a)"
daemon_where a 'mount -t tmpfs -o size=4k tmpfs /dev/shm; head -c 4096 /dev/zero >/dev/shm/full'
understudy a run --name web --peer 10.77.0.2 --wait-s 30 -- "${vm[@]}" >"$work/run.log" 2>&1 || fail "a VM needs /dev/shm: $(cat "$work/run.log")"
echo "ok: guest memory does not come from /dev/shm"
understudy a stop web
await 10 "host a to be clean" no_vm a
await 10 "host b to be clean" no_vm b

[ "$(processes a understudyd)" -eq 1 ] && [ "$(processes b understudyd)" -eq 1 ] || fail "a daemon died on the way"
pair_leftovers
echo "errors: each one clear, in time, and without leftovers"
