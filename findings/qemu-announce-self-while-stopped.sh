#!/usr/bin/env bash
# QEMU: `announce-self` on a VM that is stopped succeeds and sends nothing; `cont` then sends every round at once.
#
# Guess:     the announcement is QEMU's own and needs no guest, so it leaves at once; or the command is refused while
#            the VM does not run.
# Behaviour: the command succeeds and its rounds go by on the host's clock, but a NIC of a stopped VM sends nothing: the
#            frames wait in the NIC's queue. `cont` sends them, all rounds within a moment, however old they are.
# Version:   QEMU 7.2 (Debian 12, qemu-system-x86 1:7.2+dfsg-7+deb12u18+b3), -device e1000 on -netdev stream.
# Matters:   at a takeover one might teach the switches the new port before the guest resumes. They learn nothing
#            until it runs; and a standby that was told to announce and is resumed much later announces then.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

command -v socat >/dev/null || skip "socat is not installed"
rounds=3
frame_bytes=64 # a RARP frame of 60 bytes, and the 4 bytes of length that -netdev stream puts before it
socat -u "UNIX-LISTEN:$work/switch" "CREATE:$work/frames" &
finding_children+=("$!")
for ((i = 0; i < 300; i++)); do
    [ -S "$work/switch" ] && break
    sleep 0.1
done
qemu_start -S -machine pc -netdev "stream,id=net,server=off,addr.type=unix,addr.path=$work/switch" \
    -device e1000,netdev=net,mac=52:54:00:12:34:56,romfile=

# Frames received so far.
frames() {
    echo $(($(stat -c %s "$work/frames") / frame_bytes))
}

# The rounds of an announcement, 50 ms apart, and a second beyond them for a loaded machine.
announce() {
    qmp '{"execute":"announce-self","arguments":{"initial":50,"max":50,"rounds":'$rounds',"step":0}}'
    sleep 2
}

announce
stopped=$(frames)
qmp '{"execute":"cont"}'
sleep 1
resumed=$(frames)
announce
running=$(($(frames) - resumed))
echo "frames of $rounds rounds while stopped: $stopped; after cont: $resumed; of $rounds more while running: $running"

[ "$running" -eq "$rounds" ] || changed "a running VM sends $running frames for $rounds rounds"
[ "$stopped" -eq 0 ] || changed "a stopped VM announces itself"
[ "$resumed" -eq "$rounds" ] || changed "cont sends $resumed of the $rounds frames"
echo "QEMU 7.2: what announce-self has to say of a stopped VM waits for cont"
