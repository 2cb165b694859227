#!/usr/bin/env bash
# Measures how long a VM is without protection after the link of its checkpoints was out for a moment: the standby has kept its image and gets
# what it lacks. Beside it, in the same run, a full synchronisation of the same guest. docs/benchmarks.md says what the figures mean.
#   bench/link_returns.sh [--quick] [--rounds N] [--json FILE] [--no-install]
# The guest is Linux under TCG on two namespaces, and has filled its memory. Heartbeats go by a second network that stays.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '4,5s/^# \{0,1\}//p' "$0"; }
quick=0 rounds="" json="" install=1
while [ $# -gt 0 ]; do
    case "$1" in
    --quick) quick=1 ;;
    --rounds) rounds=${2:?--rounds needs a number}; shift ;;
    --json) json=${2:?--json needs a file}; shift ;;
    --no-install) install=0 ;;
    --help | -h) usage; exit 0 ;;
    *) echo "bench/link_returns.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done
# shellcheck source=bench/common.sh
. bench/common.sh
prepare_pair
if [ $quick -eq 1 ]; then
    mib=1024 rounds=${rounds:-1}
else
    mib=4096 rounds=${rounds:-5}
fi
out_s=2 rate=1000
sync() { understudy a status web --json | python3 -c "import json, sys; print(json.load(sys.stdin)['sync']['$1'])"; }
filled_kb() { awk '/RssShmem/ {print $2}' "/proc/$(field a qemu_pid)/status"; }
is_filled() { [ "$(filled_kb)" -ge $((mib * 1024 / 100 * 82)) ]; }
guest_takes() { ask_guest "$1" >"$work/asked.log" 2>&1; }
protected_again() { field_is a state protected && [ "$(sync ms)" != "$before" ]; }
# When host a's log says last that it is protected, in milliseconds of the day; and now.
protected_at_ms() { grep 'web: protected, was' "$work/a.log" | tail -n 1 |
    sed -E 's/^[0-9-]+ ([0-9]{2}):([0-9]{2}):([0-9]{2})\.([0-9]{3}) .*/\1 \2 \3 \4/' |
    awk '{printf "%d\n", (($1 * 60 + $2) * 60 + $3) * 1000 + $4}'; }
now_ms() { date '+%H %M %S %N' | awk '{printf "%d\n", (($1 * 60 + $2) * 60 + $3) * 1000 + $4 / 1000000}'; }

say "a guest of $mib MiB fills its memory"
MEMORY=$mib DIRTY=0 DIRTY_SET=$((mib * 256 / 100 * 86)) start_pair --heartbeat-path 10.78.0.1=10.78.0.2
# Without its standby: a guest that fills its memory that fast under protection hardly answers.
ip -n "$prefix-b" link set up0 down
await 20 "host a to go on alone" field_is a state connecting
await 60 "the guest's network" guest_takes "dirty 50000"
await 600 "the guest to fill its memory" is_filled
await 60 "the guest's network" guest_takes "dirty $rate"
ip -n "$prefix-b" link set up0 up
await 300 "protection of the full guest" field_is a state protected
results=()
for ((round = 0; round < rounds; round++)); do
    await 60 "protection" field_is a state protected
    before=$(sync ms)
    ip -n "$prefix-b" link set up0 down
    down_at=$(now_ms)
    await 20 "host a to go on alone" field_is a state connecting
    while [ $(($(now_ms) - down_at)) -lt $((out_s * 1000)) ]; do sleep 0.01; done
    up_at=$(now_ms)
    ip -n "$prefix-b" link set up0 up
    await 300 "protection again" protected_again
    results+=("{\"out_ms\": $((up_at - down_at)), \"to_protected_ms\": $(($(protected_at_ms) - up_at)), \"sync_ms\": $(sync ms),
               \"pages\": $(sync sent_pages), \"difference\": $(sync difference | tr TF tf)}")
    say "${results[-1]}"
done
say "a standby that is a new process"
before=$(sync ms)
kill -KILL "$(field b qemu_pid)"
await 300 "protection by a new standby" protected_again
full="{\"sync_ms\": $(sync ms), \"pages\": $(sync sent_pages), \"difference\": $(sync difference | tr TF tf)}"
joined=$(IFS=, && echo "${results[*]}") # IFS must not stay so: the cleanup splits words
python3 - "$mib" "$rate" "[$joined]" "$full" "$json" <<'PYTHON'
import json, statistics, sys
mib, rate, rounds, full, path = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4]), sys.argv[5]
def spread(name):
    values = sorted(r[name] for r in rounds)
    return {"median": statistics.median(values), "max": values[-1]}
result = {"memory_mib": mib, "dirty_per_s": rate, "link_out_ms": spread("out_ms"), "to_protected_ms": spread("to_protected_ms"),
          "difference_ms": spread("sync_ms"), "difference_pages": spread("pages"), "full_ms": full["sync_ms"], "full_pages": full["pages"],
          "kept": all(r["difference"] for r in rounds)}
text = json.dumps(result, indent=2)
print(text)
if path:
    open(path, "w").write(text + "\n")
PYTHON
