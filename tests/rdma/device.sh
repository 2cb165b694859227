#!/usr/bin/env bash
# What a machine with a real RDMA device runs: a machine of its own (tests/rdma/vm.sh) gets one soft-RoCE device, whose port has an
# address, and the tests are told nothing but its name, by UNDERSTUDY_RDMA_DEV: the transport's own, and one kill.
#   device.sh BUILD PROGRAM...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$1
shift
# One end of a pair of cables, so that the port is up.
ip link add roce0 type veth peer name roce0-switch
ip link set roce0-switch up mtu 9000
ip link set roce0 up mtu 9000
ip addr add 192.0.2.1/24 dev roce0
rdma link add rxe0 type rxe netdev roce0
export UNDERSTUDY_RDMA_DEV=rxe0
"$here/run.sh" "$build/rdma" 300 "$here/unit.sh" "$@"
exec "$here/run.sh" "$build/rdma" 300 "$here/e2e.sh" "$build" 1
