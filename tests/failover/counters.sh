#!/usr/bin/env bash
# The whole system with a boot-sector guest that counts in 64 pages; its host is killed, again and again; after each takeover
# the counters must be those of one instant, and go on from where the dead host was at most an epoch before.
#   counters.sh BUILD GUEST(unused) [KILLS]
# From the environment: ACCEL (kvm, tcg, or kvm-tcg: host b has no KVM), RUN_OPTIONS (words for `understudy run`), HOSTS (a script that replaces tests/net/hosts.sh's
# functions), PATIENCE (times longer waits: for slow machines), TRANSPORT (what status must say), DISTURB (words:
# in which ways the link is first lost and comes back, by HOSTS' hosts_disturb and hosts_mend).
set -euo pipefail
BUILD=$1 GUEST=$2 kills=${3:-4}
ACCEL=${ACCEL:-kvm} PATIENCE=${PATIENCE:-1}
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"
# shellcheck source=tests/failover/rounds.sh
. "$(dirname "$0")/rounds.sh"
# shellcheck source=tests/rdma/hosts.sh
[ -z "${HOSTS:-}" ] || . "$HOSTS"
image=$BUILD/tests/hook/bootsector-busy.rom
guest_qemu() {
    local accel="-machine pc -accel $ACCEL"
    # What both accelerators of any machine have.
    local cpu=qemu64,kvmclock=off,-pni,-svm
    # A machine that looks the same under both: newer ones have the paravirtual clock's device under KVM only.
    [ "$ACCEL" != kvm-tcg ] || accel="-machine pc-i440fx-5.1 -accel kvm -accel tcg -cpu $cpu"
    echo "${UNDERSTUDY_QEMU:-qemu-system-x86_64} $accel -m 64 -nodefaults -display none -vga std -bios $image"
}

[ "$ACCEL" = tcg ] || [ -w /dev/kvm ] || { echo "SKIPPED: there is no usable /dev/kvm on this machine" >&2; exit 77; }
hosts_up "$prefix"
if [ "$ACCEL" = kvm-tcg ]; then
    # shellcheck disable=SC2016,SC2034 # the inner shell expands this; start_daemon uses it
    in_daemon_b=(sh -c 'mount --bind /dev/null /dev/kvm && exec "$@"' -)
fi
start_daemon b
start_daemon a
# shellcheck disable=SC2046 # a list of words
understudy a run --name web --peer 10.77.0.2 --wait-s $((30 * PATIENCE)) ${RUN_OPTIONS:-} -- $(guest_qemu) >"$work/run.log" 2>&1 || fail "the VM could not be protected"
for ((i = 0; i < 300 * PATIENCE; i++)); do
    ! guest_counts a 2>/dev/null || break
    sleep 0.1
done
if ! guest_counts a; then
    [ "$ACCEL" != tcg ] || fail "the boot-sector guest does not run"
    echo "SKIPPED: KVM does not run the boot-sector guest on this machine" >&2
    exit 77
fi

check_transport() {
    [ -z "${TRANSPORT:-}" ] || field_is "$1" transport "$TRANSPORT" ||
        fail "checkpoints go over $(field "$1" transport): $(field "$1" transport_why)"
}
unprotected() { ! field_is "$1" state protected; }

for way in ${DISTURB:-}; do
    await $((30 * PATIENCE)) "protection on host a" field_is a state protected
    check_transport a
    before=$(round_of a) || fail "the counters of the primary are not of one instant"
    echo "protected after $SECONDS s, round $before; the link goes ($way)"
    hosts_disturb "$way"
    await $((10 * PATIENCE)) "the link to be missed" unprotected a
    hosts_mend "$way"
    await $((30 * PATIENCE)) "protection to come back by itself" field_is a state protected
    check_transport a
    field_is a guest_here true || fail "the guest has moved, though its host was well"
    field_is b guest_here false || fail "host b took over from a living host"
    after=$(round_of a) || fail "the counters of the primary are not of one instant"
    [ "$after" -gt "$before" ] || fail "the guest stood still"
    echo "link lost and back: round $before before, $after after"
done

here=a there=b
for ((i = 1; i <= kills; i++)); do
    await $((30 * PATIENCE)) "protection on host $here" field_is $here state protected
    check_transport $here
    before=$(round_of $here) || fail "the counters of the primary are not of one instant"
    hosts_kill "$prefix" $here "$([ $((i % 2)) -eq 0 ] && echo quiet)" 2>/dev/null
    await $((10 * PATIENCE)) "host $there to take over" field_is $there guest_here true
    after=$(round_of $there) || fail "the counters after the takeover are not of one instant"
    [ "$after" -gt 0 ] || fail "the guest began anew"
    later=$(round_of $there) || fail "the counters are not of one instant while the guest runs on"
    until [ "$later" -gt "$after" ]; do
        [ $SECONDS -lt $((200 * PATIENCE)) ] || fail "the guest does not run on host $there"
        later=$(round_of $there) || fail "the counters are not of one instant while the guest runs on"
    done
    echo "kill $i: round $before before, $after after the takeover, $later later"
    revive $here
    read -r here there <<<"$there $here"
done
pair_leftovers
echo "$kills kills under $ACCEL: counters exact"
