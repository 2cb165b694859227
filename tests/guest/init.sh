#!/bin/busybox sh
# shellcheck shell=dash
# PID 1 of the test guest: modules, network, then the guest program. Reads the kernel command line:
#   us.ip=ADDRESS/PREFIX   of eth0
#   us.gw=ADDRESS          default route
#   us.dirty=N             pages the program writes a second (0)
#   us.set=N               pages it spreads them over (16384)
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
while read -r module; do
    /bin/busybox insmod "/modules/$module" 2>/dev/null
done < /modules/order
ip="" gw="" dirty=0 set=16384
for word in $(/bin/busybox cat /proc/cmdline); do
    case "$word" in
    us.ip=*) ip="${word#us.ip=}" ;;
    us.gw=*) gw="${word#us.gw=}" ;;
    us.dirty=*) dirty="${word#us.dirty=}" ;;
    us.set=*) set="${word#us.set=}" ;;
    esac
done
/bin/busybox ip link set lo up
if [ -n "$ip" ] && [ -e /sys/class/net/eth0 ]; then
    /bin/busybox ip link set eth0 up
    /bin/busybox ip addr add "$ip" dev eth0
    [ -z "$gw" ] || /bin/busybox ip route add default via "$gw"
fi
/guest "$dirty" "$set"
echo "understudy-guest: the program ended"
/bin/busybox poweroff -f
