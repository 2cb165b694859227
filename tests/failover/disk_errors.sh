#!/usr/bin/env bash
# What can be wrong with a disk, at the start and while the guest runs, on either host: each time the guest pauses or goes on as
# docs/operations.md says, a message names the disk, nothing is lost, and nothing is left behind. (What is refused without starting
# anything, and of a standby, is in tests/cli/disk_errors.sh.)
#   disk_errors.sh BUILD GUEST [CASE]...     only these; without: all but those in WITHOUT, with commas between
set -euo pipefail
BUILD=$1 GUEST=$2
shift 2
# shellcheck source=tests/failover/disk_pair.sh
. "$(dirname "$0")/disk_pair.sh"
ballast_mib=8 disk_mib=96 nblocks=1024
only=("$@")
image=/srv/disk.raw
# The guest writes to new places all the time, but not for ever: in this much room it does not finish.
room_mib=3

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
    [[ ",${WITHOUT:-}," != *",${FUNCNAME[1]},"* ]] || return 1
    began=$SECONDS
    echo "-- ${FUNCNAME[1]//_/ }"
}
# No leftovers after each case, not only at the end.
end() {
    helpers_end
    hosts_down "$prefix"
    ! grep -q "/us-$prefix/" /proc/mounts || fail "mounts are left"
    [ ! -e "/run/us-$prefix" ] || fail "files are left in /run"
    spoil() { :; }
    in_daemon_a=() in_daemon_b=()
    rm -f "$work"/*.log "$work/trigger"
    echo "   $((SECONDS - began)) s"
}
# Processes that a case started: their end is awaited.
helpers=()
helpers_end() {
    local pid
    for pid in "${helpers[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    helpers=()
}
trap 'helpers_end; pair_cleanup' EXIT

# One sentence of a host's status, in JSON and for people, has what matches and the image's path.
says() {
    local form
    for form in --json ''; do
        # shellcheck disable=SC2086 # none or one word
        understudy "$1" status web $form 2>/dev/null | grep -Ei "$2" | grep -qF "$image" || return 1
    done
}
await_words() {
    local until=$((SECONDS + 60))
    until says "$1" "$2"; do
        [ $SECONDS -lt $until ] || fail "status of host $1 does not say '$2' of $image: $(understudy "$1" status web --json)"
        sleep "$POLL_S"
    done
    echo "   host $1: $(understudy "$1" status web --json | grep -Ei "$2" | grep -F -m 1 "$image" | sed 's/^ *//')"
}
# What was wrong and is mended is not told for ever.
await_no_words() { await 30 "status of host $1 to complain no more" complains_not "$1"; }
complains_not() {
    understudy "$1" status web --json 2>/dev/null |
        jq -e '.last_error == "" and .unprotected_why == "" and all(.disks[]; .message == "")' >/dev/null
}

# Host a does not start the VM, and says why in a sentence with the path.
refused() {
    local path=${2:-$image}
    build_guest
    hosts_up "$prefix"
    pair_prepare
    start_daemon b
    start_daemon a
    disk_drives
    guest_command
    ! understudy a run --name web --peer 10.77.0.2 --no-wait -- "${qemu[@]}" "${drives[@]}" >"$work/run.log" 2>&1 || wrongly "$1" "$path"
    grep -Ei "$1" "$work/run.log" | grep -qF "$path" || wrongly "$1" "$path"
    sed 's/^/   /' "$work/run.log"
    await 10 "nothing to be left on host a" nothing_runs a
    await 10 "nothing to be left on host b" nothing_runs b
}
wrongly() { fail "not refused with a sentence about '$1' that names $2: $(cat "$work/run.log") $(understudy a status web --json 2>/dev/null || true)"; }
nothing_runs() {
    ! for p in $(ip netns pids "$prefix-$1"); do cat "/proc/$p/comm" 2>/dev/null; done | grep -Eq 'qemu|nbdkit|understudy-rep'
}

# Under protection: writes go on, the guest verifies, host b takes over with everything, and the images are right.
survives() {
    await 90 "protection on host a" field_is a state protected
    await_no_words a
    await_operations "under protection"
    kill_host a
    await 20 "host b to take over" field_is b guest_here true
    await_operations "after the takeover"
    guest_verifies "after the takeover"
    stop_disk_guest
    kill_host b
    check_images b --stopped
}
# Host b dies, and its image is spoilt before it returns: the guest goes on without protection, and status says why. What the command
# mends brings protection back.
returns_unfit() {
    local says=$1
    shift
    await_operations "under protection"
    kill_host b
    await 20 "host a to notice" field_is a state connecting
    spoil_b
    revive b
    await_words a "$says"
    field_is a guest_here true || fail "the guest is not here any more"
    await_operations "without protection"
    "$@"
    await 90 "protection on host a again" field_is a state protected
}

