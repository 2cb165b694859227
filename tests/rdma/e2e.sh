#!/usr/bin/env bash
# A boot-sector guest protected over RDMA, in a machine of its own (tests/rdma/vm.sh) or on a real device: first
# RDMA's packets are lost until the connection breaks, then the standby's device is taken out and put back, and each time protection comes
# back by itself; then its host is killed, the other takes over, the counters are exact, and protection comes back, over RDMA again.
#   e2e.sh BUILD [KILLS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ -n "${UNDERSTUDY_RDMA_REAL:-}" ] || export DISTURB="mute gone"
export ACCEL=tcg PATIENCE=10 POLL_S=1 HOSTS="$here/hosts.sh" TRANSPORT=rdma
# Emulation inside an emulation is slow: longer epochs, and more time before a host counts as dead, a third of it where a link was closed.
export RUN_OPTIONS="--transport rdma --epoch-ms 200 --deadline-ms 1000 --silence-ms 10000 --heartbeat-ms 100"
exec "$here/../failover/counters.sh" "$1" unused "${2:-2}"
