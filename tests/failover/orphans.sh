#!/usr/bin/env bash
# A replicator that dies takes QEMU and the disk's server with it, whether its daemon is there or not: a guest whose output nobody lets
# out must not go on beside the one that the other host runs.
#   orphans.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/disk_pair.sh
. "$(dirname "$0")/disk_pair.sh"
ballast_mib=8 disk_mib=96 nblocks=1024

pid_of() { for p in $(ip netns pids "$prefix-$1"); do ! grep -qx "$2" "/proc/$p/comm" 2>/dev/null || echo "$p"; done | head -n 1; }
runs() { ip netns pids "$prefix-$1" | xargs -r -I{} cat /proc/{}/comm 2>/dev/null | grep -E 'qemu|nbdkit|understudy-repl'; }
nothing_runs() { ! runs "$1" >/dev/null; }
tells_the_end() { grep -q "its replicator died, and its QEMU was stopped" <<<"$(understudy "$1" status --all 2>/dev/null)"; }
# without_its_replicator HOST: the replicator is killed, and what it ran is gone with it.
without_its_replicator() {
    local replicator
    replicator=$(pid_of "$1" understudy-repl)
    [ -n "$replicator" ] && [ -n "$(pid_of "$1" nbdkit)" ] || fail "host $1 runs no replicator with a disk: $(runs "$1")"
    kill -KILL "$replicator"
    await 10 "everything of the VM to end on host $1" nothing_runs "$1"
}

start_disk_pair
start_disk_client
await_operations "under protection"

echo "-- the daemon is away when the replicator dies"
kill -KILL "$(pid_of a understudyd)"
without_its_replicator a
await 20 "host b to take over" field_is b guest_here true
await_operations "after the takeover"

echo "-- the daemon is there, and says what happened"
start_daemon a
await 60 "protection by host a" field_is b state protected
without_its_replicator b
await 20 "host a to take over" field_is a guest_here true
# It is asked to stand by again a few seconds later, so what is remembered is looked at, not what is shown just now.
await 10 "host b to tell how it ended" tells_the_end b
await_operations "after the second takeover"
guest_verifies "after the second takeover"
stop_disk_guest
disk_leftovers
echo "orphans: none"
