#!/usr/bin/env bash
# Runs a test with another QEMU than the installed one: the one that UNDERSTUDY_QEMU2 (second) or UNDERSTUDY_QEMU3 (third)
# names. scripts/second-qemu.sh fetches both. Skips where the variable is not set.
#   other_qemu.sh second|third COMMAND...
set -euo pipefail
which=$1
shift
case $which in
second) name=UNDERSTUDY_QEMU2 version=10.0 ;;
third) name=UNDERSTUDY_QEMU3 version=11.1 ;;
*) echo "usage: other_qemu.sh second|third COMMAND..." >&2 && exit 2 ;;
esac
program=${!name:-}
if [ -z "$program" ]; then
    echo "SKIPPED: no $which QEMU: set $name to its program, for example to what 'scripts/second-qemu.sh DIR $version' prints" >&2
    exit 77
fi
[ -x "$program" ] || { echo "$name: $program is no program" >&2; exit 1; }
"$program" --version | head -n 1
UNDERSTUDY_QEMU=$program exec "$@"
