#!/usr/bin/env bash
# QEMU's own COLO against understudy: the same boot-sector guest under KVM, on machine pc, checkpoints 20 ms apart, both ends
# on this machine. Both pauses are read the same way, from the STOP and RESUME events of the primary's QEMU. Prints JSON.
# COLO hangs with Linux guests under TCG and aborts on q35, hence this guest.
#   colo.sh BUILD WORK [SECONDS]      BUILD a build tree, WORK an empty folder
set -euo pipefail
here=$(dirname "$0")
BUILD=$1 dir=$2/colo seconds=${3:-10}
# shellcheck source=tests/net/hosts.sh
. "$here/../tests/net/hosts.sh"
prefix=colo$$
mkdir -p "$dir"
pids=()
cleanup() {
    [ ${#pids[@]} -eq 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || true
    hosts_down "$prefix"
    rm -rf "$dir"
}
trap cleanup EXIT
skip() { echo "colo.sh: SKIPPED: $1" >&2; echo "{\"skipped\": \"$1\"}"; exit 0; }
[ -w /dev/kvm ] || skip "there is no /dev/kvm"

# shellcheck disable=SC2054 # commas are QEMU's
guest=(qemu-system-x86_64 -machine pc -accel kvm -m 256 -nodefaults -no-user-config -display none -vga std)
boot_s=4 # until the boot sector runs and has settled
image() { echo "$BUILD/tests/hook/bootsector-$1.rom"; }

# listen NAME: writes what the QEMU behind NAME.sock says to NAME.events, and what stands in NAME.orders to it.
listen() {
    for _ in {1..100}; do
        [ -S "$dir/$1.sock" ] && break
        sleep 0.05
    done
    rm -f "$dir/$1.orders"
    mkfifo "$dir/$1.orders"
    socat "UNIX-CONNECT:$dir/$1.sock" - <>"$dir/$1.orders" >"$dir/$1.events" &
    pids+=($!)
    echo '{"execute": "qmp_capabilities"}' >"$dir/$1.orders"
}
# The pauses in $1, in us, without the first 5: those are the first synchronisation's.
pauses() {
    jq -s '[.[] | select(.event == "STOP" or .event == "RESUME") | {event, us: (.timestamp.seconds * 1000000 + .timestamp.microseconds)}]
        | [range(1; length) as $i | select(.[$i].event == "RESUME" and .[$i - 1].event == "STOP") | .[$i].us - .[$i - 1].us]
        | .[5:] | sort | {p50: .[((length - 1) / 2) | floor], p99: .[((length - 1) * 0.99) | floor], max: .[-1], checkpoints: length}' "$1"
}
forget() {
    kill -KILL "${pids[@]}" 2>/dev/null || true
    wait "${pids[@]}" 2>/dev/null || true
    pids=()
    hosts_down "$prefix"
    rm -f "$dir"/*
}

run_colo() {
    local colo='{"execute": "migrate-set-capabilities", "arguments": {"capabilities": [{"capability": "x-colo", "state": true}]}}'
    hosts_up "$prefix"
    ip netns exec "$prefix-b" "${guest[@]}" -bios "$(image "$1")" -qmp "unix:$dir/b.sock,server=on,wait=off" \
        -incoming tcp:10.78.0.2:7171 >"$dir/b.log" 2>&1 &
    pids+=($!)
    ip netns exec "$prefix-a" "${guest[@]}" -bios "$(image "$1")" -qmp "unix:$dir/a.sock,server=on,wait=off" >"$dir/a.log" 2>&1 &
    pids+=($!)
    listen a
    listen b
    sleep $boot_s
    echo "$colo" >"$dir/a.orders"
    echo "$colo" >"$dir/b.orders"
    echo '{"execute": "migrate-set-parameters", "arguments": {"x-checkpoint-delay": 20}}' >"$dir/a.orders"
    echo '{"execute": "migrate", "arguments": {"uri": "tcp:10.78.0.2:7171"}}' >"$dir/a.orders"
    sleep "$seconds"
    pauses "$dir/a.events" >"$2"
    forget
}

run_understudy() {
    hosts_up "$prefix"
    for host in a b; do
        hosts_exec "$prefix" $host "$BUILD/daemon/understudyd" --listen "10.77.0.$([ $host = a ] && echo 1 || echo 2):7070" >"$dir/$host.log" 2>&1 &
        pids+=($!)
    done
    for host in a b; do
        for _ in {1..100}; do
            [ -S "$(hosts_run_dir "$prefix" $host)/control.sock" ] && break
            sleep 0.05
        done
    done
    hosts_pair "$prefix" "$BUILD/cli/understudy"
    hosts_exec "$prefix" a "$BUILD/cli/understudy" run --name colo --peer 10.77.0.2 --epoch-ms 20 --wait-s 30 -- "${guest[@]}" \
        -bios "$(image "$1")" -qmp "unix:$dir/user.sock,server=on,wait=off" >"$dir/run.log" 2>&1 || { cat "$dir/run.log" >&2; return 1; }
    sleep $((boot_s * 2))
    listen user
    hosts_exec "$prefix" a "$BUILD/cli/understudy" status colo --reset >/dev/null
    sleep "$seconds"
    pauses "$dir/user.events" >"$2"
    hosts_exec "$prefix" a "$BUILD/cli/understudy" status colo --json | jq .dirty_pages >"$2-dirty"
    forget
}

results='[]'
for pages in 64 8192; do
    name=$([ $pages -eq 64 ] && echo busy || echo wide)
    run_colo $name "$2/colo-pauses" || skip "COLO did not run"
    run_understudy $name "$2/understudy-pauses" || skip "understudy did not run under KVM"
    results=$(jq --argjson pages $pages --slurpfile colo "$2/colo-pauses" --slurpfile ours "$2/understudy-pauses" \
        --slurpfile dirty "$2/understudy-pauses-dirty" \
        '. + [{guest_pages: $pages, colo_pause_us: $colo[0], understudy_pause_us: $ours[0], understudy_dirty_pages: $dirty[0],
            ratio_p50: (if $ours[0].p50 and $colo[0].p50 then $colo[0].p50 / $ours[0].p50 * 10 | floor / 10 else null end)}]' <<<"$results")
done
echo "$results"
