#!/usr/bin/env bash
# Real QEMU starts with each form of a disk, as the user gave it and as it is rewritten, and says what it has: devices,
# names, formats, sizes, caching and the guest's view of the device must be the same.
# The line of a throw-away QEMU for a trial load must have the same devices, with disks of the same size behind them.
#   disks_qemu.sh PRINT_BUILD        (UNDERSTUDY_QEMU: another QEMU)
set -euo pipefail
print_build=$(realpath "$1")
qemu=${UNDERSTUDY_QEMU:-qemu-system-x86_64}
work=$(mktemp -d /tmp/us-forms-XXXXXX)
end() {
    stop_server
    rm -rf "$work"
}
trap end EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
mkdir "$work/vm"
cd "$work"

# What a running QEMU tells over its monitor at $1.
ask() {
    {
        echo '{"execute":"qmp_capabilities"}'
        echo '{"execute":"query-block"}'
        echo '{"execute":"query-named-block-nodes"}'
        echo '{"execute":"human-monitor-command","arguments":{"command-line":"info qtree"}}'
        echo '{"execute":"quit"}'
    } | socat -t 10 - "UNIX-CONNECT:$1" >answers
    # Nodes without a name of the user's have one that QEMU counts up; the file's own node differs, as it must.
    jq -s '[.[] | select(.return | type == "array" and length > 0 and (.[0] | has("device"))) | .return[] |
            {device, qdev, removable, locked, io: .["io-status"], node: (.inserted["node-name"] // "" | if startswith("#") then "" else . end),
             drv: (.inserted.drv | if . == "nbd" then "file" else . end), ro: .inserted.ro, cache: .inserted.cache, zeroes: .inserted.detect_zeroes,
             size: .inserted.image["virtual-size"], limits: .inserted.bps}]' answers
    jq -s '[.[] | select(.return | type == "array" and length > 0 and (.[0] | has("node-name"))) | .return[] |
            ."node-name" | select(startswith("#") | not)] | unique' answers
    jq -rs '[.[] | select(.return | type == "string") | .return][0]' answers | sed -E 's/#block[0-9]+/#block/'
}

# A child of this script, so that it is known whose process this is and when it has ended. Its pid file says that it serves.
server=
start_server() {
    rm -f vm/us-disk-0 pid
    nbdkit --foreground -U "$work/vm/us-disk-0" -P "$work/pid" file "$work/$1" &
    server=$!
    until [ -s pid ]; do
        kill -0 "$server" 2>/dev/null || fail "nbdkit does not serve $1"
        sleep 0.01
    done
}
stop_server() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server"; } || true
    server=
}

# The throw-away QEMU's line of ARGS: devices and sizes are those in plain, and nothing of the disks is opened.
try_line() {
    local name=$1 size trial
    shift
    size=$(jq -s '[.[] | select(type == "array") | .[] | select(type == "object" and .ro == false and has("size")) | .size] | first' plain 2>/dev/null ||
        sed -n 's/^ *"size": \([0-9]*\),$/\1/p' plain | head -n 1)
    exec 63<>ram
    mapfile -d '' -t trial < <("$print_build" --trial "$size" "$work/vm" 63 "$@") || fail "$name, on trial"
    unshare -n "${trial[@]}" -daemonize >trial.log 2>&1 || fail "$name: QEMU refuses on trial: $(cat trial.log): ${trial[*]}"
    ask "$work/vm/us-trial" >trial
    exec 63>&-
    # Device by device, its tree and its disk's size; what is behind the disk is another thing.
    diff -u <(devices plain) <(devices trial) >difference || fail "$name, on trial: $(cat difference)"
}
devices() { grep -E '^ *(dev: |bus: |addr |drive = |logical_block_size|physical_block_size|cyls|heads|secs|serial = )|"(device|qdev|size|ro)":' "$1"; }

