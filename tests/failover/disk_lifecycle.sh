#!/usr/bin/env bash
# What a pair with disks does besides dying: planned and forced failover, loss and return of the standby, reboot, power-off. Each time
# the guest finds its disk as it wrote it, and at the end both hosts' images are what the client was told.
#   disk_lifecycle.sh BUILD GUEST [--shared [--held-only]]
# --shared: the image is one file, which both hosts reach, and output waits while there is no standby (--on-peer-loss=hold). Then also:
#   - what the standby does not hold is not in the image, however long it takes; a guest that has written more than can be held stands
#     still, and goes on when the standby is back;
#   - a primary that is cut off and dies leaves the disk as the standby's memory knows it, with nothing from later;
#   - while a primary that is cut off lives, it has the image and the standby does not take over.
# --held-only: the first of these, and nothing else.
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/disk_pair.sh
. "$(dirname "$0")/disk_pair.sh"
if [ "${3:-}" = --shared ]; then
    shared=1
    run_options+=(--on-peer-loss=hold)
fi

replicator_of() {
    local pid
    for pid in $(ip netns pids "$prefix-$1"); do
        ! grep -qx understudy-repl "/proc/$pid/comm" 2>/dev/null || echo "$pid"
    done
}
taken_over_by() {
    await 20 "host $1 to take over" field_is "$1" guest_here true
    # Before anything is written that would cover up what should not be there.
    guest_verifies "after $2"
    await_operations "after $2"
}
protected_by() {
    await 120 "protection by host $2 after $3" field_is "$1" state protected
    resync_was_short "$1"
    guest_verifies "protected by host $2 after $3"
}
cut_off() {
    for link in up0 repl0; do ip -n "$prefix-$1" link set $link down; done
}
stopped_standby() {
    stopped=$(replicator_of "$1")
    [ -n "$stopped" ] || fail "host $1 has no replicator"
    kill -STOP "$stopped"
    await 20 "host $2 to give host $1 up" field_is "$2" state peer-lost
}
log_grew() { [ "$(disk_field "$1" 0 log_bytes)" -gt $((logged + (1 << 20))) ]; }
await_writes() {
    logged=$(disk_field "$1" 0 log_bytes)
    await 60 "the guest to write" log_grew "$1"
}
image_written() { stat --format=%y "$(shared_path)"; }
# The log's bytes; "full": the guest stands still.
log_or_full() {
    understudy "$1" status web --json | jq -r 'if tostring | test("the guest stands still") then "full" else .disks[0].log_bytes end'
}
# The guest writes, and nothing reaches the image from before to after that. Not always at first: what was released before may still be
# on its way. But soon, for the guest writes only until the log is full.
nothing_reaches_the_image() {
    local before after first logged
    while :; do
        before=$(image_written)
        first=$(log_or_full "$1")
        until logged=$(log_or_full "$1") && { [ "$logged" = full ] || [ "$logged" -gt $((first + (1 << 20))) ]; }; do :; done
        after=$(image_written)
        [ "$logged" != full ] || break
        if [ "$before" = "$after" ]; then return 0; fi
        echo "   the image was written to when the log had $((logged >> 20)) MiB"
    done
    fail "what the standby does not hold is in the image"
}

# standby_stands_still STANDBY PRIMARY
standby_stands_still() {
    echo "-- a standby that stands still: nothing reaches the image, and a guest that has written too much waits"
    stopped_standby "$1" "$2"
    nothing_reaches_the_image "$2"
    await 90 "the guest to stand still, its disk's log full" status_says "$2" "the guest stands still"
    kill -CONT "$stopped"
    await_operations "with the standby awake again"
    protected_by "$2" "$1" "its sleep"
}

start_disk_pair
start_disk_client
if [ "${4:-}" = --held-only ]; then
    standby_stands_still b a
    stop_disk_guest
    disk_leftovers
    exit 0
fi

echo "-- planned failover, there and back"
understudy a failover web --planned
taken_over_by b "a planned failover"
protected_by b a "a planned failover"
understudy b failover web --planned
taken_over_by a "a planned failover back"
protected_by a b "a planned failover back"

echo "-- forced failover from a living primary"
understudy b failover web --force
taken_over_by b "a forced failover"
protected_by b a "a forced failover"

if [ $shared -eq 1 ]; then
    standby_stands_still a b

    echo "-- the hosts are cut off from each other; the primary goes on writing, then dies while the standby waits for the image"
    cut_off a
    await 20 "host b to give host a up" field_is b state peer-lost
    await_writes b
    kill_host b
    hosts_links_up "$prefix" a
    taken_over_by a "the death of a primary that was ahead"
    revive b
    protected_by a b "the death of a primary that was ahead"

    echo "-- cut off again: a primary that lives keeps the image"
    cut_off a
    await 60 "host b to be refused the image" grep -q "a shared disk is still locked by the other host" "$work/b.log"
    field_is a guest_here true || fail "host a does not run the guest any more"
    ! field_is b guest_here true || fail "both hosts run the guest"
    hosts_links_up "$prefix" a
    await_operations "with the links back"
    protected_by a b "the cut"
else
    echo "-- the standby dies and returns"
    kill_host a
    await 20 "host b to notice" field_is b state connecting
    await_operations "without a standby"
    revive a
    protected_by b a "its death"
    understudy b failover web --planned
    taken_over_by a "a planned failover"
    protected_by a b "a planned failover"
fi
stop_disk_guest
cat "$work/client.json"

echo "-- a reboot goes on protected, from the disk as it was"
: >"$work/serial"
ask_guest reboot || true
await 90 "the guest to come up again" guest_ready
field_is a state protected || fail "not protected after a reboot: $(field a state)"
start_disk_client
await_operations "after the reboot"
understudy a failover web --planned
taken_over_by b "a reboot and a planned failover"
protected_by b a "a reboot and a planned failover"
stop_disk_guest

echo "-- a guest that powers itself off ends both hosts, without a takeover"
disk_client --ask poweroff
await 20 "host a to end" gone a
await 20 "host b to end" gone b
for host in a b; do
    left=$(for p in $(ip netns pids "$prefix-$host"); do cat "/proc/$p/comm" 2>/dev/null; done | grep -E 'qemu|nbdkit|understudy-rep' || true)
    [ -z "$left" ] || fail "processes are left on host $host: $left"
done
check_both_images --stopped
disk_leftovers
echo "planned and forced failover, loss of the standby, reboot and power-off: the disk is as it was written"
