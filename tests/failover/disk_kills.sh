#!/usr/bin/env bash
# A guest writes to its disk as fast as it can and tells a client of each operation once it is durable, while the hosts are killed at
# random moments. What the client was told must be on the disk, whichever host runs the guest, and at the end in the images alone:
# the file system clean, every block of every operation as it should be.
#   disk_kills.sh BUILD GUEST [COUNT] [OPTIONS]     COUNT 20 kills; 0: without end
#   --format F      raw, qcow2, vhdx, vpc (raw)
#   --bare          a second disk, without a file system
#   --shared        the file system's image is one file, which both hosts reach (with --bare: the second disk is replicated)
#   --garbage       the standby's images are full of garbage at first
#   --kill WHO      primary (default); secondary; both: at the last kill both die at one moment, and the images are looked at
#   --secondary N   after COUNT kills N more, of the secondary
#   --full          before each host returns it loses its dirty-block maps: all is compared again
#   --durability D  memory (default) or disk
set -euo pipefail
BUILD=$1 GUEST=$2 count=20 kill=primary secondaries=0 full=0
shift 2
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
    count=$1
    shift
fi
# shellcheck source=tests/failover/disk_pair.sh
. "$(dirname "$0")/disk_pair.sh"
durability=memory
while [ $# -gt 0 ]; do
    case "$1" in
    --format) format=$2; shift ;;
    --bare) bare=1 ;;
    --shared) shared=1 ;;
    --garbage) standby=garbage ;;
    --kill) kill=$2; shift ;;
    --secondary) secondaries=$2; shift ;;
    --full) full=1 ;;
    --durability) durability=$2; shift ;;
    *) fail "unknown option $1" ;;
    esac
    shift
done
run_options+=(--durability "$durability")

returns() {
    [ $full -eq 0 ] || rm -f "$(hosts_state_dir "$prefix" "$1")"/web/*.map
    revive "$1"
}

start_disk_pair
start_disk_client
here=a there=b
for ((i = 1; count == 0 || i <= count + secondaries; i++)); do
    who=$kill
    [ "$count" -eq 0 ] || [ $i -le "$count" ] || who=secondary
    await 120 "protection on host $here" field_is $here state protected
    if [ $i -gt 1 ] && [ $full -eq 1 ]; then
        resync_was_full $here
    elif [ $i -gt 1 ]; then
        resync_was_short $here
    fi
    await_operations "under protection"
    moment_to_kill $here 1000
    how=$([ $((i % 2)) -eq 1 ] || echo quiet)
    case $who in
    secondary)
        kill_host $there "$how"
        await 20 "host $here to notice" field_is $here state connecting
        await_operations "without a standby"
        returns $there
        echo "kill $i: host $here went on alone"
        ;;
    *)
        kill_host $here "$how"
        await 20 "host $there to take over" field_is $there guest_here true
        # Before anything is written that would cover up what a shared disk should not have.
        [ $shared -eq 0 ] || guest_verifies "after kill $i, at once"
        await_operations "after the takeover"
        echo "kill $i: host $there took over (detected after $(field $there detect_ms) ms, running $(field $there promote_ms) ms later)"
        returns $here
        read -r here there <<<"$there $here"
        ;;
    esac
    guest_verifies "after kill $i"
    [ $((i % 3)) -ne 0 ] || [[ "$(disk_client --ask trim)" = "trimmed "* ]] || fail "the guest does not trim"
done
await 120 "protection on host $here" field_is $here state protected

if [ $kill = both ]; then
    await_operations "under protection"
    moment_to_kill $here 1000
    # One call for both, or the standby takes over before its turn comes; the primary first, so that it has done nothing that the standby could
    # not know of.
    pids=$(ip netns pids "$prefix-$here" && ip netns pids "$prefix-$there")
    # shellcheck disable=SC2086 # a list of numbers
    kill -KILL $pids
    kill_host $here
    kill_host $there
    kill -INT "$client_pid"
    wait $client || fail "the client: $(cat "$work/client.json")"
    echo "-- the image of the primary"
    check_images $here
    echo "-- the image of the standby, after its journal"
    # A guest that mounts, unmounts and powers itself off; what the journal holds is written to the image before.
    revive $there
    revive $here
    APPEND="us.disk=vda us.recover" guest_command
    disk_drives
    understudy $there run --name web --peer "$(address_of $here)" --no-wait "${run_options[@]}" -- "${qemu[@]}" "${drives[@]}" >"$work/run.log" 2>&1 ||
        fail "the VM does not start on the former standby"
    await 60 "the guest to recover its file system and to end" gone $there
    kill_host $here
    kill_host $there
    lag=()
    [ $durability = disk ] || lag=(--may-lag)
    check_images $there "${lag[@]}"
else
    stop_disk_guest
    cat "$work/client.json"
    # A last takeover brings everything that the client heard of into the other image; then both must be right.
    kill_host $here
    await 20 "host $there to take over" field_is $there guest_here true
    kill_host $there
    check_both_images --stopped
fi
disk_leftovers
echo "$((count + secondaries)) kills: every operation that the client heard of is on the disk"
