#!/usr/bin/env bash
# QEMU is upgraded on one host and then on the other, under a guest that is protected all the time but while it may not be: the
# later QEMU stands by for the earlier one, takes the guest, is not followed by the earlier one, and gets its standby when the
# first host has been upgraded too. A client of the guest loses nothing.
#   rolling_upgrade.sh BUILD GUEST FROM TO     (FROM and TO: QEMU's program, or the name of a variable that names it)
set -euo pipefail
BUILD=$(realpath "$1") GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

program_of() {
    local program=$1
    [[ $program == UNDERSTUDY_* ]] && program=${!program:-}
    [ -n "$program" ] || { echo "SKIPPED: $1 is not set: scripts/second-qemu.sh fetches another QEMU" >&2; exit 77; }
    command -v "$program" || { echo "SKIPPED: $program is not installed" >&2; exit 77; }
}
from=$(program_of "$3")
to=$(program_of "$4")
"$from" --version | head -n 1
"$to" --version | head -n 1
to_version=$("$to" --version | sed -n 's/.*version \([0-9.]*\).*/\1/p')

# Each host finds its own QEMU under one name. An upgrade is what a package manager does: another file under that name.
upgrade() { ln -sfn "$2" "$work/bin-$1/qemu-system-x86_64"; }
mkdir "$work/bin-a" "$work/bin-b"
upgrade a "$from"
upgrade b "$from"
# shellcheck disable=SC2034 # used by name
in_daemon_a=(env "PATH=$work/bin-a:$PATH") in_daemon_b=(env "PATH=$work/bin-b:$PATH")
unset UNDERSTUDY_QEMU

warning() { understudy "$1" status web --json | jq -r '.warnings[]'; }
is_refused() { status_says b '"unprotected_why": .*earlier QEMU'; }
is_warned() { field_is a state protected && [[ $(warning a) == *"$to_version"*"cannot come back"* ]]; }
guest_here() { [ "$(field "$1" guest_here)" = true ]; }
answers_go_on() {
    answers=$(client_answers)
    await $((10 * ${PATIENCE:-1})) "an answer from the guest" client_goes_on
}

# A standby whose QEMU is another one has loaded the guest's state on trial; equal ones have not.
trials() { grep -c "loaded the state of the guest's devices on trial" "$work/$1.log" || true; }

start_pair
[ "$(trials b)" = 0 ] || fail "equal hosts made a trial"
[ -z "$(warning a)" ] || fail "equal hosts have a warning: $(warning a)"
start_client

echo "host b is upgraded: its QEMU stands by for the earlier one"
upgrade b "$to"
understudy b stop web >/dev/null || fail "the standby could not be stopped"
await 120 "protection by the later QEMU, with the warning that the way back is closed" is_warned
[ "$(trials b)" = 1 ] || fail "the later QEMU was not tried: $(trials b) trials"
[[ $(field b trial) == "QEMU $to_version"*"on trial"* ]] || fail "status does not tell of the trial: $(field b trial)"
answers_go_on

echo "the guest goes to the later QEMU, and the earlier one cannot stand by"
understudy a failover web --planned >/dev/null || fail "the guest did not go to the later QEMU"
await 30 "the guest on host b" guest_here b
await 60 "the refusal of host a" is_refused
answers_go_on

echo "host a is upgraded"
upgrade a "$to"
await 120 "protection by the upgraded host" field_is b state protected
[ "$(trials a)" = 0 ] || fail "equal hosts made a trial"
[ -z "$(warning b)" ] || fail "equal hosts have a warning: $(warning b)"
understudy b failover web --planned >/dev/null || fail "the guest did not come back"
await 30 "the guest on host a" guest_here a
await 120 "protection at the end" field_is a state protected
answers_go_on
[[ $(field a qemu_version) == "$to_version"* ]] || fail "the guest runs in QEMU $(field a qemu_version), not $to_version"
finish_client
understudy a stop web >/dev/null
await 30 "the VM to be gone" gone b
pair_leftovers
echo "ok"
