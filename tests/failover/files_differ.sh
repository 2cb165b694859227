#!/usr/bin/env bash
# What a guest reads must be the same on both hosts: an ISO, a kernel, or the file behind an image that has other content or another length
# on host b is refused before the guest starts, found by doctor, and refused when a standby is renewed; mended, protection comes back.
#   files_differ.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/pair.sh"
# shellcheck source=tests/cli/refused.sh
. "$(dirname "$0")/../cli/refused.sh"

vm=(qemu-system-x86_64 -accel tcg -m 64 -nodefaults -display none -drive "file=/srv/medium.iso,media=cdrom,if=ide"
    -drive "file=/srv/disk.qcow2,if=virtio,id=d" -fw_cfg "opt/key,file=/srv/key")
there() { echo "$(hosts_disk_dir "$prefix" "$1")"; }
copy_all() { cp -r "$(there a)"/{medium.iso,key,base.qcow2,floor.raw} "$(there b)/"; }
doctor_says() {
    understudy a doctor --peer 10.77.0.2 -- "${vm[@]}" >"$work/doctor" 2>&1 || true
    grep -qE -- "^$1 .*$2" "$work/doctor" || fail "doctor does not say '$1 $2': $(cat "$work/doctor")"
}
why_is() { status_says a "not protected: .*$1"; }

hosts_up "$prefix"
head -c 3000000 /dev/urandom >"$(there a)/medium.iso"
echo secret >"$(there a)/key"
head -c 1048576 /dev/urandom >"$(there a)/floor.raw"
hosts_exec "$prefix" a qemu-img create -q -f qcow2 -b /srv/floor.raw -F raw /srv/base.qcow2
hosts_exec "$prefix" a qemu-img create -q -f qcow2 -b /srv/base.qcow2 -F qcow2 /srv/disk.qcow2
copy_all
start_daemon b
start_daemon a

echo "-- other content of the same length, another length, nothing"
for file in medium.iso key floor.raw; do
    printf X | dd of="$(there b)/$file" bs=1 seek=3 conv=notrunc status=none
    run_refused "the file /srv/$file has the same length on host .* but other content: copy that one there" --peer 10.77.0.2 -- "${vm[@]}"
    doctor_says FAIL "the file /srv/$file has the same length"
    copy_all
done
echo more >>"$(there b)/medium.iso"
run_refused "the file /srv/medium.iso has 3000005 bytes on host .*, but 3000000 where the guest runs" --peer 10.77.0.2 -- "${vm[@]}"
rm "$(there b)/medium.iso"
run_refused "copy it there: the file /srv/medium.iso cannot be read on host" --peer 10.77.0.2 -- "${vm[@]}"
copy_all

echo "-- the same"
doctor_says ok "4 files are the same on both hosts"
understudy a run --name web --peer 10.77.0.2 --wait-s 60 --silence-ms 2000 -- "${vm[@]}" >"$work/run.log" 2>&1 || fail "the VM could not be protected"

echo "-- another one when the standby is renewed"
hosts_kill "$prefix" b quiet 2>/dev/null
await 20 "host a to go on alone" field_is a state connecting
printf X | dd of="$(there b)/medium.iso" bs=1 seek=7 conv=notrunc status=none
revive b
await 30 "host a to say why" why_is "the file /srv/medium.iso has the same length"
field_is a guest_here true || fail "host a has lost the guest"
cp "$(there a)/medium.iso" "$(there b)/medium.iso"
await 60 "protection again" field_is a state protected
pair_leftovers
echo "files_differ: both hosts give the guest the same to read"
