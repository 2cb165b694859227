#!/usr/bin/env bash
# A group of tests that is wrong in any way fails its program, with status 1; a healthy one does not.
set -euo pipefail

program=$1
wrong=0
expect() {
    local status=0 output
    output=$("$program" "$2" 2>&1) || status=$?
    if [ $status -ne "$1" ]; then
        echo "FAIL: $2 ended with status $status instead of $1: $output"
        wrong=1
    fi
}
expect 0 well
expect 0 well_with_fixture
for broken in test_fails 256_tests_fail test_exits setup_returns_1 setup_asserts teardown_returns_1 teardown_asserts; do
    expect 1 $broken
done
exit $wrong
