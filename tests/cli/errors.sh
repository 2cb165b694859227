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
        "$BUILD/daemon/understudyd" --listen "$address:7070" "${daemon_qemus[@]}" >>"$work/$1.log" 2>&1 &
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
refused 1 "no VM nothere" a status nothere --check
refused 1 "no VM nothere" a failover nothere --planned
refused 1 "no VM nothere" a stop nothere
refused 1 "is no name for a VM" a run --name ../up --peer 10.77.0.2 -- "${vm[@]}"
for locale in C C.UTF-8; do
    LC_ALL=$locale refused 1 "größe is no name for a VM" a run --name größe --peer 10.77.0.2 -- "${vm[@]}"
done

echo "-- wrong words: what is wrong is named, in one short sentence"
wrong() {
    refused 2 "$@"
    [ "$(wc -c <"$work/err.txt")" -le 160 ] || fail "understudy ${*:3}: says too much: $(cat "$work/err.txt")"
}
wrong "nonsense is not a command" a nonsense
wrong "a command is missing" a
wrong "nonsense is not a command" a help nonsense
wrong "stop: a word is missing: understudy stop NAME" a stop
wrong "stop: b is one word too many" a stop a b
wrong "stop: Unknown option --now" a stop a --now
wrong "failover: give --planned .* or --force" a failover web
wrong "status: --check does not go with --watch or --json" a status --check --json
wrong "events: --since yesterday: give 30s, 10m" a events --since yesterday
wrong "run: --peer is missing" a run --name bad -- "${vm[@]}"
wrong "run: the QEMU command line is missing" a run --peer 10.77.0.2
wrong "run: put '--' before qemu-system-x86_64" a run --peer 10.77.0.2 "${vm[@]}"
wrong "run: --epoch-ms 0: give a number from 1 to 1000" a run --peer 10.77.0.2 --epoch-ms 0 -- "${vm[@]}"
wrong "run: --epoch-ms 1001: " a run --peer 10.77.0.2 --epoch-ms 1001 -- "${vm[@]}"
wrong "run: --epoch-ms 5ms: " a run --peer 10.77.0.2 --epoch-ms=5ms -- "${vm[@]}"
wrong "run: --deadline-ms -1: give a number" a run --peer 10.77.0.2 --deadline-ms -1 -- "${vm[@]}"
wrong "run: --deadline-ms 1001: give a number from 1 to 1000" a run --peer 10.77.0.2 --deadline-ms 1001 -- "${vm[@]}"
wrong "run: --silence-ms 9: give a number from 10 to 60000" a run --peer 10.77.0.2 --silence-ms 9 -- "${vm[@]}"
wrong "run: --wait-s soon: give a number" a run --peer 10.77.0.2 --wait-s soon -- "${vm[@]}"
wrong "three heartbeats" a run --name bad --peer 10.77.0.2 --silence-ms 20 -- "${vm[@]}"
wrong "run: --on-peer-loss wait: give one of continue, hold" a run --peer 10.77.0.2 --on-peer-loss=wait -- "${vm[@]}"
wrong "run: --transport pigeon: give one of auto, rdma, tcp" a run --peer 10.77.0.2 --transport pigeon -- "${vm[@]}"
wrong "run: --tracker nose: give one of" a run --peer 10.77.0.2 --tracker nose -- "${vm[@]}"
wrong "run: --link-security maybe: give one of sealed, none" a run --peer 10.77.0.2 --link-security maybe -- "${vm[@]}"
wrong "run: --durability sometimes: give one of memory, disk" a run --peer 10.77.0.2 --durability sometimes -- "${vm[@]}"
wrong "run: web is one word too many" a run --peer 10.77.0.2 web -- "${vm[@]}"
# says COMMAND...: exit 0, and the help of a command.
says() {
    local pattern=$1
    shift
    "$@" >"$work/out" 2>"$work/err.txt" || fail "$*: $(cat "$work/err.txt")"
    grep -qE -- "$pattern" "$work/out" || fail "$*: does not say '$pattern': $(cat "$work/out")"
    [ ! -s "$work/err.txt" ] || fail "$*: $(cat "$work/err.txt")"
    echo "ok: $*"
}
says "understudy stop .*NAME" understudy a stop --help
says "understudy run .*--peer" understudy a help run
says "--heartbeat-path=HERE=THERE" understudy a help run
says "^ *failover NAME" understudy a help
says "Usage" understudy a version --help
daemon_wrong() {
    local got=0
    timeout $PATIENCE_S ip netns exec "$prefix-a" "$BUILD/daemon/understudyd" "${@:2}" 2>"$work/err.txt" || got=$?
    [ $got -eq 2 ] && grep -qE -- "$1" "$work/err.txt" && [ "$(wc -l <"$work/err.txt")" -eq 1 ] ||
        fail "understudyd ${*:2}: $got: $(cat "$work/err.txt")"
    echo "ok: $(cat "$work/err.txt")"
}
daemon_wrong "nonsense is not an option" nonsense
daemon_wrong "Unknown option --nonsense" --nonsense
daemon_wrong "--nice 99: give a number from -20 to 19" --nice 99
try_wrong() {
    local got=0
    "$(dirname "$0")/../../try.sh" "${@:2}" 2>"$work/err.txt" || got=$?
    [ $got -eq 2 ] && grep -qE -- "$1" "$work/err.txt" && [ "$(wc -l <"$work/err.txt")" -eq 1 ] || fail "try.sh ${*:2}: $got: $(cat "$work/err.txt")"
    echo "ok: $(cat "$work/err.txt")"
}
try_wrong "--epoch-ms 0: give a number from 1 to 1000" --epoch-ms=0
try_wrong "--seconds x: give a number" --epoch-ms=5 --seconds x
try_wrong "unknown option --nonsense" --nonsense

