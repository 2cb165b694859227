#!/usr/bin/env bash
# SPIN: the verifier exits with status 0 when it has found an error, and when it has not searched everything.
#
# Guess:     like any checker, a verifier that finds a violated assertion exits with another status than 0, and so does
#            one whose search was cut short; `make check` and a CI can go by it.
# Behaviour: the verifier (pan) exits with 0 in all three cases, and so do `spin -run` and `spin -search`. The error is
#            in the text ("errors: 1"); a search cut at its depth says "errors: 0" there, as a clean one does, and
#            "max search depth too small" elsewhere.
# Version:   SPIN 6.5.2 (Debian 12, spin 6.5.2+dfsg-1).
# Matters:   a model of the failover protocol that is checked in CI by its status is not checked. The text has to be
#            read for "errors: 0" and for the absence of the depth warning.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

unpack spin=6.5.2+dfsg-1
needs spin
cd "$work"
# Two hosts take over without asking; and a counter of a thousand steps whose last step is wrong.
cat >both.pml <<'P'
byte running;
active [2] proctype host() { running++; assert(running == 1) }
P
cat >deep.pml <<'P'
short step;
active proctype count() { do :: step < 1000 -> step++ :: else -> break od; assert(false) }
P

# verify MODEL OPTION...: the verifier's last words in $output, its status in $status.
verify() {
    local model=$1
    shift
    spin -a "$model" >/dev/null
    cc -O1 -w -o pan pan.c
    status=0
    output=$(./pan "$@" 2>&1) || status=$?
    echo "$model $*: status $status; $(grep -o 'errors: [0-9]*' <<<"$output"); $(grep -o 'max search depth too small' <<<"$output" || echo "no remark")"
}

verify both.pml
grep -q 'errors: 1' <<<"$output" || changed "the violation is not found"
[ $status -eq 0 ] || changed "a violation gives status $status"
verify deep.pml -m100
grep -q 'max search depth too small' <<<"$output" || changed "the depth is enough now"
grep -q 'errors: 0' <<<"$output" || changed "a search cut short does not say \"errors: 0\" any more"
[ $status -eq 0 ] || changed "a search cut short gives status $status"
verify deep.pml -m10000
grep -q 'errors: 1' <<<"$output" || changed "the deep violation is not found by a full search"
status=0
spin -run both.pml >/dev/null 2>&1 || status=$?
echo "spin -run both.pml: status $status"
[ $status -eq 0 ] || changed "spin -run gives status $status for a violation"
echo "SPIN 6.5.2: the status says nothing about errors or about the search being complete"
