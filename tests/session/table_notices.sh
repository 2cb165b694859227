#!/usr/bin/env bash
# scripts/session-table.sh must complain of a row too few, a row that says something else, and a lost marker.
#   table_notices.sh BUILD
set -euo pipefail
build=$1
top=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
notices() {
    sed "$2" "$top/docs/session.md" >"$work/session.md"
    cmp -s "$top/docs/session.md" "$work/session.md" && { echo "FAILED: nothing was planted: $1" >&2; exit 1; }
    if "$top/scripts/session-table.sh" "$build" "$work/session.md" 2>/dev/null; then
        echo "FAILED: session-table.sh is content with $1" >&2
        exit 1
    fi
}
notices "a row too few" '/secondary.*asking.*promoting/d'
notices "a row that the code has not" '/secondary.*asking.*promoting/s/asking/following/'
notices "a lost marker" '/end of transitions/d'
notices "a table outside of its markers" 's/^<!-- transitions.*/&\n\n&/'
# What it writes, it is content with.
sed '/secondary.*asking.*promoting/d' "$top/docs/session.md" >"$work/session.md"
"$top/scripts/session-table.sh" --write "$build" "$work/session.md"
cmp "$top/docs/session.md" "$work/session.md"
