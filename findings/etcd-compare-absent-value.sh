#!/usr/bin/env bash
# etcd: in a transaction, comparing the value of a key that does not exist fails, whichever way one compares.
#
# Guess:     exactly one of "value = x" and "value != x" holds. A key that is not there has no value x, so "!= x" holds.
# Behaviour: for a key that does not exist EQUAL and NOT_EQUAL both fail, for each x, the empty one too. Version and
#            revisions of such a key are 0 and compare as usual. For a key that exists one of the two holds.
# Version:   etcd 3.4.23 (Debian 12, etcd-server 3.4.23-4+b4), by its JSON gateway.
# Matters:   "take the right to run alone unless the other host holds it", written as "value != other", is never granted
#            on a fresh store: a pair that cannot take over, found out on the day it has to. Compare create_revision
#            with 0, or put the key there before.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

etcd_start
# compare KEY COMPARISON: whether a transaction with that one comparison succeeds, "true" or "false".
compare() {
    local key
    key=$(printf %s "$1" | base64)
    post kv/txn '{"compare":[{"key":"'"$key"'",'"$2"'}]}' >&2
    [ "$http" = 200 ] || changed "the transaction is refused"
    jq -r '.succeeded // false' <<<"$body"
}
host_b=$(printf 'host b' | base64)
equal='"target":"VALUE","result":"EQUAL","value":"'$host_b'"'
differs='"target":"VALUE","result":"NOT_EQUAL","value":"'$host_b'"'

absent="$(compare owner "$equal") $(compare owner "$differs")"
absent_empty="$(compare owner '"target":"VALUE","result":"EQUAL","value":""') $(compare owner \
    '"target":"VALUE","result":"NOT_EQUAL","value":""')"
created="$(compare owner '"target":"CREATE","result":"EQUAL","create_revision":"0"') $(compare owner \
    '"target":"CREATE","result":"NOT_EQUAL","create_revision":"0"')"
post kv/put '{"key":"'"$(printf owner | base64)"'","value":"'"$(printf 'host a' | base64)"'"}'
present="$(compare owner "$equal") $(compare owner "$differs")"
echo "absent key, value = and != \"host b\": $absent"
echo "absent key, value = and != \"\": $absent_empty"
echo "absent key, create_revision = and != 0: $created"
echo "key with \"host a\", value = and != \"host b\": $present"

[ "$present" = "false true" ] || changed "values of keys that exist compare otherwise"
[ "$created" = "true false" ] || changed "the create_revision of an absent key is not 0"
[ "$absent" = "false false" ] || changed "an absent key's value compares"
[ "$absent_empty" = "false false" ] || changed "an absent key's value is an empty one"
echo "etcd 3.4.23: both = and != fail for the value of an absent key"
