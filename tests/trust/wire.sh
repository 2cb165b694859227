#!/usr/bin/env bash
# What the networks between the hosts carry. A word is in the guest's memory and in its command line, so it goes to the other host twice: by
# the checkpoints' link, and by the request for a standby. Neither may show it. With --link-security=none the word must be seen, in memory's
# pages; so it is known that this looks in the right place.
#   wire.sh BUILD GUEST
set -euo pipefail
BUILD=$(realpath "$1") GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/../failover/pair.sh"

word=us.marker=$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')
export APPEND=$word
listens() { grep -q "listening on" "$work/tcpdump.err"; }
# Everything that host b sends and receives, until the VM is protected and for some epochs after that.
record() {
    ip netns exec "$prefix-b" tcpdump -i any -U -B 65536 -s 0 -Z root -w "$work/wire" 2>"$work/tcpdump.err" &
    recorder=$!
    await 20 "tcpdump" listens
}
stop_recording() {
    kill -INT $recorder
    wait $recorder || fail "tcpdump: $(cat "$work/tcpdump.err")"
    recorded_mib=$(($(stat -c %s "$work/wire") >> 20))
    [ "$recorded_mib" -ge 8 ] || fail "only $recorded_mib MiB were recorded: $(cat "$work/tcpdump.err")"
}
seen() { grep -aoF "$word" "$work/wire" | wc -l; }
some_epochs() { [ "$(field a epochs)" -ge 50 ]; }
protect() {
    # shellcheck disable=SC2086 # RUN_OPTIONS is a list of words
    understudy a run --name web --peer 10.77.0.2 --wait-s 60 ${RUN_OPTIONS:-} "$@" -- "${qemu[@]}" >"$work/run.log" 2>&1 || fail "the VM could not be protected"
    await 60 "the guest to come up" guest_ready
    await 60 "epochs" some_epochs
}

build_guest
hosts_up "$prefix"
pair_prepare
start_daemon b
start_daemon a
guest_command

record
protect
stop_recording
[ "$(seen)" -eq 0 ] || fail "the networks carried a word of the guest's memory $(seen) times"
# One that the daemons write into each other's requests, too.
[ "$(grep -aoF us.ip=$guest_address "$work/wire" | wc -l)" -eq 0 ] || fail "the networks carried the guest's command line"
echo "ok: sealed, $recorded_mib MiB do not have the word"
understudy a stop web
await 20 "host b to end" gone b

rm -f "$work/serial" "$work/wire"
record
protect --link-security none
status_says a "whoever reaches the hosts' network can read the guest's memory" || fail "status does not say what 'none' means"
stop_recording
[ "$(seen)" -gt 0 ] || fail "not sealed, $recorded_mib MiB do not have the word either: this test looks in the wrong place"
echo "ok: not sealed, $recorded_mib MiB have the word $(seen) times"
understudy a stop web
await 20 "host b to end" gone b
pair_leftovers
echo "wire: what is sealed does not show the guest's memory"
