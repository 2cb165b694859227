#!/usr/bin/env bash
# What the tests of replicated disks have in common: a pair whose guest runs the disk workload, the client that hears of it, and the
# checks of both hosts' images. To be sourced after BUILD and GUEST are set.
#
# Set before start_disk_pair:
#   format    of the file system's image: raw, qcow2, vhdx, vpc (raw)
#   bare      1: a second disk, raw, without a file system (0)
#   shared    1: the file system's image is one file, which both hosts reach (0)
#   discard   what QEMU does with the guest's discards: unmap, or ignore (unmap)
#   standby   what host b's images hold at first: nothing, or garbage (nothing)
#   run_options, qemu_options   more for understudy run and for QEMU
# From the environment: GUEST_THINK_MS (how long each stream waits after an operation: 0).
# shellcheck source=tests/failover/pair.sh
. "$(dirname "${BASH_SOURCE[0]}")/pair.sh"
# shellcheck source=tests/guest/disk_image.sh
. "$(dirname "${BASH_SOURCE[0]}")/../guest/disk_image.sh"

format=raw bare=0 shared=0 discard=unmap standby=nothing run_options=() qemu_options=()
export INITRD=initrd-disk.img DIRTY=${DIRTY:-100}
# Data that nobody ever writes again: a resynchronisation must not carry it. It is more than the rest of the disk, so that what is looked
# at and is less than that cannot be everything, however fast the guest writes.
ballast_mib=128 disk_mib=240 bare_mib=16 nblocks=2048
disk_name() {
    case "$format" in
    vpc) echo disk.vhd ;;
    *) echo "disk.$format" ;;
    esac
}
disk_path() { echo "$(hosts_disk_dir "$prefix" "$1")/$(disk_name)"; }
# Where both hosts see one file by the path that they call theirs.
shared_path() { echo "$(hosts_dir "$prefix/shared")/$(disk_name)"; }
bare_path() { echo "$(hosts_disk_dir "$prefix" "$1")/bare.raw"; }
# Words for the guest's kernel: how much it writes, and how fast.
disk_workload() { echo "us.blocks=$nblocks us.think-ms=${GUEST_THINK_MS:-0}"; }
disk_options() {
    case "$format" in
    vhdx) echo subformat=fixed,block_state_zero=off ;; # else its blocks are allocated when first written, at the end of a file that cannot grow
    vpc) echo subformat=fixed ;;
    esac
}

# Images on both hosts. The standby's has another content (or, for a format with a header, does not exist yet).
pair_prepare() {
    disk_tree=$work/tree
    mkdir -p "$disk_tree"
    [ -e "$disk_tree/ballast" ] || head -c "${ballast_mib}M" /dev/urandom >"$disk_tree/ballast"
    if [ $shared -eq 1 ]; then
        disk_make "$(shared_path)" "$format" "${disk_mib}M" "$(disk_options)" "$disk_tree"
        ln -s "$(shared_path)" "$(disk_path a)"
        ln -s "$(shared_path)" "$(disk_path b)"
    else
        disk_make "$(disk_path a)" "$format" "${disk_mib}M" "$(disk_options)" "$disk_tree"
    fi
    [ $bare -eq 0 ] || disk_make_bare "$(bare_path a)" "${bare_mib}M"
    local path
    for path in "$(disk_path b)" "$(bare_path b)"; do
        [ "$path" != "$(bare_path b)" ] || [ $bare -eq 1 ] || continue
        [ "$path" != "$(disk_path b)" ] || [ $shared -eq 0 ] || continue
        case $standby:$path in
        garbage:*) head -c "$(stat -c %s "${path/us-$prefix\/b-disks/us-$prefix/a-disks}")" /dev/urandom >"$path" ;;
        nothing:*.raw) truncate -s "$(stat -c %s "${path/us-$prefix\/b-disks/us-$prefix/a-disks}")" "$path" ;;
        esac
    done
}

disk_drives() {
    drives=(-drive "file=/srv/$(disk_name),if=virtio,format=$format,discard=$discard")
    [ $bare -eq 0 ] || drives+=(-drive "file=/srv/bare.raw,if=virtio,format=raw,discard=$discard")
    [ $shared -eq 0 ] || run_options+=(--shared-disk disk0)
}

start_disk_pair() {
    disk_drives
    APPEND="us.disk=vda $(disk_workload)"
    export APPEND
    [ $bare -eq 0 ] || APPEND+=" us.bare=vdb"
    start_pair "${run_options[@]}" -- "${drives[@]}" "${qemu_options[@]}"
    await 90 "protection on host a" field_is a state protected
}

