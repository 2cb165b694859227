#!/usr/bin/env bash
# Checks the documents: line length, links, and names of files, tests, labels and variables that do not exist.
#   scripts/check-docs.sh [BUILD]
# Documents are README, CONTRIBUTING, CHANGELOG, SECURITY and docs/*.md. Test names (ctest -R NAME, ctest `NAME`) are
# looked up in the build tree, so they are checked only if BUILD is given. A name may be the beginning of several, and
# `NAME_*` is one too.
set -euo pipefail
cd "$(dirname "$0")/.."
longest=120
bad=0
complain() { echo "check-docs: $*" >&2; bad=1; }

mapfile -t docs < <(git ls-files 'README.md' 'CONTRIBUTING.md' 'CHANGELOG.md' 'SECURITY.md' 'docs/*.md')
[ ${#docs[@]} -gt 0 ] || complain "there are no documents"
files=$'\n'$(git ls-files)$'\n'
variables=$'\n'$(git grep -hoE '\bUNDERSTUDY_[A-Z0-9_]+' -- ':!*.md' ':!tests/layout/*' | sort -u)$'\n'
labels=$(git ls-files '*CMakeLists.txt' | xargs grep -hoE 'LABELS +("[^"]*"|[a-z]+)' | sed 's/^LABELS *//; s/[";]/ /g' | tr ' ' '\n' | sort -u)
tests=""
[ -z "${1:-}" ] || tests=$(ctest --test-dir "$1" -N 2>/dev/null | sed -n 's/^ *Test *#[0-9]*: //p')

# The anchors of a document's headings, as GitHub makes them.
anchors() {
    sed -n 's/^##* //p' "$1" | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9 _-]//g; s/ /-/g'
}

check_lengths() {
    local line
    while read -r line; do
        complain "$1:${line%%:*} is longer than $longest columns"
    done < <(LC_ALL=C.UTF-8 grep -nE "^.{$((longest + 1)),}" "$1" || true)
}

check_links() {
    local link to anchor
    while read -r link; do
        to=${link%%#*} anchor=""
        [[ "$link" != *"#"* ]] || anchor=${link#*#}
        to=${to:+$(dirname "$1")/$to}
        to=${to:-$1}
        if [ ! -e "$to" ]; then
            complain "$1 links to $link, which does not exist"
        elif [ -n "$anchor" ] && ! grep -qxF -- "$anchor" <<<"$(anchors "$to")"; then
            complain "$1 links to $link, but $to has no such heading"
        fi
    done < <(grep -oE '\]\([^)]+\)' "$1" | sed 's/^](//; s/)$//' | grep -vE '^[a-z]+:' || true)
}

# Names of files of ours: with a folder from the root or from the document's folder; without one, of any folder.
check_files() {
    local name
    while read -r name; do
        case $name in
        build/* | .*) continue ;;
        */*) [ -e "$name" ] || [ -e "$(dirname "$1")/$name" ] || [[ $files == *"/$name"$'\n'* ]] ||
            complain "$1 names $name, which does not exist" ;;
        *) [[ $files == *[/$'\n']"$name"$'\n'* || $files == *[/$'\n']"$name.in"$'\n'* ]] ||
            complain "$1 names $name, which does not exist" ;;
        esac
    done < <(sed -E 's#[a-z]+://[^ )]*##g' "$1" | grep -oE '[A-Za-z0-9_./-]+\.(sh|c|h|md|proto|pml|service)\b' | sort -u)
}

check_tests() {
    local name
    while read -r name; do
        grep -qxF -- "$name" <<<"$labels" || complain "$1 names the ctest label $name, which does not exist"
    done < <(grep -oE 'ctest [^`]*-L [a-z]+' "$1" | sed 's/.*-L //' | sort -u)
    [ -n "$tests" ] || return 0
    while read -r name; do
        grep -qE -- "^${name//\*/.*}" <<<"$tests" || complain "$1 names the ctest $name, which does not exist"
    done < <({
        grep -oE 'ctest [^`]*-R [A-Za-z0-9_*-]+' "$1" | sed 's/.*-R //'
        # shellcheck disable=SC2016 # the backticks of Markdown
        grep -oE '(ctest `[A-Za-z0-9_*-]+|`[A-Za-z0-9_*-]+[_-]\*)`' "$1" | sed 's/^ctest //; s/`//g'
    } | sort -u)
}

check_variables() {
    local name
    while read -r name; do
        [[ $variables == *$'\n'"$name"$'\n'* ]] || complain "$1 names $name, which no source reads"
    done < <(grep -oE '\bUNDERSTUDY_[A-Z0-9_]+' "$1" | sort -u)
}

for doc in "${docs[@]}"; do
    check_lengths "$doc"
    check_links "$doc"
    check_files "$doc"
    check_tests "$doc"
    check_variables "$doc"
done
[ $bad -eq 0 ] && echo "check-docs: ${#docs[@]} documents, every name exists"
exit $bad
