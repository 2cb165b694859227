#!/bin/busybox sh
# shellcheck shell=dash
# PID 1 of the test guest: modules, network, then the guest program. Reads the kernel command line:
#   us.ip=ADDRESS/PREFIX   of eth0
#   us.gw=ADDRESS          default route
#   us.dirty=N             pages the program writes a second (0)
#   us.set=N               pages it spreads them over (16384)
# and in the initramfs with disks:
#   us.disk=DEVICE         ext4, mounted for the disk workload, for example vda
#   us.bare=DEVICE         for a stream without a file system
#   us.streams=N           streams of the workload on us.disk (4)
#   us.blocks=N            blocks of 4 KiB of each stream (4096)
#   us.think-ms=N          milliseconds that a stream waits after each operation (0)
#   us.bench=DEVICE        no workload: the benchmark, on the bare device
#   us.recover             mount us.disk, unmount it, power off: what a kernel mends after a crash is mended
#   us.root=DEVICE         no workload: go on with /sbin/init of the ext4 there
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
while read -r module; do
    /bin/busybox insmod "/modules/$module" 2>/dev/null
done < /modules/order
ip="" gw="" dirty=0 set=16384 disk="" bare="" streams=4 blocks=4096 think_ms=0 recover=0 root="" bench=""
for word in $(/bin/busybox cat /proc/cmdline); do
    case "$word" in
    us.ip=*) ip="${word#us.ip=}" ;;
    us.gw=*) gw="${word#us.gw=}" ;;
    us.dirty=*) dirty="${word#us.dirty=}" ;;
    us.set=*) set="${word#us.set=}" ;;
    us.disk=*) disk="${word#us.disk=}" ;;
    us.bare=*) bare="${word#us.bare=}" ;;
    us.streams=*) streams="${word#us.streams=}" ;;
    us.blocks=*) blocks="${word#us.blocks=}" ;;
    us.think-ms=*) think_ms="${word#us.think-ms=}" ;;
    us.bench=*) bench="${word#us.bench=}" ;;
    us.recover) recover=1 ;;
    us.root=*) root="${word#us.root=}" ;;
    esac
done
/bin/busybox ip link set lo up
if [ -n "$ip" ] && [ -e /sys/class/net/eth0 ]; then
    /bin/busybox ip link set eth0 up
    /bin/busybox ip addr add "$ip" dev eth0
    [ -z "$gw" ] || /bin/busybox ip route add default via "$gw"
fi
# Mounts an ext4 device, which may take a moment to appear.
mount_ext4() {
    until [ -b "/dev/$1" ]; do /bin/busybox usleep 20000; done
    /bin/busybox mkdir -p "$2"
    /bin/busybox mount -t ext4 -o discard "/dev/$1" "$2" || echo "understudy-guest: /dev/$1 cannot be mounted"
}
if [ -n "$root" ]; then
    mount_ext4 "$root" /root
    exec /bin/busybox switch_root /root /sbin/init
fi
if [ $recover = 1 ]; then
    mount_ext4 "$disk" /data && /bin/busybox umount /data && echo "understudy-guest: recovered"
    /bin/busybox poweroff -f
fi
[ -z "$disk" ] || mount_ext4 "$disk" /data
if [ -n "$disk$bare$bench" ]; then
    until [ -z "$bare$bench" ] || [ -b "/dev/$bare$bench" ]; do /bin/busybox usleep 20000; done
    if [ -n "$bench" ]; then
        /disk-bench "/dev/$bench" &
    else
        /disk "$streams" "$blocks" "$think_ms" "$([ -n "$disk" ] && echo /data || echo -)" ${bare:+"/dev/$bare"} &
    fi
    # Its port is open before the guest counts as up.
    until /bin/busybox netstat -lnt | /bin/busybox grep -q :7001; do /bin/busybox usleep 20000; done
fi
/guest "$dirty" "$set"
echo "understudy-guest: the program ended"
/bin/busybox poweroff -f
