#!/usr/bin/env bash
# stop waits until the VM is gone, so it can be run again at once; pause, resume, reset and shutdown keep protection, and a
# paused guest is paused after a takeover too; what the QEMU line says of a panic happens and is shown.
#   buttons.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

processes() { for p in $(ip netns pids "$prefix-$1"); do cat "/proc/$p/comm" 2>/dev/null; done | grep -E 'qemu|understudy-repl' || true; }
without_vm() { [ -z "$(processes "$1")" ]; }
run_again() {
    rm -f "$work/serial"
    guest_command
    understudy a run --name web --peer 10.77.0.2 --silence-ms 2000 "$@" >"$work/run.log" 2>&1 || fail "the VM could not be run: $(cat "$work/run.log")"
}
said() { grep -q "$2" "$work/$1.log"; }

start_pair --silence-ms 2000 # a loaded machine is no dead host

echo "-- pause: no answer comes, protection stays, and a takeover leaves the guest paused"
[ "$(ask_guest next)" = 1 ] || fail "the guest does not answer"
understudy a pause web
field_is a guest_state paused || fail "status says $(field a guest_state)"
before=$(field a acked_epoch)
await 20 "epochs of a paused guest" eval '[ "$(field a acked_epoch)" -gt $((before + 5)) ]'
field_is a state protected || fail "not protected: $(field a state)"
hosts_kill "$prefix" a
await 10 "host b to have the guest" field_is b guest_here true
await 10 "host b to know that it is paused" field_is b guest_state paused
revive a
await 60 "protection by host a" field_is b state protected
field_is b guest_state paused || fail "the guest goes on by itself"
understudy b resume web
field_is b guest_state "" || fail "status says $(field b guest_state)"
[ "$(ask_guest next)" = 2 ] || fail "the guest forgot its counter"

echo "-- orders at the wrong host are refused"
! understudy a pause web 2>"$work/refused" || fail "a standby was paused"
grep -q "host where it runs" "$work/refused" || fail "unclear: $(cat "$work/refused")"

echo "-- reset: the guest begins anew, protected"
: >"$work/serial"
understudy b reset web
await 90 "the guest to come up again" grep -q 'understudy-guest: ready' "$work/serial"
[ "$(ask_guest next)" = 1 ] || fail "the guest was not reset"

echo "-- a guest that is deaf to its power button is still there, and shutdown says so"
ask_guest ignore-button >/dev/null
! understudy b shutdown web --timeout-s 2 2>"$work/refused" || fail "shutdown of a deaf guest succeeded"
grep -q "still here after 2 s" "$work/refused" || fail "unclear: $(cat "$work/refused")"
field_is b guest_here true || fail "the guest is gone"

echo "-- stop waits, and the VM can be run again at once"
understudy b stop web
without_vm b || fail "processes are left after stop: $(processes b)"
for _ in 1 2 3; do
    run_again --no-wait -- "${qemu[@]}"
    understudy a stop web
    without_vm a || fail "processes are left after stop: $(processes a)"
done

echo "-- a guest that panics ends the VM on both hosts, as QEMU's default says"
run_again -- "${qemu[@]}" -device pvpanic
await 90 "the guest to come up" guest_ready
ask_guest panic || true
await 20 "host a to end" gone a
await 20 "host b to end" gone b
said a "kernel panicked\|has panicked" || fail "host a does not say why: $(tail -n 3 "$work/a.log")"
! said b "taken over.*panic" || fail "host b took over"

echo "-- with -action panic=pause it stands still, which status shows, here and after a takeover"
guest_command
run_again -- "${qemu[@]}" -device pvpanic -action panic=pause
await 90 "the guest to come up" guest_ready
ask_guest panic || true
await 20 "the panic to be shown" field_is a guest_state panicked
status_says a "panicked and stands still, as its QEMU line says" || fail "status does not say so: $(understudy a status web)"
await 20 "protection" field_is a state protected
understudy a failover web --planned
await 10 "host b to know of the panic" field_is b guest_state panicked
! understudy b resume web 2>/dev/null || fail "a panicked guest was resumed"
: >"$work/serial"
understudy b reset web
await 90 "the guest to begin anew" guest_ready
field_is b guest_state "" || fail "status says $(field b guest_state)"

echo "-- shutdown asks the guest"
understudy b shutdown web || fail "the guest did not shut down"
without_vm b || fail "processes are left after shutdown: $(processes b)"
await 20 "host a to end" gone a

echo "-- -no-reboot: a guest that reboots ends the VM; -no-shutdown: one that powers itself off stands still"
run_again -- "${qemu[@]}" -no-reboot
await 90 "the guest to come up" guest_ready
ask_guest reboot || true
await 20 "host a to end" gone a
run_again -- "${qemu[@]}" -no-shutdown
await 90 "the guest to come up" guest_ready
ask_guest poweroff || true
await 20 "the guest to stand still" field_is a guest_state shut-off
understudy a stop web
pair_leftovers
echo "buttons: all as documented"
