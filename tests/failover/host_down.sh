#!/usr/bin/env bash
# A clean shutdown of the host that runs the guest: SIGTERM to every process at once, in any order, as init does, and
# SIGKILL after a while. The guest lives on where it stands by, and its client loses nothing. Also SIGTERM to one process
# only, QEMU's monitor told to quit, and a guest that nobody can take over.
#   host_down.sh BUILD GUEST [ROUNDS]
set -euo pipefail
BUILD=$1 GUEST=$2 rounds=${3:-2}
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

other() { [ "$1" = a ] && echo b || echo a; }
pids_named() {
    for p in $(ip netns pids "$prefix-$1"); do
        ! grep -q "^$2" "/proc/$p/comm" 2>/dev/null || echo "$p"
    done
}
empty() { [ -z "$(ip netns pids "$prefix-$1")" ]; }
without_vm() { [ -z "$(pids_named "$1" 'understudy-repl\|qemu\|nbdkit')" ]; }

# What init does when the host goes down.
shut_down() {
    local until=$((SECONDS + 10))
    for p in $(ip netns pids "$prefix-$1" | shuf); do
        kill -TERM "$p" 2>/dev/null || true
    done
    until empty "$1" || [ $SECONDS -ge $until ]; do sleep 0.05; done
    hosts_kill "$prefix" "$1"
}

truncate -s 64M "$work/disk.img"
pair_prepare() {
    cp "$work/disk.img" "$(hosts_disk_dir "$prefix" a)/disk.img"
    DAEMON_OPTIONS=""
}
start_pair -- -drive file=/srv/disk.img,format=raw,if=virtio
start_client
at=a

for ((round = 1; round <= rounds; round++)); do
    echo "-- host $at goes down cleanly"
    await 60 "protection" field_is $at state protected
    answers=$(client_answers)
    shut_down $at
    await 10 "host $(other $at) to run the guest" field_is "$(other $at)" guest_here true
    await 20 "answers after it" client_goes_on
    ! grep -q "by 'understudy stop'\|the guest shut down" "$work/$(other $at).log" || fail "host $(other $at) was told that the user stopped it"
    revive $at
    at=$(other $at)
done

for victim in understudy-repl qemu; do
    echo "-- SIGTERM to $victim alone hands the guest over"
    await 60 "protection" field_is $at state protected
    kill -TERM "$(pids_named $at $victim)"
    await 10 "host $(other $at) to run the guest" field_is "$(other $at)" guest_here true
    at=$(other $at)
done

echo "-- SIGTERM to the server of a disk changes nothing"
await 60 "protection" field_is $at state protected
server=$(pids_named $at nbdkit)
kill -TERM "$server"
answers=$(client_answers)
await 20 "answers after it" client_goes_on
[ "$(pids_named $at nbdkit)" = "$server" ] || fail "the disk's server ended"
field_is $at state protected || fail "protection ended: $(field $at state)"

echo "-- a standby's SIGTERM costs protection only"
kill -TERM "$(pids_named "$(other $at)" understudy-repl)"
await 60 "protection again" field_is $at state protected
field_is $at guest_here true || fail "the guest has moved"

finish_client

echo "-- a guest that nobody can take over is asked to shut down"
hosts_kill "$prefix" "$(other $at)"
await 20 "host $at to run alone" field_is $at state connecting
kill -TERM "$(pids_named $at understudy-repl)"
await 20 "the guest to be asked" grep -q "it is asked to shut down" "$work/$at.log"
await 30 "the guest to power itself off" without_vm $at
grep -q "ended here: the guest shut down" "$work/$at.log" || fail "host $at did not end by the guest's own shutdown"
pair_leftovers
echo "host_down: all as documented"
