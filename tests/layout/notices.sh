#!/usr/bin/env bash
# scripts/check-layers.sh must complain: an arrow upwards, an unknown folder, a circle, a circle that is gone.
set -euo pipefail
script=$(dirname "$0")/../../scripts/check-layers.sh
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{scripts,failover,daemon,proto,attic,build}
# A file that is in no circle, on the list.
sed 's#^known_circles="$#&\nproto/straight#' "$script" >"$tree/scripts/check-layers.sh"
chmod +x "$tree/scripts/check-layers.sh"
git -C "$tree" init -q
echo '#include "replicator/note.h"' >"$tree/failover/upwards.c"
echo '#include "hv-hooks/qemu/cmdline/cmdline.h"' >"$tree/daemon/around.c" # around the seam, which is hv-hooks/line.h
echo '#include "proto/b.h"' >"$tree/attic/lost.c"
printf 'int b(void);\nint a(void) { return b(); }\n' >"$tree/proto/a.c"
printf 'int a(void);\nint b(void) { return a(); }\n' >"$tree/proto/b.c"
git -C "$tree" add .
for file in a b; do
    "${CC:-cc}" -c "$tree/proto/$file.c" -o "$tree/build/$file.c.o"
done
if said=$("$tree/scripts/check-layers.sh" build 2>&1); then
    echo "FAILED: check-layers.sh is content with a broken tree" >&2
    exit 1
fi
for sentence in "failover/upwards.c includes replicator/note.h" "daemon/around.c includes hv-hooks/qemu" "does not know the folder attic" "a calls, through others, itself" \
    "proto/straight is in no circle any more"; do
    grep -qF "$sentence" <<<"$said" || { echo "FAILED: nothing was said of: $sentence; but: $said" >&2; exit 1; }
done
