#!/usr/bin/env bash
# The functions of tests/net/hosts.sh for a machine whose RDMA devices know one network namespace only: two hosts are two control
# groups with folders of their own, joined by the wire of tests/rdma/wire.sh; or, with UNDERSTUDY_RDMA_REAL, by the device
# UNDERSTUDY_RDMA_DEV alone, whose network device gets their addresses for the time being. To be sourced, as root.
rdma_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

rdma_netdev() { rdma link show "$UNDERSTUDY_RDMA_DEV/1" | sed -n 's/.* netdev \([^ ]*\).*/\1/p'; }
# rdma_wire WORD...: see tests/rdma/wire.sh; a real wire is left alone.
rdma_wire() { [ -n "${UNDERSTUDY_RDMA_REAL:-}" ] || "$rdma_folder/wire.sh" "$@"; }

hosts_group() { echo "/sys/fs/cgroup/$1-$2"; }

hosts_up() {
    local h
    hosts_down "$1"
    for h in a b; do
        mkdir -p "$(hosts_group "$1" $h)"
    done
    if [ -n "${UNDERSTUDY_RDMA_REAL:-}" ]; then
        ip addr replace 10.77.0.1/24 dev "$(rdma_netdev)"
        ip addr replace 10.77.0.2/24 dev "$(rdma_netdev)"
    elif [ ! -e /sys/class/net/rep-a ]; then
        "$rdma_folder/wire.sh" make
    fi
}

hosts_exec() {
    local p=$1 h=$2
    shift 2
    # shellcheck disable=SC2016 # the inner shell expands these
    unshare --mount --propagation private sh -c \
        'echo $$ >"$0/cgroup.procs" && mkdir -p /run/understudy /var/lib/understudy /etc/understudy /srv && mount --bind "$1" /run/understudy &&
         mount --bind "$2" /var/lib/understudy && mount --bind "$3" /etc/understudy && mount --bind "$4" /srv && shift 4 && exec "$@"' \
        "$(hosts_group "$p" "$h")" "$(hosts_run_dir "$p" "$h")" "$(hosts_state_dir "$p" "$h")" "$(hosts_etc_dir "$p" "$h")" \
        "$(hosts_disk_dir "$p" "$h")" "$@"
}

hosts_kill() {
    # Not by taking the link down: the kernel would tell the other side at once.
    [ "${3:-}" != quiet ] || rdma_wire silence
    [ ! -e "$(hosts_group "$1" "$2")" ] || echo 1 >"$(hosts_group "$1" "$2")/cgroup.kill"
}

hosts_links_up() { rdma_wire clean; }

# mute: RDMA's packets are lost, and no others, so that the hosts go on hearing each other's heartbeats. gone: the standby's device is taken
# out, which takes until nobody holds it any more. Not on a real wire.
hosts_disturb() {
    case "$1" in
    gone) rdma_wire gone b ;;
    *) rdma_wire "$1" ;;
    esac
}
hosts_mend() {
    case "$1" in
    gone) rdma_wire back ;;
    *) rdma_wire clean ;;
    esac
}

hosts_down() {
    local h group
    for h in a b; do
        group=$(hosts_group "$1" $h)
        [ -e "$group" ] || continue
        hosts_kill "$1" $h
        until rmdir "$group" 2>/dev/null; do sleep 0.05; done
    done
    if [ -n "${UNDERSTUDY_RDMA_REAL:-}" ]; then
        ip addr del 10.77.0.1/24 dev "$(rdma_netdev)" 2>/dev/null || true
        ip addr del 10.77.0.2/24 dev "$(rdma_netdev)" 2>/dev/null || true
    fi
    rm -rf "/run/us-$1"
}