tmpfs() { mount -t tmpfs -o "size=$2" tmpfs "$1"; }
disks_tmpfs() { tmpfs "$(hosts_disk_dir "$prefix" "$1")" "$2"; }
# A host's images in a file system with so much room as they take, and a little more.
little_room() {
    local used
    used=$(du -m "$(disk_path a)" | cut -f1)
    disks_tmpfs "$1" 512M
    images_pair_prepare
    mount -o "remount,size=$((used + room_mib))M" "$(hosts_disk_dir "$prefix" "$1")"
}
more_room() { mount -o remount,size=512M "$(hosts_disk_dir "$prefix" "$1")"; }
lock_image() {
    rm -f "$work/nbd"
    qemu-nbd --socket="$work/nbd" --format=raw "$(disk_path "$1")" &
    helpers+=($!)
    await 10 "the other process to open the image" test -S "$work/nbd"
}
pid_of() { for p in $(ip netns pids "$prefix-$1"); do ! grep -qx "$2" "/proc/$p/comm" 2>/dev/null || echo "$p"; done | head -n 1; }

the_image_is_missing() {
    begin || return 0
    spoil() { rm "$(disk_path a)"; }
    refused "does not exist: create it"
    end
}
the_image_is_a_folder() {
    begin || return 0
    spoil() { rm "$(disk_path a)" && mkdir "$(disk_path a)"; }
    refused "is a directory: name an image file"
    end
}
the_image_is_in_a_read_only_file_system() {
    begin || return 0
    spoil() {
        disks_tmpfs a 256M
        images_pair_prepare
        mount -o remount,ro "$(hosts_disk_dir "$prefix" a)"
    }
    refused "mounted read-only: remount it"
    end
}
the_image_is_locked_by_another_process() {
    begin || return 0
    spoil() { lock_image a; }
    refused "in use by another process"
    end
}
# The journal has its room before the VM starts.
a_state_folder_is_full() {
    begin || return 0
    spoil() { tmpfs "$(hosts_state_dir "$prefix" a)" 16M; }
    refused "No space left on device.*MiB" /var/lib/understudy/web/journal
    hosts_down "$prefix"
    spoil() { tmpfs "$(hosts_state_dir "$prefix" b)" 16M; }
    refused "the peer 10.77.0.2 refused:.*No space left on device.*MiB" /var/lib/understudy/web/journal
    end
}

# The daemon needs a file there, its socket; what programs print is not worth failing for.
the_run_folder_is_full() {
    local got=0 run
    begin || return 0
    hosts_up "$prefix"
    run=$(hosts_run_dir "$prefix" a)
    mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs "$run"
    hosts_exec "$prefix" a "$BUILD/daemon/understudyd" --listen 10.77.0.1:7070 >"$work/run.log" 2>&1 || got=$?
    [ $got -eq 1 ] && grep -q "/run/understudy/control.sock cannot be made: No space left on device" "$work/run.log" ||
        fail "a daemon without room for its socket ended with $got: $(cat "$work/run.log")"
    sed 's/^/   /' "$work/run.log"
    hosts_down "$prefix"
    spoil() {
        run=$(hosts_run_dir "$prefix" a)
        mount -t tmpfs -o size=4k tmpfs "$run"
        head -c 4096 /dev/zero >"$run/full"
    }
    start_disk_pair
    start_disk_client
    survives
    end
}

# One after the other, of one guest. One that is missing is made.
the_standbys_image_is_too_small_or_locked_by_another_process_or_missing() {
    begin || return 0
    start_disk_pair
    start_disk_client
    spoil_b() { truncate -s 1M "$(disk_path b)"; }
    returns_unfit "has 1048576 bytes, the disk $((disk_mib << 20)): remove it, resize it" truncate -s "${disk_mib}M" "/run/us-$prefix/b-disks/disk.raw"
    spoil_b() { lock_image b; }
    returns_unfit "in use by another process" helpers_end
    await_operations "under protection"
    kill_host b
    await 20 "host a to notice" field_is a state connecting
    rm "$(disk_path b)"
    revive b
    survives
    end
}

