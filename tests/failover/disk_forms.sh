#!/usr/bin/env bash
# Disks in the forms that a user gives them in, each once from host to host and back with a real guest that uses it: what the client
# was told is on the disk, and at the end both hosts' images are the same. How the command line is rewritten has tests of its own
# (tests/cmdline); this one is about what QEMU, nbdkit and the guest then do with it.
#   disk_forms.sh BUILD GUEST [FORM]...
#   ide             -hda without a format, the standby's image elsewhere (--peer-disk), a CD-ROM that passes untouched, --durability=disk
#   device          a block device of one name here and of another there, and -blockdev in two nodes behind virtio-scsi
#   shared_device   a block device that both hosts reach
#   luks            an encrypted image, and qcow2 on a backing file given by -blockdev in JSON
set -euo pipefail
BUILD=$1 GUEST=$2
shift 2
# shellcheck source=tests/failover/disk_pair.sh
. "$(dirname "$0")/disk_pair.sh"
ballast_mib=68 disk_mib=128 bare_mib=16 bare=1
forms=("$@")
[ ${#forms[@]} -gt 0 ] || forms=(ide device shared_device luks)

loops=()
free_loops() {
    local loop
    for loop in "${loops[@]}"; do losetup -d "$loop" || true; done
    loops=()
}
trap 'pair_cleanup; free_loops' EXIT

folder() { hosts_disk_dir "$prefix" "$1"; }
# A file system that is the same on each run of a form; the standby's image is made by its daemon where nothing is said of it.
make_tree() {
    disk_tree=$work/tree
    mkdir -p "$disk_tree"
    [ -e "$disk_tree/ballast" ] || head -c "${ballast_mib}M" /dev/urandom >"$disk_tree/ballast"
}

# Each form sets: options of understudy run, drives, the guest's names of its disks, and where the images are.
form_ide() {
    options=(--peer-disk disk0=/srv/elsewhere/copy.raw --durability disk)
    drives=(-hda /srv/disk.raw -cdrom /srv/cd.iso -drive "file=/srv/bare.raw,if=virtio,format=raw,discard=unmap")
    names="us.disk=sda us.bare=vda"
    disk_path() { echo "$(folder "$1")/$([ "$1" = a ] && echo disk.raw || echo elsewhere/copy.raw)"; }
    bare_path() { echo "$(folder "$1")/bare.raw"; }
    pair_prepare() {
        local host
        make_tree
        disk_make "$(disk_path a)" raw "${disk_mib}M" "" "$disk_tree"
        disk_make_bare "$(bare_path a)" "${bare_mib}M"
        mkdir "$(folder b)/elsewhere"
        head -c 1M /dev/urandom >"$work/cd.iso"
        for host in a b; do cp "$work/cd.iso" "$(folder $host)/cd.iso"; done
    }
    look() {
        local sum
        sum=$(disk_client --ask "md5 /dev/sr0") || fail "$1: the guest cannot read its CD-ROM"
        [ "${sum%% *}" = "$(md5sum <"$work/cd.iso" | cut -d ' ' -f 1)" ] || fail "$1: the guest reads something else from its CD-ROM: $sum"
        [ "$(understudy "$here" status web --json | jq '.disks | length')" = 2 ] || fail "$1: the CD-ROM is replicated"
    }
}

form_device() {
    drives=(-blockdev "file,filename=/srv/bare.raw,node-name=f,discard=unmap" -blockdev "raw,file=f,node-name=inner,discard=unmap"
        -device "virtio-scsi-pci,id=scsi" -device "scsi-hd,drive=inner,bus=scsi.0")
    names="us.disk=vda us.bare=sda"
    disk_path() { [ "$1" = a ] && echo "${loops[0]}" || echo "${loops[1]}"; }
    bare_path() { echo "$(folder "$1")/bare.raw"; }
    pair_prepare() {
        local host
        make_tree
        disk_make "$work/device-a" raw "${disk_mib}M" "" "$disk_tree"
        truncate -s "${disk_mib}M" "$work/device-b"
        for host in a b; do loops+=("$(losetup --find --show "$work/device-$host")"); done
        disk_make_bare "$(bare_path a)" "${bare_mib}M"
        # Which ones they are is known only now.
        options=(--peer-disk "root=${loops[1]}")
        drives=(-drive "file=${loops[0]},if=virtio,format=raw,id=root,discard=unmap" "${drives[@]}")
    }
    look() { :; }
}

form_shared_device() {
    drives=() shared=1 bare=0
    names="us.disk=vda"
    disk_path() { echo "${loops[0]}"; }
    pair_prepare() {
        make_tree
        disk_make "$work/device" raw "${disk_mib}M" "" "$disk_tree"
        loops+=("$(losetup --find --show "$work/device")")
        options=(--shared-disk root)
        drives=(-drive "file=${loops[0]},if=virtio,format=raw,id=root,discard=unmap")
    }
    look() { :; }
}

form_luks() {
    options=()
    drives=(-object "secret,id=s,data=$disk_secret" -drive "file=/srv/disk.luks,if=none,id=d,format=luks,key-secret=s"
        -device "virtio-blk-pci,drive=d,addr=0x10"
        -blockdev '{"driver":"qcow2","node-name":"b","discard":"unmap","file":{"driver":"file","filename":"/srv/bare.qcow2"}}'
        -device "virtio-blk-pci,drive=b,addr=0x11")
    names="us.disk=vda us.bare=vdb"
    disk_path() { echo "$(folder "$1")/disk.luks"; }
    bare_path() { echo "$(folder "$1")/bare.qcow2"; }
    pair_prepare() {
        local host
        make_tree
        disk_make "$(disk_path a)" luks "${disk_mib}M" "" "$disk_tree"
        for host in a b; do
            disk_make_bare "$(folder $host)/base.raw" "${bare_mib}M"
            head -c 4M /dev/zero | tr '\0' 'b' | dd of="$(folder $host)/base.raw" conv=notrunc status=none
        done
        # The name that the hosts have for it is written into the image; only they can look behind it.
        qemu-img create -q -u -f qcow2 -b /srv/base.raw -F raw "$(bare_path a)" "${bare_mib}M"
    }
    # Whoever reads it from here needs our name for the backing file.
    before_check() { qemu-img rebase -u -f qcow2 -b "$(folder "$1")/base.raw" -F raw "$(bare_path "$1")"; }
    look() { :; }
}

start_form() {
    build_guest
    hosts_up "$prefix"
    pair_prepare
    pair_prepare() { :; }
    start_daemon b
    start_daemon a
    rm -f "$work/serial"
    APPEND="$names $(disk_workload)" guest_command
    # shellcheck disable=SC2086 # RUN_OPTIONS is a list of words
    understudy a run --name web --peer 10.77.0.2 --wait-s 60 ${RUN_OPTIONS:-} "${options[@]}" -- "${qemu[@]}" "${drives[@]}" >"$work/run.log" 2>&1 ||
        fail "the VM could not be protected"
    await 90 "the guest to come up" guest_ready
}

for form in "${forms[@]}"; do
    echo "-- $form"
    if [[ "$form" = *device ]] && ! losetup --find >/dev/null 2>&1; then
        echo "   left out: this machine has no loop devices"
        continue
    fi
    options=() here=a shared=0 bare=1
    before_check() { :; }
    "form_$form"
    start_form
    start_disk_client
    await_operations "under protection"
    look "on host a"
    kill_host a
    await 20 "host b to take over" field_is b guest_here true
    here=b
    await_operations "after the takeover"
    guest_verifies "after the takeover"
    look "on host b"
    revive a
    await 120 "protection by host a" field_is b state protected
    resync_was_short b
    await_operations "protected by host a"
    understudy b failover web --planned
    await 20 "host a to run the guest" field_is a guest_here true
    here=a
    await_operations "after a planned failover"
    guest_verifies "after a planned failover"
    look "on host a again"
    await 120 "protection by host b" field_is a state protected
    stop_disk_guest
    disk_client --ask poweroff
    await 20 "host a to end" gone a
    await 20 "host b to end" gone b
    for host in a b; do
        before_check $host
    done
    check_both_images --stopped
    hosts_down "$prefix"
    free_loops
    rm -f "$work"/*.log
done
[ -z "$(losetup --list --noheadings --output BACK-FILE | grep -F "$work/" || true)" ] || fail "block devices are left"
disk_leftovers
echo "disks in every form: from host to host and back"
