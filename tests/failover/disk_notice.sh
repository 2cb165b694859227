#!/usr/bin/env bash
# Shows that disk_kills.sh can fail: with a plugin that leaves a sixteenth of the places out of the log, the guest or the checker must
# find the disk wrong; with a replicator that lets output out before its epoch is acked, the client must find the guest set back.
#   disk_notice.sh BUILD GUEST
set -euo pipefail
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# expect WHAT PATTERN VARIABLES...
expect() {
    local what=$1 pattern=$2
    shift 2
    if env "$@" "$here/disk_kills.sh" "$BUILD" "$GUEST" 3 --bare >"$out" 2>&1; then
        cat "$out"
        echo "FAILED: nobody noticed $what" >&2
        exit 1
    fi
    grep -Eq "$pattern" "$out" || { cat "$out" >&2; echo "FAILED: with $what it failed for another reason" >&2; exit 1; }
    echo "noticed $what: $(grep -E -m 1 "$pattern" "$out")"
}
BUILD=$1 GUEST=$2 here=$(cd "$(dirname "$0")" && pwd)
expect "writes that are not logged" "finds its disk wrong|image is not what the client was told" \
    DAEMON_OPTIONS="--disk-plugin $BUILD/replicator/nbdkit-understudy-plugin-chaos.so" UNDERSTUDY_DISK_FAULT=unlogged
expect "output that goes out early" "the client: |the client ended|image is not what the client was told" \
    REPLICATOR="$BUILD/replicator/understudy-replicator-chaos"
