#!/usr/bin/env bash
# The storage of host a's image does not answer the replicator while a standby is being synchronised, and the standby dies. The guest,
# whose own requests are answered, goes on all the same: its frames leave, and status tells what is wrong. When the storage answers again,
# protection comes back by itself.
#   disk_hangs.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/disk_pair.sh
. "$(dirname "$0")/disk_pair.sh"
ballast_mib=8 disk_mib=96 nblocks=1024
hang=$work/hang
mkfifo "$hang"
cat >"$work/replicator" <<SCRIPT
#!/bin/sh
[ -z "\${UNDERSTUDY_HANG_READS:-}" ] || export LD_PRELOAD="$BUILD/tests/failover/understudy-hang-reads.so"
exec "$BUILD/replicator/understudy-replicator" "\$@"
SCRIPT
chmod +x "$work/replicator"
REPLICATOR=$work/replicator
# shellcheck disable=SC2034 # used by name
in_daemon_a=(env "UNDERSTUDY_HANG_READS=$hang")

start_disk_pair
start_disk_client
touch "$hang.on"
kill_host b quiet
await 30 "host a to run alone" field_is a state connecting
revive b
await 120 "a read of host a's image to hang" test -e "$hang.hung"
kill_host b quiet
await 30 "host a to give the standby up" field_is a state connecting
for _ in 1 2 3; do await_operations "while host a's storage does not answer"; done
await 30 "host a to say what does not answer" status_says a "checkpoints have not ended"
revive b
await 60 "a standby that listens" field_is b state listening
for _ in 1 2 3; do await_operations "while a standby is there again"; done
field_is a state connecting || fail "host a is $(field a state) while its last capture is still reading"
rm "$hang.on"
: >"$hang"
await 120 "protection when the storage answers" field_is a state protected
guest_verifies "at the end"
await_operations "under protection"

# A VM is ended while the storage hangs: its processes do not stay for ever. (The limit is a minute; here it is a tenth, see hang_reads.c.)
touch "$hang.on"
rm -f "$hang.hung"
kill_host b quiet
await 30 "host a to run alone" field_is a state connecting
await_operations "that the new standby does not have" # so there is something to read
revive b
await 120 "a read of host a's image to hang again" test -e "$hang.hung"
understudy a stop web >"$work/stop.log" 2>&1 || true
await 120 "host a's processes to end" gone a
grep -q "the storage of its disks does not answer: this process ends all the same" "$work/a.log" || fail "host a ended by something else"
await 30 "host b to end" gone b
kill -INT "$client_pid"
wait $client || fail "the client: $(cat "$work/client.json")"
check_images a
disk_leftovers
echo "a disk that hangs: the guest went on, and protection came back"
