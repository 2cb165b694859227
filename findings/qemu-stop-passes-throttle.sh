#!/usr/bin/env bash
# QEMU: `stop` lets every request that a throttle holds back through at once, so a VM that is stopped often has no
# limit.
#
# Guess:     throttling.iops-total=10 admits 10 requests a second, whatever the monitor does; `stop` either waits the
#            twenty seconds that 200 requests take, or leaves those that the throttle holds where they are.
# Behaviour: `stop` drains the block layer, and a drained throttle group admits all that wait. 200 requests that the
#            throttle would spread over 20 seconds are done when `stop` answers, some milliseconds later.
# Version:   QEMU 7.2 (Debian 12, qemu-system-x86 1:7.2+dfsg-7+deb12u18+b3). No guest: the monitor's own qemu-io
#            command issues the requests, on a null device.
# Matters:   checkpoints that stop the VM many times a second switch off the throttles that an administrator set: one
#            VM may take the disks of the others. The limit must then be set elsewhere (at the NBD server, by a cgroup).
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

limit=10
requests=200
qemu_start -machine none \
    -drive "if=none,id=disk,driver=null-co,size=1G,throttling.iops-total=$limit"

done_requests() {
    qmp '{"execute":"query-blockstats"}'
    sed -n 's/.*"wr_operations": \([0-9]*\).*/\1/p' <<<"$answer"
}

start=$(now_ms)
for ((i = 0; i < requests; i++)); do
    hmp "qemu-io disk \"aio_write -q ${i}k 1k\""
done
before=$(done_requests)
before_ms=$(($(now_ms) - start))
qmp '{"execute":"stop"}'
after=$(done_requests)
after_ms=$(($(now_ms) - start))
echo "limit $limit requests a second, $requests requests issued"
echo "before stop: $before done after $before_ms ms"
echo "after stop:  $after done after $after_ms ms; the limit allows about $((limit * after_ms / 1000))"

[ "$before" -lt "$requests" ] || changed "the throttle did not hold back the requests in the first place"
[ "$after" -eq "$requests" ] || changed "stop leaves requests in the throttle"
[ $((limit * after_ms / 1000 + limit)) -lt "$requests" ] ||
    changed "stop waits as long as the throttle wants"
echo "QEMU 7.2: stop lets all requests that wait in a throttle through"
