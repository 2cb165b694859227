#!/usr/bin/env bash
# Shows that the test of kills can fail: with a replicator that lets output out before its epoch is acked, the client must
# find the guest set back behind an answer that it has seen. The moment of the kill is forced: the client has heard of what the other host
# does not know. No host counts as dead because the machine is busy: the pair would not be protected then, and nobody take over.
#   kills_notice.sh BUILD GUEST
set -euo pipefail
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# Its TCP may stand still for good, for it hears of bytes that it has not sent: many times a takeover is enough to know that.
if env RUN_OPTIONS="--silence-ms 1000" REPLICATOR="$1/replicator/understudy-replicator-chaos" FORCE_MOMENT=50 CLIENT_PATIENCE_S=15 \
    "$(dirname "$0")/kills.sh" "$1" "$2" 1 >"$out" 2>&1; then
    cat "$out"
    echo "FAILED: output went out early, and nobody noticed" >&2
    exit 1
fi
grep -q '"answers_lost": 1' "$out" || { cat "$out" >&2; echo "FAILED: it failed for another reason" >&2; exit 1; }
echo "early output was noticed after $(grep -c '^kill ' "$out") kills"
