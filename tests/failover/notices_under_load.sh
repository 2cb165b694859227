#!/usr/bin/env bash
# Tests of planted faults, many times beside busy loops, one for each processor: whether a fault is noticed must not depend on luck or on
# load.
#   notices_under_load.sh BUILD [TIMES] [PATTERN]     each test whose name matches PATTERN (notice) is run TIMES (20) times, and stops at
#                                                     its first failure
# disk_notice, the longest, takes some minutes each time; with FAULT from the environment one fault alone (disk_notice.sh).
set -euo pipefail
build=$(realpath "$1") times=${2:-20} pattern=${3:-notice}
loops=()
trap 'kill "${loops[@]}" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
for ((i = $(nproc); i > 0; i--)); do
    while :; do :; done &
    loops+=($!)
done
ctest --test-dir "$build" --output-on-failure --no-tests=error -R "$pattern" --repeat "until-fail:$times"
