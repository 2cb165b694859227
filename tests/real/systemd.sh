#!/usr/bin/env bash
# understudy's units under systemd: a fresh Debian 12 in a folder, where the release build is installed, boots as host a, with systemd as its
# first process. Host b is a daemon of the same Debian in a network namespace. A guest moves to host b when host a is powered off or
# rebooted, before host a's network goes; and a restart of the daemon touches nothing.
#   tests/real/systemd.sh [--dir DIR] [--no-install]
#   --dir DIR       keep the Debian there, and use what is there already (a temporary folder)
#   --no-install    leave this machine's packages alone: debootstrap is there
# From the environment: BUILD, a build tree with everything built (default: build/release, which is built first); SILENCE_MS, for how long a
# host may be silent before it counts as dead (5000); ACCEL, the guest's accelerator (tcg); PATIENCE (times longer waits: for slow machines).
# Processes, mounts, namespaces, control groups are its own, and end with it.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATIENCE=${PATIENCE:-1}
# shellcheck source=tests/real/fresh.sh
. tests/real/fresh.sh
if [ -z "${BUILD:-}" ]; then
    say "build"
    cmake --preset release >/dev/null
    cmake --build --preset release -- --quiet
fi
BUILD=${BUILD:-$PWD/build/release}
# shellcheck disable=SC2154 # dir and temporary are fresh.sh's
root=$dir/root

# shellcheck source=tests/failover/pair.sh
. tests/failover/pair.sh
# shellcheck source=tests/failover/rounds.sh
. tests/failover/rounds.sh
unified=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
[ -n "$unified" ] || fail "there is no cgroup2 on this machine"
cgroup=$unified/$prefix
cleanup() {
    # Its first process dies with it, also before it is in the control group.
    [ -z "${container:-}" ] || kill -KILL "$container" 2>/dev/null || true
    if [ -d "$cgroup" ]; then
        echo 1 >"$cgroup/cgroup.kill"
        await $((60 * PATIENCE)) "host a's processes to end" grep -qx "populated 0" "$cgroup/cgroup.events"
        find "$cgroup" -depth -type d -exec rmdir {} +
    fi
    pair_cleanup
    [ -z "$temporary" ] || rm -rf --one-file-system "$temporary"
}
trap cleanup EXIT

# ---- a Debian with understudy ----

# Nothing of it has to survive a power failure.
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
packages=systemd-sysv,dbus,ifupdown,iproute2,qemu-system-x86,nbdkit,libglib2.0-0,libgnutls30,libibverbs1,libisal2,libjansson4
packages+=,libnl-route-3-200,libprotobuf-c1,librdmacm1,libsystemd0,liburcu8
fresh_debian bookworm --include="$packages"

say "this tree's release build into it"
rm -rf "$root/etc/systemd/system/understudyd.service.d" "$root/etc/understudy" "$root/var/lib/understudy" "$root/var/log/journal"
DESTDIR=$root cmake --install "$BUILD" >"$work/install.log" || fail "cmake --install: $(tail -n 3 "$work/install.log")"
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
inside() { chroot "$root" /usr/bin/env -i PATH=$path "$@"; }
inside understudy version >/dev/null || fail "the build's programs do not run in Debian 12: build them there"
inside systemctl enable understudyd.service understudy-drain.service 2>/dev/null || fail "the units cannot be enabled"
# Its journal survives a reboot; it asks the network for nothing.
mkdir -p "$root/var/log/journal" "$root/srv"
inside systemctl mask apt-daily.timer apt-daily-upgrade.timer 2>/dev/null
inside systemctl set-default multi-user.target 2>/dev/null
inside systemctl enable remote-fs.target 2>/dev/null
cp "$BUILD/tests/hook/bootsector-busy.rom" "$root/srv/guest.rom"
# What stands for a remote file system: systemd orders it like one.
echo "tmpfs /srv/remote tmpfs _netdev 0 0" >"$root/etc/fstab"
# The network is up while networking.service is: it makes the guest's bridge, and takes it away.
cat >"$root/etc/network/interfaces" <<'INTERFACES'
auto lo
iface lo inet loopback

auto br0
iface br0 inet static
    address 10.77.0.1/24
    pre-up ip link add br0 type bridge stp_state 0 forward_delay 0
    pre-up ip link set up0 master br0 up
    pre-up ip tuntap add tap0 mode tap
    pre-up ip link set tap0 master br0 up
    post-down ip link del tap0
    post-down ip link set up0 down
    post-down ip link del br0
INTERFACES

# ---- the hosts ----

