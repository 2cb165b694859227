#!/usr/bin/env bash
# Two networks join the hosts, and the one of the checkpoints is cut. With heartbeats by the other one too, the standby stays one, and the
# guest is protected again when the network is back; by the cut network alone the standby would take over, and does. With both
# paths, a host that dies is noticed as ever.
#   heartbeat_paths.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

main_network() { ip -n "$prefix-b" link set up0 "$1"; }
status_lacks() { ! status_says "$1" "$2"; }
ended_or_listens() { [[ "$(field b state)" =~ ^(listening|)$ ]]; }

start_pair --heartbeat-path 10.78.0.1=10.78.0.2
await 30 "protection" field_is a state protected

echo "-- the second network fails and returns: nothing happens, and status tells"
ip -n "$prefix-a" link set repl0 down
for host in a b; do
    await 10 "host $host to miss heartbeats" status_says $host 'no heartbeat by way of 10.78.0'
done
field_is a state protected || fail "a is $(field a state)"
ip -n "$prefix-a" link set repl0 up
await 10 "heartbeats by the second network" status_lacks b 'no heartbeat'

echo "-- host a may not send by the second network: status says that, with the system's word for it, until it may again"
cannot_send() { status_says a "heartbeats cannot be sent by way of 10.78.0.2: Permission denied ([1-9][0-9]* were not)"; }
ip -n "$prefix-a" route add prohibit 10.78.0.2/32
await 10 "status to tell of heartbeats that cannot be sent" cannot_send
field_is a state protected || fail "a is $(field a state)"
ip -n "$prefix-a" route del prohibit 10.78.0.2/32
await 10 "heartbeats to be sent again" status_lacks a 'cannot be sent'

echo "-- the network of the checkpoints fails: the standby stays one"
main_network down
await 10 "host a to go on alone" field_is a state connecting
await 10 "host b to know that its image is outdated" ended_or_listens
field_is a guest_here true || fail "host a has lost the guest"
! field_is b guest_here true || fail "host b runs the guest too"
! grep -q "promoting" "$work/b.log" || fail "host b took over"
main_network up
await 60 "protection again" field_is a state protected

echo "-- a host that dies is noticed by the silence of both"
before=$(ask_guest next)
hosts_kill "$prefix" a quiet 2>/dev/null
await 10 "host b to take over" field_is b guest_here true
[ "$(ask_guest next)" = $((before + 1)) ] || fail "the counter did not go on"
revive a
await 60 "protection by host a" field_is b state protected

echo "-- the paths are the same the other way round"
main_network down
await 10 "host b to go on alone" field_is b state connecting
field_is b guest_here true || fail "host b has lost the guest"
! field_is a guest_here true || fail "host a runs the guest too"
hosts_down "$prefix"

echo "-- with one path the standby takes over"
start_pair
await 30 "protection" field_is a state protected
main_network down
await 10 "host b to take over" field_is b guest_here true
pair_leftovers
echo "heartbeat_paths: a network that fails is no host that died"
