#!/usr/bin/env bash
# What goes wrong before a VM is protected: each error is one clear sentence and an exit code, comes in bounded time, and
# leaves nothing behind.
#   errors.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/../failover/pair.sh"
PATIENCE_S=20

processes() {
    local p
    for p in $(ip netns pids "$prefix-$1"); do
        cat "/proc/$p/comm" 2>/dev/null || true
    done | grep -c "^$2" || true
}
no_vm() { [ "$(processes "$1" qemu)" -eq 0 ] && [ "$(processes "$1" understudy-repl)" -eq 0 ]; }

# refused CODE PATTERN HOST ARGS...: the command ends with that code and says, in one line, what matches.
refused() {
    local code=$1 pattern=$2 host=$3 got=0
    shift 3
    timeout $PATIENCE_S ip netns exec "$prefix-$host" true
    understudy "$host" "$@" >"$work/out" 2>"$work/err.txt" &
    local pid=$!
    (sleep $PATIENCE_S; kill "$pid" 2>/dev/null) &
    local watchdog=$!
    wait "$pid" || got=$?
    kill "$watchdog" 2>/dev/null && wait "$watchdog" 2>/dev/null || true
    [ $got -eq "$code" ] || fail "understudy $*: ended with $got, not $code: $(cat "$work/out" "$work/err.txt")"
    grep -qE -- "$pattern" "$work/err.txt" || fail "understudy $*: does not say '$pattern': $(cat "$work/err.txt")"
    [ "$(wc -l <"$work/err.txt")" -le 3 ] || fail "understudy $*: says too much: $(cat "$work/err.txt")"
    echo "ok: $(tail -n 1 "$work/err.txt")"
}
# The same for `understudy run`, after which no part of a VM may be left on either host.
run_refused() {
    local pattern=$1
    shift
    refused 1 "$pattern" a run --name bad "$@"
    await 5 "host a to be clean" no_vm a
    await 5 "host b to be clean" no_vm b
    understudy a stop bad >/dev/null 2>&1 || true
    ! understudy a status bad >/dev/null 2>&1 || fail "VM bad is still known"
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
refused 1 "is no name for a VM" a run --name ../up --peer 10.77.0.2 -- "${vm[@]}"

echo "-- command lines that cannot be protected"
run_refused "-m" --peer 10.77.0.2 -- qemu-system-x86_64 -accel tcg -nodefaults -display none
run_refused "vhost" --peer 10.77.0.2 -- "${vm[@]}" -netdev tap,id=n0,vhost=on
run_refused "memory are free" --peer 10.77.0.2 -- qemu-system-x86_64 -accel tcg -m 4096G
run_refused "/nowhere/kernel" --peer 10.77.0.2 -- "${vm[@]}" -kernel /nowhere/kernel
run_refused "/nowhere/qemu" --peer 10.77.0.2 -- /nowhere/qemu -m 64
run_refused "unsupported machine type" --peer 10.77.0.2 -- "${vm[@]}" -machine nonsense
run_refused "nosuchdevice" --peer 10.77.0.2 -- "${vm[@]}" -device nosuchdevice

echo "-- peers that are not what they should be"
run_refused "10.77.0.99" --peer 10.77.0.99 -- "${vm[@]}"
run_refused "10.77.0.2" --peer 10.77.0.2:9 -- "${vm[@]}"
hosts_exec "$prefix" b socat TCP-LISTEN:7071,fork,reuseaddr EXEC:"cat /dev/zero" 2>/dev/null &
hosts_exec "$prefix" b socat TCP-LISTEN:7072,fork,reuseaddr EXEC:"sleep 60" 2>/dev/null &
hosts_exec "$prefix" b socat TCP-LISTEN:7073,fork,reuseaddr SYSTEM:"echo SSH-2.0-OpenSSH_9" 2>/dev/null &
listening() { [ "$(ip netns exec "$prefix-b" ss -tlnH | grep -c ':707[123] ')" -eq 3 ]; }
await 5 "three strangers" listening
for port in 7071 7072 7073; do
    run_refused "10.77.0.2" --peer 10.77.0.2:$port -- "${vm[@]}"
done
stranger=$(for p in $(ip netns pids "$prefix-b"); do
    ! grep -qx understudyd "/proc/$p/comm" 2>/dev/null || echo "$p"
done)
kill -STOP "$stranger"
run_refused "10.77.0.2" --peer 10.77.0.2 -- "${vm[@]}"
kill -CONT "$stranger"

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

echo "-- hosts with different QEMUs"
printf '#!/bin/sh\nexec qemu-system-x86_64 "$@"\n' >"$work/qemu"
printf '#!/bin/sh\n[ "$1" != -version ] || { echo "QEMU emulator version 6.2.0"; exit 0; }\nexec qemu-system-x86_64 "$@"\n' >"$work/other-qemu"
chmod +x "$work/qemu" "$work/other-qemu"
kill -TERM "$stranger"
await 5 "the daemon of host b to end" test ! -e "/proc/$stranger"
rm -f "$(hosts_run_dir "$prefix" b)/control.sock"
# shellcheck disable=SC2016 # the inner shell expands these
hosts_exec "$prefix" b sh -c 'mount --bind "$0" "$1" && shift && exec "$@"' "$work/other-qemu" "$work/qemu" \
    "$BUILD/daemon/understudyd" --listen 10.77.0.2:7070 >>"$work/b.log" 2>&1 &
disown
await 5 "understudyd on b" test -S "$(hosts_run_dir "$prefix" b)/control.sock"
run_refused "QEMU 6.2.0" --peer 10.77.0.2 -- "$work/qemu" -accel tcg -m 64 -nodefaults -display none

[ "$(processes a understudyd)" -eq 1 ] && [ "$(processes b understudyd)" -eq 1 ] || fail "a daemon died on the way"
pair_leftovers
echo "errors: each one clear, in time, and without leftovers"
