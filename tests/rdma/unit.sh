#!/usr/bin/env bash
# The RDMA transport's own tests. unit.sh PROGRAM... With UNDERSTUDY_RDMA_REAL the device is there; otherwise two soft ones
# are made: only for tests/rdma/vm.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${UNDERSTUDY_RDMA_REAL:-}" ]; then
    "$here/wire.sh" make
    export UNDERSTUDY_RDMA_LISTEN=10.77.0.2 UNDERSTUDY_RDMA_LISTEN6=fd00:77::2 UNDERSTUDY_RDMA_LINK="$here/wire.sh"
fi
status=0
for program in "$@"; do
    "$program" || status=$?
done
exit $status
