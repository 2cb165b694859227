#!/usr/bin/env bash
# What can be wrong with a disk, at the start and while the guest runs, on either host: each time the guest pauses or goes on as
# docs/operations.md says, a message names the disk, nothing is lost, and nothing is left behind.
#   disk_errors.sh BUILD GUEST [CASE]...
set -euo pipefail
BUILD=$1 GUEST=$2
shift 2
# shellcheck source=tests/failover/disk_pair.sh
. "$(dirname "$0")/disk_pair.sh"
ballast_mib=8 disk_mib=96 nblocks=1024
only=("$@")
image=/srv/disk.raw

# What is wrong is done to the hosts by `spoil` after their images are there and before their daemons start.
eval "images_$(declare -f pair_prepare)"
spoil() { :; }
pair_prepare() {
    images_pair_prepare
    spoil
}
begin() {
    if [ ${#only[@]} -gt 0 ] && [[ " ${only[*]} " != *" ${FUNCNAME[1]} "* ]]; then
        return 1
    fi
    echo "-- ${FUNCNAME[1]//_/ }"
}
# No leftovers after each case, not only at the end.
end() {
    local pid
    for pid in "${helpers[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    helpers=()
    hosts_down "$prefix"
    ! grep -q "/us-$prefix/" /proc/mounts || fail "mounts are left"
    [ ! -e "/run/us-$prefix" ] || fail "files are left in /run"
    spoil() { :; }
    unset UNDERSTUDY_NBDKIT_FILTERS
    rm -f "$work"/*.log "$work/trigger"
}
helpers=()
helpers_end() { [ ${#helpers[@]} -eq 0 ] || kill -KILL "${helpers[@]}" 2>/dev/null || true; }
trap 'helpers_end; pair_cleanup' EXIT

status_says() { understudy "$1" status web --json 2>/dev/null | grep -Eqi "$2"; }
# host a does not start the VM, and says why in a sentence with the path.
refused() {
    build_guest
    hosts_up "$prefix"
    pair_prepare
    start_daemon b
    start_daemon a
    disk_drives
    guest_command
    ! understudy a run --name web --peer 10.77.0.2 --no-wait -- "${qemu[@]}" "${drives[@]}" >"$work/run.log" 2>&1 || ended_with "$1"
    grep -Eqi "$1" "$work/run.log" || ended_with "$1"
    grep -q "$image" "$work/run.log" || fail "the message does not name the disk: $(cat "$work/run.log")"
    sed 's/^/   /' "$work/run.log"
    await 10 "nothing to be left on host a" nothing_runs a
}
ended_with() { fail "not refused with a sentence about '$1': $(cat "$work/run.log") $(understudy a status web --json 2>/dev/null || true)"; }
nothing_runs() {
    ! for p in $(ip netns pids "$prefix-$1"); do cat "/proc/$p/comm" 2>/dev/null; done | grep -Eq 'qemu|nbdkit|understudy-rep'
}

# The guest runs on host a without protection, since host b's image is no good, and status says why; mended, it is protected.
not_protected_until() {
    local says=$1
    shift
    build_guest
    hosts_up "$prefix"
    pair_prepare
    start_daemon b
    start_daemon a
    disk_drives
    APPEND="us.disk=vda us.blocks=$nblocks" guest_command
    understudy a run --name web --peer 10.77.0.2 --no-wait -- "${qemu[@]}" "${drives[@]}" >"$work/run.log" 2>&1 || fail "the VM did not start"
    await 60 "the guest to come up" guest_ready
    await 30 "status to say '$says'" status_says a "$says"
    status_says a "$image" || fail "the message does not name the disk: $(understudy a status web --json)"
    understudy a status web --json | grep -Ei "$says" | head -n 1
    start_disk_client
    await_operations "without protection"
    "$@"
    await 60 "protection by host b" field_is a state protected
    survives
}

# Under protection: writes go on, the guest verifies, host b takes over with everything, and the images are right.
survives() {
    await 90 "protection on host a" field_is a state protected
    await_operations "under protection"
    kill_host a
    await 20 "host b to take over" field_is b guest_here true
    await_operations "after the takeover"
    guest_verifies "after the takeover"
    stop_disk_guest
    kill_host b
    check_images b --stopped
}

small_tmpfs() { mount -t tmpfs -o "size=$2" tmpfs "$(hosts_disk_dir "$prefix" "$1")"; }
larger_tmpfs() { mount -o remount,size=512M "$(hosts_disk_dir "$prefix" "$1")"; }
pid_of() { for p in $(ip netns pids "$prefix-$1"); do ! grep -qx "$2" "/proc/$p/comm" 2>/dev/null || echo "$p"; done | head -n 1; }

the_image_is_missing() {
    begin || return 0
    spoil() { rm "$(disk_path a)"; }
    refused "no such file|does not exist|missing"
    end
}
the_image_is_a_folder() {
    begin || return 0
    spoil() { rm "$(disk_path a)" && mkdir "$(disk_path a)"; }
    refused "directory|folder|not a (regular )?file"
    end
}
the_image_is_in_a_read_only_file_system() {
    begin || return 0
    spoil() {
        small_tmpfs a 256M
        images_pair_prepare
        mount -o remount,ro "$(hosts_disk_dir "$prefix" a)"
    }
    refused "read-only"
    end
}
the_image_is_locked_by_another_process() {
    begin || return 0
    spoil() {
        qemu-nbd --socket="$work/nbd" --format=raw "$(disk_path a)" &
        helpers+=($!)
        await 10 "the other process to open the image" test -S "$work/nbd"
    }
    refused "lock|in use|another process"
    end
}

the_standbys_image_is_missing() {
    begin || return 0
    spoil() { mv "$(disk_path b)" "$(hosts_disk_dir "$prefix" b)/elsewhere"; }
    not_protected_until "no such file|does not exist|missing" mv "/run/us-$prefix/b-disks/elsewhere" "/run/us-$prefix/b-disks/disk.raw"
    end
}
the_standbys_image_is_too_small() {
    begin || return 0
    spoil() { truncate -s 1M "$(disk_path b)"; }
    not_protected_until "small|short|length|size|bytes" truncate -s "${disk_mib}M" "/run/us-$prefix/b-disks/disk.raw"
    end
}
the_standbys_image_is_locked_by_another_process() {
    begin || return 0
    spoil() {
        rm -f "$work/nbd"
        qemu-nbd --socket="$work/nbd" --format=raw "$(disk_path b)" &
        helpers+=($!)
        await 10 "the other process to open the image" test -S "$work/nbd"
    }
    not_protected_until "lock|in use|another process" eval 'kill -TERM "${helpers[0]}"'
    end
}

# The guest waits where QEMU has it wait (werror=enospc is QEMU's default), and goes on when there is space again.
the_primary_has_no_space_left() {
    begin || return 0
    spoil() {
        small_tmpfs a 100M
        rm -rf "$work/tree"
        images_pair_prepare
        local used
        used=$(df --output=used -m "$(hosts_disk_dir "$prefix" a)" | tail -n 1)
        mount -o "remount,size=$((used + 3))M" "$(hosts_disk_dir "$prefix" a)"
    }
    start_disk_pair
    start_disk_client
    await 60 "status to say that there is no space" status_says a "no space left"
    status_says a "$image" || fail "the message does not name the disk"
    field_is a guest_here true || fail "the guest is not here any more"
    larger_tmpfs a
    await_operations "with space again"
    guest_verifies "with space again"
    survives
    end
}
the_standby_has_no_space_left() {
    begin || return 0
    spoil() { small_tmpfs b 12M && images_pair_prepare_b; }
    images_pair_prepare_b() { truncate -s "${disk_mib}M" "$(disk_path b)"; }
    not_protected_until "no space left" larger_tmpfs b
    end
}

# A host's image becomes a file of a FUSE file system that passes what it is given to nbdkit's error filter: once the trigger is there,
# writes fail.
fuse_image() {
    local dir
    dir=$(hosts_disk_dir "$prefix" "$1")
    mv "$(disk_path "$1")" "$dir/behind"
    : >"$(disk_path "$1")"
    nbdfuse "$(disk_path "$1")" --command nbdkit -s --exit-with-parent --filter=error file "$dir/behind" error-pwrite=EIO \
        error-pwrite-rate=100% error-file="$work/trigger" 2>"$work/fuse.log" &
    helpers+=($!)
    await 10 "the FUSE file" test -s "$(disk_path "$1")"
}
# As on a machine alone: the guest is told, and what it had been told before holds.
the_primarys_disk_fails() {
    begin || return 0
    spoil() { fuse_image a; }
    start_disk_pair
    start_disk_client
    await_operations "before the fault"
    touch "$work/trigger"
    await 30 "status to say that the disk fails" status_says a "input/output error"
    status_says a "$image" || fail "the message does not name the disk"
    rm "$work/trigger"
    ask_guest next >/dev/null || fail "the guest does not answer any more"
    kill -INT "$client_pid"
    wait $client || true
    jq -e '.operations_missing == 0 and .operations_repeated == 0 and .disagreements == 0 and .tcp_resets == 0' "$work/client.json" >/dev/null ||
        fail "the client: $(cat "$work/client.json")"
    kill_host a
    kill_host b
    disk_clean=0
    check_images a
    disk_clean=1
    end
}
the_standbys_disk_fails() {
    begin || return 0
    spoil() { fuse_image b; }
    start_disk_pair
    start_disk_client
    await_operations "before the fault"
    touch "$work/trigger"
    await 30 "host a to lose its standby" field_is_not a state protected
    await 30 "a message that names the disk" status_says a "$image.*input/output error|input/output error.*$image"
    field_is b guest_here false 2>/dev/null || gone b || fail "host b runs the guest from a disk that fails"
    await_operations "without protection"
    rm "$work/trigger"
    survives
    end
}
field_is_not() { [ "$(field "$1" "$2")" != "$3" ]; }

both_disks_are_slow() {
    begin || return 0
    export UNDERSTUDY_NBDKIT_FILTERS="--filter=delay delay-read=5ms delay-write=10ms"
    start_disk_pair
    start_disk_client
    survives
    end
}

nbdkit_is_killed_on_either_host() {
    begin || return 0
    start_disk_pair
    start_disk_client
    for host in a b a; do
        killed=$(pid_of $host nbdkit)
        [ -n "$killed" ] || fail "host $host has no nbdkit"
        kill -KILL "$killed"
        await 10 "another nbdkit on host $host" another_nbdkit $host
        await_operations "with another nbdkit on host $host"
        guest_verifies "with another nbdkit on host $host"
    done
    survives
    end
}
another_nbdkit() { local now; now=$(pid_of "$1" nbdkit) && [ -n "$now" ] && [ "$now" != "$killed" ]; }

the_image_is_missing
the_image_is_a_folder
the_image_is_in_a_read_only_file_system
the_image_is_locked_by_another_process
the_standbys_image_is_missing
the_standbys_image_is_too_small
the_standbys_image_is_locked_by_another_process
the_primary_has_no_space_left
the_standby_has_no_space_left
the_primarys_disk_fails
the_standbys_disk_fails
both_disks_are_slow
nbdkit_is_killed_on_either_host
disk_leftovers
echo "disk errors: all as documented"
