#!/usr/bin/env bash
# What tests in a fresh Debian have in common. To be sourced by a script in this folder, with its arguments, from the top of the tree. Takes the
# options --dir, --no-install and --help (which prints the script's first comment, from its command on), installs packages, and sets:
#   dir         the folder for the Debian
#   temporary   the same if it has to be removed at the end, otherwise empty
usage() { sed -n '/^#  *tests\/real/,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }
dir="" temporary="" install=1 name=${0##*/}
while [ $# -gt 0 ]; do
    case "$1" in
    --dir) dir=${2:?--dir needs a folder}; shift ;;
    --no-install) install=0 ;;
    --help | -h) usage; exit 0 ;;
    *) echo "$name: unknown option $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || { echo "$name: become root: it makes a root of Debian and namespaces" >&2; exit 1; }
say() { echo "== [$SECONDS s] $*"; }
[ $install -eq 0 ] || scripts/install-deps.sh --real
[ -n "$dir" ] || temporary=$(mktemp -d)
dir=${dir:-$temporary}
mkdir -p "$dir"
dir=$(realpath "$dir")

# fresh_debian RELEASE [OPTION...]: makes the Debian in $dir/root by debootstrap, with these options, from where this machine's apt has its
# packages. One that was made before is kept.
fresh_debian() {
    local release=$1 mirror
    shift
    [ ! -e "$dir/made" ] || return 0
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
    [ -n "$mirror" ] || { echo "$name: apt knows no source of Debian here: run 'apt-get update' first" >&2; exit 1; }
    say "Debian ($release) into $dir"
    debootstrap --variant=minbase "$@" "$release" "$dir/root" "$mirror" >"$dir/debootstrap.log" 2>&1 || { tail -n 20 "$dir/debootstrap.log" >&2; exit 1; }
    touch "$dir/made"
}
