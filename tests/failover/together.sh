#!/usr/bin/env bash
# Runs several tests of this folder one after the other on one pair of hosts, whose guest boots once. Each finds what its start_pair would have
# made: the guest on host a, protected by b. They have to start their pair in the same way, which is checked, and all but the last must
# leave it whole. Each can be run alone too.
#   together.sh BUILD GUEST TEST...
set -euo pipefail
build=$1 guest=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/net/hosts.sh
. "$here/../net/hosts.sh"
export PAIR_PREFIX=us$$ PAIR_WORK PAIR_STARTED=0 PAIR_STAYS=1
PAIR_WORK=$(mktemp -d)
cleanup() {
    hosts_down "$PAIR_PREFIX" 2>/dev/null || true
    rm -rf "$PAIR_WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

last=${!#}
for test in "$@"; do
    began=$SECONDS status=0
    echo "== $test"
    [ "$test" != "$last" ] || PAIR_STAYS=0
    "$here/$test.sh" "$build" "$guest" || status=$?
    [ $status -eq 0 ] || { echo "FAILED: $test" >&2; exit $status; }
    echo "== $test passed, $((SECONDS - began)) s"
    PAIR_STARTED=1
done
