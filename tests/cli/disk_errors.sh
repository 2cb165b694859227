#!/usr/bin/env bash
# What goes wrong with disks before a VM is protected: each is one clear sentence that names the disk and where it is, nothing is left
# behind, and nothing that was there is touched. Then a VM with four disks, each given in another way, and what status says of them.
#   disk_errors.sh BUILD GUEST
set -euo pipefail
BUILD=$1 GUEST=$2
# shellcheck source=tests/failover/pair.sh
. "$(dirname "$0")/../failover/pair.sh"
# shellcheck source=tests/cli/refused.sh
. "$(dirname "$0")/refused.sh"

hosts_up "$prefix"
A=$(hosts_disk_dir "$prefix" a) B=$(hosts_disk_dir "$prefix" b)
mount -t tmpfs -o size=128M tmpfs "$B"
start_daemon a
start_daemon b
vm=(qemu-system-x86_64 -accel tcg -m 64 -nodefaults -display none)
sums() { sha256sum "$A"/* "$B"/* 2>/dev/null; }

truncate -s 8M "$A/raw"
qemu-img create -q -f qcow2 "$A/qcow2" 64M
qemu-img create -q -f vhdx "$A/vhdx" 64M
qemu-img create -q -f vmdk "$A/vmdk" 64M
(cd "$A" && qemu-img create -q -f qcow2 -b qcow2 -F qcow2 overlay)

echo "-- disks that cannot be replicated"
run_refused "disk disk0: .*/srv/nothere does not exist" --peer 10.77.0.2 -- "${vm[@]}" -hda /srv/nothere
run_refused "grows.*subformat=fixed,block_state_zero=off" --peer 10.77.0.2 -- "${vm[@]}" -hda /srv/vhdx
run_refused "format vmdk.*convert" --peer 10.77.0.2 -- "${vm[@]}" -hda /srv/vmdk
run_refused "backing file.*rebase" --peer 10.77.0.2 -- "${vm[@]}" -hda /srv/overlay
run_refused "snapshot" --peer 10.77.0.2 -- "${vm[@]}" -drive file=/srv/raw,snapshot=on
run_refused "behind nbd" --peer 10.77.0.2 -- "${vm[@]}" -drive file=nbd://host/x
run_refused "leave it out" --peer 10.77.0.2 -- "${vm[@]}" -fda /srv/raw
run_refused "called root" --peer 10.77.0.2 --peer-disk other=/x -- "${vm[@]}" -drive id=root,file=/srv/raw,format=raw
run_refused "whole path" --peer 10.77.0.2 --peer-disk root=x -- "${vm[@]}" -drive id=root,file=/srv/raw,format=raw
refused 2 "--durability sometimes" a run --peer 10.77.0.2 --durability=sometimes -- "${vm[@]}"

echo "-- a host that is not ready to receive them"
raw=(-drive "id=root,file=/srv/raw,format=raw,if=virtio")
there() { run_refused "peer 10.77.0.2 refused: VM bad, disk root on host .*$1" --peer 10.77.0.2 "${@:2}" -- "${vm[@]}" "${raw[@]}"; }
there "/nowhere does not exist" --peer-disk root=/nowhere/image
truncate -s 4M "$B/raw"
before=$(sums)
there "4194304 bytes, the disk 8388608"
mkdir "$B/folder"
there "directory" --peer-disk root=/srv/folder
qemu-img create -q -f qcow2 "$B/other" 8M
there "[0-9]+ bytes" --peer-disk root=/srv/other
# Held as a QEMU holds it, until the other end of the pipe goes.
truncate -s 8M "$B/used"
coproc user { qemu-io -f raw "$B/used"; }
read -r -n 5 -u "${user[0]}" _
there "in use" --peer-disk root=/srv/used
eval "exec ${user[1]}>&-"
# shellcheck disable=SC2154 # coproc sets it
wait "$user_PID"
rm "$B/used" "$B/other"
rmdir "$B/folder"
[ "$(sums)" = "$before" ] || fail "a refusal changed an image"
rm "$B/raw"
mount -o remount,size=1M "$B"
dd if=/dev/urandom of="$A/raw" bs=1M count=4 conv=notrunc status=none
there "make room"
mount -o remount,ro,size=128M "$B"
there "Read-only file system"
mount -o remount,rw "$B"
[ -z "$(ls -A "$B")" ] || fail "a refused standby left $(ls -A "$B")"

echo "-- four disks, each given in another way"
cp "$A/raw" "$A/second"
qemu-img create -q -f vpc -o subformat=fixed,force_size=on "$A/vpc" 8M
understudy a run --name web --peer 10.77.0.2 --wait-s 60 --silence-ms 2000 --peer-disk root=/srv/elsewhere --durability=disk -- "${vm[@]}" "${raw[@]}" \
    -hdb /srv/second -drive file=/srv/vpc,format=vpc,if=virtio \
    -blockdev '{"driver":"qcow2","node-name":"data","file":{"driver":"file","filename":"/srv/qcow2"}}' -device virtio-blk-pci,drive=data \
    >"$work/run.log" 2>&1 || fail "a VM with disks could not be protected: $(cat "$work/run.log")"
disks() { understudy "$1" status web --json | jq -r '.disks[] | "\(.id) \(.path) \(.state) \(.message)"'; }
understudy a status | tee "$work/status.log"
[ "$(disks a)" = "root /srv/raw protected 
disk1 /srv/second protected 
disk2 /srv/vpc protected 
data /srv/qcow2 protected " ] || fail "host a says of its disks: $(disks a)"
[ "$(disks b | cut -d' ' -f1,2)" = "root /srv/elsewhere
disk1 /srv/second
disk2 /srv/vpc
data /srv/qcow2" ] || fail "host b says of its disks: $(disks b)"
field_is a durability disk || fail "the durability that was asked for is not shown"
grep -q "disk root .*protected .*/srv/raw" "$work/status.log" || fail "status does not list the disks"
for pair in raw:elsewhere second:second vpc:vpc; do
    cmp "$A/${pair%:*}" "$B/${pair#*:}" || fail "the standby's ${pair#*:} is not what the guest's host has"
done
refused 1 "in use" a run --name bad --peer 10.77.0.2 -- "${vm[@]}" "${raw[@]}"
understudy a stop web
await 10 "host a to be clean" no_vm a
await 10 "host b to be clean" no_vm b
for host in a b; do
    [ "$(processes $host nbdkit)" -eq 0 ] || fail "nbdkit is left on host $host"
done
qemu-img check -q "$B/qcow2" || fail "the standby's qcow2 is not whole"
qemu-io -f raw -c quit "$B/elsewhere" >/dev/null || fail "the standby's image is still locked"
pair_cleanup
echo "every error is one sentence, and four disks are followed"
