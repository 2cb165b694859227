#!/usr/bin/env bash
# A later QEMU on the standby's host cannot load the guest's devices: the VM is not called protected, its client notices nothing, why is told,
# and nothing of the trial stays behind. A later QEMU that can load them protects it.
#   trial_fails.sh BUILD GUEST
set -euo pipefail
BUILD=$(realpath "$1") GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

qemu_here=$(command -v "${UNDERSTUDY_QEMU:-qemu-system-x86_64}")
unset UNDERSTUDY_QEMU
version=$("$qemu_here" --version | sed -n 's/.*version \([0-9.]*\).*/\1/p')

# The same program under a later version's name. "unfit": its throw-away QEMU, and only that, has a network card that lacks what the guest uses.
later_qemu() {
    cat <<END
#!/bin/sh
case "\$*" in
-version | --version) exec sh -c '"$qemu_here" --version | sed "1s/version [0-9.]*/version 99.$1/"' ;;
*us-trial*) exec "$qemu_here" "\$@" $2 ;;
esac
exec "$qemu_here" "\$@"
END
}
install_qemu() {
    later_qemu "${@:2}" >"$work/later"
    chmod +x "$work/later"
    mv "$work/later" "$work/bin-$1/qemu-system-x86_64"
}
mkdir "$work/bin-a" "$work/bin-b"
ln -s "$qemu_here" "$work/bin-a/qemu-system-x86_64"
ln -s "$qemu_here" "$work/bin-b/qemu-system-x86_64"
# shellcheck disable=SC2034 # used by name
in_daemon_a=(env "PATH=$work/bin-a:$PATH") in_daemon_b=(env "PATH=$work/bin-b:$PATH")

trials_begun() { grep -c "is loading the state of the guest's devices on trial" "$work/b.log" || true; }
trials_passed() { grep -c "loaded the state of the guest's devices on trial" "$work/b.log" || true; }
times_protected() { grep -c ': protected, was ' "$work/a.log" || true; }
why() { understudy a status web --json | sed -n 's/^ *"unprotected_why": *"\(.*\)",\{0,1\}$/\1/p'; }
is_refused() { [[ $(why) == *"QEMU 99.0.1"*"QEMU $version"*"on trial"*"install QEMU $version"* ]]; }
answers_go_on() {
    answers=$(client_answers)
    await $((10 * ${PATIENCE:-1})) "an answer from the guest" client_goes_on
}
# What runs on host b: its daemon. A throw-away QEMU has a network of its own, so it is looked for by its command line.
nothing_stays_on_b() {
    local p
    for p in $(ip netns pids "$prefix-b"); do
        [[ $(cat "/proc/$p/comm" 2>/dev/null) =~ ^(understudyd|)$ ]] || return 1
    done
    ! grep -lsz us-trial /proc/[0-9]*/cmdline >/dev/null || return 1
    [ -z "$(find "$(hosts_run_dir "$prefix" b)" -name 'us-*' -o -name trial.log)" ]
}

start_pair
start_client
pid=$(field a qemu_pid)
[ "$(trials_begun)" = 0 ] || fail "equal QEMUs were tried"

echo "-- a later QEMU that cannot load the guest's devices"
protected_before=$(times_protected)
install_qemu b 0.1 "-global virtio-net-pci.mrg_rxbuf=off"
understudy b stop web >/dev/null || fail "the standby could not be stopped"
await 120 "the reason, with both versions and what to do" is_refused
[[ $(why) == *"unsupported"* ]] || fail "QEMU's own words are not in: $(why)"
field_is a guest_here true || fail "host a has lost the guest"
field_is a qemu_pid "$pid" || fail "the guest is in another QEMU than before"
[ "$(times_protected)" = "$protected_before" ] || fail "the VM was called protected"
understudy a failover web --planned >"$work/planned" 2>&1 && fail "the guest was handed to a QEMU that cannot run it"
await 30 "host b to be as before" nothing_stays_on_b
[ "$(field b state)" = trial-failed ] || fail "host b does not say that the trial failed: $(field b state)"
understudy a status web --check >/dev/null && fail "a monitor is told that the VM is protected"
answers_go_on

echo "-- it is not tried again and again"
[ "$(trials_begun)" = 1 ] || fail "$(trials_begun) trials"
asked=$(field a epochs)
for _ in 1 2 3 4 5; do answers_go_on; done
[ "$(trials_begun)" = 1 ] || fail "it was tried again at once"
[ "$(field a epochs)" = "$asked" ] || fail "host a was synchronised with again"

echo "-- a later QEMU that can"
install_qemu b 0.2 ""
understudy b stop web >/dev/null || fail "the failed standby could not be forgotten"
await 120 "protection" field_is a state protected
[ "$(trials_passed)" = 1 ] || fail "$(trials_passed) trials passed"
[[ $(field b trial) == "QEMU 99.0.2"* ]] || fail "status does not tell of the trial: $(field b trial)"
answers_go_on
understudy a failover web --planned >/dev/null || fail "the guest did not go to the QEMU that loaded its state on trial"
await 30 "the guest on host b" field_is b guest_here true
answers_go_on
finish_client
understudy b stop web >/dev/null
await 30 "the VM to be gone" gone a
pair_leftovers
echo "trial_fails: only a QEMU that loads the guest's state protects it"
