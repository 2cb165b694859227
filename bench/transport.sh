#!/usr/bin/env bash
# What RDMA and TCP carry on one link, beside the tools that say what the link can: ib_write_bw (perftest) and iperf3, in the same
# run. Ends with a table, and with JSON where asked for. docs/benchmarks.md says what each figure means.
#   bench/transport.sh                    both ends in a machine of its own with soft-RoCE: ratios count, figures do not
#   UNDERSTUDY_RDMA_DEV=DEV bench/transport.sh     both ends on this real device
#   bench/transport.sh --serve ADDRESS    on one of two hosts: ADDRESS is one of its RDMA device
#   bench/transport.sh --peer ADDRESS     on the other
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'USAGE'
usage: bench/transport.sh [--serve ADDRESS | --peer ADDRESS] [OPTIONS]
  --serve ADDRESS  serve the other host's measurements until interrupted
  --peer ADDRESS   measure against the host that serves there
  --seconds N      of each throughput measurement, 4 or more (5)
  --sealed         links are sealed, as a VM's are by default; both hosts need it
  --rounds N       of the commit latencies (200; fewer of the large epochs)
  --json FILE      write the figures there
  --no-install     leave the packages alone
Without --serve and --peer both ends are here: in a virtual machine with soft-RoCE, or on the device UNDERSTUDY_RDMA_DEV names.
USAGE
}
mode=here address="" seconds=5 rounds=200 json="" install=1 sealed=()
while [ $# -gt 0 ]; do
    case "$1" in
    --serve | --peer) mode=${1#--} address=${2:?$1 needs an address}; shift ;;
    --inside) mode=inside ;; # what `here` runs where the device is
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --rounds) rounds=${2:?--rounds needs a number}; shift ;;
    --json) json=${2:?--json needs a file}; shift ;;
    --sealed) sealed=(--sealed) ;;
    --no-install) install=0 ;;
    --help | -h) usage; exit 0 ;;
    *) echo "bench/transport.sh: unknown option $1; --help lists the options" >&2; exit 2 ;;
    esac
    shift
done
# shellcheck source=bench/common.sh
. bench/common.sh
bench=${BUILD:-$PWD/build/release}/bench/transport_bench
# Of the tools, fixed, so that the other host's firewall can be told. ib_write_bw's server ends after each client.
bench_port=17970 iperf_port=17971 write_port=17972
batches=(16 256 2048) # pages: the batches of transport_bench
# ib_write_bw measures for so long, all but its first and last second: a few dozen messages at least.
write_seconds() { echo $((batches[$1] < 2048 ? seconds : 2 * seconds + 2)); }
# What it keeps under way: as many messages as make 4 MiB, but eight at least, as the sender does. Each asks for a completion, or a slow
# link would complete none within the time. Packets are sent again after as long as ours are.
write_options() {
    echo "-R -F -Q 1 -f 1 -u 16 -p $((write_port + $1)) -s $((batches[$1] * 4096)) -t $((batches[$1] < 256 ? 64 : 8)) -D $(write_seconds "$1")"
}

