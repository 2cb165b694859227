#!/usr/bin/env bash
# Installs, builds and runs all tests; usage below.
set -euo pipefail
cd "$(dirname "$0")"
usage() {
    cat <<'END'
usage: ./test.sh [OPTIONS] [CTEST-OPTIONS]
Installs packages, builds, and runs all tests. Other options go to ctest, for example: ./test.sh -L unit
  --no-install   leave the packages alone
  --soak         more kills, and every test with every QEMU (docs/testing.md); without it a bounded sample
  --help         print this
END
}
install=1 soak=OFF ctest_options=()
for option; do
    case $option in
    --no-install) install=0 ;;
    --soak) soak=ON ;;
    --help | -h) usage; exit 0 ;;
    *) ctest_options+=("$option") ;;
    esac
done
[ $install -eq 0 ] || scripts/install-deps.sh
cmake --preset release -DUNDERSTUDY_SOAK=$soak >/dev/null
cmake --build --preset release -- --quiet
# Tests in which a host may be taken for dead run alone (RUN_SERIAL), the others side by side.
exec ctest --test-dir build/release --output-on-failure -j "$(nproc)" "${ctest_options[@]}"
