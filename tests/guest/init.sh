#!/bin/busybox sh
# PID 1 of the test guest: modules, network from the kernel command line (us.ip=ADDR/PREFIX), then the guest program.
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
while read -r module; do
    /bin/busybox insmod "/modules/$module" 2>/dev/null
done < /modules/order
ip="" dirty=0 set=16384
for word in $(/bin/busybox cat /proc/cmdline); do
    case "$word" in
    us.ip=*) ip="${word#us.ip=}" ;;
    us.dirty=*) dirty="${word#us.dirty=}" ;;
    us.set=*) set="${word#us.set=}" ;;
    esac
done
/bin/busybox ip link set lo up
if [ -n "$ip" ] && [ -e /sys/class/net/eth0 ]; then
    /bin/busybox ip link set eth0 up
    /bin/busybox ip addr add "$ip" dev eth0
fi
/guest "$dirty" "$set"
echo "understudy-guest: the program ended"
/bin/busybox poweroff -f
