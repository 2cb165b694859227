#!/usr/bin/env bash
# Installs what understudy needs, from Debian 12's own packages, and only what is missing.
#   scripts/install-deps.sh        to build, run and test
#   scripts/install-deps.sh --missing   install nothing: print what is missing for that
#   scripts/install-deps.sh --ci   also the linters, the fuzzer and the sanitizers' clang
#   scripts/install-deps.sh --real    also what tests/real needs to make a Debian guest
#   scripts/install-deps.sh --bench   also what the benchmarks compare with
set -euo pipefail

packages=(
    # build
    gcc libc6-dev cmake ninja-build pkg-config ccache
    libglib2.0-dev libjansson-dev libprotobuf-c-dev protobuf-c-compiler liburcu-dev libisal-dev libsystemd-dev libcmocka-dev libibverbs-dev librdmacm-dev libgnutls28-dev libnl-route-3-dev
    nbdkit-plugin-dev libnbd-dev
    # run
    qemu-system-x86 qemu-utils nbdkit libnbd-bin seabios ipxe-qemu ibverbs-providers iproute2 jq socat
    # the test guest
    busybox-static cpio kmod binutils procps xz-utils
    # tests of what the network carries
    tcpdump
    # tests of disks
    e2fsprogs fuse3
    # the model checker, and the look at the manual pages
    spin groff-base
)
if [ "${1:-}" = --bench ]; then
    packages+=(perftest iperf3 fio)
fi
if [ "${1:-}" = --real ]; then
    packages+=(debootstrap)
fi
if [ "${1:-}" = --ci ]; then
    packages+=(clang clang-format clang-tidy cppcheck libclang-rt-14-dev mold shellcheck git systemd)
fi

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "${1:-}" = --missing ]; then
    # Elsewhere than on Debian nobody knows what is installed.
    ! command -v dpkg-query >/dev/null || echo "${missing[*]}"
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "install-deps: this script knows Debian's apt-get only; install these yourself: ${missing[*]}" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install-deps: become root to install: ${missing[*]}" >&2
    exit 1
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
