#!/usr/bin/env bash
# Strangers at the daemons' port, while a VM is protected and a client talks to its guest: requests without a key, with a key that is not
# trusted, and with one that has too few rights; five hundred connections that say nothing, one byte a second, garbage, a long message, an
# endless handshake; a wrong code while an invitation is open; a host that is removed. Each is refused or dropped, the guest and its
# protection go on, nothing is left in the daemon, and the log says it, seldom.
#   attack.sh BUILD GUEST
set -euo pipefail
BUILD=$(realpath "$1") GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/../failover/pair.sh"

crowd_size=500 most_held=64
stranger() { local dir=$1; shift; hosts_exec "$prefix" client "$BUILD/tests/trust/understudy-test-peer" "$work/$dir" "$@"; }
daemon_of() {
    local p
    for p in $(ip netns pids "$prefix-$1"); do
        ! grep -qx understudyd "/proc/$p/comm" 2>/dev/null || echo "$p"
    done
}
# What daemon b holds: threads, descriptors, and connections of its port.
threads() { find "/proc/$daemon/task" -mindepth 1 -maxdepth 1 | wc -l; }
descriptors() { find "/proc/$daemon/fd" -mindepth 1 -maxdepth 1 | wc -l; }
held() { ip netns exec "$prefix-b" ss -tnH state established "sport = :7070" | wc -l; }
rss_mib() { awk '/^VmRSS:/ {print int($2 / 1024)}' "/proc/$daemon/status"; }
held_few() { [ "$(held)" -eq 0 ]; }
back_to_normal() { held_few && [ "$(threads)" -le "$threads_before" ] && [ "$(descriptors)" -le $((descriptors_before + 2)) ]; }
goes_on() {
    local epochs
    epochs=$(field a epochs)
    answers=$(client_answers)
    await 60 "the client to hear more: $1" client_goes_on
    await 60 "more epochs: $1" more_epochs "$epochs"
    [ "$(field a state)" = protected ] && [ "$(field b state)" = standby ] || fail "$1: the VM is $(field a state) and $(field b state)"
}
more_epochs() { [ "$(field a epochs)" -gt "$1" ]; }

start_pair
start_client
goes_on "before"
daemon=$(daemon_of b)
threads_before=$(threads) descriptors_before=$(descriptors)

echo "-- requests"
said() {
    local pattern=$1 dir=$2 got
    shift 2
    ! got=$(stranger "$dir" ask 10.77.0.2 7070 "$@") || fail "$dir: $*: $got"
    grep -qE "$pattern" <<<"$got" || fail "$dir: $*: '$got', not '$pattern'"
}
for request in prepare_standby cancel_standby run_request stop_request failover_request status_request host_request drain_request \
    power_request trust_request key_request invite_request join_request pair_request pair_join files_request network_request; do
    said "dropped: it does not trust this host" nobody $request
done
echo "ok: a stranger gets no answer, whatever it asks"
understudy b trust witness "$(stranger witness key)" --may witness
said "refused: .*needs the role primary" witness prepare_standby
said "refused: .*needs the role primary" witness cancel_standby
said "refused: this request is not for peers" witness stop_request
said "refused: this request is not for peers" witness trust_request
stranger witness ask 10.77.0.2 7070 host_request | grep -q "answered" || fail "a trusted host is not answered"
echo "ok: a trusted host may do what its role says, and no more"
understudy b trust --remove witness
said "dropped: it does not trust this host" witness host_request
echo "ok: a removed host is a stranger"
understudy b pair --invite >"$work/code"
said "refused: this host is not trusted there" nobody host_request
said "refused: the code is wrong" nobody pair_join
echo "ok: an open invitation lets nobody do anything else"
goes_on "after the requests"

echo "-- crowds"
crowd=''
for kind in idle slow garbage envelope handshake; do
    : >"$work/crowd"
    stranger nobody crowd 10.77.0.2 7070 $crowd_size $kind >"$work/crowd" 2>"$work/crowd.err" &
    crowd=$!
    await 30 "the crowd" grep -q here "$work/crowd"
    goes_on "$kind"
    for _ in {1..20}; do
        [ "$(threads)" -le $((threads_before + 3)) ] || fail "$kind: $(threads) threads, $threads_before before"
        [ "$(held)" -le $most_held ] || fail "$kind: the daemon holds $(held) connections"
        sleep 0.1
    done
    understudy b status >/dev/null || fail "$kind: root's command is kept out"
    understudy a doctor --peer 10.77.0.2 >"$work/doctor" || true
    grep -q "^ok *understudy, both" "$work/doctor" || fail "$kind: the peer's daemon is kept out: $(cat "$work/doctor")"
    goes_on "$kind, after a while"
    for p in $(ip netns pids "$prefix-client"); do
        ! grep -qx understudy-test "/proc/$p/comm" || ! grep -qz crowd "/proc/$p/cmdline" || kill -KILL "$p"
    done
    wait "$crowd" 2>/dev/null || true
    await 30 "$kind: the daemon to be as before" back_to_normal
    echo "ok: $crowd_size connections ($kind): the guest goes on, commands and the peer are answered; $(rss_mib) MiB resident"
done
[ "$(rss_mib)" -le 128 ] || fail "the daemon has $(rss_mib) MiB"
[ "$(grep -c "a connection of 10.77.0.100 was closed" "$work/b.log")" -ge 1 ] || fail "the log does not tell"
[ "$(grep -c "a connection of 10.77.0.100 was closed" "$work/b.log")" -le $((SECONDS / 60 + 2)) ] || fail "the log tells more than one a minute"

echo "-- a host that is removed"
understudy a trust --list | awk '{print $1}' >"$work/names"
understudy a trust --remove "$(head -n 1 "$work/names")"
await 30 "the guest to run alone" field_is a state connecting
gone_b() { gone b; }
await 30 "host b to stand by no longer" gone_b
answers=$(client_answers)
await 60 "the client to hear more" client_goes_on
understudy a status web --json | jq -r .unprotected_why >"$work/why"
not_trusted() { understudy a status web --json | jq -r .unprotected_why | grep -q "not trusted on this host"; }
await 30 "status to say why" not_trusted
echo "ok: its standby stops, and the guest goes on alone"
code=$(understudy b pair --invite)
understudy a pair 10.77.0.2 "$code" >/dev/null
await 60 "protection" field_is a state protected
echo "ok: paired again, it stands by again"

! grep -rq "$code" "$work"/*.log || fail "a code is in the log"
! grep -aq "$(sed -n 2p "$(hosts_etc_dir "$prefix" b)/key")" "$work"/*.log || fail "a key is in the log"
[ "$(stat -c %a "$(hosts_etc_dir "$prefix" b)/key")" = 600 ] || fail "others may read the key"
finish_client
understudy a stop web
pair_leftovers
echo "attack: nobody without a key did anything"
