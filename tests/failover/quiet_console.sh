#!/usr/bin/env bash
# A healthy run leaves nothing in console.log on either host, however many frames are on the network while QEMU starts; and the frames that
# the guest receives are copied to the other host all the same.
#   quiet_console.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

pair_prepare() {
    hosts_exec "$prefix" client ping -q -b -f 10.77.0.255 >/dev/null 2>&1 &
    disown
}
console() { cat "$(hosts_run_dir "$prefix" "$1")/web/console.log" 2>/dev/null; }
# What QEMU says of an object's property, by the monitor of the user's own line.
monitor() {
    # shellcheck disable=SC2016 # the inner shell expands these
    hosts_exec "$prefix" a bash -c 'exec 3<>/dev/tcp/127.0.0.1/4444 && echo "$0" >&3 && timeout 10 head -n 3 <&3' "$1" 2>/dev/null
}

start_pair -- -monitor tcp:127.0.0.1:4444,server=on,wait=off
await 30 "protection" field_is a state protected
[[ "$(monitor "qom-get /objects/us-mir-0 status")" = *'"on"'* ]] || fail "frames for the guest are not copied: $(monitor "qom-get /objects/us-mir-0 status")"
for host in a b; do
    [ -z "$(console $host)" ] || fail "host $host's console.log has: $(console $host | head -n 3)"
done
understudy a failover web --planned
await 20 "host b to run the guest" field_is b guest_here true
await 5 "host b to tell that the guest was moved" tells b moved-here
! tells b takeover || fail "host b calls a handover a takeover: $(understudy b events)"
await 30 "protection by host a" field_is b state protected
for host in a b; do
    [ -z "$(console $host)" ] || fail "host $host's console.log has after a handover: $(console $host | head -n 3)"
done
pair_leftovers
echo "quiet console: nothing was printed"
