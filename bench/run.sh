#!/usr/bin/env bash
# Measures a protected Linux guest under TCG on two namespaces of this machine: the pause and its parts, what protection
# costs guest and client, and the gap at failover. Ends with a table, and with JSON where asked for. docs/benchmarks.md says
# what each figure means. Run it alone: on a busy machine it measures the others.
#   bench/run.sh [--quick] [--json FILE] [--only idle|dirty|busy|latency|slowdown|failover|colo]... [--no-install]
#   bench/run.sh --against BUILD [--pairs N] [--only PART]...     two builds in turns: this tree's, and the build tree BUILD
#   bench/run.sh --against-unsealed [--pairs N] [--only PART]...  the same build in turns, with links sealed and not sealed
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'USAGE'
usage: bench/run.sh [OPTIONS]
  --quick       shorter measurements and 5 failovers instead of 20: to see that it works, not to compare
  --json FILE   write the figures there
  --only PART   idle, dirty, busy, latency, slowdown, failover or colo; may be given again (all)
  --no-install  leave the packages alone
  --against BUILD  measure this tree's build and the build tree BUILD (say, another checkout's build/release) in turns, and
                print the median of the ratios, this one's figure to the other's, with the smallest and the largest
  --against-unsealed  the same with this build alone: VMs run as by default, and with --link-security=none
  --this-run-option WORD  with --against, one more word for this build's `understudy run`, such as --link-security=none where the other
                build has no sealed links; may be given again
  --pairs N     how often, with --against (5)
  --seconds N   of each measurement (30; with --quick 5; with --against 10)
  --kills N     failovers (20; with --quick or --against 5)
USAGE
}
quick=0 json="" install=1 parts=() against="" this_options="" other_options="" pairs=5 seconds="" kills=""
while [ $# -gt 0 ]; do
    case "$1" in
    --quick) quick=1 ;;
    --json) json=${2:?--json needs a file}; shift ;;
    --only) parts+=("${2:?--only needs a part}"); shift ;;
    --no-install) install=0 ;;
    --against) against=${2:?--against needs a build tree}; shift ;;
    --against-unsealed) against=${BUILD:-$PWD/build/release} other_options=--link-security=none ;;
    --this-run-option) this_options+=" ${2:?--this-run-option needs a word}"; shift ;;
    --pairs) pairs=${2:?--pairs needs a number}; shift ;;
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --kills) kills=${2:?--kills needs a number}; shift ;;
    --help | -h) usage; exit 0 ;;
    *) echo "bench/run.sh: unknown option $1; --help lists the options" >&2; exit 2 ;;
    esac
    shift
