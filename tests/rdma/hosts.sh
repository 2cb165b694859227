#!/usr/bin/env bash
# The functions of tests/net/hosts.sh for a machine whose RDMA devices know one network namespace only: two hosts are two control
# groups with a /run/understudy of their own, joined by the wire of tests/rdma/wire.sh. To be sourced, in tests/rdma/vm.sh only.
rdma_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

hosts_group() { echo "/sys/fs/cgroup/$1-$2"; }

hosts_up() {
    local h
    hosts_down "$1"
    for h in a b; do
        mkdir -p "$(hosts_group "$1" $h)"
    done
    [ -e /sys/class/net/rep-a ] || "$rdma_folder/wire.sh" make
}

hosts_exec() {
    local group run
    group=$(hosts_group "$1" "$2")
    run=$(hosts_run_dir "$1" "$2")
    shift 2
    # shellcheck disable=SC2016 # the inner shell expands these
    unshare --mount --propagation private sh -c \
        'echo $$ >"$0/cgroup.procs" && mkdir -p /run/understudy && mount --bind "$1" /run/understudy && shift && exec "$@"' \
        "$group" "$run" "$@"
}

hosts_kill() {
    # Not by taking the link down: the kernel would tell the other side at once.
    [ "${3:-}" != quiet ] || "$rdma_folder/wire.sh" silence
    [ ! -e "$(hosts_group "$1" "$2")" ] || echo 1 >"$(hosts_group "$1" "$2")/cgroup.kill"
}

hosts_links_up() { "$rdma_folder/wire.sh" clean; }

hosts_down() {
    local h group
    for h in a b; do
        group=$(hosts_group "$1" $h)
        [ -e "$group" ] || continue
        hosts_kill "$1" $h
        until rmdir "$group" 2>/dev/null; do sleep 0.05; done
    done
    rm -rf "/run/us-$1"
}