echo "-- keys, trust and pairing"
wrong "pair: give --invite on one host" a pair
wrong "pair: give --invite on one host" a pair --invite 10.77.0.2
wrong "trust: give one of --list, --remove NAME, or NAME KEY" a trust
wrong "trust: give one of --list, --remove NAME, or NAME KEY" a trust b
wrong "trust: give one of --list, --remove NAME, or NAME KEY" a trust --list --remove b
refused 1 "this is not the code, or it is misspelt" a pair 10.77.0.2 ABCD
refused 1 "not paired with 10.77.0.2: it does not trust this host|the code is wrong" a pair 10.77.0.2 "$(understudy a pair --invite)"
refused 1 "is not HOST or HOST:PORT" a pair "[" "$(understudy a pair --invite)"
refused 1 "is not a key: 'understudy key' on that host" a trust c nonsense
refused 1 "is no name for a host" a trust 'c c' "$(understudy b key)"
refused 1 "'captain' is not a role" a trust c "$(understudy b key)" --may captain
refused 1 "this is the key of this host itself" a trust c "$(understudy a key)"
refused 1 "the key belongs to host .* already" a trust c "$(understudy b key)"
refused 1 "no host c is trusted" a trust --remove c
says "^[^ ]+ +$(understudy b key | sed 's/[+]/[+]/g') standby,primary$" understudy a trust --list

echo "-- command lines that cannot be protected"
run_refused "-m" --peer 10.77.0.2 -- qemu-system-x86_64 -accel tcg -nodefaults -display none
run_refused "vhost" --peer 10.77.0.2 -- "${vm[@]}" -netdev tap,id=n0,vhost=on
run_refused "memory are free" --peer 10.77.0.2 -- qemu-system-x86_64 -accel tcg -m 4096G
run_refused "/nowhere/kernel" --peer 10.77.0.2 -- "${vm[@]}" -kernel /nowhere/kernel
run_refused "/nowhere/qemu" --peer 10.77.0.2 -- /nowhere/qemu -m 64
run_refused "does not know the machine type nonsense" --peer 10.77.0.2 -- "${vm[@]}" -machine nonsense
run_refused "non-migratable device" --peer 10.77.0.2 -- "${vm[@]}" -device nvme,serial=1
run_refused "vfio-pci.*passed-through" --peer 10.77.0.2 -- "${vm[@]}" -device '{"driver":"vfio-pci","host":"01:00.0"}'
run_refused "taskset cannot stand before QEMU" --peer 10.77.0.2 -- taskset 1 "${vm[@]}"
run_refused "serial unix:.*add ,wait=off" --peer 10.77.0.2 -- "${vm[@]}" -serial "unix:$work/s,server"
run_refused "-numa out" --peer 10.77.0.2 -- "${vm[@]}" -numa node
run_refused "nosuchdevice" --peer 10.77.0.2 -- "${vm[@]}" -device nosuchdevice

