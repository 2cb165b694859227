#!/usr/bin/env bash
# The install target: every file in its place, programs that run from there, manual pages without warnings, units that systemd
# takes, a completion that knows every option, and nothing that only tests want. What programs say of their options has to be in the
# pages and the completion.
#   install.sh BUILD PREFIX
set -euo pipefail
build=$1 prefix=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

DESTDIR=$work/root cmake --install "$build" >"$work/log" || fail "cmake --install: $(tail -n 3 "$work/log")"
root=$work/root$prefix
for file in bin/understudy sbin/understudyd libexec/understudy/understudy-replicator libexec/understudy/nbdkit-understudy-plugin.so \
    share/man/man1/understudy.1 share/man/man1/nbdkit-understudy-plugin.1 share/man/man8/understudyd.8 \
    share/bash-completion/completions/understudy lib/systemd/system/understudyd.service lib/systemd/system/understudy-drain.service; do
    [ -f "$root/$file" ] || fail "$file is not installed"
done
[ -n "$(find "$root" -name libunderstudy-qemu.so)" ] || fail "the hook is not installed"
[ -z "$(find "$root" -name '*chaos*')" ] || fail "what has planted faults is installed: $(find "$root" -name '*chaos*')"
# Environment variables that installed code obeys. Planted faults, and whatever else only tests want, are for the chaos builds.
known=" UNDERSTUDY_RUN_DIR UNDERSTUDY_HOOK "
# And the beginnings of field names in the journal of systemd.
known+=" UNDERSTUDY_EVENT UNDERSTUDY_VM UNDERSTUDY_ "
while read -r program name; do
    [[ $known == *" $name "* ]] || fail "$program holds the name $name: what only tests want must not be installed"
done < <(cd "$root" && find . -type f \( -perm -u+x -o -name '*.so*' \) -print0 | xargs -0 grep -aoE '\bUNDERSTUDY_[A-Z][A-Z_]*' | sort -u | tr ':' ' ')
grep -qa UNDERSTUDY_RUN_DIR "$root/bin/understudy" || fail "the look at the programs' variables sees nothing"
"$root/bin/understudy" version >/dev/null || fail "understudy does not run"
"$root/sbin/understudyd" --version >/dev/null || fail "understudyd does not run"

for page in "$root"/share/man/man?/*; do
    warnings=$(groff -t -man -ww -Tutf8 -z "$page" 2>&1)
    [ -z "$warnings" ] || fail "$warnings"
done

# options PROGRAM WORDS...: the long options that its help lists.
options() { "$@" --help | grep -oE -- '--[a-z][a-z-]+' | sort -u | grep -vxE -- '--help(-all|-gapplication)?'; }
in_page() { grep -q -- "$2" <<<"$(sed 's/\\-/-/g' "$root/share/man/$1")" || fail "$1 does not have $2"; }
for command in run status failover events pair trust doctor; do
    for option in $(options "$root/bin/understudy" $command); do
        in_page man1/understudy.1 "$option"
        grep -q -- "$option\\b" "$root/share/bash-completion/completions/understudy" || fail "the completion of $command does not have $option"
    done
done
for option in $(options "$root/sbin/understudyd"); do
    in_page man8/understudyd.8 "$option"
done

# complete WORDS...: what bash would offer for the last one.
complete_as() {
    bash -c '
        source "$0"
        understudy() { printf "%s\n" "NAME ROLE" "web primary" "  disk root" "db secondary"; }
        COMP_WORDS=(understudy "$@") COMP_CWORD=$#
        _understudy
        echo "${COMPREPLY[*]}"' "$root/share/bash-completion/completions/understudy" "$@"
}
completes() {
    local wanted=$1 got
    shift
    got=$(complete_as "$@")
    [ "$got" = "$wanted" ] || fail "completing '$*' gives '$got', not '$wanted'"
}
completes "status stop" st
completes "status stop" --run-dir /x st
completes "auto rdma tcp" run --transport ""
completes "hold" run --on-peer-loss = h
completes "--tracker --transport" run --tr
completes "web" failover w
completes "--yes --no-wait --help web db" stop ""
completes "$here/install.sh" run --peer h -- qemu-system-x86_64 -kernel "$here/inst"

if command -v systemd-analyze >/dev/null; then
    for unit in understudyd understudy-drain; do
        sed "s#$prefix/\(s\?bin\)#$root/\1#; /^Documentation=/d" "$root/lib/systemd/system/$unit.service" >"$work/$unit.service"
    done
    for unit in understudyd understudy-drain; do
        said=$(systemd-analyze verify "$work/$unit.service" 2>&1) || fail "$said"
        [ -z "$said" ] || fail "$said"
    done
else
    echo "no systemd-analyze: the units were not verified"
fi
echo "install: complete"