done
if [ -n "$against" ]; then
    against=$(cd "$against" && pwd)
    [ -x "$against/daemon/understudyd" ] || { echo "bench/run.sh: $against is not a build tree: it has no daemon/understudyd" >&2; exit 2; }
    [ ${#parts[@]} -gt 0 ] || parts=(idle dirty failover)
    [ $quick -eq 1 ] || seconds=${seconds:-10} kills=${kills:-5}
fi
[ ${#parts[@]} -gt 0 ] || parts=(idle dirty busy latency slowdown failover colo)
# shellcheck source=bench/common.sh
. bench/common.sh
prepare_pair

# The reference guest: little device state, since QEMU's save of it is most of an idle guest's pause.
export NIC=virtio-net-pci,disable-modern=on
if [ $quick -eq 1 ]; then
    measure_s=${seconds:-5} clock_s=15 kills=${kills:-5} computations=3 turns=3 boots=3
else
    measure_s=${seconds:-30} clock_s=60 kills=${kills:-20} computations=7 turns=9 boots=7
fi
settle_s=3
wants() { [[ " ${parts[*]} " == *" $1 "* ]]; }
results=$work/results
mkdir "$results"
median() { sort -n | awk '{a[NR] = $1} END {if (NR) print a[int((NR + 1) / 2)]}'; }

# Two builds in turns. This build and the other one begin a pair alternately, so that a machine that gets slower favours neither.
compare() {
    local before_pairing=0
    "$against/daemon/understudyd" --help | grep -q -- --qemu || before_pairing=1
    local pair which options=(--no-install --seconds "$measure_s" --kills "$kills") part
    [ $quick -eq 0 ] || options+=(--quick)
    for part in "${parts[@]}"; do options+=(--only "$part"); done
    for ((pair = 1; pair <= pairs; pair++)); do
        for which in $([ $((pair % 2)) -eq 1 ] && echo this other || echo other this); do
            say "pair $pair of $pairs: $which build"
            BUILD=$([ $which = this ] && echo "$BUILD" || echo "$against") GUEST=$GUEST \
                BEFORE_PAIRING=$([ $which = this ] && echo 0 || echo $before_pairing) \
                RUN_OPTIONS="${RUN_OPTIONS:-} $([ $which = this ] && echo "$this_options" || echo "$other_options")" \
                "$0" "${options[@]}" --json "$work/$which-$pair" >/dev/null
        done
    done
    bench/ratios.py "$work" "$pairs" "$json"
}
if [ -n "$against" ]; then
    compare
    exit
fi

# Processor time of the replicators of both hosts, in clock ticks.
replicators_ticks() {
    local pid
    for pid in $(ip netns pids "$prefix-a" && ip netns pids "$prefix-b"); do
        ! grep -qx understudy-repl "/proc/$pid/comm" 2>/dev/null || cat "/proc/$pid/stat"
    done | sed 's/.*) //' | awk '{n += $12 + $13} END {print n + 0}'
}

# measure NAME: the figures of the pair that runs, over measure_s.
measure() {
    sleep $settle_s
    local before after began ticks
    understudy a status web --reset >/dev/null
    ticks=$(replicators_ticks) before=$(field a epochs) began=$(date +%s%N)
    sleep "$measure_s"
    understudy a status web --json >"$work/status"
    ticks=$(($(replicators_ticks) - ticks)) after=$(jq .epochs "$work/status")
    jq --arg name "$1" --arg machine "${MACHINE:-pc}" --arg nic "$NIC" --argjson epoch_ms "${EPOCH_MS:-20}" \
        --argjson replicators_ms "$(awk "BEGIN {printf \"%.3f\", $ticks * 1000 / $(getconf CLK_TCK) / ($after - $before)}")" \
        --argjson per_s "$(awk "BEGIN {printf \"%.1f\", ($after - $before) * 1e9 / ($(date +%s%N) - $began)}")" \
        '{name: $name, machine: $machine, nic: $nic, memory_mib, epoch_ms: $epoch_ms, pause_us, pause_parts_us, dirty_pages,
          epoch_bytes, epochs_per_s: $per_s, replicators_ms_per_epoch: $replicators_ms, expired}' "$work/status" >"$results/scenario-$1"
    jq -r '"   \(.name): pause p50 \(.pause_us.p50) p99 \(.pause_us.p99) max \(.pause_us.max) us; " +
        ([.pause_parts_us | to_entries[] | "\(.key) \(.value.p50)"] | join(", ")) +
        "; dirty p50 \(.dirty_pages.p50); \(.epoch_bytes.p50) bytes; \(.epochs_per_s) epochs/s; replicators \(.replicators_ms_per_epoch) ms an epoch"' "$results/scenario-$1" >&2
}

# scenario NAME: boots a pair as MEMORY, MACHINE, NIC, DIRTY, DIRTY_SET and EPOCH_MS say, and measures it. Leaves it running.
scenario() {
    say "$1"
    start_pair --epoch-ms "${EPOCH_MS:-20}"
    await 30 "protection" field_is a state protected
    measure "$1"
}

# The mean round trip of a client that asks at any phase of the epoch, over the seconds given; $work/client.json has the rest.
round_trip_us() {
    start_client --think-us 40000
    sleep "$1"
    kill -TERM "$client_pid"
    wait "$client" || fail "the client lost something: $(cat "$work/client.json")"
    jq .rtt_us_mean "$work/client.json"
}
# The guest's own time for its fixed computation, in ns, the median of several.
computation_ns() { for ((n = 0; n < computations; n++)); do ask_guest bench; done | median; }

part_idle() {
    DIRTY=0 scenario idle-256m
    DIRTY=0 MEMORY=4096 scenario idle-4g
    DIRTY=0 NIC=virtio-net-pci scenario idle-256m-modern-virtio
    DIRTY=0 MACHINE=q35 scenario idle-256m-q35
}

part_dirty() {
    DIRTY=50000 scenario dirty-1000
    DIRTY=250000 scenario dirty-5000
}

# An idle guest on a host whose processors all have other work, with and without its niceness.
part_busy() {
    local loops=() n
    for ((n = 0; n < $(nproc); n++)); do
        timeout $((measure_s * 4 + 120)) sh -c 'while :; do :; done' & # whatever happens to this script
        loops+=($!)
    done
    DIRTY=0 DAEMON_OPTIONS="--nice 0" scenario busy-256m-nice-0
    DIRTY=0 scenario busy-256m
    kill "${loops[@]}"
    wait "${loops[@]}" 2>/dev/null || true
}

# The guest without understudy, in the same place.
start_unprotected() {
    hosts_up "$prefix"
    rm -f "$work/serial"
    DIRTY=0 guest_command
    hosts_exec "$prefix" a "${qemu[@]}" >"$work/qemu.log" 2>&1 &
    disown
    await 60 "the guest to come up" guest_ready
    sleep $settle_s
}

part_latency() {
    local plain_us epoch_ms us
    say "unprotected"
    start_unprotected
    plain_us=$(round_trip_us "$measure_s")
    echo '{}' >"$results/rtt"
    for epoch_ms in 5 10 20; do
        EPOCH_MS=$epoch_ms DIRTY=0 scenario "idle-256m-${epoch_ms}ms"
        us=$(round_trip_us "$([ $epoch_ms -eq 20 ] && echo $clock_s || echo "$measure_s")")
        jq --arg epoch "$epoch_ms" --argjson added "$(awk "BEGIN {print ($us - $plain_us) / 1000}")" '.[$epoch] = $added' \
            "$results/rtt" >"$work/rtt" && mv "$work/rtt" "$results/rtt"
    done
    jq .guest_clock_drift_ppm "$work/client.json" >"$results/drift"
    echo "   added round trip $(jq -c . "$results/rtt") ms; drift $(cat "$results/drift") ppm" >&2
}

# The same computation of one guest in one boot, with its standby and without (the checkpoints' link is out), in turns. Beside it the
# computation of the guest without understudy in several boots: by how much it differs with nothing changed but the boot.
part_slowdown() {
    local turn alone_ns protected_ns boot
    say "slowdown"
    DIRTY=0 start_pair --heartbeat-path 10.78.0.1=10.78.0.2
    for ((turn = 1; turn <= turns; turn++)); do
        await 30 "protection" field_is a state protected
        sleep 1
        protected_ns=$(computation_ns)
        ip -n "$prefix-b" link set up0 down
        await 30 "host a to go on alone" field_is a state connecting
        sleep 1
        alone_ns=$(computation_ns)
        ip -n "$prefix-b" link set up0 up
        echo "$protected_ns $alone_ns" | awk '{printf "%.4f\n", $1 / $2}' >>"$results/slowdowns"
        echo "   turn $turn: $protected_ns ns with the standby, $alone_ns without: $(tail -n 1 "$results/slowdowns")" >&2
    done
    for ((boot = 1; boot <= boots; boot++)); do
        start_unprotected
        computation_ns >>"$results/boots"
        echo "   boot $boot without understudy: $(tail -n 1 "$results/boots") ns" >&2
    done
}

part_failover() {
    local here=a there=b i
    say "failover, $kills times"
    DIRTY=1000 start_pair
    for ((i = 1; i <= kills; i++)); do
        await 30 "protection on host $here" field_is $here state protected
        start_client
        sleep 1.$((RANDOM % 10))
        kill -USR1 "$client_pid"
        hosts_kill "$prefix" $here 2>/dev/null
        await 10 "host $there to take over" field_is $there guest_here true
        sleep 1
        kill -TERM "$client_pid"
        wait "$client" || fail "the client lost something: $(cat "$work/client.json")"
        jq .client_gap_ms "$work/client.json" >>"$results/gaps"
        field $there detect_ms >>"$results/detects"
        field $there promote_ms >>"$results/promotes"
        echo "   failover $i: gap $(tail -n 1 "$results/gaps") ms, detected after $(tail -n 1 "$results/detects") ms, running $(tail -n 1 "$results/promotes") ms later" >&2
        revive $here
        read -r here there <<<"$there $here"
    done
}

part_colo() {
    say "QEMU's COLO and understudy, a boot-sector guest under KVM"
    bench/colo.sh "$BUILD" "$work" >"$results/colo" || echo '{"skipped": "bench/colo.sh failed"}' >"$results/colo"
    jq -c . "$results/colo" >&2
}

for part in idle dirty busy latency slowdown failover colo; do
    if wants $part; then
        part_$part
        hosts_down "$prefix"
    fi
done

# distribution FILE [UNIT]: median, smallest and largest, in the unit.
distribution() {
    if [ -s "$1" ]; then
        sort -n "$1" | jq -s --argjson unit "${2:-1}" \
            'map(. / $unit) | {p50: .[((length - 1) / 2) | floor], min: .[0], max: .[-1], runs: length}'
    else
        echo null
    fi
}
one() { if [ -s "$1" ]; then cat "$1"; else echo null; fi; }
find "$results" -name 'scenario-*' | sort | xargs -r cat | jq -s . >"$work/scenarios"
jq -n --slurpfile scenarios "$work/scenarios" --argjson rtt "$(one "$results/rtt")" --argjson drift "$(one "$results/drift")" \
    --argjson slowdown "$(distribution "$results/slowdowns")" --argjson boots "$(distribution "$results/boots" 1000000)" --argjson colo "$(one "$results/colo")" \
    --argjson gaps "$(distribution "$results/gaps")" --argjson detects "$(distribution "$results/detects")" \
    --argjson promotes "$(distribution "$results/promotes")" --arg qemu "$("${UNDERSTUDY_QEMU:-qemu-system-x86_64}" --version | head -n 1)" \
    --argjson processors "$(nproc)" --argjson quick $quick '
    def p50(name): first($scenarios[0][] | select(.name == name) | .pause_us.p50) // null;
    {qemu: $qemu, accel: "tcg", processors: $processors, quick: ($quick == 1), scenarios: $scenarios[0],
     growth_us_per_gib: (if p50("idle-4g") and p50("idle-256m") then (p50("idle-4g") - p50("idle-256m")) / 3.75 else null end),
     rtt_added_ms: $rtt, failover_gap_ms: $gaps, failover_detect_ms: $detects, failover_promote_ms: $promotes,
     slowdown: $slowdown, computation_ms_by_boot: $boots, guest_clock_drift_ppm: $drift, colo: $colo}' >"$work/all"
[ -z "$json" ] || cp "$work/all" "$json"
jq -r '
    "scenario                   pause us: p50    p99    max | stop harvest save wait resume | dirty  bytes   epochs/s",
    (.scenarios[] | "\(.name + " " * (32 - (.name | length)))  \(.pause_us.p50)   \(.pause_us.p99)   \(.pause_us.max) | " +
        "\(.pause_parts_us.stop.p50) \(.pause_parts_us.harvest.p50) \(.pause_parts_us.save.p50) \(.pause_parts_us.copy_wait.p50) " +
        "\(.pause_parts_us.resume.p50) | \(.dirty_pages.p50)  \(.epoch_bytes.p50)  \(.epochs_per_s)"),
    "growth with RAM            \(.growth_us_per_gib) us per GiB",
    "round trip added           \(.rtt_added_ms) ms",
    "slowdown                   \(.slowdown)",
    "computation, by boot       \(.computation_ms_by_boot) ms, without understudy",
    "guest clock drift          \(.guest_clock_drift_ppm) ppm",
    "failover gap               \(.failover_gap_ms) ms",
    "  of which detection       \(.failover_detect_ms) ms",
    "  of which promotion       \(.failover_promote_ms) ms",
    "COLO                       \(.colo)"' "$work/all"
pair_leftovers
