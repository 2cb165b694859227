#!/usr/bin/env bash
# The guest stands still because its disk is full, and the other host gets it: there it goes on by itself, and nothing is lost.
#   killed    the host dies meanwhile. With packed rings, whose parked request QEMU 7.2 writes into its state and cannot load
#   planned   a handover, the way out that operations.md names
#   disk_full.sh BUILD GUEST [CASE]...
set -euo pipefail
BUILD=$1 GUEST=$2
shift 2
# shellcheck source=tests/failover/disk_pair.sh
. "$(dirname "$0")/disk_pair.sh"
ballast_mib=8 disk_mib=96 nblocks=1024
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=(killed planned)
# The guest writes to new places all the time, but not for ever: in this much room it does not finish.
room_mib=3

eval "images_$(declare -f pair_prepare)"
# Host a's image is in a file system with so much room as it takes, and a little more.
pair_prepare() {
    local used
    images_pair_prepare
    used=$(du -m "$(disk_path a)" | cut -f1)
    mount -t tmpfs -o size=512M tmpfs "$(hosts_disk_dir "$prefix" a)"
    images_pair_prepare
    mount -o "remount,size=$((used + room_mib))M" "$(hosts_disk_dir "$prefix" a)"
}
packed=off
disk_drives() {
    drives=(-drive "file=/srv/$(disk_name),if=none,id=d0,format=$format,discard=$discard"
        -device "virtio-blk-pci,drive=d0,packed=$packed")
}
stands_still() { status_says a "the guest stands still"; }
begin() {
    start_disk_pair
    start_disk_client
    await 90 "the disk to be full" stands_still
    field_is a state protected || fail "protection has ended: $(understudy a status web --json)"
}
end() {
    await_operations "on host b"
    guest_verifies "on host b"
    ! understudy b status web --json | grep "stands still" || fail "host b says of a guest that runs that it stands still"
    stop_disk_guest
    hosts_down "$prefix"
    rm -f "$work"/*.log
}

killed() {
    packed=on
    begin
    kill_host a
    await 20 "host b to take over" field_is b guest_here true
    end
}
planned() {
    packed=off
    begin
    understudy a failover web --planned
    await 20 "host b to take over" field_is b guest_here true
    end
}

for each in "${cases[@]}"; do
    echo "-- $each"
    "$each"
done
disk_leftovers
echo "disk full: the guest goes on where there is room"
