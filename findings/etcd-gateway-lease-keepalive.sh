#!/usr/bin/env bash
# etcd: the JSON gateway answers a keepalive for a lease that does not exist with 200 and no error.
#
# Guess:     renewing a lease that has run out, or never was, is an error, as revoking it is and as writing a key with it
#            is (404, "requested lease not found").
# Behaviour: POST /v3/lease/keepalive answers 200 with a result that repeats the lease's ID. All that tells it from a
#            renewal is that the member TTL is missing: a TTL of 0, which this JSON leaves out.
# Version:   etcd 3.4.23 (Debian 12, etcd-server 3.4.23-4+b4).
# Matters:   an arbiter that gives the right to run alone as a lease, and holders that renew it by plain HTTP: a holder
#            that looks at the status goes on after it lost the right, while the other host gets it. That is two VMs.
#            A renewal counts only when TTL is there and greater than 0.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

etcd_start
post lease/grant '{"TTL":"30","ID":"77"}'
post lease/keepalive '{"ID":"77"}'
jq -e '.result.TTL == "30"' <<<"$body" >/dev/null || changed "a living lease is not renewed"
post lease/revoke '{"ID":"77"}'
post lease/keepalive '{"ID":"77"}'
[ "$http" = 200 ] || changed "renewing a dead lease gives HTTP $http"
jq -e '.error == null and .result.ID == "77" and (.result | has("TTL") | not)' <<<"$body" >/dev/null ||
    changed "renewing a dead lease is told from a renewal otherwise now"
post lease/revoke '{"ID":"77"}'
[ "$http" = 404 ] || changed "revoking a dead lease gives HTTP $http"
echo "etcd 3.4.23: a keepalive of a dead lease is 200 without TTL"
