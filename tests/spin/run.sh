#!/usr/bin/env bash
# Checks the model of the session with SPIN: every state that can be reached, or the fault that is planted.
#   run.sh safety [-DANSWERS=3 ...]    no state breaks an invariant
#   run.sh live                        with one fault, one host runs the guest in the end
#   run.sh notices RULE                with this rule broken (PLANT_RULE in session.pml), SPIN finds it
# Memory: up to 3 GB for safety with more answers or terms than the defaults.
set -euo pipefail
model=$(realpath "$(dirname "$0")/session.pml")
what=${1:?safety, live, or notices RULE}
shift
if ! command -v spin >/dev/null; then
    echo "SKIPPED: there is no spin (Debian: apt-get install spin); the protocol was not model-checked" >&2
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
compile=(-O1 -w -DCOLLAPSE -DMEMLIM=3000)
search=(-m1000000)
define=()
case $what in
safety) compile+=(-DSAFETY) define=("$@") ;;
notices)
    define=("-DPLANT_${1:?which rule}") found='assertion violated'
    if [ "$1" = NEVER_ASK_AGAIN ]; then
        compile+=(-DNFAIR=4) search+=(-a -f) define+=(-DLIVE) found='acceptance cycle'
    else
        compile+=(-DSAFETY)
    fi
    ;;
live) compile+=(-DNFAIR=4) search+=(-a -f) define=(-DLIVE "$@") ;;
*) echo "run.sh: safety, live or notices, not $what" >&2; exit 2 ;;
esac
spin "${define[@]}" -a "$model"
"${CC:-cc}" "${compile[@]}" -o pan pan.c
./pan "${search[@]}" >out 2>&1
grep -E 'errors:|states, stored|assertion violated|acceptance cycle|max search depth' out
if grep -q 'max search depth too small\|out of memory\|max memory' out; then
    echo "FAILED: the search is not complete" >&2
    exit 1
fi
errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' out)
if [ "$what" = notices ]; then
    grep -q "$found" out || { echo "FAILED: SPIN does not find that this rule is broken: ${define[*]}" >&2; exit 1; }
elif [ "$errors" != 0 ]; then
    ./pan -r 2>/dev/null | tail -n 40 >&2 || true
    echo "FAILED: the model breaks an invariant; above are its last steps" >&2
    exit 1
fi