echo "-- peers that are not what they should be"
run_refused "the peer 10.77.0.1: it is this host itself" --peer 10.77.0.1 -- "${vm[@]}"
run_refused "10.77.0.99" --peer 10.77.0.99 -- "${vm[@]}"
run_refused "10.77.0.2" --peer 10.77.0.2:9 -- "${vm[@]}"
# These hosts have no RDMA device: it is said before a guest starts.
run_refused "no RDMA device .*use --transport tcp, or see docs/rdma.md" --transport rdma --peer 10.77.0.2 -- "${vm[@]}"
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
timeout $PATIENCE_S ip netns exec "$prefix-a" "$BUILD/daemon/understudyd" --run-dir "$work/second" --etc-dir "$work/second" --listen 10.77.0.1:7070 2>"$work/err.txt" || got=$?
[ $got -eq 1 ] && grep -q "7070" "$work/err.txt" || fail "a second daemon on one port: $got: $(cat "$work/err.txt")"
echo "ok: $(cat "$work/err.txt")"
understudy a run --name web --peer 10.77.0.2 --wait-s 30 --silence-ms 2000 -- "${vm[@]}" >"$work/run.log" 2>&1 || fail "a plain VM could not be protected"
echo "-- status for people, scripts and monitors"
says "VM web is protected" understudy a status web --check
says "VM web is protected" understudy b status --check
says '"protected": true' understudy a status web --json
[ "$(understudy a status web --json | jq '.version, .state' | xargs)" = "1 protected" ] || fail "the JSON document has no version"
[ "$(understudy a status --json | jq '.version, .vms[0].name' | xargs)" = "1 web" ] || fail "the JSON document of all VMs has no version"
says "^pause_us +p50 [0-9]+  p99 [0-9]+  max [0-9]+ us" understudy a status web --figures
watch() { timeout $PATIENCE_S "$BUILD/cli/understudy" --run-dir "$(hosts_run_dir "$prefix" a)" status --watch "$@"; }
watch | head -n 1 >"$work/out" || [ "${PIPESTATUS[0]}" -ne 124 ] || fail "status --watch goes on when nobody reads it"
grep -q "^web .*protected" "$work/out" || fail "status --watch says nothing: $(cat "$work/out")"
(trap '' PIPE; watch web --json) | head -n 3 >"$work/out" || [ "${PIPESTATUS[0]}" -ne 124 ] || fail "status --watch --json goes on"
[ "$(wc -l <"$work/out")" -eq 3 ] && [ "$(jq -r .name "$work/out" | grep -c '^web$')" -eq 3 ] ||
    fail "--watch --json is not a document a line: $(cat "$work/out")"
got=0
understudy a status >/dev/full 2>"$work/err.txt" || got=$?
[ $got -eq 1 ] && grep -q "could not be written" "$work/err.txt" || fail "a full disk is not noticed: $got: $(cat "$work/err.txt")"
refused 1 "already here" a run --name web --peer 10.77.0.2 -- "${vm[@]}"
stopped=$(daemon_of b)
for p in $(ip netns pids "$prefix-b"); do
    ! grep -qx understudy-repl "/proc/$p/comm" 2>/dev/null || kill -KILL "$p"
done
kill -STOP "$stopped"
unprotected() { grep -q "^web .*UNPROTECTED (connecting)" <<<"$(understudy a status)"; }
await 20 "host a to say UNPROTECTED" unprotected
refused 3 "VM web is NOT PROTECTED .connecting" a status web --check
refused 3 "VM web is NOT PROTECTED .connecting" a status --check
kill -CONT "$stopped"
echo "-- what happened is told once"
says "notice +protected +VM web is protected by 10.77.0.2" understudy a events web
says "warning +unprotected +VM web is not protected any more" understudy a events --since 1h
says "error +failed +the replicator of VM web died" understudy b events
says "no events of VM nobody" understudy a events nobody
[ "$(understudy a events web --json | jq -r .event | head -n 3 | xargs)" = "started protected unprotected" ] ||
    fail "host a tells something else: $(understudy a events)"
