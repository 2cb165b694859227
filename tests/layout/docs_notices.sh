#!/usr/bin/env bash
# scripts/check-docs.sh must complain: a long line, a link to nothing, and names of files, tests, labels and variables
# that do not exist. And it must be content with what is right.
set -euo pipefail
script=$(dirname "$0")/../../scripts/check-docs.sh
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{scripts,docs,build}
cp "$script" "$tree/scripts/"
git -C "$tree" init -q
echo '# A page' >"$tree/docs/page.md"
echo 'int main(void) { return getenv("UNDERSTUDY_REAL") == 0; }' >"$tree/real.c"
echo 'set_tests_properties(real_test PROPERTIES LABELS "unit;real")' >"$tree/CMakeLists.txt"
echo 'add_test(real_test true)' >"$tree/build/CTestTestfile.cmake"
cat >"$tree/README.md" <<'README'
[a page](docs/page.md#a-page), `real.c`, `ctest -L real`, `ctest -R real_test`, ctest `real_test`, UNDERSTUDY_REAL
README
printf '%0120d\n' 0 | sed 's/0/ä/g' >>"$tree/README.md"
git -C "$tree" add .
"$tree/scripts/check-docs.sh" build >"$tree/said" 2>&1 || { cat "$tree/said" >&2; echo "FAILED: it complains without a reason" >&2; exit 1; }

printf '%0121d\n' 0 >"$tree/SECURITY.md"
cat >"$tree/CHANGELOG.md" <<'CHANGELOG'
[nothing](docs/nothing.md), [no heading](docs/page.md#no-heading), `lost.c`, `bench/lost.sh`, UNDERSTUDY_LOST
`ctest -L lost`, `ctest -R lost_test`, ctest `lost_name`, `lost_tests_*`
CHANGELOG
git -C "$tree" add .
if said=$("$tree/scripts/check-docs.sh" build 2>&1); then
    echo "FAILED: check-docs.sh is content with broken documents" >&2
    exit 1
fi
for sentence in "SECURITY.md:1 is longer" "links to docs/nothing.md" "links to docs/page.md#no-heading" "names lost.c" \
    "names bench/lost.sh" "the ctest label lost" "the ctest lost_test" "the ctest lost_name" "the ctest lost_tests_" \
    "names UNDERSTUDY_LOST"; do
    grep -qF -- "$sentence" <<<"$said" || { echo "FAILED: nothing was said of: $sentence; but: $said" >&2; exit 1; }
done
