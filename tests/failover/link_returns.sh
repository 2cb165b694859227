#!/usr/bin/env bash
# The network of the checkpoints is cut and returns, with heartbeats by another one: the standby has kept its image, gets what it lacks and
# nothing else, and is as good as before: the primary is killed the moment it says so. A standby that is a new process gets everything.
#   link_returns.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

main_network() { ip -n "$prefix-b" link set up0 "$1"; }
# field reads the first of a name: "sync" is an object of its own.
sync() { understudy a status web --json | python3 -c "import json, sys; print(json.load(sys.stdin)['sync']['$1'])"; }
replicator_of() {
    local p
    for p in $(ip netns pids "$prefix-$1"); do
        if [ "$(cat "/proc/$p/comm" 2>/dev/null)" = understudy-repl ]; then echo "$p"; fi
    done
}
is_new() { [ -n "$(replicator_of b)" ] && [ "$(replicator_of b)" != "$old" ]; }
protected_by_new() { is_new && field_is a state protected && field_is b state standby; }
set_is_filled() { ask_guest next >"$work/next.log" 2>&1 && [ $SECONDS -ge $filled_at ]; }
# Protected in another synchronisation than the one whose time was $before.
protected_again() { field_is a state protected && [ "$(sync ms)" != "$before" ]; }

MEMORY=512 DIRTY=30000 DIRTY_SET=60000 start_pair --heartbeat-path 10.78.0.1=10.78.0.2
await 60 "protection" field_is a state protected
# 60,000 pages at 30,000 a second, or as many as this machine gives.
filled_at=$((SECONDS + 4))
await 30 "the guest to fill its memory" set_is_filled
ask_guest "dirty 200" >"$work/dirty.log"
start_client

echo "-- a standby that is a new process gets everything"
old=$(replicator_of b)
kill -KILL "$(field b qemu_pid)"
await 60 "protection by a new standby" protected_by_new
[ "$(sync difference)" = False ] || fail "a new standby was taken for the old one"
full=$(sync sent_pages)
[ "$full" -gt 30000 ] || fail "a full synchronisation sent $full pages only: the guest did not fill its memory"

for round in 1 2; do
    echo "-- the network of the checkpoints is out (round $round): the guest goes on alone, the standby keeps its image"
    before=$(sync ms)
    old=$(replicator_of b)
    main_network down
    await 20 "host a to go on alone" field_is a state connecting
    await 20 "host b to listen" field_is b state listening
    main_network up
    await 60 "protection again" protected_again
    ! is_new || fail "host b has another standby"
    [ "$(sync difference)" = True ] || fail "the standby's image was thrown away: $(sync sent_pages) pages were sent"
    part=$(sync sent_pages)
    echo "   $part pages in $(sync ms) ms, of $full"
    [ "$part" -lt $((full / 4)) ] || fail "$part pages were sent, of $full: that is no difference"
done

echo "-- and the primary dies at that moment"
hosts_kill "$prefix" a quiet 2>/dev/null
await 10 "host b to take over" field_is b guest_here true
answers=$(client_answers)
await 20 "answers after the takeover" client_goes_on
finish_client
pair_leftovers
echo "link_returns: an image that was whole once is brought up to date"
