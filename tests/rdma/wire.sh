#!/usr/bin/env bash
# Two soft-RoCE devices on the two ends of a veth pair, in one network namespace (Linux 6.1's rdma_rxe knows no other), with
# rules that send what goes from one address to the other over the wire instead of through the loopback. To be
# sourced, or run:
#   wire.sh make | down | up | loss | silence | mute | clean | gone SIDE | back
# a: 10.77.0.1 on rep-a, b: 10.77.0.2 on rep-b; fd00:77::1 and fd00:77::2.
set -euo pipefail

wire_make() {
    ip link add rep-a type veth peer name rep-b
    local side address other table=101
    for side in a b; do
        address=10.77.0.$([ $side = a ] && echo 1 || echo 2)
        other=10.77.0.$([ $side = a ] && echo 2 || echo 1)
        ip addr add "$address/24" dev rep-$side
        ip -6 addr add "fd00:77::${address##*.}/64" dev rep-$side nodad
        ip link set rep-$side up mtu 9000
        sysctl -qw net.ipv4.conf.rep-$side.accept_local=1 net.ipv4.conf.rep-$side.rp_filter=0 \
            net.ipv4.conf.rep-$side.arp_ignore=1 net.ipv4.conf.rep-$side.arp_announce=2
        ip rule add pref 10 iif lo to "$other" from "$address" lookup $table
        ip rule add pref 11 iif lo to "$other" lookup $table # who has no source address yet
        ip route add "$other/32" dev rep-$side src "$address" table $table
        table=102
    done
    # Each end takes its packets on one processor. On whichever the sender happens to be they would overtake each other, as on no real
    # wire, and an RDMA device takes that for loss and sends again.
    echo 1 >/sys/class/net/rep-a/queues/rx-0/rps_cpus
    echo 2 >/sys/class/net/rep-b/queues/rx-0/rps_cpus
    # The local table comes after these rules.
    ip rule add pref 100 lookup local
    ip rule del pref 0
    sysctl -qw net.ipv4.conf.all.rp_filter=0
    wire_neighbours
    wire_back
}
# Nobody has to ask who has an address.
wire_neighbours() {
    ip neigh replace 10.77.0.2 lladdr "$(cat /sys/class/net/rep-b/address)" nud permanent dev rep-a
    ip neigh replace 10.77.0.1 lladdr "$(cat /sys/class/net/rep-a/address)" nud permanent dev rep-b
}
wire_back() {
    local side
    for side in a b; do
        [ -e /sys/class/infiniband/rxe-$side ] || rdma link add rxe-$side type rxe netdev rep-$side
    done
}
wire_gone() { rdma link del "rxe-$1"; }
wire_down() { ip link set rep-b down; }
wire_up() {
    ip link set rep-b up
    # Routes go with the link.
    ip route replace 10.77.0.1/32 dev rep-b src 10.77.0.2 table 102
    wire_neighbours
    ip -6 addr add fd00:77::2/64 dev rep-b nodad 2>/dev/null || true
}
wire_loss() {
    tc qdisc replace dev rep-a root netem loss 0.5%
    tc qdisc replace dev rep-b root netem loss 0.5%
}
wire_silence() {
    tc qdisc replace dev rep-a root netem loss 100%
    tc qdisc replace dev rep-b root netem loss 100%
}
# RDMA's packets are lost, both ways, and no others.
wire_mute() {
    local side
    for side in a b; do
        tc qdisc replace dev rep-$side root handle 1: prio bands 2 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
        tc qdisc add dev rep-$side parent 1:2 handle 20: netem loss 100%
        tc filter add dev rep-$side parent 1: protocol ip u32 match ip protocol 17 0xff match ip dport 4791 0xffff flowid 1:2
    done
}
wire_clean() {
    tc qdisc del dev rep-a root 2>/dev/null || true
    tc qdisc del dev rep-b root 2>/dev/null || true
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    "wire_${1:?usage: wire.sh make|down|up|loss|silence|mute|clean|gone SIDE|back}" "${@:2}"
fi
