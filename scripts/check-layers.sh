#!/usr/bin/env bash
# Holds the directions of the arrows between the folders, and finds files that call each other in a circle.
#   scripts/check-layers.sh [BUILD]
# Includes are checked always. With a build tree, the symbols of its objects are checked too: a circle is a set of
# files each of which needs, through the others, a function of itself. CONTRIBUTING.md says what each folder holds.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0
complain() { echo "check-layers: $*" >&2; bad=1; }

# folder: what its files may include besides their own folder. A word that ends in .h is one header, any other a folder.
may_include() {
    case $1 in
    proto) echo "common" ;;
    common) echo "" ;;
    hv-hooks) echo "common" ;;
    hv-hooks/qemu) echo "hv-hooks common hv-hooks/qemu/cmdline" ;;
    hv-hooks/qemu/hook) echo "hv-hooks/qemu/hook_shm.h" ;;
    hv-hooks/qemu/cmdline) echo "hv-hooks common" ;;
    checkpoint/disk) echo "checkpoint proto common" ;;
    checkpoint) echo "hv-hooks proto common" ;;
    heartbeat) echo "proto common" ;;
    failover) echo "heartbeat/detector.h proto/end_reason.h proto/term.h" ;;
    replicator/network) echo "proto common" ;;
    replicator/transport) echo "replicator/note.h checkpoint proto common" ;;
    replicator/transport/rdma) echo "replicator/transport replicator/note.h checkpoint proto common" ;;
    replicator/disk/plugin) echo "replicator/disk checkpoint/disk proto common" ;;
    replicator/disk) echo "replicator/transport replicator/note.h checkpoint checkpoint/disk proto common" ;;
    replicator/pipeline)
        echo "replicator/network replicator/transport replicator/disk replicator/note.h failover checkpoint checkpoint/disk hv-hooks proto common" ;;
    replicator/control)
        echo "replicator/network replicator/transport replicator/transport/rdma replicator/disk replicator/pipeline replicator/note.h" \
            "failover heartbeat checkpoint checkpoint/disk hv-hooks proto common" ;;
    replicator) echo "replicator/control replicator/transport failover checkpoint hv-hooks proto common" ;;
    daemon/disk) echo "checkpoint/disk hv-hooks/line.h proto common" ;;
    daemon/files) echo "proto common" ;;
    daemon/network) echo "hv-hooks/line.h proto common" ;;
    daemon/trust) echo "proto common" ;;
    daemon)
        echo "daemon/disk daemon/files daemon/network daemon/trust hv-hooks/line.h checkpoint/disk failover heartbeat replicator/transport/tcp.h" \
            "replicator/transport/transport.h replicator/transport/rdma/limits.h proto common" ;;
    cli) echo "hv-hooks/line.h proto common" ;;
    *) return 1 ;;
    esac
}

# Files that may still call each other in a circle. A name that no longer does has to leave this list.
known_circles="
"
most_sources=25

mapfile -t sources < <(git ls-files '*.c' '*.h' | grep -vE '^(tests|bench)/')
declare -A allowed=()
while read -r file included; do
    folder=${file%/*} to=${included%/*}
    if [ -z "${allowed[$folder]+known}" ]; then
        allowed[$folder]=" $(may_include "$folder") " ||
            complain "$file: this script does not know the folder $folder: add it where it belongs"
    fi
    [[ $included == hv-hooks/qemu/* && $file != hv-hooks/* ]] &&
        complain "$file includes $included: hypervisor.h, machine.h and line.h are all that others know of QEMU"
    [ "$to" = "$folder" ] && continue
    case "${allowed[$folder]}" in
    *" $to "* | *" $included "*) ;;
    *) complain "$file includes $included: an arrow from $folder to $to points upwards" ;;
    esac
done < <(grep -H '^#include "' "${sources[@]}" | sed 's/^\([^:]*\):#include "\(.*\)"$/\1 \2/')
while read -r count folder; do
    [ "$count" -le $most_sources ] || complain "$folder has $count sources of its own; $most_sources are the limit"
done < <(printf '%s\n' "${sources[@]}" | grep '\.c$' | sed 's#/[^/]*$##' | sort | uniq -c)

if [ -n "${1:-}" ]; then
    objects=$(cd "$1" && find . -name '*.c.o' ! -path './tests/*' ! -path './bench/*' ! -path '*chaos*' ! -name '*pb-c*')
    [ -n "$objects" ] || complain "$1 holds no objects: build first"
    # shellcheck disable=SC2086 # a list of words
    circles=$(cd "$1" && nm -A $objects | sed -E 's#^\./##; s#CMakeFiles/[^/]+\.dir/##; s#\.c\.o:# #; s#[a-z]+/__/##' | awk '
        NF == 4 && $3 ~ /^[TDBRVWC]$/ && $4 != "main" {print "defines", $4, $1}
        NF == 3 && $2 == "U" {print "needs", $3, $1}' |
    awk '
        $1 == "defines" {home[$2] = $3}
        $1 == "needs" {wanted[++n] = $2 " " $3}
        END {
            for (i = 1; i <= n; i++) {
                split(wanted[i], w, " ")
                if (w[1] in home && home[w[1]] != w[2]) {
                    reach[w[2], home[w[1]]] = 1; file[w[2]] = 1; file[home[w[1]]] = 1
                }
            }
            for (k in file) for (i in file) if ((i, k) in reach) for (j in file) if ((k, j) in reach) reach[i, j] = 1
            for (i in file) if ((i, i) in reach) print i
        }' | sort)
    for file in $circles; do
        grep -qwF -- "$file" <<<"$known_circles" || complain "$file calls, through others, itself: a circle of files"
    done
    for file in $known_circles; do
        grep -qxF -- "$file" <<<"$circles" || complain "$file is in no circle any more: take it out of known_circles"
    done
fi
[ $bad -eq 0 ] && echo "check-layers: ${#sources[@]} files, arrows point downwards"
exit $bad
