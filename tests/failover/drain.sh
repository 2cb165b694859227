#!/usr/bin/env bash
# understudy drain empties a host: what runs there goes to the other host, what stands by is given up, nothing comes back
# until undrain; a VM that cannot go is named. And a daemon with --drain does so when it is stopped.
#   drain.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

daemon_of() {
    for p in $(ip netns pids "$prefix-$1"); do
        ! grep -qx understudyd "/proc/$p/comm" 2>/dev/null || echo "$p"
    done
}
DAEMON_OPTIONS=--drain
start_pair
start_client

echo "-- host a is drained: the guest goes to b, and a refuses to stand by"
understudy a drain >"$work/drain.out" 2>"$work/drain.err" || fail "drain failed: $(cat "$work/drain.out" "$work/drain.err")"
grep -q "^web .*gone" "$work/drain.out" || fail "drain shows no progress: $(cat "$work/drain.out")"
field_is b guest_here true || fail "host b does not run the guest"
gone a || fail "the VM is left on host a"
await 20 "host b to say why it has no standby" eval '[[ "$(field b unprotected_why)" == *"drained"* ]]'
grep -q "this host is drained" <<<"$(understudy a status)" || fail "status does not say so"
guest_command
! understudy a run --name other --peer 10.77.0.2 -- "${qemu[@]}" 2>"$work/refused" || fail "a drained host ran a VM"
grep -q "undrain" "$work/refused" || fail "unclear: $(cat "$work/refused")"

echo "-- a daemon that is started anew knows that the host is drained"
kill -KILL "$(daemon_of a)"
start_daemon a
grep -q "this host is drained" <<<"$(understudy a status)" || fail "the new daemon has forgotten it"

echo "-- the host where the VM runs unprotected cannot be emptied, and says why"
! understudy b drain --timeout-s 2 >"$work/drain.out" 2>"$work/drain.err" || fail "drain of the only host succeeded"
grep -q "1 VM is left here" "$work/drain.err" || fail "unclear: $(cat "$work/drain.err")"
field_is b guest_here true || fail "the guest is gone"
understudy b undrain

echo "-- undrain: protection comes back by itself"
understudy a undrain
await 60 "protection by host a" field_is b state protected

echo "-- a standby that is drained is given up, and the guest goes on"
understudy a drain >/dev/null || fail "drain of a standby failed"
await 20 "host b to go on alone" field_is b state connecting
understudy a undrain
await 60 "protection by host a" field_is b state protected

echo "-- a daemon with --drain hands the guest over when it is stopped"
kill -TERM "$(daemon_of b)"
await 20 "host a to run the guest" field_is a guest_here true
await 20 "host b's daemon to end" eval '[ -z "$(daemon_of b)" ]'
finish_client

echo "-- and stands by again when it is started"
start_daemon b
await 60 "protection by host b" field_is a state protected
pair_leftovers
echo "drain: all as documented"
