#!/usr/bin/env bash
# Hosts that stand still and networks that are cut, for about as long as it takes to be taken for dead: at the end exactly one host runs the
# guest, the other stands by, and nobody has to be asked. A client's one TCP connection loses nothing through the stalls, and a watcher at
# the switch's ports sees the guest speak from one port at a time.
#   stalls.sh BUILD GUEST [ROUNDS]     ROUNDS 0: a sample; N: all lengths and cuts, N times
set -euo pipefail
BUILD=$1 GUEST=$2 rounds=${3:-0}
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

watcher=
watch_ports() {
    ip netns exec "$prefix-sw" "$BUILD/tests/client/understudy-port-watch" 52:54:00:77:00:10 to-a to-b >"$work/ports" 2>"$work/ports.err" &
    watcher=$!
    disown
    await 10 "the guest to be heard at the switch" test -s "$work/ports"
}
unwatch_ports() { kill "$watcher" 2>/dev/null || true; }
trap 'unwatch_ports; pair_cleanup' EXIT

runs_on() { field_is "$1" guest_here true; }
other() { [ "$1" = a ] && echo b || echo a; }
# Sets here to the host that runs the guest protected, while the other one stands by.
settled() {
    local h
    for h in a b; do
        if field_is $h state protected && field_is "$(other $h)" state standby && ! runs_on "$(other $h)"; then
            here=$h
            return 0
        fi
    done
    return 1
}
one_runs() { [ "$(runs_on a && echo 1; runs_on b && echo 1)" = 1 ]; }

# Every process of the host stands still for so many milliseconds.
stand_still() {
    local pids
    pids=$(ip netns pids "$prefix-$1")
    # shellcheck disable=SC2086 # a list of numbers
    kill -STOP $pids
    sleep "0.$(printf %03d "$2")"
    # shellcheck disable=SC2086
    kill -CONT $pids
}

moves=0
stall() {
    local host=$here
    stand_still "$host" "$1"
    await 60 "one guest and protection after host $host stood still for $1 ms" settled
    answers=$(client_answers)
    await 30 "an answer after host $host stood still for $1 ms" client_goes_on
    kill -0 "$client_pid" 2>/dev/null || fail "the client lost something: $(cat "$work/client.json")"
    [ "$here" = "$host" ] || moves=$((moves + 1))
    echo "host $host stood still for $1 ms: the guest $([ "$here" = "$host" ] && echo stayed || echo "moved to host $here")"
    # One line for where the guest was first, and one for each move.
    ports_are() { [ "$(wc -l <"$work/ports")" -eq $((moves + 1)) ]; }
    await 10 "the guest to be heard from one port ($(tr '\n' ' ' <"$work/ports"))" ports_are
}

# What these hosts send to the other host's own addresses goes nowhere (main: by the checkpoints' network alone). Clients reach both guests.
cut() {
    local networks="10.78 10.77" from network # the second one first: the hosts must not find time to agree by it
    [ "$1" != main ] || { networks=10.77; shift; }
    for network in $networks; do
        for from in "$@"; do
            ip -n "$prefix-$from" neigh replace "$network.0.$([ "$from" = a ] && echo 2 || echo 1)" lladdr 02:00:00:00:00:01 nud permanent \
                dev "$([ $network = 10.77 ] && echo br0 || echo repl0)"
        done
    done
}
mend() {
    local from
    for from in a b; do
        ip -n "$prefix-$from" neigh flush nud permanent dev br0
        ip -n "$prefix-$from" neigh flush nud permanent dev repl0
    done
}
# The guest is heard from the port of the host that has it, also when it has been asked again.
heard_from() { ask_guest next >/dev/null 2>&1 && [ "$(tail -n 1 "$work/ports")" = "to-$1" ]; }
one_is_heard() {
    await 60 "protection after the cut" settled
    await 10 "the guest to be heard from host $here alone ($(tr '\n' ' ' <"$work/ports"))" heard_from "$here"
}
gone_alone() { field_is "$1" state connecting && runs_on "$1"; }
both_alone() { gone_alone a && gone_alone b; }
split_is_told() { status_says "$1" "ran on both hosts"; }

