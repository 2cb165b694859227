#!/usr/bin/env bash
# What a pair does besides dying: planned and forced failover, loss and return of the standby, reboot, power-off, stop.
#   lifecycle.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

start_pair
start_client

echo "-- the guest goes before ordinary work"
[ "$(ps -L -o ni= -p "$(field a qemu_pid)" | sort -u | tr -d ' ')" = -10 ] || fail "QEMU's threads: $(ps -L -o ni= -p "$(field a qemu_pid)" | tr '\n' ' ')"

echo "-- planned failover loses nothing, and the old host becomes the standby"
understudy a failover web --planned
await 10 "host b to run the guest" field_is b guest_here true
await 30 "protection by host a" field_is b state protected

echo "-- the standby dies: the guest goes on; the standby returns: it is protected again"
hosts_kill "$prefix" a 2>/dev/null
await 10 "host b to notice" field_is b state connecting
before=$(ask_guest next)
revive a
await 30 "protection by host a again" field_is b state protected
[ "$(ask_guest next)" -gt "$before" ] || fail "the counter went back"

echo "-- forced failover, ordered on the standby"
understudy a failover web --force
await 10 "host a to run the guest" field_is a guest_here true
await 30 "protection by host b" field_is a state protected

echo "-- a standby that stops reading is given up, and does not take over when it wakes"
stopped=$(for p in $(ip netns pids "$prefix-b"); do
    ! grep -qx understudy-repl "/proc/$p/comm" 2>/dev/null || echo "$p"
done)
[ -n "$stopped" ] || fail "host b has no replicator"
kill -STOP "$stopped"
await 10 "host a to give up on host b" field_is a state connecting
kill -CONT "$stopped"
await 30 "protection by host b after it woke" field_is a state protected
field_is b guest_here false || fail "host b runs the guest too"

echo "-- a hypervisor that stands still costs protection, not the host its place"
stopped=$(field a qemu_pid)
kill -STOP "$stopped"
# Its checkpoint fails, which ends the connection, and is tried again over the next one.
await 20 "host a to begin anew, with host b as the standby that it still is" field_is a state synchronising
kill -CONT "$stopped"
await 30 "protection by host b once it goes on" field_is a state protected
field_is b guest_here false || fail "host b runs the guest too"

echo "-- both daemons die and return: protection never ends, and they know the VM again"
before=$(field a epochs)
for host in a b; do
    daemon=$(for p in $(ip netns pids "$prefix-$host"); do
        ! grep -qx understudyd "/proc/$p/comm" 2>/dev/null || echo "$p"
    done)
    [ -n "$daemon" ] || fail "host $host has no daemon"
    kill -KILL "$daemon"
    start_daemon $host
done
await 10 "host a to know the VM again" field_is a state protected
await 10 "host b to know the VM again" field_is b state standby
[ "$(field a epochs)" -gt "$before" ] || fail "host a counts epochs from the beginning"
! understudy a run --name web --peer 10.77.0.2 --no-wait -- qemu-system-x86_64 -m 64 2>"$work/refused" ||
    fail "the name of an adopted VM was given again"
grep -q "already here" "$work/refused" || fail "unclear: $(cat "$work/refused")"
understudy a failover web --planned
await 10 "host b to run the guest" field_is b guest_here true
await 30 "protection by host a" field_is b state protected
understudy b failover web --planned
await 10 "host a to run the guest" field_is a guest_here true
await 30 "protection by host b" field_is a state protected

echo "-- wrong orders are refused with one sentence"
! understudy a failover web --force 2>"$work/refused" || fail "a forced failover on the primary was not refused"
grep -q "ordered on the host that stands by" "$work/refused" || fail "unclear: $(cat "$work/refused")"
! understudy b failover web --planned 2>"$work/refused" || fail "a planned failover on the standby was not refused"
grep -q "starts on the host where it runs" "$work/refused" || fail "unclear: $(cat "$work/refused")"

finish_lost=0
kill -TERM "$client_pid"
wait "$client" || finish_lost=1
# The counter questions above were asked on other connections, so the client may see gaps in the numbers, but no more than those.
out_of_order=$(sed -n 's/.*"answers_out_of_order": \([0-9]*\).*/\1/p' "$work/client.json")
resets=$(sed -n 's/.*"tcp_resets": \([0-9]*\).*/\1/p' "$work/client.json")
missed=$(sed -n 's/.*"answers_lost": \([0-9]*\).*/\1/p' "$work/client.json")
[ "$out_of_order" = 0 ] && [ "$resets" = 0 ] && [ "$missed" = 2 ] || fail "the client: $(cat "$work/client.json") ($finish_lost)"

echo "-- a reboot goes on protected"
: >"$work/serial"
ask_guest reboot || true
await 60 "the guest to come up again" grep -q 'understudy-guest: ready' "$work/serial"
field_is a state protected || fail "not protected after a reboot: $(field a state)"

echo "-- a guest that powers itself off ends protection on both hosts, without a takeover"
ask_guest poweroff || true
await 10 "host a to end" gone a
await 10 "host b to end" gone b
! grep -q "taken over.*term" "$work/b.log" || fail "host b took over"
for host in a b; do
    left=$(for p in $(ip netns pids "$prefix-$host"); do cat "/proc/$p/comm" 2>/dev/null; done | grep -E 'qemu|understudy-rep' || true)
    [ -z "$left" ] || fail "processes are left on host $host: $left"
done
pair_leftovers
echo "lifecycle: all as documented"
