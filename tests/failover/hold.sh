#!/usr/bin/env bash
# --on-peer-loss=hold: while the standby is away the guest runs, but no answer leaves its host; when a standby is back, every answer comes,
# on the connection that was there. Without it (lifecycle.sh) the guest is heard at once.
#   hold.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

start_pair --on-peer-loss hold
await 30 "protection" field_is a state protected
start_client
await 10 "a first answer" client_goes_on
hosts_kill "$prefix" b quiet 2>/dev/null
await 10 "host a to notice" field_is a state peer-lost
field_is a guest_here true || fail "host a has lost the guest"
# What had been acked may still be on its way for an instant: from the first pause on, nothing comes.
silent() {
    answers=$(client_answers)
    ! timeout 1 sh -c 'while [ "$(cat "$0")" = "$1" ]; do sleep 0.02; done' "$work/progress" "$answers"
}
await 10 "the answers to cease" silent
silent || fail "an answer came while no standby held it"
revive b
await 60 "protection again" field_is a state protected
await 30 "answers again" client_goes_on
finish_client
pair_leftovers
echo "hold: nothing was heard that no standby held, and nothing was lost"
