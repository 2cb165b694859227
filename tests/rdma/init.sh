#!/bin/busybox sh
# shellcheck shell=dash
# PID 1 of the soft-RoCE machine: modules, the host's files read-only under a writable layer, the test's own folder, and then
# the command in it. The machine powers off when that ends; its exit code lands in the folder.
b=/bin/busybox
$b mkdir -p /proc /sys /dev /host /layer /root
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
while read -r module; do
    $b insmod "/modules/$module" || echo "vm: module $module cannot be loaded"
done </modules/order
options=trans=virtio,version=9p2000.L,msize=512000,cache=loose
$b mount -t 9p -o "ro,$options" host /host || echo "vm: the host's files cannot be mounted"
$b mount -t tmpfs tmpfs /layer
$b mkdir /layer/up /layer/work
$b mount -t overlay -o lowerdir=/host,upperdir=/layer/up,workdir=/layer/work overlay /root || echo "vm: no overlay"
for dir in proc sys dev; do
    $b mount -o move /$dir /root/$dir
done
$b mkdir -p /root/dev/pts /root/dev/shm /root/vm
$b mount -t devpts devpts /root/dev/pts
$b mount -t tmpfs tmpfs /root/dev/shm
$b mount -t tmpfs tmpfs /root/run
$b mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
$b mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000" work /root/vm
$b ip link set lo up
ulimit -l unlimited
PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp $b chroot /root /vm/command
echo $? >/root/vm/status
$b sync
$b poweroff -f
