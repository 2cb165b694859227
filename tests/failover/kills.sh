#!/usr/bin/env bash
# Kills the host that runs the guest, at a random moment, again and again; each time the other host takes over and the killed
# one comes back as the standby. One client keeps one TCP connection through all of it and must see every answer, once, in
# order (invariant I1 as a client sees it). Every second kill is silent: the links go down first, so no farewell gets out.
#   kills.sh BUILD GUEST [COUNT]     COUNT $KILLS, or 20; 0: without end
set -euo pipefail
BUILD=$1 GUEST=$2 count=${3:-${KILLS:-20}}
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

start_pair
start_client
here=a there=b
for ((i = 1; count == 0 || i <= count; i++)); do
    await 30 "protection on host $here" field_is $here state protected
    moment_to_kill $here 200 # a random phase of the epoch
    hosts_kill "$prefix" $here "$([ $((i % 2)) -eq 0 ] && echo quiet)" 2>/dev/null
    await 10 "host $there to take over" field_is $there guest_here true
    await 5 "host $there to tell of the takeover" tells $there takeover
    answers=$(client_answers)
    await 60 "an answer after the takeover" client_goes_on
    echo "kill $i: host $there took over (detected after $(field $there detect_ms) ms, running $(field $there promote_ms) ms later)"
    kill -0 "$client_pid" 2>/dev/null || fail "the client ended: $(cat "$work/client.json")"
    revive $here
    read -r here there <<<"$there $here"
done
await 30 "protection on host $here" field_is $here state protected
finish_client
cat "$work/client.json"
pair_leftovers
echo "$count kills: no answer lost, repeated or out of order"