background=()
work=$(mktemp -d)
cleanup() {
    [ ${#background[@]} -eq 0 ] || kill "${background[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

serve() {
    local i
    "$bench" "${sealed[@]}" receive "$1" $bench_port >"$work/ready" &
    background+=($!)
    iperf3 -s -B "$1" -p $iperf_port >/dev/null 2>&1 &
    background+=($!)
    # One server for each size: each takes one client and goes, and another takes its place.
    for i in "${!batches[@]}"; do
        (
            trap 'kill $! 2>/dev/null; exit' TERM
            while :; do
                # shellcheck disable=SC2046 # a list of words
                ib_write_bw $(write_options "$i") >/dev/null 2>&1 &
                wait $! || sleep 0.2
            done
        ) &
        background+=($!)
    done
    until grep -q ready "$work/ready"; do
        kill -0 "${background[0]}" 2>/dev/null || { echo "bench/transport.sh: the receiving side cannot start" >&2; exit 1; }
        sleep 0.1
    done
}

# MiB/s of ib_write_bw for messages of one size, by the messages it counts: its own average is wrong where they are few. Its server may
# still be coming up.
write_mib_per_s() {
    local i=$1 out try
    for try in 1 2 3 4 5 6 7 8; do
        # shellcheck disable=SC2046 # a list of words
        out=$(timeout $((seconds * 4 + 20)) ib_write_bw $(write_options "$i") "$2" 2>&1) &&
            awk -v size=$((batches[i] * 4096)) -v took=$(($(write_seconds "$i") - 2)) \
                '$1 == size && $2 > 0 {print $2 * size / 1048576 / took; found = 1} END {exit !found}' <<<"$out" && return 0
        sleep "$try"
    done
    echo "bench/transport.sh: ib_write_bw does not work on this link: $(tail -n 3 <<<"$out")" >&2
    return 1
}

iperf_mib_per_s() { iperf3 -c "$1" -p $iperf_port -t "$seconds" -J | jq '.end.sum_received.bits_per_second / 8 / 1048576'; }
mean() { awk -v a="$1" -v b="$2" 'BEGIN {print (a + b) / 2}'; }

# All figures against the server at an address, as JSON. What the link can is measured before and after each of ours: a machine that is
# busy with something else disturbs both.
measure() {
    local i before middle after
    for i in "${!batches[@]}"; do
        say "$((batches[i] * 4)) KiB: ib_write_bw, understudy over RDMA, ib_write_bw"
        before=$(write_mib_per_s "$i" "$1")
        "$bench" "${sealed[@]}" send rdma "$1" $bench_port throughput "${batches[i]}" "$seconds" >"$work/rdma"
        middle=$(write_mib_per_s "$i" "$1")
        say "$((batches[i] * 4)) KiB: iperf3, understudy over TCP, iperf3"
        mean "$before" "$middle" >"$work/write"
        before=$(iperf_mib_per_s "$1")
        "$bench" "${sealed[@]}" send tcp "$1" $bench_port throughput "${batches[i]}" "$seconds" >"$work/tcp"
        after=$(iperf_mib_per_s "$1")
        mean "$before" "$after" >"$work/iperf"
        jq -n --slurpfile rdma "$work/rdma" --slurpfile tcp "$work/tcp" --slurpfile write "$work/write" --slurpfile iperf "$work/iperf" '
            {pages: $rdma[0].pages, ib_write_bw_mib_per_s: $write[0], iperf3_mib_per_s: $iperf[0], rdma: $rdma[0], tcp: $tcp[0],
             rdma_to_ib_write_bw: ($rdma[0].mib_per_s / $write[0]), tcp_to_iperf3: ($tcp[0].mib_per_s / $iperf[0]),
             rdma_to_tcp: ($rdma[0].mib_per_s / $tcp[0].mib_per_s)}' >>"$work/batches"
    done
    for i in rdma tcp; do
        say "commit latencies over $i"
        "$bench" "${sealed[@]}" send $i "$1" $bench_port commit "$rounds" >"$work/commit-$i"
    done
    jq -n --slurpfile batches "$work/batches" --slurpfile rdma "$work/commit-rdma" --slurpfile tcp "$work/commit-tcp" \
        '{throughput: $batches, commit: {rdma: $rdma[0], tcp: $tcp[0]}}'
}

table() {
    jq -r '
        def r: . * 100 | round / 100;
        "batch KiB | ib_write_bw | RDMA | ratio | iperf3 | TCP | ratio | RDMA/TCP   (MiB/s)",
        (.throughput[] | [.pages * 4, (.ib_write_bw_mib_per_s | round), (.rdma.mib_per_s | round), (.rdma_to_ib_write_bw | r),
            (.iperf3_mib_per_s | round), (.tcp.mib_per_s | round), (.tcp_to_iperf3 | r), (.rdma_to_tcp | r)] | join(" | ")),
        "",
        "epoch pages | RDMA commit p50 us | p99 | TCP p50 | p99",
        (.commit as $c | range($c.rdma | length) as $i
         | [$c.rdma[$i].pages, $c.rdma[$i].p50_us, $c.rdma[$i].p99_us, $c.tcp[$i].p50_us, $c.tcp[$i].p99_us] | join(" | ")),
        "",
        "processor s per GiB, batch KiB | RDMA sender | receiver | whole host (sender, receiver) | TCP sender | receiver | whole host",
        (.throughput[] | [.pages * 4, .rdma.sender_s_per_gib, .rdma.receiver_s_per_gib,
            "\(.rdma.sender_host_s_per_gib), \(.rdma.receiver_host_s_per_gib)", .tcp.sender_s_per_gib, .tcp.receiver_s_per_gib,
            "\(.tcp.sender_host_s_per_gib), \(.tcp.receiver_host_s_per_gib)"] | join(" | "))' "$1"
}

if [ $mode = inside ]; then
    if [ -z "${UNDERSTUDY_RDMA_REAL:-}" ]; then
        tests/rdma/wire.sh make
        UNDERSTUDY_RDMA_LISTEN=10.77.0.2
    fi
    serve "$UNDERSTUDY_RDMA_LISTEN"
    measure "$UNDERSTUDY_RDMA_LISTEN" >"$work/figures"
    cp "$work/figures" "$UNDERSTUDY_BENCH_OUT"
    exit 0
fi

prepare_build --bench
case $mode in
serve)
    serve "$address"
    say "serving on $address; interrupt to end"
    wait
    ;;
peer)
    measure "$address" >"$work/figures"
    ;;
here)
    mkdir "$work/vm"
    export VM_KEEP=$work/vm
    out=/vm/figures
    [ -z "${UNDERSTUDY_RDMA_DEV:-}" ] || out=$work/vm/figures
    tests/rdma/run.sh build/release/rdma $((300 + 60 * seconds)) env UNDERSTUDY_BENCH_OUT=$out "$PWD/bench/transport.sh" --inside \
        --seconds "$seconds" --rounds "$rounds" "${sealed[@]}" >&2
    cp "$work/vm/figures" "$work/figures"
    ;;
esac
table "$work/figures"
[ -z "$json" ] || cp "$work/figures" "$json"
