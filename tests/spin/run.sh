#!/usr/bin/env bash
# Checks the model of the session with SPIN: every state that can be reached, or the fault that is planted.
#   run.sh safety WORLD [-DANSWERS=2 ...]   no state breaks an invariant; WORLD: ARBITER, WHOLE or CUT
#                                           (session.pml); -D: other bounds and variants
#   run.sh live WORLD                       when faults cease, exactly one host runs the guest
#   run.sh notices RULE                     with this rule broken (PLANT_RULE in session.pml), SPIN finds it
# Memory: up to 3 GB for safety with larger bounds than the defaults below.
set -euo pipefail
model=$(realpath "$(dirname "$0")/session.pml")
what=${1:?safety, live, or notices RULE}
subject=${2:?a world (ARBITER, WHOLE, CUT), or a rule}
shift 2
if ! command -v spin >/dev/null; then
    echo "SKIPPED: there is no spin (Debian: apt-get install spin); the protocol was not model-checked" >&2
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# Not optimised: for most checks the compiler would take longer than the search.
compile=(-O0 -w -DCOLLAPSE -DMEMLIM=3000)
search=(-m1000000)
found='assertion violated'
kind=safety
variant=()
define=()
case $what in
safety) world=$subject ;;
live) world=$subject kind=live ;;
notices)
    world=WHOLE
    case $subject in # by default the world WHOLE
    RELEASE_BEFORE_ACK | ALONE_WITHOUT_GRANT | ACK_WHILE_ASKING | ASK_NEWEST_TERM | PROMOTE_WITHOUT_GRANT | GRANT_TWICE)
        world=ARBITER ;;
    NEVER_ASK_AGAIN) world=ARBITER kind=live found='acceptance cycle' ;;
    SILENT_WHEN_ALONE) world=CUT kind=live found='acceptance cycle' ;;
    PRIMARY_IGNORES_NEWER_TERM | EQUAL_TERMS) world=CUT ;;
    RETURN_WITHOUT_GRANT) world=ARBITER variant=(-DHOLD) ;;
    TAKE_BACK_TOLD | ANY_STANDING_COUNTS | HANDOVER_BEFORE_BEATS) world=WHOLE variant=(-DHANDOVERS=1) ;;
    esac
    set -- "-DPLANT_$subject" "${variant[@]}" "$@"
    ;;
*) echo "run.sh: safety, live or notices, not $what" >&2; exit 2 ;;
esac
# The bounds of each world: small enough for a short check, large enough for each planted fault.
case $world in
ARBITER) bounds='ANSWERS=2 COUNTS=2 DELAYS=0 BREAKS=0' ;;
WHOLE) bounds='ANSWERS=1 COUNTS=2 STALLS=1 BREAKS=0' ;;
CUT) bounds='ANSWERS=0 COUNTS=2 CRASHES=0 BREAKS=0' ;;
*) echo "run.sh: no world $world" >&2; exit 2 ;;
esac
if [ "$kind" = live ]; then
    compile+=(-DNFAIR=6) search+=(-a -f) define+=(-DLIVE) bounds="FAULTS=1 DELAYS=0 ${bounds/ANSWERS=2/ANSWERS=1}"
else
    compile+=(-DSAFETY)
fi
define+=("-D$world" "$@")
for bound in $bounds; do
    case " ${define[*]}" in
    *" -D${bound%=*}="*) ;; # given, or narrower for liveness
    *) define+=("-D$bound") ;;
    esac
done
cp "$model" . # SPIN puts the steps to an error beside the model
spin "${define[@]}" -a session.pml
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
