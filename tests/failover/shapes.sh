#!/usr/bin/env bash
# Command lines of many shapes: each VM is protected, moved by a planned failover, and taken over after a kill; its counter
# goes on by one each time.
#   shapes.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"

# shape WHAT ARGS...: like start_pair's; MACHINE, MEMORY and NIC from the environment.
shape() {
    local what=$1 before
    shift
    start_pair "$@"
    await 30 "$what: protection by host b" field_is a state protected
    before=$(ask_guest next) || fail "$what: the guest does not answer"
    understudy a failover web --planned
    await 10 "$what: host b to run the guest" field_is b guest_here true
    [ "$(ask_guest next)" = $((before + 1)) ] || fail "$what: the counter did not go on after the planned failover"
    await 30 "$what: protection by host a" field_is b state protected
    hosts_kill "$prefix" b 2>/dev/null
    await 10 "$what: host a to take over" field_is a guest_here true
    [ "$(ask_guest next)" = $((before + 2)) ] || fail "$what: the counter did not go on after the kill"
    echo "ok: $what"
    hosts_down "$prefix"
    rm -f "$work"/*.log
}

MACHINE=q35 MEMORY=size=256M shape "q35, VGA, two processors, a second NIC on a user netdev" -- \
    -smp 2 -vga std -netdev user,id=n1 -device e1000,netdev=n1
MACHINE=pc MEMORY=0.25G shape "pc, a size with a fraction, a read-only CD" -- -cdrom "$GUEST/initrd.img"
MACHINE=pc MEMORY=262144K NIC=virtio-net-pci,disable-modern=on shape "pc, legacy virtio, two processors, a second NIC of another kind, random numbers" -- \
    -smp cpus=2,cores=2 -netdev user,id=n2 -device rtl8139,netdev=n2 -device virtio-rng-pci
MACHINE=q35 shape "the userfaultfd tracker" --tracker uffd
pair_leftovers