understudy a stop web
await 10 "host a to be clean" no_vm a
# Host a may have asked for a new standby before it was stopped.
b_clean() { no_vm b || { understudy b stop web >/dev/null 2>&1 || true; no_vm b; }; }
await 30 "host b to be clean" b_clean
ended() { grep -qE "web  $2: $3" <<<"$(understudy "$1" status web --all 2>/dev/null)"; }
await 10 "host a to tell how the VM ended" ended a primary "stopped by 'understudy stop'"
ended b "[a-z]*" "its replicator died, and its QEMU was stopped" || fail "host b does not tell how the VM ended: $(understudy b status --all)"
says "stopped by" understudy a status --all --json
[ -e "$(hosts_run_dir "$prefix" a)/web/console.log" ] || fail "the console of a VM that ended is gone at once"
grep -q "understudyd [0-9.]*: commands at .*control.sock, peers at 10.77.0.1 port 7070, state in" "$work/a.log" || fail "the daemon does not say where it is"
grep -q "error: the replicator of VM web died" "$work/b.log" || fail "the daemon's log has no severities"

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
stand_in() { hosts_exec "$prefix" b "$BUILD/tests/trust/understudy-test-peer" "$work/stand-in" "$@"; }
stand_in serve 10.77.0.2 7074 "$work/old-host" &
listening_as() { ip netns exec "$prefix-b" ss -tlnH | grep -q ":$1 "; }
await 5 "a stranger" listening_as 7074
run_refused "10.77.0.2: its key .* is not trusted on this host" --peer 10.77.0.2:7074 -- "${vm[@]}"
understudy a trust stand-in "$(stand_in key)" --may standby || fail "a key cannot be trusted"
run_refused "understudy 9.9.9 .link version 99., this host .*install one version" --peer 10.77.0.2:7074 -- "${vm[@]}"

echo "-- a QEMU and a peer that try to steer the terminal, or to speak for doctor"
printf '#!/bin/sh\ncase "$*" in -version | "-machine help") exec qemu-system-x86_64 "$@" ;; esac\nprintf "\\033[2J\\377\\nstrange words\\n" >&2\nexit 1\n' >"$work/loud-qemu"
chmod +x "$work/loud-qemu"
end_daemon b "$(daemon_of b)"
start_daemon b
run_refused "strange words" --peer 10.77.0.2 -- "$work/loud-qemu" -accel tcg -m 64 -nodefaults -display none
# Envelope{host: {version: "9\033[2J\377\nok    fake", wire_version: 99}}
printf '\030\000\000\000\212\001\025\012\0219\033[2J\377\nok    fake\070\143' >"$work/loud-host"
stand_in serve 10.77.0.2 7075 "$work/loud-host" &
await 5 "a stranger" listening_as 7075
run_refused "understudy 9.* ok fake .link version 99." --peer 10.77.0.2:7075 -- "${vm[@]}"
! understudy a doctor --peer 10.77.0.2:7075 >"$work/doctor.txt" || fail "doctor is content with a stranger"
grep -q "^FAIL *understudy, both .*9.* ok fake" "$work/doctor.txt" || fail "doctor does not compare: $(cat -v "$work/doctor.txt")"
! grep -q "^ok    fake" "$work/doctor.txt" && readable "$work/doctor.txt" || fail "a peer speaks for doctor: $(cat -v "$work/doctor.txt")"
echo "ok: what others say is shown as what it is"

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
understudy a run --name web --peer 10.77.0.2 --wait-s 30 --silence-ms 2000 -- "${vm[@]}" >"$work/run.log" 2>&1 || fail "a VM needs /dev/shm: $(cat "$work/run.log")"
echo "ok: guest memory does not come from /dev/shm"
understudy a stop web
await 10 "host a to be clean" no_vm a
await 10 "host b to be clean" no_vm b

[ "$(processes a understudyd)" -eq 1 ] && [ "$(processes b understudyd)" -eq 1 ] || fail "a daemon died on the way"
pair_leftovers
echo "errors: each one clear, in time, and without leftovers"
