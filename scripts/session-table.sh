#!/usr/bin/env bash
# The table of transitions in docs/session.md is made from the code's own (failover/transitions.c).
#   scripts/session-table.sh BUILD [DOCUMENT]           fails where the document says anything else
#   scripts/session-table.sh --write BUILD [DOCUMENT]   puts the code's table between the document's markers
set -euo pipefail
write=false
[ "${1:-}" = --write ] && { write=true; shift; }
build=${1:?a build tree}
document=${2:-$(dirname "$0")/../docs/session.md}
first='<!-- transitions: made by scripts/session-table.sh -->'
last='<!-- end of transitions -->'
made=$(mktemp)
trap 'rm -f "$made"' EXIT
if [ "$(grep -cxF -e "$first" -e "$last" "$document")" != 2 ]; then
    echo "session-table: $document has not the two lines '$first' and '$last'" >&2
    exit 1
fi
{
    sed "\\#^$first\$#q" "$document"
    "$build/tests/session/session_table"
    sed -n "\\#^$last\$#,\$p" "$document"
} >"$made"
if $write; then
    cat "$made" >"$document"
elif ! diff -u "$document" "$made" >&2; then
    echo "session-table: $document differs from failover/transitions.c: scripts/session-table.sh --write $build" >&2
    exit 1
fi
