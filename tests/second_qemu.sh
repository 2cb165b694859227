#!/usr/bin/env bash
# Runs a test with the QEMU that UNDERSTUDY_QEMU2 names; scripts/second-qemu.sh fetches one. Skips where it is not set.
#   second_qemu.sh COMMAND...
set -euo pipefail
if [ -z "${UNDERSTUDY_QEMU2:-}" ]; then
    echo "SKIPPED: no second QEMU: set UNDERSTUDY_QEMU2 to its program, for example to what scripts/second-qemu.sh prints" >&2
    exit 77
fi
[ -x "$UNDERSTUDY_QEMU2" ] || { echo "UNDERSTUDY_QEMU2: $UNDERSTUDY_QEMU2 is no program" >&2; exit 1; }
"$UNDERSTUDY_QEMU2" --version | head -n 1
UNDERSTUDY_QEMU=$UNDERSTUDY_QEMU2 exec "$@"
