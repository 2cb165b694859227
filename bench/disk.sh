#!/usr/bin/env bash
# Measures a protected VM's disk from inside the guest, against the same disk served by nbdkit's own file plugin, and against
# QEMU's own file driver, in one run on one machine. docs/benchmarks.md says what each figure means. Run it alone.
#   bench/disk.sh [--quick] [--rounds N] [--json FILE] [--no-install] [--only file|nbdkit|alone|protected]...
# The guest is Linux under TCG on two namespaces; the image is a raw file in this machine's file system, filled before.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '4,5s/^# \{0,1\}//p' "$0"; }
quick=0 rounds="" json="" install=1 setups=()
while [ $# -gt 0 ]; do
    case "$1" in
    --quick) quick=1 ;;
    --rounds) rounds=${2:?--rounds needs a number}; shift ;;
    --json) json=${2:?--json needs a file}; shift ;;
    --only) setups+=("${2:?--only needs a set-up}"); shift ;;
    --no-install) install=0 ;;
    --help | -h) usage; exit 0 ;;
    *) echo "bench/disk.sh: unknown option $1; --help lists the options" >&2; exit 2 ;;
    esac
    shift
done
[ ${#setups[@]} -gt 0 ] || setups=(file nbdkit alone protected)
# shellcheck source=bench/common.sh
. bench/common.sh
prepare_pair
if [ $quick -eq 1 ]; then
    seconds=2 size_mib=128 rounds=${rounds:-1}
else
    seconds=10 size_mib=512 rounds=${rounds:-3}
fi
# Kind and threads.
loads=("write-4k-fsync 1" "write-4k-fsync 4" "write-1m 2" "read-4k 2" "read-1m 2")
export INITRD=initrd-disk.img APPEND="us.bench=vda" DIRTY=0 NIC=virtio-net-pci,disable-modern=on
# Little device state, as in bench/run.sh, in every set-up.
light_disk=(-global virtio-blk-pci.disable-modern=on)
ask_bench() { hosts_exec "$prefix" client "$BUILD/tests/client/understudy-disk-client" $guest_address --ask "$1"; }
pair_prepare() {
    for host in a b; do
        truncate -s "${size_mib}M" "$(hosts_disk_dir "$prefix" $host)/disk.raw"
    done
}

start_plain() {
    hosts_up "$prefix"
    pair_prepare
    rm -f "$work/serial"
    guest_command
    hosts_exec "$prefix" a "${qemu[@]}" "${light_disk[@]}" -drive "$1" >"$work/qemu.log" 2>&1 &
    disown
    await 60 "the guest to come up" guest_ready
}
setup_file() { start_plain file=/srv/disk.raw,if=virtio,format=raw; }
setup_nbdkit() {
    hosts_up "$prefix"
    pair_prepare
    hosts_exec "$prefix" a nbdkit --foreground --unix /run/understudy/nbd file /srv/disk.raw >"$work/nbdkit.log" 2>&1 &
    disown
    await 10 "nbdkit" test -S "$(hosts_run_dir "$prefix" a)/nbd"
    rm -f "$work/serial"
    guest_command
    hosts_exec "$prefix" a "${qemu[@]}" "${light_disk[@]}" -drive "file=nbd+unix:///?socket=/run/understudy/nbd,if=virtio,format=raw" >"$work/qemu.log" 2>&1 &
    disown
    await 60 "the guest to come up" guest_ready
}
setup_protected() {
    start_pair -- "${light_disk[@]}" -drive file=/srv/disk.raw,if=virtio,format=raw
    await 60 "protection" field_is a state protected
}
# What the plugin costs without checkpoints, but each write is then on stable storage before it is answered.
setup_alone() {
    setup_protected
    hosts_kill "$prefix" b
    await 20 "the guest to run alone" field_is a state connecting
}

build_guest
: >"$work/results"
for ((round = 1; round <= rounds; round++)); do
    for setup in "${setups[@]}"; do
        say "round $round: $setup"
        "setup_$setup"
        answer=$(ask_bench fill) || fail "$setup: $answer"
        for load in "${loads[@]}"; do
            answer=$(ask_bench "$load $seconds") || fail "$setup: $load: $answer"
            read -r operations bytes ns p50 p99 <<<"$answer"
            jq -n --arg setup "$setup" --arg load "${load/ /-x}" --argjson operations "$operations" --argjson bytes "$bytes" --argjson ns "$ns" \
                --argjson p50 "$p50" --argjson p99 "$p99" \
                '{setup: $setup, load: $load, mb_per_s: ($bytes * 1000 / $ns), operations_per_s: ($operations * 1e9 / $ns), p50_us: $p50, p99_us: $p99}' \
                >>"$work/results"
            echo "   $load: $((operations * 1000000000 / ns)) a second, $((bytes * 1000 / ns)) MB/s, p50 $p50 us, p99 $p99 us" >&2
        done
        [ "$setup" != protected ] || field_is a state protected || fail "protection ended while it was measured: $(field a state)"
        hosts_down "$prefix"
    done
done

# The median round of each, and what the protected disk makes of the others.
jq -s --argjson quick $quick --argjson rounds "$rounds" --arg qemu "$("${UNDERSTUDY_QEMU:-qemu-system-x86_64}" --version | head -n 1)" --argjson processors "$(nproc)" '
    def median: sort | .[((length - 1) / 2) | floor];
    def figures: {mb_per_s: (map(.mb_per_s) | median), operations_per_s: (map(.operations_per_s) | median),
                  p50_us: (map(.p50_us) | median), p99_us: (map(.p99_us) | median)};
    def ratio(a; b): if a and b and b.mb_per_s > 0 then {throughput: (a.mb_per_s / b.mb_per_s), p50: (a.p50_us / ([b.p50_us, 1] | max))} else null end;
    (group_by(.load) | map({key: .[0].load, value: (group_by(.setup) | map({key: .[0].setup, value: figures}) | from_entries)}) | from_entries) as $loads
    | {qemu: $qemu, accel: "tcg", processors: $processors, quick: ($quick == 1), rounds: $rounds, loads: $loads,
       alone_to_nbdkit: ($loads | map_values(ratio(.alone; .nbdkit))),
       protected_to_nbdkit: ($loads | map_values(ratio(.protected; .nbdkit))), protected_to_file: ($loads | map_values(ratio(.protected; .file)))}' \
    "$work/results" >"$work/all"
[ -z "$json" ] || cp "$work/all" "$json"
jq -r '"load                 set-up       MB/s   ops/s   p50 us   p99 us",
    (.loads | to_entries[] | .key as $load | .value | to_entries[] |
        "\($load + " " * (20 - ($load | length))) \(.key + " " * (12 - (.key | length))) \(.value.mb_per_s * 10 | round / 10)   \(.value.operations_per_s | round)   \(.value.p50_us)   \(.value.p99_us)"),
    (.alone_to_nbdkit | to_entries[] | select(.value) | "alone to nbdkit:     \(.key): throughput \(.value.throughput * 100 | round / 100), p50 \(.value.p50 * 100 | round / 100)"),
    (.protected_to_nbdkit | to_entries[] | select(.value) | "protected to nbdkit: \(.key): throughput \(.value.throughput * 100 | round / 100), p50 \(.value.p50 * 100 | round / 100)"),
    (.protected_to_file | to_entries[] | select(.value) | "protected to file:   \(.key): throughput \(.value.throughput * 100 | round / 100), p50 \(.value.p50 * 100 | round / 100)")' "$work/all"
pair_leftovers
