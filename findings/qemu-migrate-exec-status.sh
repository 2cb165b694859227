#!/usr/bin/env bash
# QEMU: a migration to "exec:COMMAND" is completed even if the command fails.
#
# Guess:     QEMU waits for the command, as a shell does for the last one of a pipe, and a status other than 0 makes the
#            migration fail: then the guest goes on here.
# Behaviour: the migration is "completed" as soon as the command has taken the bytes. Its status is not looked at. The
#            guest stands still, in "postmigrate".
# Version:   QEMU 7.2 (Debian 12, qemu-system-x86 1:7.2+dfsg-7+deb12u18+b3), a PC without a guest.
# Matters:   a state saved by "exec:compress >FILE" or sent by "exec:ssh HOST ..." may not exist although QEMU says that
#            it does, and the source has stopped on that ground. Whoever reads the state has to confirm that it is whole.
#
# Exit status: 0 as described; 1 it behaves otherwise now; 77 the packages cannot be had here.
set -euo pipefail
# shellcheck source=findings/lib.bash
. "$(dirname "$0")/lib.bash"

qemu_start -S -machine pc
qmp '{"execute":"migrate","arguments":{"uri":"exec:cat >/dev/null; echo 3 >'"$work"'/status; exit 3"}}'
for ((i = 0; i < 300; i++)); do
    qmp '{"execute":"query-migrate"}'
    migration=$(sed -n 's/.*"status": "\([a-z-]*\)".*/\1/p' <<<"$answer")
    case $migration in
    completed | failed) break ;;
    esac
    sleep 0.1
done
qmp '{"execute":"query-status"}'
vm=$(sed -n 's/.*"status": "\([a-z]*\)".*/\1/p' <<<"$answer")
for ((i = 0; i < 100; i++)); do
    [ -s "$work/status" ] && break
    sleep 0.1
done
echo "the command ended with $(cat "$work/status"); migration: $migration; VM: $vm"

[ "$(cat "$work/status")" = 3 ] || changed "the command did not get to its end"
[ "$migration" = completed ] || changed "a command that fails makes the migration $migration"
[ "$vm" = postmigrate ] || changed "the VM is $vm afterwards"
echo "QEMU 7.2: the status of an exec: migration's command does not count"
