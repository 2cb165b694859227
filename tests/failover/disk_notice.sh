#!/usr/bin/env bash
# Shows that disk_kills.sh can fail: with a plugin that leaves every other place of a disk out of the log, the guest or the checker must
# find the disk wrong; with a replicator that lets output out before its epoch is acked, the client must find the guest set back. And that
# disk_lifecycle.sh --shared can: with a plugin that writes to a shared image at once, that must be seen. And disk_pressure.sh: with one
# whose writers do not wait.
#   disk_notice.sh BUILD GUEST [FAULT]     FAULT, also from the environment: unlogged, early, not-held or no-limit; all of them
set -euo pipefail
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# expect FAULT WHAT PATTERN "TEST OPTIONS" VARIABLES...
expect() {
    local what=$2 pattern=$3 test options
    [ "$only" = all ] || [ "$only" = "$1" ] || return 0
    read -r test options <<<"$4"
    shift 4
    # shellcheck disable=SC2086 # a list of words
    if env "$@" "$here/$test" "$BUILD" "$GUEST" $options >"$out" 2>&1; then
        cat "$out"
        echo "FAILED: nobody noticed $what" >&2
        exit 1
    fi
    grep -Eq "$pattern" "$out" || { cat "$out" >&2; echo "FAILED: with $what it failed for another reason" >&2; exit 1; }
    echo "noticed $what: $(grep -E -m 1 "$pattern" "$out")"
}
BUILD=$1 GUEST=$2 only=${3:-${FAULT:-all}} here=$(cd "$(dirname "$0")" && pwd)
case $only in
all | unlogged | early | not-held | no-limit) ;;
*) echo "disk_notice.sh: there is no fault '$only': unlogged, early, not-held or no-limit" >&2; exit 2 ;;
esac
CHAOS_PLUGIN="--disk-plugin $BUILD/replicator/nbdkit-understudy-plugin-chaos.so"
# Each forces the moment that must show its fault. Here: so many operations that some are certain to be left out (a fifth of them is on
# the second disk, three quarters of these write). On the disk without a file system alone, for a guest whose file system is damaged can
# fail in any way. No host counts as dead because the machine is busy: at the
# kill the pair would not be protected, and nobody take over.
expect unlogged "writes that are not logged" "finds its disk wrong|image is not what the client was told" "disk_kills.sh 1 --bare" \
    DAEMON_OPTIONS="$CHAOS_PLUGIN" UNDERSTUDY_DISK_FAULT=unlogged-second OPERATIONS=400 RUN_OPTIONS="--silence-ms 1000"
# The guest is then behind what the client was told: its TCP stands still for good, for it hears of bytes that it has not sent, or it
# catches up and says other things than before. Many times a takeover is enough to know that it stands still.
expect early "output that goes out early" "the client: |the client ended|image is not what the client was told" "disk_kills.sh 1 --bare" \
    REPLICATOR="$BUILD/replicator/understudy-replicator-chaos" FORCE_MOMENT=64 CLIENT_PATIENCE_S=15 RUN_OPTIONS="--silence-ms 1000"
# While the standby stands still, which is all that this does.
expect not-held "a shared disk that is written to at once" "what the standby does not hold is in the image" "disk_lifecycle.sh --shared --held-only" \
    DAEMON_OPTIONS="$CHAOS_PLUGIN" UNDERSTUDY_DISK_FAULT=not-held
# By a link that is slower than any guest.
expect no-limit "writers that do not wait" "its log overflowed|bytes lay in the log|the log overflowed" disk_pressure.sh \
    DAEMON_OPTIONS="$CHAOS_PLUGIN" UNDERSTUDY_DISK_FAULT=no-limit LINK_MIB=4
