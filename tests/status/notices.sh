#!/usr/bin/env bash
# scripts/man-lists.sh --check must complain of a page whose list is not the table's, and mend it when asked to.
set -euo pipefail
build=$1 root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export MAN_PAGE=$work/page
fail() { echo "FAILED: $*" >&2; exit 1; }
sed 's/how long a checkpoint stopped the guest/how long it took/' "$root/docs/man/understudy.1" >"$MAN_PAGE"
! "$root/scripts/man-lists.sh" "$build" --check >"$work/said" 2>&1 || fail "another list is not noticed"
grep -q "^-how long it took" "$work/said" || fail "it does not say what differs: $(cat "$work/said")"
"$root/scripts/man-lists.sh" "$build"
cmp -s "$MAN_PAGE" "$root/docs/man/understudy.1" || fail "the page is not mended"
printf '%s\n' '.\" BEGIN nonsense' >>"$MAN_PAGE"
! "$root/scripts/man-lists.sh" "$build" --check >"$work/said" 2>&1 || fail "a list that does not exist is not noticed"
