#!/usr/bin/env bash
# QEMU: while an NBD server is away, `stop` halts the guest and then holds the monitor until reconnect-delay is over,
# even if the guest has no disk request under way.
#
# Guess:     reconnect-delay says how long a request of the guest waits for the server to come back. `stop` halts the
#            processors, which takes a millisecond, and answers; an idle disk has nothing to wait for.
# Behaviour: `stop` halts the processors, tells so (event STOP), and then drains and flushes the disks inside the same
#            command. The flush is a request of its own: it waits for the server until reconnect-delay ends, and the
#            main loop and with it every monitor waits, too. A `cont` sent meanwhile is read afterwards. The flush then
#            fails, and `stop` says nothing of it.
# Version:   QEMU 7.2 (Debian 12, qemu-system-x86 and qemu-utils 1:7.2+dfsg-7+deb12u18+b3). No guest.
#            qemu-nbd is the server.
# Matters:   a checkpoint that stops the VM while its NBD server restarts is not a pause of milliseconds, but of up to
#            reconnect-delay, and nothing can end it from outside. A short delay bounds the guest's pause.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

delay_s=6
unpack qemu-utils=1:7.2+dfsg-7+deb12u18+b3
needs qemu-nbd
truncate -s 1M "$work/disk"
qemu-nbd -f raw -k "$work/nbd" --persistent "$work/disk" &
server=$!
finding_children+=("$server")
for ((i = 0; i < 300; i++)); do
    [ -S "$work/nbd" ] && break
    sleep 0.1
done
qemu_start -machine none \
    -drive "if=none,id=disk,driver=nbd,server.type=unix,server.path=$work/nbd,reconnect-delay=$delay_s"

# stop_and_cont: how long `stop` takes, and how long before its end the guest was halted.
stop_and_cont() {
    events=
    local start end stopped_s
    start=$(now_ms)
    qmp '{"execute":"stop"}'
    end=$(now_ms)
    [[ $answer == *'"return": {}'* ]] || changed "stop says $answer"
    stopped_s=$(sed -n 's/.*"seconds": \([0-9]*\).*"event": "STOP".*/\1/p' <<<"$events")
    took_ms=$((end - start))
    halted_s=$((end / 1000 - stopped_s))
    qmp '{"execute":"cont"}'
}

stop_and_cont
present_ms=$took_ms
kill -9 "$server"
wait "$server" 2>/dev/null || true
rm -f "$work/nbd"
stop_and_cont
echo "server present: stop takes $present_ms ms"
echo "server away:    stop takes $took_ms ms, of which the guest is halted for $halted_s s; reconnect-delay is $delay_s s"

[ "$present_ms" -lt 3000 ] || changed "stop takes that long with the server, too"
[ "$took_ms" -ge $((delay_s * 1000 - 2000)) ] || changed "stop does not wait for the server"
[ "$halted_s" -ge $((delay_s - 3)) ] || changed "the guest is halted after the wait, not before it"
echo "QEMU 7.2: stop halts the guest and then waits until reconnect-delay is over"