# The guest waits where QEMU has it wait (werror=enospc is QEMU's default), and goes on when there is space again.
the_primary_has_no_space_left() {
    begin || return 0
    spoil() { little_room a; }
    start_disk_pair
    start_disk_client
    await_words a "no space left on device: make room there"
    status_says a "the guest stands still" || fail "status does not say that the guest stands still"
    field_is a guest_here true && field_is a state protected || fail "protection has ended: $(understudy a status web --json)"
    more_room a
    await_operations "with space again"
    guest_verifies "with space again"
    survives
    end
}
the_standby_has_no_space_left() {
    begin || return 0
    spoil() { little_room b; }
    start_disk_pair
    start_disk_client
    await_words a "the peer 10.77.0.2 refused:.*(no space left on device: make room there.*next attempt|MiB free: make room)"
    field_is b guest_here false 2>/dev/null || gone b || fail "host b runs the guest from images that are no whole epoch"
    await_operations "without protection"
    more_room b
    survives
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
many_operations() { local n; n=$(client_answers); [ "${n:-0}" -gt 100 ]; }
# As on a machine alone: the guest is told, and what it had been told before holds. (On any disk, ext4 mounted with -o discard throws away
# what a transaction would have freed even if its commit has just failed: so its discards are ignored here.)
the_primarys_disk_fails() {
    begin || return 0
    discard=ignore
    spoil() { fuse_image a; }
    start_disk_pair
    start_disk_client
    await 60 "operations before the fault" many_operations
    touch "$work/trigger"
    await_words a "input/output error: repair that storage"
    rm "$work/trigger"
    field_is a state protected || fail "protection has ended: $(understudy a status web --json)"
    ask_guest next >/dev/null || fail "the guest does not answer any more"
    kill -INT "$client_pid"
    wait $client || true
    jq -e '.operations_missing == 0 and .operations_repeated == 0 and .disagreements == 0 and .tcp_resets == 0' "$work/client.json" >/dev/null ||
        fail "the client: $(cat "$work/client.json")"
    kill_host a
    await 20 "host b to take over" field_is b guest_here true
    ask_guest next >/dev/null || fail "the guest does not answer on host b"
    kill_host b
    disk_clean=0
    check_both_images
    disk_clean=1 discard=unmap
    end
}
the_standbys_disk_fails() {
    begin || return 0
    spoil() { fuse_image b; }
    start_disk_pair
    start_disk_client
    await 60 "operations before the fault" many_operations
    touch "$work/trigger"
    await_words a "the peer 10.77.0.2 refused:.*input/output error: repair that storage.*next attempt"
    field_is b guest_here false 2>/dev/null || gone b || fail "host b runs the guest from a disk that fails"
    await_operations "without protection"
    rm "$work/trigger"
    survives
    end
}

both_disks_are_slow() {
    begin || return 0
    # The daemons find another nbdkit first.
    mkdir -p "$work/slow"
    printf '#!/bin/sh\nexec %s --filter=delay "$@" delay-read=5ms delay-write=10ms\n' "$(command -v nbdkit)" >"$work/slow/nbdkit"
    chmod +x "$work/slow/nbdkit"
    # shellcheck disable=SC2034 # used by name
    in_daemon_a=(env "PATH=$work/slow:$PATH") in_daemon_b=(env "PATH=$work/slow:$PATH")
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
        await_words $host "the server of disk disk0 .* ended .signal 9. and is started again"
        await 10 "another nbdkit on host $host" another_nbdkit $host
        await_operations "with another nbdkit on host $host"
        guest_verifies "with another nbdkit on host $host"
    done
    field_is a state protected || fail "protection has ended: $(understudy a status web --json)"
    survives
    end
}
another_nbdkit() { local now; now=$(pid_of "$1" nbdkit) && [ -n "$now" ] && [ "$now" != "$killed" ]; }

the_image_is_missing
the_image_is_a_folder
the_image_is_in_a_read_only_file_system
the_image_is_locked_by_another_process
a_state_folder_is_full
the_run_folder_is_full
the_standbys_image_is_too_small_or_locked_by_another_process_or_missing
the_primary_has_no_space_left
the_standby_has_no_space_left
the_primarys_disk_fails
the_standbys_disk_fails
both_disks_are_slow
nbdkit_is_killed_on_either_host
disk_leftovers
echo "disk errors: all as documented"
