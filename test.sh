#!/usr/bin/env bash
# Installs, builds and runs all tests. Arguments go to ctest, for example: ./test.sh -L unit
#   --no-install   leave the packages alone
#   --soak         more kills, and every test with every QEMU (docs/testing.md); without it a bounded sample
set -euo pipefail
cd "$(dirname "$0")"
install=1 soak=OFF
while :; do
    case "${1:-}" in
    --no-install) install=0 ;;
    --soak) soak=ON ;;
    *) break ;;
    esac
    shift
done
[ $install -eq 0 ] || scripts/install-deps.sh
cmake --preset release -DUNDERSTUDY_SOAK=$soak >/dev/null
cmake --build --preset release -- --quiet
# Tests in which a host may be taken for dead run alone (RUN_SERIAL), the others side by side.
exec ctest --test-dir build/release --output-on-failure -j "$(nproc)" "$@"
