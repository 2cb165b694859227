#!/usr/bin/env bash
# QEMU: on an NBD server that offers no flush, QEMU answers flushes and writes with FUA with success, without a word.
#
# Guess:     a client whose server cannot flush fails the flush, as libnbd does, or at least says when it opens the disk
#            that nothing on it becomes stable.
# Behaviour: QEMU takes the flush for done, and a write with FUA likewise. Servers without flush are easy to come by: of
#            nbdkit's plugins over plain files "file" offers flush and FUA, "split" offers neither.
# Version:   nbdkit 1.32.5 (Debian 12, nbdkit 1.32.5-1), qemu-io 7.2 (qemu-utils 1:7.2+dfsg-7+deb12u18+b3), libnbd
#            1.14.2 (libnbd-bin and libnbd0 1.14.2-1).
# Matters:   a guest's fsync, or a checkpoint that must be on stable storage before its output leaves, is acknowledged and
#            lost with the host's power. What stores a VM's disk has to look at can_flush when it opens the export.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

command -v jq >/dev/null || skip "jq is not installed"
unpack nbdkit=1.32.5-1 qemu-utils=1:7.2+dfsg-7+deb12u18+b3 libnbd-bin=1.14.2-1 libnbd0=1.14.2-1
needs nbdkit qemu-io nbdinfo nbdcopy
nbdkit=$work/root/usr/bin/nbdkit
plugins=$(echo "$work"/root/usr/lib/*/nbdkit/plugins)
cd "$work"
truncate -s 1M one two

# can PLUGIN FILE...: what an export says of flush and FUA.
can() {
    local plugin=$plugins/nbdkit-$1-plugin.so
    shift
    nbdinfo --json -- [ "$nbdkit" --exit-with-parent "$plugin" "$@" ] |
        jq -r '.exports[0] | "flush \(.can_flush), FUA \(.can_fua)"'
}
file=$(can file one)
split=$(can split one two)
echo "file:  $file"
echo "split: $split"

"$nbdkit" -f -U "$work/nbd" "$plugins/nbdkit-split-plugin.so" one two &
finding_children+=("$!")
for ((i = 0; i < 300; i++)); do
    [ -S nbd ] && break
    sleep 0.1
done
uri="nbd+unix:///?socket=$work/nbd"
status=0
output=$(qemu-io -f raw -c 'write -q -f 0 4k' -c flush "$uri" 2>&1) || status=$?
echo "QEMU, write with FUA and flush: status $status, says '$output'"
libnbd=0
libnbd_says=$(nbdcopy --flush one "$uri" 2>&1) || libnbd=$?
echo "nbdcopy --flush: status $libnbd, says '$libnbd_says'"

[ "$file" = "flush true, FUA true" ] || changed "the file plugin does not flush"
[ "$split" = "flush false, FUA false" ] || changed "the split plugin flushes"
[ $libnbd -ne 0 ] || changed "libnbd flushes on a server without flush"
[ "$status,$output" = 0, ] || changed "QEMU's flush on a server without flush is not silent"
echo "qemu-io 7.2: flush and FUA succeed on a server that has neither"
