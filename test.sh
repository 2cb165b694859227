#!/usr/bin/env bash
# Installs, builds and runs all tests. Arguments go to ctest, for example: ./test.sh -L unit
#   --no-install   leave the packages alone
set -euo pipefail
cd "$(dirname "$0")"
install=1
if [ "${1:-}" = --no-install ]; then
    install=0
    shift
fi
[ $install -eq 0 ] || scripts/install-deps.sh
cmake --preset release >/dev/null
cmake --build --preset release -- --quiet
exec ctest --test-dir build/release --output-on-failure "$@"
