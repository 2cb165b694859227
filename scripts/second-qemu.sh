#!/usr/bin/env bash
# Fetches the QEMU of Debian 12's backports (10.0) into a folder, beside the one that is installed, and prints its program's
# path. Nothing is installed and apt's own lists are left alone. Its libraries must be there: those of Debian 12's QEMU do.
#   second-qemu.sh DIR
set -euo pipefail
dir=${1:?usage: second-qemu.sh DIR}
mkdir -p "$dir"
dir=$(realpath "$dir")
program=$dir/root/usr/bin/qemu-system-x86_64
packages=(qemu-system-common qemu-system-data qemu-system-x86 seabios)
say_program() {
    "$program" --version >/dev/null || { echo "second-qemu: $program does not run here" >&2; exit 1; }
    echo "$program"
}
[ ! -x "$program" ] || { say_program; exit 0; }

# Where this machine gets its packages, so that a mirror is used here too.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
mkdir -p "$dir"/apt/{lists,cache/archives}/partial "$dir/debs"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} bookworm-backports main" >"$dir/apt/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$dir/apt/lists"
    -o "Dir::Cache=$dir/apt/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update >&2
(cd "$dir/debs" && "${apt[@]}" -t bookworm-backports download "${packages[@]}") >&2
mkdir -p "$dir/fresh"
for deb in "$dir"/debs/*.deb; do
    dpkg-deb --extract "$deb" "$dir/fresh"
done
mv "$dir/fresh" "$dir/root"
rm -rf "$dir/debs" "$dir/apt"
say_program
