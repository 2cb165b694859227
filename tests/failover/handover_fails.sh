#!/usr/bin/env bash
# A planned failover to a host that cannot take the guest: it stays where it is, loses nothing, and is protected again.
#   handover_fails.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

# Host b's QEMU is the same but for one device, whose state it cannot load. Nothing shows that before the takeover.
pair_prepare() {
    mkdir "$work/bin"
    cat >"$work/bin/qemu-system-x86_64" <<'WRAPPER'
#!/bin/bash
args=()
while [ $# -gt 0 ]; do
    if [ "$1" = -device ] && [ "$2" = virtio-rng-pci,addr=0x10 ]; then shift; else args+=("$1"); fi
    shift
done
exec /usr/bin/qemu-system-x86_64 "${args[@]}"
WRAPPER
    chmod +x "$work/bin/qemu-system-x86_64"
}
# shellcheck disable=SC2034 # used by name in pair.sh
in_daemon_b=(env "PATH=$work/bin:$PATH")
start_pair -- -device virtio-rng-pci,addr=0x10
start_client

await 30 "protection" field_is a state protected
term=$(field a term)
! understudy a failover web --planned 2>"$work/refused" || fail "the failover is said to have worked"
grep -q "stays on this host: the other host could not take" "$work/refused" || fail "unclear: $(cat "$work/refused")"
cat "$work/refused"
grep -q "could not be taken over\|failed while it loaded" "$work/b.log" || fail "host b does not say why"
await 30 "protection again" field_is a state protected
field_is a guest_here true || fail "host a has lost the guest"
[ "$(field a term)" -gt "$term" ] || fail "the guest was taken back without a term of its own"
answers=$(client_answers)
await 10 "an answer afterwards" client_goes_on
finish_client
pair_leftovers
echo "handover_fails: the guest stayed, nothing was lost"