# The first process of a host that boots: it gets a control group, mounts and names of its own, and becomes systemd. The kernel's settings
# stay as they are, and so does the clock: they are this machine's.
# shellcheck disable=SC2016 # the inner shells expand these
become_systemd='
    set -e
    echo 0 >"$1/cgroup.procs"
    exec unshare --cgroup --uts --ipc bash -ec '\''
        root=$2 boot_id=$3
        mount --bind "$root" "$root"
        cd "$root"
        mount -t proc proc proc
        echo "$boot_id" >"$4/boot_id"
        mount --bind "$4/boot_id" proc/sys/kernel/random/boot_id
        mount --rbind proc/sys proc/sys
        mount -o remount,bind,ro proc/sys
        mount -t sysfs -o ro sysfs sys
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        mount -t tmpfs -o mode=755 tmpfs dev
        mkdir dev/net dev/pts dev/shm
        for node in null zero full random urandom tty net/tun kvm; do
            [ -e /dev/$node ] || continue
            touch dev/$node
            mount --bind /dev/$node dev/$node
        done
        mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
        ln -s pts/ptmx dev/ptmx
        ln -s /proc/self/fd dev/fd
        mount -t tmpfs -o mode=755 tmpfs run
        mount -t tmpfs -o mode=1777 tmpfs tmp
        hostname hosta
        pivot_root . .
        umount -l .
        exec setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-syslog,-audit_control \
            /usr/bin/env -i container=understudy-test PATH="$5" /sbin/init
    '\'' init "$@"'

