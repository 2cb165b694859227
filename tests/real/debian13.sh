#!/usr/bin/env bash
# understudy on Debian 13: a fresh Debian 13 in a folder, where what is committed of this tree is built, all unit tests run, and a
# guest is taken over (try.sh). This machine's own packages are left alone.
#   tests/real/debian13.sh [--dir DIR] [--no-install]
#   --dir DIR       keep the Debian there, and use what is there already (a temporary folder)
#   --no-install    leave this machine's packages alone: debootstrap is there
# It takes a quarter of an hour or more: packages, a build without a cache, tests. Network namespaces and processes are its own, and end with it.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/real/fresh.sh
. tests/real/fresh.sh
# shellcheck disable=SC2154 # dir and temporary are fresh.sh's
[ -z "$temporary" ] || trap 'rm -rf --one-file-system "$temporary"' EXIT
fresh_debian trixie
# The settings of this machine's apt that say how to reach its mirror hold there too.
cp -r /etc/apt/apt.conf.d/. "$dir/root/etc/apt/apt.conf.d/"
cp -L /etc/resolv.conf "$dir/root/etc/resolv.conf" 2>/dev/null || true

say "this tree, as it is committed, into it"
rm -rf "$dir/root/understudy"
git clone --quiet --no-hardlinks . "$dir/root/understudy"

say "build, unit tests, takeover"
# Mounts, processes and namespaces made there vanish with the first process.
unshare --mount --propagation private --pid --fork --kill-child bash -c '
    set -euo pipefail
    root=$1
    mount --bind "$root" "$root" # ip netns exec wants / to be a mount
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 bash -c "
        set -euo pipefail
        cd /understudy
        scripts/install-deps.sh
        # Tests of documents and layout ask git which files there are.
        command -v git >/dev/null || apt-get install -y -qq --no-install-recommends git >/dev/null
        git config --global --replace-all safe.directory /understudy
        . /etc/os-release
        echo \"\$PRETTY_NAME: \$(qemu-system-x86_64 --version | head -n 1); \$(nbdkit --version); \$(cc --version | head -n 1)\"
        ./test.sh --no-install -L unit
        ./try.sh --no-install
    "
' debian13 "$dir/root"
say "Debian 13: built, unit tests passed, a guest was taken over"
