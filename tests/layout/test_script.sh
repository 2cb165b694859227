#!/usr/bin/env bash
# What ./test.sh does with its options, with scripts that only write down how they are called in the place of the
# packages, the build and the tests.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bad=0
mkdir "$dir/bin" "$dir/scripts"
cp "$top/test.sh" "$dir"
for program in bin/cmake bin/ctest scripts/install-deps.sh; do
    # shellcheck disable=SC2016 # for the script that is made
    printf '#!/bin/sh\necho "${0##*/}" "$@" >>"%s/calls"\n' "$dir" >"$dir/$program"
    chmod +x "$dir/$program"
done

# check WHAT EXPECTED OPTIONS...: the calls of ctest and of the packages' script, and the value of SOAK.
check() {
    local what=$1 expected=$2 calls
    shift 2
    : >"$dir/calls"
    if ! PATH=$dir/bin:$PATH "$dir/test.sh" "$@" >"$dir/out" 2>&1; then
        echo "test_script: $what: it failed:" >&2
        cat "$dir/out" >&2
        bad=1
    fi
    calls=$(sed -nE 's/.*(-DUNDERSTUDY_SOAK=.*)/\1/p; s/^ctest .* -j [0-9]+ ?/ctest /p; /^install-deps/p' "$dir/calls" | paste -sd ';')
    if [ "$calls" != "$expected" ]; then
        echo "test_script: $what: '$calls' instead of '$expected'" >&2
        bad=1
    fi
}

for help in --help -h; do
    check "$help starts nothing" "" $help
    grep -q '^usage: ./test.sh' "$dir/out" || { echo "test_script: $help prints no usage" >&2; bad=1; }
done
check "--help behind other options starts nothing" "" -L unit --help
check "without options all tests run" "install-deps.sh;-DUNDERSTUDY_SOAK=OFF;ctest "
check "other options are ctest's" "install-deps.sh;-DUNDERSTUDY_SOAK=OFF;ctest -R a b --verbose" -R "a b" --verbose
check "options of its own may stand behind those of ctest" "-DUNDERSTUDY_SOAK=ON;ctest -L unit" -L unit --soak --no-install
exit $bad
