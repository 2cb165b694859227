#!/usr/bin/env bash
# A test over RDMA: directly on the device that UNDERSTUDY_RDMA_DEV names (one whose port has an IPv4 address), or over soft-RoCE
# in a machine of its own.   run.sh FOLDER SECONDS SCRIPT ARGS...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1 seconds=$2
shift 2
if [ -z "${UNDERSTUDY_RDMA_DEV:-}" ]; then
    exec "$here/vm.sh" "$folder" "$seconds" "$@"
fi
netdev=$(rdma link show "$UNDERSTUDY_RDMA_DEV/1" 2>/dev/null | sed -n 's/.* netdev \([^ ]*\).*/\1/p')
address=$(ip -4 -o addr show dev "${netdev:-none}" 2>/dev/null | awk '{sub("/.*", "", $4); print $4; exit}')
[ -n "$address" ] || { echo "run.sh: RDMA device $UNDERSTUDY_RDMA_DEV has no network device with an IPv4 address" >&2; exit 1; }
export UNDERSTUDY_RDMA_LISTEN=$address UNDERSTUDY_RDMA_REAL=1
exec timeout "$seconds" "$@"
