#!/usr/bin/env bash
# A guest writes to its disk much faster than the link to the standby is: it is slowed down to that, and stays protected. A standby that
# comes back meanwhile is synchronised all the same. Then a kill: what was acked is taken over.
#   disk_pressure.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"
export INITRD=initrd-disk.img APPEND="us.bench=vda" DIRTY=0
# MiB/s of the link; MiB that may lie in the log: what it is limited to, and the writes that a pause lets through.
link_mib=${LINK_MIB:-25} most_logged_mib=64

pair_prepare() {
    for host in a b; do
        truncate -s 128M "$(hosts_disk_dir "$prefix" $host)/disk.raw"
    done
}
ask_bench() { hosts_exec "$prefix" client "$BUILD/tests/client/understudy-disk-client" $guest_address --ask "$1"; }
acked() { field a acked_epoch; }
# Looks at the log on the way.
acked_more() {
    local logged
    logged=$(understudy a status web --json | jq -r ".disks[0].log_bytes // 0")
    [ "${logged:-0}" -le "$most" ] || most=$logged
    [ "$most" -le $((most_logged_mib << 20)) ] || fail "$most bytes lay in the log: writers do not wait"
    ! grep -q "its log overflowed" "$work/a.log" || fail "the log overflowed"
    [ "$(acked)" -gt "$before" ]
}

start_pair -- -drive file=/srv/disk.raw,if=virtio,format=raw
await 60 "protection on host a" field_is a state protected
if ! tc -n "$prefix-a" qdisc add dev up0 root tbf rate ${link_mib}mibps burst 256k latency 50ms; then
    echo "SKIPPED: this kernel has no tbf (sch_tbf), so the link cannot be made slow"
    exit 77
fi
# Eight at a time, and as many as the guest's page cache has at once.
for load in "write-1m 8 12" "write-deep 2 6"; do
    ask_bench "$load" >"$work/answer" &
    writes=$! most=0
    while kill -0 $writes 2>/dev/null; do
        before=$(acked)
        await 30 "epochs to go on under pressure" acked_more
        field_is a state protected || fail "protection was lost: $(field a state)"
    done
    wait $writes || fail "$load: the guest's writes: $(cat "$work/answer")"
    read -r operations bytes ns _ <<<"$(cat "$work/answer")"
    [ "$bytes" -gt $((link_mib << 20)) ] || fail "$load: the guest hardly wrote: $bytes bytes"
    echo "$load: $operations writes of 1 MiB at $((bytes * 1000 / ns)) MB/s, at most $((most >> 20)) MiB in the log, protected all the time"
done
ask_bench "write-1m 8 60" >"$work/answer" &
writes=$!
hosts_kill "$prefix" b 2>/dev/null
await 20 "host a to go on alone" field_is a state connecting
revive b
await 55 "protection again, though the guest writes faster than it is synchronised" field_is a state protected
kill -0 $writes 2>/dev/null || fail "the guest no longer wrote by then: $(cat "$work/answer")"
echo "synchronised meanwhile, after $(grep -c "web: synchronising, was" "$work/a.log") attempts in all"
! grep -q "its log overflowed" "$work/a.log" || fail "the log overflowed in a synchronisation"
hosts_kill "$prefix" a 2>/dev/null
await 20 "host b to take over" field_is b guest_here true
ask_bench "read-1m 2 1" >"$work/answer" || fail "the guest cannot read its disk after the takeover: $(cat "$work/answer")"
pair_leftovers
