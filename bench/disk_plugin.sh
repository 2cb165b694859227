#!/usr/bin/env bash
# What the disk plugin costs: nbdkit's own file plugin against ours, the same requests (fio's NBD engine) through the same kind of
# Unix socket, in turns. Ratios count, figures do not: they are the machine's. docs/benchmarks.md says what each figure means.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<'USAGE'
usage: bench/disk_plugin.sh [OPTIONS]
  --seconds N    of each measurement (3)
  --rounds N     of each workload, plain and ours in turns; the median of their ratios counts (5)
  --mib N        size of the disk (512)
  --json FILE    write the figures there
  --no-install   leave the packages alone
The images are made in $TMPDIR, or /tmp.
USAGE
}
seconds=3 rounds=5 mib=512 json="" install=1
while [ $# -gt 0 ]; do
    case "$1" in
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --rounds) rounds=${2:?--rounds needs a number}; shift ;;
    --mib) mib=${2:?--mib needs a number}; shift ;;
    --json) json=${2:?--json needs a file}; shift ;;
    --no-install) install=0 ;;
    --help | -h) usage; exit 0 ;;
    *) echo "bench/disk_plugin.sh: unknown option $1; --help lists the options" >&2; exit 2 ;;
    esac
    shift
done
# shellcheck source=bench/common.sh
. bench/common.sh
prepare_build --bench
bench=$BUILD/bench/disk_plugin_bench
plugin=$BUILD/replicator/nbdkit-understudy-plugin.so
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What is asked of the disk: name, fio's options.
declare -A workloads=(
    [randwrite-4k]="--rw=randwrite --bs=4k --iodepth=16"
    [write-1m]="--rw=write --bs=1m --iodepth=4"
    [randread-4k]="--rw=randread --bs=4k --iodepth=16"
    [read-1m]="--rw=read --bs=1m --iodepth=4"
)
# The disk is filled first, so that no measurement pays for its blocks' allocation. Reads: bytes a second; likewise writes.
cat >"$work/measure" <<MEASURE
#!/usr/bin/env bash
set -euo pipefail
fio() { command fio --name=x --ioengine=nbd --uri="nbd+unix:///?socket=\$SOCKET" --size=${mib}m --output-format=json --output="$work/fio" "\$@" >/dev/null; }
if [ -n "\${FILL:-}" ]; then
    fio --rw=write --bs=1m --iodepth=4
fi
fio --time_based --runtime=$seconds "\$@"
jq '.jobs[0] | .read.bw_bytes + .write.bw_bytes' "$work/fio"
MEASURE
chmod +x "$work/measure"

# Each prints one figure. $1: what serves; the rest are fio's options.
measure() {
    local what=$1
    shift
    case $what in
    plain | plain-fua)
        local filter=() parameter=()
        [ "$what" = plain ] || filter=(--filter=fua) parameter=(fuamode=force)
        truncate -s "${mib}M" "$work/image"
        nbdkit -U - "${filter[@]}" file "$work/image" "${parameter[@]}" \
            --run "SOCKET=\$unixsocket FILL=1 $work/measure $*"
        rm "$work/image"
        ;;
    logging | durable) FILL=1 "$bench" "$plugin" "$what" "$mib" "$work/measure" "$@" 2>>"$work/notes" ;;
    esac
}
median() { sort -n | awk '{a[NR] = $1} END {if (NR) print a[int((NR + 1) / 2)]}'; }

# compare WORKLOAD OURS PLAIN
compare() {
    local i ours plain
    rm -f "$work/ours" "$work/plain" "$work/ratios"
    for ((i = 0; i < rounds; i++)); do
        # shellcheck disable=SC2086 # a list of words
        plain=$(measure "$3" ${workloads[$1]})
        # shellcheck disable=SC2086
        ours=$(measure "$2" ${workloads[$1]})
        echo "$plain" >>"$work/plain"
        echo "$ours" >>"$work/ours"
        awk "BEGIN {print $ours / $plain}" >>"$work/ratios"
    done
    jq -nc --arg workload "$1" --arg ours "$2" --arg plain "$3" --argjson plain_bytes_per_s "$(median <"$work/plain")" \
        --argjson ours_bytes_per_s "$(median <"$work/ours")" --argjson ratio "$(median <"$work/ratios")" \
        --argjson lowest "$(sort -n "$work/ratios" | head -n 1)" --argjson highest "$(sort -n "$work/ratios" | tail -n 1)" \
        '$ARGS.named' | tee -a "$work/figures" | jq -r '"   \(.workload) \(.ours): \(.ratio) of \(.plain)"' >&2
}

say "protected: changes are logged, the log is drained"
for workload in randwrite-4k write-1m randread-4k read-1m; do
    compare $workload logging plain
done
say "unprotected: each write is durable"
compare randwrite-4k durable plain-fua
compare write-1m durable plain-fua
jq -s --argjson seconds "$seconds" --argjson rounds "$rounds" --argjson mib "$mib" --argjson processors "$(nproc)" \
    '{seconds: $seconds, rounds: $rounds, disk_mib: $mib, processors: $processors, comparisons: .}' "$work/figures" >"$work/all"
[ -z "$json" ] || cp "$work/all" "$json"
if grep -q DETACHED "$work/notes"; then
    echo "bench/disk_plugin.sh: logging was given up: the consumer was too slow" >&2
fi
jq -r '"workload       ours      plain        ours MB/s  plain MB/s   ratio (lowest to highest)",
    (.comparisons[] | "\(.workload + " " * (14 - (.workload | length))) \(.ours + " " * (9 - (.ours | length))) " +
        "\(.plain + " " * (12 - (.plain | length))) \(.ours_bytes_per_s / 1e6 | floor)  \(.plain_bytes_per_s / 1e6 | floor)   " +
        "\(.ratio * 100 | round / 100) (\(.lowest * 100 | round / 100) to \(.highest * 100 | round / 100))")' "$work/all"