# A cable out, both ways: both hosts come to run the guest. In again: one is fenced, and says what was let out.
cut_both_ways() {
    ip -n "$prefix-b" link set repl0 down
    ip -n "$prefix-b" link set up0 down
    await 30 "both hosts to run the guest alone" both_alone
    ip -n "$prefix-b" link set up0 up
    ip -n "$prefix-b" link set repl0 up
    await 5 "one of two guests to be stopped" one_runs
    one_is_heard
    local host
    for host in a b; do
        await 10 "host $host to tell of the split" split_is_told $host
    done
    status_says "$(other "$here")" "had let out [0-9]* frames" || fail "nobody says what was let out"
    echo "both ran the guest: host $here goes on, and both tell"
}

# One way only: the side that is still heard is told, and exactly one runs while the cut lasts.
cut_one_way() {
    local from=$here
    cut "$from"
    # The standby hears nothing, takes over, and is heard.
    await 30 "host $(other "$from") to run the guest alone" gone_alone "$(other "$from")"
    await 10 "one of two guests to be stopped while the cut lasts" one_runs
    mend
    one_is_heard
    echo "nothing passed from host $from: the guest runs on host $here alone"
}

# The checkpoints' network alone, one way or both: nobody takes over, and a client waits for less than half a second.
cut_checkpoints() {
    local host=$here
    start_client
    answers=$(client_answers)
    await 30 "an answer before the cut" client_goes_on
    kill -USR1 "$client_pid" # its longest wait counts from now on
    cut main "$@"
    await 10 "host $host to go on alone" gone_alone "$host"
    ! runs_on "$(other "$host")" || fail "host $(other "$host") took over from a living host"
    answers=$(client_answers)
    await 30 "an answer without the checkpoints' network" client_goes_on
    mend
    await 60 "protection after the cut" settled
    [ "$here" = "$host" ] || fail "the guest moved"
    finish_client
    echo "the checkpoints' network was cut for $*: host $host went on alone, and a client waited $(jq .client_gap_ms "$work/client.json") ms"
}

# A host stands still until the other one has the guest, and a user's stop is the first thing that it hears: the guest does not end there, and
# the user must not be told that it has.
stop_that_meets_a_takeover() {
    local host=$here pids status=0
    pids=$(ip netns pids "$prefix-$host")
    # shellcheck disable=SC2086 # a list of numbers
    kill -STOP $pids
    await 30 "host $(other "$host") to take over" runs_on "$(other "$host")"
    understudy "$host" stop web --yes >"$work/stopped" 2>&1 &
    local stopping=$!
    await 10 "the order to wait for the daemon of host $host" order_waits "$host"
    # shellcheck disable=SC2086
    kill -CONT $pids
    wait "$stopping" || status=$?
    [ $status -eq 1 ] || fail "stop of a guest that runs on host $(other "$host") ended with $status: $(cat "$work/stopped")"
    grep -q "runs on the other one" "$work/stopped" || fail "unclear: $(cat "$work/stopped")"
    runs_on "$(other "$host")" || fail "the guest is gone from both hosts"
    await 60 "protection after the stop" settled
    echo "host $host was told to stop a guest that had moved to host $here, and said so"
}
# The daemon, which stands still, has been called and has not answered the call.
order_waits() { ip netns exec "$prefix-$1" ss -x -l -H src /run/understudy/control.sock | awk '$3 > 0 {found = 1} END {exit !found}'; }

start_pair --heartbeat-path 10.78.0.1=10.78.0.2
await 60 "protection" settled
start_client
watch_ports
if [ "$rounds" = 0 ]; then
    for ms in 90 100 115 130; do stall $ms; done
else
    for ((i = 0; i < rounds; i++)); do
        for ms in 80 85 90 95 100 105 110 115 120 125 130; do stall $ms; done
    done
fi
finish_client
cut_checkpoints a b
cut_checkpoints "$here"
cut_checkpoints "$(other "$here")"
[ "$(wc -l <"$work/ports")" -eq $((moves + 1)) ] || fail "the guest was heard from another host: $(tr '\n' ' ' <"$work/ports")"

for ((i = 0; i < (rounds > 0 ? rounds : 1); i++)); do
    stop_that_meets_a_takeover
    cut_one_way
    cut_both_ways
done
unwatch_ports
trap 'pair_cleanup' EXIT
pair_leftovers
echo "stalls: one guest after each stall and each cut"
