#!/usr/bin/env bash
# Writes the lists of understudy(1) that come from tables of the programs, between their markers in the page.
#   scripts/man-lists.sh BUILD          after a change of a table
#   scripts/man-lists.sh BUILD --check  fails if the page has other lists
# Markers: .\" BEGIN list, .\" END list; print_lists of the build tree prints the list.
set -euo pipefail
build=${1:?give the build tree} mode=${2:-}
page=${MAN_PAGE:-$(dirname "$0")/../docs/man/understudy.1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$page" "$work/page"
lists=$(sed -n 's/^\.\\" BEGIN \([a-z]*\)$/\1/p' "$page")
[ -n "$lists" ] || { echo "man-lists: $page has no markers" >&2; exit 1; }
for list in $lists; do
    "$build/tests/status/print_lists" "$list" >"$work/list" || { echo "man-lists: there is no list '$list'" >&2; exit 1; }
    grep -qxF ".\\\" END $list" "$page" || { echo "man-lists: the list '$list' has no end in $page" >&2; exit 1; }
    awk -v begin=".\\\\\" BEGIN $list" -v end=".\\\\\" END $list" -v list="$work/list" '
        $0 == end {inside = 0}
        !inside {print}
        $0 == begin {inside = 1; while ((getline line < list) > 0) print line}' "$work/page" >"$work/next"
    mv "$work/next" "$work/page"
done
if [ "$mode" = --check ]; then
    diff -u "$page" "$work/page" || { echo "man-lists: run scripts/man-lists.sh $build" >&2; exit 1; }
else
    cat "$work/page" >"$page"
fi