# form NAME IMAGE ARGS...
form() {
    local name=$1 image=$2
    shift 2
    local args=("$qemu" -machine "q35,usb=off" -accel tcg -m 64 -nodefaults -display none "$@")
    "${args[@]}" -S -qmp unix:plain.sock,server=on,wait=off -daemonize >plain.log 2>&1 || fail "$name: QEMU refuses the user's own form: $(cat plain.log)"
    ask "$work/plain.sock" >plain
    start_server "$image"
    truncate -s 64M ram
    exec 63<>ram
    mapfile -d '' -t built < <("$print_build" "$work/vm" 63 "${args[@]}") || fail "$name"
    [ ${#built[@]} -gt 10 ] || fail "$name: not accepted"
    "${built[@]}" -S -daemonize >rewritten.log 2>&1 || fail "$name: QEMU refuses: $(cat rewritten.log): ${built[*]}"
    ask "$work/vm/us-qmp" >rewritten
    exec 63>&-
    stop_server
    diff -u plain rewritten >difference || fail "$name: $(cat difference)"
    try_line "$name" "${args[@]}"
    grep -q '"size": [0-9]' plain || fail "$name: no disk is in the answer: $(cat plain)"
    echo "ok: $name"
}

qemu-img create -q -f raw raw.img 512M
printf '\x55\xaa' | dd of=raw.img bs=1 seek=510 conv=notrunc status=none
qemu-img create -q -f qcow2 qcow2.img 1G
qemu-img create -q -f vpc -o subformat=fixed,force_size=on vpc.img 64M
qemu-img create -q -f vhdx -o subformat=fixed,block_state_zero=off vhdx.img 64M
# qemu-img measures the processor's speed for LUKS and gives up where the kernel's accounting saw none of its work ("Unable to get
# accurate CPU usage"): by chance, so again, a few times.
for attempt in 1 2 3 4 5 6 7 8; do
    if qemu-img create -q -f luks --object secret,id=s,data=abc -o key-secret=s,iter-time=10 luks.img 64M; then break; fi
    [ "$attempt" -lt 8 ] || fail "qemu-img could not make a LUKS image"
done
cp raw.img 'a,b.img'
virtio=(-device "virtio-blk-pci,drive=d,serial=SERIAL7,bootindex=1")

form "-drive, virtio" raw.img -drive file=raw.img,format=raw,if=virtio
form "-drive, id and device" qcow2.img -drive file=qcow2.img,format=qcow2,if=none,id=d "${virtio[@]}"
form "-drive, caching and discard" qcow2.img -drive file=qcow2.img,format=qcow2,if=none,id=d,cache=none,discard=unmap,detect-zeroes=unmap,aio=native "${virtio[@]}"
form "-drive, aio and errors" raw.img -drive file=raw.img,format=raw,if=none,id=d,aio=threads,werror=stop,rerror=report "${virtio[@]}"
form "-drive, probed raw" raw.img -drive file=raw.img,if=virtio
form "-drive, probed qcow2" qcow2.img -drive file=qcow2.img,if=virtio
form "-drive, comma in the name" a,b.img -drive file=a,,b.img,format=raw,if=virtio
form "-drive, in a throttle group without limits" raw.img -drive file=raw.img,format=raw,if=virtio,throttling.iops-total=0,throttling.group=g
form "-drive, keys of the file" raw.img -drive driver=raw,file.driver=file,file.filename=raw.img,file.locking=off,file.node-name=prot,if=virtio
form "-drive, file as format" raw.img -drive driver=file,filename=raw.img,if=virtio
form "-drive, IDE geometry" raw.img -drive file=raw.img,format=raw,if=ide
form "-drive, read-only CD beside" raw.img -drive file=raw.img,format=raw,if=virtio -drive file=vpc.img,media=cdrom,format=raw
form "-drive, SCSI" raw.img -device virtio-scsi-pci -drive file=raw.img,format=raw,if=none,id=d -device scsi-hd,drive=d,serial=S1
form "-hda" raw.img -hda raw.img
form "-hdc" qcow2.img -hdc qcow2.img
form "an image without an option" raw.img raw.img
form "-blockdev, file alone" raw.img -blockdev file,filename=raw.img,node-name=d "${virtio[@]}"
form "-blockdev, nested" qcow2.img -blockdev driver=qcow2,node-name=d,file.driver=file,file.filename=qcow2.img,file.aio=threads,file.locking=on "${virtio[@]}"
form "-blockdev, two nodes" qcow2.img -blockdev file,filename=qcow2.img,node-name=f,cache.direct=on,auto-read-only=on,discard=unmap -blockdev qcow2,file=f,node-name=d,discard=unmap "${virtio[@]}"
form "-blockdev, JSON" qcow2.img -blockdev '{"driver":"qcow2","node-name":"d","file":{"driver":"file","filename":"qcow2.img","aio":"threads"}}' "${virtio[@]}"
form "-blockdev, JSON of two" raw.img -blockdev '{"driver":"file","filename":"raw.img","node-name":"f"}' -blockdev '{"driver":"raw","node-name":"d","file":"f"}' "${virtio[@]}"
form "-blockdev, raw with an offset" raw.img -blockdev raw,node-name=d,offset=1048576,size=1048576,file.driver=file,file.filename=raw.img "${virtio[@]}"
form "-blockdev, throttle filter" raw.img -object throttle-group,id=g -blockdev throttle,node-name=d,throttle-group=g,file.driver=file,file.filename=raw.img "${virtio[@]}"
form "VHD" vpc.img -drive file=vpc.img,format=vpc,if=virtio
form "VHDX" vhdx.img -drive file=vhdx.img,format=vhdx,if=virtio
form "LUKS" luks.img -object secret,id=s,data=abc -drive file=luks.img,format=luks,key-secret=s,if=virtio
echo "every form works with $("$qemu" --version | head -n 1)"
