#!/usr/bin/env bash
# What the benchmarks share. To be sourced in the project's folder, once the options are read.

say() { echo "== [$SECONDS s] $*" >&2; }

# The packages, unless `install` is 0, and a release build. BUILD may name one that exists already.
#   prepare_build [OPTIONS OF install-deps.sh]
# shellcheck disable=SC2120 # some benchmarks give it options
prepare_build() {
    [ "${install:-1}" -eq 0 ] || scripts/install-deps.sh "$@"
    if [ -z "${BUILD:-}" ]; then
        cmake --preset release >/dev/null
        cmake --build --preset release -- --quiet
        BUILD=$PWD/build/release
    fi
}

# The same, and a pair of hosts (tests/failover/pair.sh) with a guest in GUEST.
prepare_pair() {
    [ "$(id -u)" -eq 0 ] || { echo "$0: become root: it makes network namespaces" >&2; exit 1; }
    prepare_build
    GUEST=${GUEST:-$PWD/build/guest}
    # shellcheck source=tests/failover/pair.sh
    . tests/failover/pair.sh
    # --against may name a build from before this option.
    # shellcheck disable=SC2034 # pair.sh's
    grep -q -e --qemu <<<"$("$BUILD/daemon/understudyd" --help)" || daemon_qemus=()
}
