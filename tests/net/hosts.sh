#!/usr/bin/env bash
# Two hosts and a client as network namespaces, joined by a bridge in a namespace of its own. To be sourced, or run:
#   hosts.sh up PREFIX | down PREFIX | exec PREFIX HOST COMMAND... | kill PREFIX HOST [quiet]
# HOST is a, b or client. Addresses: a 10.77.0.1, b 10.77.0.2, client 10.77.0.100; the guest is expected at 10.77.0.10.
# Hosts a and b have a bridge br0 with their uplink and a tap device tap0 for the guest, and a mount namespace of their own
# with /run/understudy, /var/lib/understudy, /etc/understudy and, for disk images, /srv of their own, so that two daemons with default
# settings do not meet.
# A second, direct link joins a (10.78.0.1) and b (10.78.0.2) for replication.

hosts_netns() { echo "$1-$2"; }

hosts_up() {
    local p=$1 h
    hosts_down "$p"
    for h in sw a b client; do
        ip netns add "$p-$h"
        ip -n "$p-$h" link set lo up
    done
    ip -n "$p-sw" link add sw0 type bridge stp_state 0 forward_delay 0
    ip -n "$p-sw" link set sw0 up
    for h in a b client; do
        ip -n "$p-sw" link add "to-$h" type veth peer name up0 netns "$p-$h"
        ip -n "$p-sw" link set "to-$h" master sw0 up
        ip -n "$p-$h" link set up0 up
    done
    ip -n "$p-client" addr add 10.77.0.100/24 dev up0
    hosts_add_guest_bridge "$p-a" 10.77.0.1/24
    hosts_add_guest_bridge "$p-b" 10.77.0.2/24
    ip -n "$p-a" link add repl0 type veth peer name repl0 netns "$p-b"
    ip -n "$p-a" addr add 10.78.0.1/24 dev repl0
    ip -n "$p-b" addr add 10.78.0.2/24 dev repl0
    ip -n "$p-a" link set repl0 up
    ip -n "$p-b" link set repl0 up
}

hosts_add_guest_bridge() {
    local ns=$1 address=$2
    ip -n "$ns" link add br0 type bridge stp_state 0 forward_delay 0
    ip -n "$ns" link set up0 master br0
    ip -n "$ns" tuntap add tap0 mode tap
    ip -n "$ns" link set tap0 master br0 up
    ip -n "$ns" addr add "$address" dev br0
    ip -n "$ns" link set br0 up
}

# Runs a command on a host. Long-running ones: put "&" after it; they die with hosts_down. Refuses to run where the host
# cannot have its own folders: the daemons of two hosts would meet there.
hosts_exec() {
    local p=$1 h=$2
    shift 2
    # shellcheck disable=SC2016 # the inner shell expands these
    ip netns exec "$p-$h" unshare --mount --propagation private sh -c \
        'mkdir -p /run/understudy /var/lib/understudy /etc/understudy /srv && mount --bind "$0" /run/understudy &&
         mount --bind "$1" /var/lib/understudy && mount --bind "$2" /etc/understudy && mount --rbind "$3" /srv && shift 3 && exec "$@"' \
        "$(hosts_run_dir "$p" "$h")" "$(hosts_state_dir "$p" "$h")" "$(hosts_etc_dir "$p" "$h")" "$(hosts_disk_dir "$p" "$h")" "$@"
}

# Where host h keeps /run/understudy, /var/lib/understudy, /etc/understudy and /srv, seen from outside.
hosts_run_dir() { hosts_dir "$1/$2"; }
hosts_state_dir() { hosts_dir "$1/$2-state"; }
hosts_etc_dir() { hosts_dir "$1/$2-etc"; }
hosts_disk_dir() { hosts_dir "$1/$2-disks"; }
hosts_dir() {
    mkdir -p "/run/us-$1"
    echo "/run/us-$1"
}

# Whether both daemons are there.
hosts_serve() { [ -S "$(hosts_run_dir "$1" a)/control.sock" ] && [ -S "$(hosts_run_dir "$1" b)/control.sock" ]; }
# Pairs hosts a and b, whose daemons are there, by the command UNDERSTUDY. Nothing to do if they trust each other already, or if the command is
# from before there was pairing.
hosts_pair() {
    local p=$1 understudy=$2 code
    [ ! -s "$(hosts_etc_dir "$p" a)/trust" ] || [ ! -s "$(hosts_etc_dir "$p" b)/trust" ] || return 0
    "$understudy" help | grep -q '^  pair ' || return 0
    code=$(hosts_exec "$p" a "$understudy" pair --invite) && hosts_exec "$p" b "$understudy" pair 10.77.0.1 "$code" >/dev/null
}

# The host dies: SIGKILL to everything in it; returns when nothing of it lives. "quiet": without a farewell. Its processes are stopped, so that
# none acts on the links' loss, then the links go, and then the processes.
hosts_kill() {
    local p=$1 h=$2
    if [ "${3:-}" = quiet ]; then
        hosts_signal "$p" "$h" STOP || true
        ip -n "$p-$h" link set up0 down
        ip -n "$p-$h" link set repl0 down 2>/dev/null || true
    fi
    # Again for what was born meanwhile, and for what dies slowly on a busy machine.
    for _ in {1..200}; do
        hosts_signal "$p" "$h" KILL || return 0
        sleep 0.01
    done
    echo "hosts.sh: these processes of $p-$h do not die: $(ip netns pids "$p-$h")" >&2
}

# One call for all processes: the signal reaches them together. False: there were none.
hosts_signal() {
    local pids
    pids=$(ip netns pids "$1-$2" 2>/dev/null) || true
    # shellcheck disable=SC2086 # a list of numbers
    [ -n "$pids" ] && { kill "-$3" $pids 2>/dev/null || true; }
}

# What a quiet kill took down.
hosts_links_up() {
    ip -n "$1-$2" link set up0 up
    ip -n "$1-$2" link set repl0 up
}

# Removes the hosts, what runs in them, and their files. Safe to call at any time, and twice.
hosts_down() {
    local p=$1 h
    for h in a b client sw; do
        [ -e "/run/netns/$p-$h" ] || continue
        hosts_kill "$p" "$h"
        ip netns del "$p-$h" 2>/dev/null || true
    done
    # What a test mounted for its hosts, the last one first.
    for h in $(awk -v under="/run/us-$p/" 'index($2, under) == 1 {print $2}' /proc/mounts | tac); do
        umount -l "$h"
    done
    rm -rf "/run/us-$p"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    action=${1:?usage: hosts.sh up|down|exec|kill PREFIX ...}
    shift
    "hosts_$action" "$@"
fi
