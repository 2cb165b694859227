#!/usr/bin/env bash
# Silent connections to the peers' port do not keep anybody out: neither root's own commands, nor a peer that has something to
# ask. They get no thread, and end by themselves.
#   crowd.sh BUILD
set -euo pipefail
BUILD=$(realpath "$1")
if [ "${2:-}" != inside ]; then
    exec unshare --net -- "$0" "$BUILD" inside
fi
work=$(mktemp -d)
daemon='' peer=''
cleanup() {
    # shellcheck disable=SC2086 # at most two numbers
    [ -z "$daemon$peer" ] || kill -KILL $daemon $peer 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
fail() {
    echo "FAILED: $*" >&2
    tail -n 15 "$work"/*.log >&2
    exit 1
}
await() {
    local until=$((SECONDS + ($1 < 60 ? 60 : $1))) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $until ] || fail "waited in vain: $what"
        sleep 0.05
    done
}
understudy() { timeout 20 "$BUILD/cli/understudy" --run-dir "$work/run" "$@"; }
threads() { find "/proc/$daemon/task" -mindepth 1 -maxdepth 1 | wc -l; }
# What the daemon holds of the peers' port.
held() { ss -tnH state established "sport = :7070" | wc -l; }
none_held() { [ "$(held)" -eq 0 ]; }

ip link set lo up
start() {
    local dir=$1
    shift
    "$BUILD/daemon/understudyd" --run-dir "$dir/run" --state-dir "$dir/state" --etc-dir "$dir/etc" "$@" >"$dir/daemon.log" 2>&1 &
}
start "$work" --listen 127.0.0.1
daemon=$!
# The peer, which asks.
mkdir "$work/peer"
start "$work/peer" --listen 127.0.0.2
peer=$!
await 10 "the daemon" test -S "$work/run/control.sock"
await 10 "its peer" test -S "$work/peer/run/control.sock"
peer() { timeout 20 "$BUILD/cli/understudy" --run-dir "$work/peer/run" "$@"; }
peer pair 127.0.0.1 "$(understudy pair --invite)" >/dev/null || fail "the two cannot be paired"
understudy status >/dev/null || fail "no status before"
before=$(threads)

# A whole message's length and nothing else for every second one: half a request is no more than none.
crowd=()
for ((i = 0; i < 200; i++)); do
    exec {fd}<>/dev/tcp/127.0.0.1/7070
    crowd+=("$fd")
    [ $((i % 2)) -eq 0 ] || printf '\100\0\0\0' >&"$fd" || true
done
understudy status >/dev/null || fail "200 silent connections to the peers' port keep root's command out"
echo "ok: root's command is answered beside 200 silent connections"
peer doctor --peer 127.0.0.1 >"$work/doctor.log" || true
grep -q "^ok *understudy, both" "$work/doctor.log" || fail "a peer's question is not answered: $(cat "$work/doctor.log")"
echo "ok: a peer's question is answered beside them"
[ "$(threads)" -le $((before + 2)) ] || fail "$(threads) threads, $before before: silent connections have some"
[ "$(held)" -le 32 ] || fail "the daemon holds $(held) connections"
await 15 "silent connections to end" none_held
echo "ok: the daemon ends them all by itself"
[ "$(grep -c "a connection" "$work/daemon.log")" -ge 1 ] || fail "the log does not tell"
[ "$(grep -c "a connection" "$work/daemon.log")" -le 5 ] || fail "the log tells each of them"
for fd in "${crowd[@]}"; do
    eval "exec $fd>&-"
done
understudy status >/dev/null || fail "no status afterwards"
echo "crowd: nobody is kept out"
