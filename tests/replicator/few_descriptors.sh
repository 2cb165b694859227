#!/usr/bin/env bash
# The replicator's own start under every limit of open files: it says what is missing, or starts (and ends, for no daemon is at the other
# end). It never dies of it.
#   few_descriptors.sh REPLICATOR
set -euo pipefail
out=$(mktemp)
trap 'rm -f "$out"' EXIT
started=0 refused=0
for limit in $(seq 6 60); do
    status=0
    (ulimit -n "$limit" && exec timeout 30 "$1" --control-fd 3) 3</dev/null >"$out" 2>&1 || status=$?
    if [ $status -eq 0 ]; then
        started=1
    elif [ $status -eq 1 ] && [ $started -eq 0 ] && grep -q "LimitNOFILE=" "$out"; then
        refused=1
    else
        echo "with $limit open files: exit status $status:"
        cat "$out"
        exit 1
    fi
done
[ $started -eq 1 ] && [ $refused -eq 1 ]
