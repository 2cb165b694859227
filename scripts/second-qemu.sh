#!/usr/bin/env bash
# Fetches another QEMU than the installed one into a folder and prints its program's path. Nothing is installed, and apt's own
# lists are left alone. A folder that holds one already is used as it is.
#   second-qemu.sh DIR [10.0|11.1]
# 10.0 is the one of Debian 12's backports (the default): its libraries must be installed, and those of Debian 12's QEMU are
# enough. 11.1 is the one of Debian 13's backports: it comes with all of its libraries, and starts through their loader.
set -euo pipefail
usage="usage: second-qemu.sh DIR [10.0|11.1]"
dir=${1:?$usage}
which=${2:-10.0}
case $which in
10.0) release=bookworm suites=(bookworm-backports) ;;
11.1) release=trixie suites=(trixie trixie-backports) ;;
*) echo "second-qemu: no QEMU is known as '$which'; $usage" >&2 && exit 2 ;;
esac
mkdir -p "$dir"
dir=$(realpath "$dir")
program=$dir/root/usr/bin/qemu-system-x86_64
say_program() {
    local says
    says=$("$program" --version) || { echo "second-qemu: $program does not run here" >&2; exit 1; }
    [[ $says == "QEMU emulator version $which."* ]] ||
        { echo "second-qemu: $program is ${says%%$'\n'*}, not $which: remove $dir, and it is fetched again" >&2; exit 1; }
    echo "$program"
}
[ ! -x "$program" ] || { say_program; exit 0; }

# Where this machine gets its packages: a mirror is used here too.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
[ -n "$mirror" ] || { echo "second-qemu: apt knows no source of Debian 12 here: run 'apt-get update' first" >&2; exit 1; }
rm -rf "$dir"/{apt,debs,fresh}
mkdir -p "$dir"/apt/{lists,cache/archives}/partial "$dir/debs" "$dir/fresh"
for suite in "${suites[@]}"; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done >"$dir/apt/sources.list"
options=(-qq -o "Dir::Etc::sourcelist=$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$dir/apt/lists"
    -o "Dir::Cache=$dir/apt/cache" -o APT::Sandbox::User=root -t "$release-backports")
apt-get "${options[@]}" update >&2
if [ "$which" = 10.0 ]; then
    (cd "$dir/debs" && apt-get "${options[@]}" download qemu-system-common qemu-system-data qemu-system-x86 seabios) >&2
else
    # A machine with no package installed needs all that QEMU stands on, down to the C library.
    : >"$dir/apt/status"
    apt-get "${options[@]}" -o "Dir::State::status=$dir/apt/status" -o "Dir::Cache::archives=$dir/debs" --yes --download-only \
        --no-install-recommends install qemu-system-x86 patchelf >&2
fi
for deb in "$dir"/debs/*.deb; do
    dpkg-deb --extract "$deb" "$dir/fresh"
done
if [ "$which" = 11.1 ]; then
    # The program names its own loader and libraries, and a line before it names its firmware: it would look in this machine's.
    fresh=$dir/fresh/usr/lib/x86_64-linux-gnu
    libraries=$dir/root/usr/lib/x86_64-linux-gnu
    own=usr/lib/understudy-own/qemu-system-x86_64
    mkdir "$dir/fresh/${own%/*}"
    "$fresh/ld-linux-x86-64.so.2" --library-path "$fresh" "$dir/fresh/usr/bin/patchelf" \
        --set-interpreter "$libraries/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$libraries" \
        --output "$dir/fresh/$own" "$dir/fresh/usr/bin/qemu-system-x86_64" >&2
    data=$dir/root/usr/share
    printf '#!/bin/sh\nexec "%s" -L "%s/qemu" -L "%s/seabios" "$@"\n' "$dir/root/$own" "$data" "$data" \
        >"$dir/fresh/usr/bin/qemu-system-x86_64"
fi
mv "$dir/fresh" "$dir/root"
rm -rf "$dir/debs" "$dir/apt"
say_program