# Starts host a. Its shutdown ends the process $container: by SIGINT if the power goes off, by SIGHUP if it boots again.
boot_a() {
    boot_id=$(cat /proc/sys/kernel/random/uuid)
    mkdir "$cgroup/$boot_id"
    nsenter --net="/run/netns/$prefix-a" unshare --mount --propagation private --pid --fork --kill-child \
        bash -c "$become_systemd" systemd "$cgroup/$boot_id" "$root" "$boot_id" "$work" "$path" </dev/null >"$work/console.log" 2>&1 &
    container=$!
    await $((120 * PATIENCE)) "systemd on host a" systemd_answers
    on_a timeout $((300 * PATIENCE)) systemctl is-system-running --wait >"$work/booted" || true # "degraded", if anything at all has failed
    for unit in networking.service srv-remote.mount understudyd.service understudy-drain.service; do
        await $((60 * PATIENCE)) "$unit on host a ($(cat "$work/booted"))" a_is active $unit
    done
}
systemd_answers() {
    init=$(cat "/proc/$container/task/$container/children" 2>/dev/null) && init=${init// /} && [ -n "$init" ] || return 1
    # It is this machine's root folder, and a shell, until systemd has begun.
    [ "$(cat "/proc/$init/comm")" = systemd ] && on_a systemctl show --property=Version >/dev/null 2>&1
}
a_is() { [ "$(on_a systemctl is-active "$2" 2>/dev/null)" = "$1" ]; }
on_a() {
    nsenter --target "$init" --mount --uts --ipc --net --pid --cgroup /usr/bin/env -i PATH="$path" "$@"
}
# Host b has the same Debian without systemd, and in it folders of its own. Its first process is the daemon.
# shellcheck disable=SC2016 # the inner shell expands these
become_daemon='
    root=$1
    mount --bind "$root" "$root"
    cd "$root"
    mount --rbind /proc proc
    mount -t sysfs -o ro sysfs sys
    mount --rbind /dev dev
    mount -t tmpfs tmpfs run
    mkdir run/understudy
    mount --bind "$2" run/understudy
    mount --bind "$3" var/lib/understudy
    mount --bind "$4" etc/understudy
    pivot_root . .
    umount -l .
    exec /usr/bin/env -i PATH="$5" understudyd --listen 10.77.0.2:7070'
start_b() {
    mkdir -p "$root/etc/understudy" "$root/var/lib/understudy"
    nsenter --net="/run/netns/$prefix-b" unshare --mount --propagation private bash -ec "$become_daemon" b "$root" \
        "$(hosts_run_dir "$prefix" b)" "$(hosts_state_dir "$prefix" b)" "$(hosts_etc_dir "$prefix" b)" "$path" >"$work/b.log" 2>&1 &
    daemon_b=$!
    disown
    await $((60 * PATIENCE)) "understudyd on host b" test -S "$(hosts_run_dir "$prefix" b)/control.sock"
}
on_b() { nsenter --target "$daemon_b" --mount --net /usr/bin/env -i PATH="$path" "$@"; }
understudy() {
    local host=$1
    shift
    "on_$host" understudy "$@"
}
# Host a counts its processes for itself.
qemu_of() {
    local pid p
    pid=$(field "$1" qemu_pid)
    if [ "$1" = b ]; then
        echo "$pid"
        return
    fi
    find "$cgroup" -name cgroup.procs -exec cat {} + | while read -r p; do
        ! grep -qsE "^NSpid:.*[[:space:]]$pid\$" "/proc/$p/status" || echo "$p"
    done
}

# ---- what is looked at ----

# What systemd did on host a in a boot, whether the host is up or not: the units that began to stop, or have stopped, in this order.
stopping=de5b426a63be47a7b6ac3eaac82e2f6f stopped=9d1aaa27d60140bd96365438aad20286
journal_a() {
    local boot=$1
    shift
    inside journalctl --quiet --no-pager --directory /var/log/journal --boot "${boot//-/}" "$@"
}
has_moved_to_b() { [ "$(events_of b moved-here)" -gt "$moved" ]; }
# events_of HOST EVENT: how many of them.
events_of() { understudy "$1" events web --json 2>/dev/null | jq -r .event | grep -cx "$2" || true; }

# The units stopped in their order when host a went down: the drain has ended before anything else that a VM needs began to go.
in_order() {
    local order
    order=$(journal_a "$boot_id" -o json --output-fields=UNIT \
        MESSAGE_ID=$stopped UNIT=understudy-drain.service + MESSAGE_ID=$stopping UNIT=understudyd.service + \
        MESSAGE_ID=$stopping UNIT=srv-remote.mount + MESSAGE_ID=$stopping UNIT=networking.service |
        jq -r .UNIT | tail -n 4 | tr '\n' ' ') # before that, the daemon may have been restarted
    [ "$order" = "understudy-drain.service understudyd.service srv-remote.mount networking.service " ] ||
        fail "systemd stopped the units in another order: $order"
}
# Host a ends by systemctl poweroff, or reboot: its first process by this signal.
ends() {
    local how=$1 signal=$2 status=0
    on_a systemctl --no-block "$how"
    await $((300 * PATIENCE)) "host a to go down" without "$container"
    wait "$container" 2>/dev/null || status=$?
    [ $status -eq $((128 + $(kill -l "$signal"))) ] || fail "host a did not end by $how, but with status $status"
}

# goes_down poweroff|reboot SIGNAL: host a, where the guest runs protected, goes down by systemctl, and its first process ends by the signal.
goes_down() {
    local how=$1 signal=$2 before after later network_at moved_at
    await $((120 * PATIENCE)) "protection on host a" field_is a state protected
    moved=$(events_of b moved-here)
    takeovers=$(events_of b takeover)
    before=$(round_of a) || fail "the counters on host a are not of one instant"
    ends "$how" "$signal"
    has_moved_to_b || fail "the guest was not handed over to host b: $(understudy b events web | tail -n 5)"
    [ "$(events_of b takeover)" -eq "$takeovers" ] || fail "host b took over as after a crash"
    field_is b guest_here true || fail "host b does not run the guest"
    after=$(round_of b) || fail "the counters on host b are not of one instant"
    [ "$after" -ge "$before" ] || fail "round $after on host b follows round $before on host a"
    later=$after
    until [ "$later" -gt "$after" ]; do
        later=$(round_of b) || fail "the counters are not of one instant while the guest runs on"
    done

    in_order
    network_at=$(journal_a "$boot_id" -o json --output-fields=UNIT MESSAGE_ID=$stopping UNIT=networking.service | jq -r .__REALTIME_TIMESTAMP)
    moved_at=$(understudy b events web --json | jq -r 'select(.event == "moved-here") | .time_us' | tail -n 1)
    [ "$moved_at" -lt "$network_at" ] || fail "the guest moved after the network began to go"
    journal_a "$boot_id" -o cat _SYSTEMD_UNIT=understudy-drain.service | grep -q "^web .*gone" || fail "the drain does not say that the guest went"
    ! journal_a "$boot_id" -o cat UNIT=understudy-drain.service | sed '1,/^Stopping /d' | grep -i "failed\|timed out" || fail "the drain failed"
    echo "$how: round $before on host a, $after on host b, $later later; handed over $(((network_at - moved_at) / 1000)) ms before the network went"
}
without() { ! kill -0 "$1" 2>/dev/null; }

# comes_up: host a boots, stands by, and has the guest again.
comes_up() {
    boot_a
    await $((240 * PATIENCE)) "host a to stand by" field_is a state standby
    await $((120 * PATIENCE)) "protection by host a" field_is b state protected
}
comes_back() {
    understudy b failover web --planned >"$work/failover.log" 2>&1 || fail "the guest does not come back to host a: $(cat "$work/failover.log")"
    await $((60 * PATIENCE)) "host a to run the guest" field_is a guest_here true
    await $((240 * PATIENCE)) "protection by host b" field_is a state protected
}

# restarted HOW COMMAND...: the daemon of host a is another one after the command, and everything else is the same.
same() {
    local host
    echo "$(field a qemu_pid) $(field a guest_here)"
    for host in a b; do
        understudy $host events web --json | jq -r .event | grep -xE "unprotected|standby|takeover|moved-here|fenced|failed|ended" || true
    done
}
daemon_pid() { on_a systemctl show --value --property=MainPID understudyd.service; }
another_daemon() { [ "$(daemon_pid)" -gt 0 ] && [ "$(daemon_pid)" != "$daemon" ] && a_is active understudyd.service; }
# How often a daemon has found the VM protected when it started.
adoptions() { understudy a events web --json 2>/dev/null | jq -r 'select(.event == "adopted" and .fields.state == "protected") | .serial' | wc -l; }
adopted_protected() { [ "$(adoptions)" -gt "$1" ] && field_is a state protected; }
restarted() {
    local how=$1 before after was drain adopted
    shift
    await $((120 * PATIENCE)) "protection on host a" field_is a state protected
    was=$(same)
    daemon=$(daemon_pid)
    adopted=$(adoptions)
    drain=$(on_a systemctl show --property=ActiveEnterTimestampMonotonic understudy-drain.service)
    before=$(round_of a) || fail "the counters on host a are not of one instant"
    on_a "$@"
    await $((60 * PATIENCE)) "another daemon after $how" another_daemon
    await $((60 * PATIENCE)) "the VM to be protected, as it was, when the daemon is back after $how" adopted_protected "$adopted"
    [ "$(same)" = "$was" ] || fail "$how touched the VM: '$was' before, '$(same)' after"
    [ "$(on_a systemctl show --property=ActiveEnterTimestampMonotonic understudy-drain.service)" = "$drain" ] || fail "$how touched understudy-drain.service"
    after=$(round_of a) || fail "the counters are not of one instant after $how"
    [ "$after" -ge "$before" ] || fail "the guest began anew"
    echo "$how: round $before before, $after after, the same QEMU"
}

# ---- the test ----

mounts() { grep " $root" /proc/mounts || true; }
mounts_before=$(mounts)
hosts_up "$prefix"
ip -n "$prefix-a" link del br0
ip -n "$prefix-a" link del tap0
ip -n "$prefix-a" link set lo down
ip -n "$prefix-a" link set up0 down
mkdir "$cgroup"
say "host b starts, host a boots"
start_b
boot_a
code=$(understudy a pair --invite) || fail "host a makes no code"
understudy b pair 10.77.0.1 "$code" >/dev/null || fail "the hosts cannot be paired"
say "the guest is started on host a"
understudy a run --name web --peer 10.77.0.2 --wait-s $((240 * PATIENCE)) --silence-ms "${SILENCE_MS:-5000}" -- \
    qemu-system-x86_64 -machine pc -accel "${ACCEL:-tcg}" -m 64 -nodefaults -display none -vga std -bios /srv/guest.rom \
    -netdev tap,id=n0,ifname=tap0,script=no,downscript=no -device virtio-net-pci,netdev=n0 >"$work/run.log" 2>&1 || fail "the VM could not be protected"
await $((60 * PATIENCE)) "the guest to count" guest_counts a

say "systemctl restart understudyd"
restarted restart systemctl restart understudyd.service
say "the daemon is killed"
restarted "a crash of the daemon" systemctl kill --kill-whom=main --signal=KILL understudyd.service

say "systemctl poweroff"
goes_down poweroff INT
say "host a boots again; the daemon's first start fails"
mkdir -p "$root/etc/systemd/system/understudyd.service.d"
cat >"$root/etc/systemd/system/understudyd.service.d/late.conf" <<'LATE'
[Service]
ExecStartPre=/bin/sh -c 'test -e /run/late || { touch /run/late; exit 1; }'
LATE
comes_up
on_a test -e /run/late || fail "the daemon's first start did not fail"
rm -r "$root/etc/systemd/system/understudyd.service.d"
comes_back

say "systemctl reboot"
goes_down reboot HUP
say "host a boots again"
comes_up

cleanup
trap - EXIT
pair_leftovers
[ ! -e "$cgroup" ] || fail "a control group is left"
[ "$(mounts)" = "$mounts_before" ] || fail "mounts are left: $(mounts)"
say "systemd: power-off and reboot of host a handed the guest over; restarts touched nothing"
