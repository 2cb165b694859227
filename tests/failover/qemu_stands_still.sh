#!/usr/bin/env bash
# QEMU stands still for longer than anything that asks it waits: its checkpoint is given up, then the list of its RAM blocks, which a new
# synchronisation begins with. It costs protection for as long as it lasts, and no longer.
#   qemu_stands_still.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

start_pair
start_client
await 10 "a first answer" client_goes_on

stopped=$(field a qemu_pid)
# The reason is logged once a minute, each attempt's end every time.
given_up() { grep -q "dirty tracking could not be started" "$work/a.log" && [ "$(grep -c "connecting, was synchronising" "$work/a.log")" -ge "$1" ]; }
kill -STOP "$stopped"
await 60 "host a to give up a list of RAM blocks" given_up 1
# What is said to the peer of the blocks meanwhile is what they are.
await 60 "host a to try again, by a connection that host b accepts" given_up 2
kill -CONT "$stopped"
await 60 "protection once QEMU goes on" field_is a state protected
answers=$(client_answers)
await 30 "answers" client_goes_on
field_is b guest_here false || fail "host b runs the guest too"
! grep -h "other RAM blocks" "$work/a.log" "$work/b.log" || fail "a host says something of RAM blocks that is not so"
finish_client
pair_leftovers
echo "qemu stands still: protection came back"