disk_client() { hosts_exec "$prefix" client "$BUILD/tests/client/understudy-disk-client" $guest_address "$@"; }
start_disk_client() {
    rm -f "$work/progress"
    disk_client "$work/log" --progress "$work/progress" ${CLIENT_PATIENCE_S:+--patience-s "$CLIENT_PATIENCE_S"} >"$work/client.json" 2>"$work/client.err" &
    client=$!
    await 10 "the client" disk_client_pid_known
    answers=0
    await 60 "the first operations" client_goes_on
}
disk_client_pid_known() {
    client_pid=$(for p in $(ip netns pids "$prefix-client"); do
        ! grep -qx understudy-disk "/proc/$p/comm" 2>/dev/null || echo "$p"
    done)
    [ -n "$client_pid" ]
}
client_lives() { kill -0 "$client_pid" 2>/dev/null || fail "the client ended: $(cat "$work/client.json" "$work/client.err")"; }
# The guest has done something since the last call. The client gives up on a silence, and says what it heard until then; it does not
# where it hears the same again and again, and is asked.
await_operations() {
    local until=$((SECONDS + 90))
    answers=$(client_answers)
    until client_goes_on; do
        if [ $SECONDS -ge $until ]; then
            kill -INT "$client_pid"
            wait $client || true
            fail "waited in vain: operations $1; the client: $(cat "$work/client.json" "$work/client.err")"
        fi
        sleep "$POLL_S"
    done
    client_lives
}
# The guest reads everything back, past its caches.
guest_verifies() {
    local answer
    answer=$(disk_client --ask verify) || fail "$1: the guest finds its disk wrong: $answer"
    [[ "$answer" = "verified "* ]] || fail "$1: the guest does not verify: $answer"
}

# The guest is stopped by the client, which must have heard of everything.
stop_disk_guest() {
    kill -TERM "$client_pid"
    wait $client || fail "the client: $(cat "$work/client.json")"
}
# check_images HOST [MORE]: the image(s) of a host on which nothing runs.
check_images() {
    local host=$1 more=()
    shift
    [ $bare -eq 0 ] || more=(--bare "$(bare_path "$host")")
    disk_check "$BUILD" "$work/log" "$(disk_path "$host")" "${more[@]}" "$@" || fail "host $host's image is not what the client was told"
}
# check_both_images [MORE]: of hosts on which nothing runs, side by side: a file system that a crash left is mended by a guest, which boots for
# each.
check_both_images() {
    local host failed=0 checks=()
    for host in a b; do
        check_images $host "$@" >"$work/check-$host" 2>&1 &
        checks+=($!)
    done
    for host in a b; do
        wait "${checks[0]}" || failed=1
        checks=("${checks[@]:1}")
        echo "-- host $host's image"
        cat "$work/check-$host"
    done
    [ $failed -eq 0 ] || exit 1 # what was wrong has been said
}

# A figure of a disk in a host's status: disk_field HOST NUMBER NAME.
disk_field() { understudy "$1" status web --json 2>/dev/null | jq -r ".disks[$2].$3 // empty"; }
# The host that came back was asked for no more than may differ: not for the ballast, which nobody wrote.
resync_was_short() {
    local candidates
    candidates=$(disk_field "$1" 0 candidate_bytes)
    [ -n "$candidates" ] || fail "status says nothing of the disk's synchronisation"
    [ "$candidates" -lt $((ballast_mib << 20)) ] || fail "the resynchronisation looked at $candidates bytes: not only at what differs"
    [ $shared -eq 0 ] || [ "$candidates" -eq 0 ] || fail "the resynchronisation looked at $candidates bytes of a disk that is one file"
    echo "   resynchronised: $((candidates >> 10)) KiB that may differ, $(($(disk_field "$1" 0 sent_bytes) >> 10)) KiB sent"
}
# All was compared, and what was equal on both hosts was not sent.
resync_was_full() {
    local candidates sent
    candidates=$(disk_field "$1" 0 candidate_bytes)
    sent=$(disk_field "$1" 0 sent_bytes)
    [ "$candidates" -ge $((disk_mib << 20)) ] || fail "without a map only $candidates bytes were looked at"
    [ "$sent" -lt $((ballast_mib << 20)) ] || fail "$sent bytes were sent: also what is equal"
    echo "   resynchronised: $((candidates >> 10)) KiB compared, $((sent >> 10)) KiB sent"
}
# Waits until nothing runs on a host any more.
kill_host() { hosts_kill "$prefix" "$1" "${2:-}" 2>/dev/null; }
disk_leftovers() {
    pair_leftovers
    ! grep -q "/us-$prefix/" /proc/mounts || fail "mounts are left"
}
