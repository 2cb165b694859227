#!/usr/bin/env bash
# Disk images for tests: made, and checked afterwards. To be sourced; GUEST is set where disk_check is used.

disk_secret=abc # of LUKS images

# disk_make PATH FORMAT SIZE [OPTIONS [TREE]]: an image with an ext4 that holds a copy of TREE. OPTIONS are qemu-img's, for example
# subformat=fixed.
disk_make() {
    local path=$1 format=$2 size=$3 raw
    raw=$path
    [ "$format" = raw ] || raw=$path.raw
    rm -f "$path" "$raw"
    truncate -s "$size" "$raw"
    # No lazy initialisation: the guest would go on writing in its own time. Blocks of a page, not the 1 KiB of small file systems: a host that
    # dies in the middle of a write leaves whole pages of the image, so the workload's blocks must not lie across two.
    mkfs.ext4 -q -F -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 ${5:+-d "$5"} "$raw"
    [ "$format" != raw ] || return 0
    if [ "$format" = luks ]; then
        disk_make_luks "$path" "$size"
        qemu-img convert -n -f raw "$raw" --object "secret,id=s,data=$disk_secret" --target-image-opts "driver=luks,key-secret=s,file.filename=$path"
    else
        qemu-img convert -f raw -O "$format" ${4:+-o "$4"} "$raw" "$path"
    fi
    rm -f "$raw"
}

# qemu-img measures the processor's speed and gives up where the kernel's accounting saw none of its work: by chance, so again.
disk_make_luks() {
    local attempt
    for attempt in 1 2 3 4 5 6 7 8; do
        if qemu-img create -q -f luks --object "secret,id=s,data=$disk_secret" -o key-secret=s,iter-time=10 "$1" "$2"; then return 0; fi
        echo "attempt $attempt to make a LUKS image failed" >&2
    done
    return 1
}

disk_make_bare() {
    rm -f "$1"
    truncate -s "$2" "$1"
}

disk_format() {
    case "$1" in
    *.qcow2) echo qcow2 ;;
    *.vhdx) echo vhdx ;;
    *.vhd) echo vpc ;;
    *.luks) echo luks ;;
    *) echo raw ;;
    esac
}

# disk_raw IMAGE RAW: what a guest sees of the image, as a raw copy.
disk_raw() {
    local format
    format=$(disk_format "$1")
    if [ "$format" = luks ]; then
        qemu-img convert -U --object "secret,id=s,data=$disk_secret" --image-opts "driver=luks,key-secret=s,file.filename=$1" -O raw "$2"
    else
        qemu-img convert -U -f "$format" -O raw "$1" "$2"
    fi
}

# disk_recover RAW: does to the file system what a kernel does that finds it after a crash: a guest mounts it, and unmounts it.
disk_recover() {
    local serial=$1.serial
    timeout 120 "${UNDERSTUDY_QEMU:-qemu-system-x86_64}" -machine pc -accel tcg -m 256 -nodefaults -nographic -no-reboot \
        -serial "file:$serial" -kernel "$GUEST/vmlinuz" -initrd "$GUEST/initrd-disk.img" \
        -append "console=ttyS0 quiet panic=-1 us.disk=vda us.recover" \
        -drive "file=$1,if=virtio,format=raw" || return 1
    grep -q 'understudy-guest: recovered' "$serial" || { cat "$serial" >&2; return 1; }
    # ext4 says here what it does not like.
    ! grep -i 'EXT4-fs error\|EXT4-fs warning\|corrupt' "$serial" >&2
}

# disk_check BUILD LOG IMAGE [--bare IMAGE] [MORE]: the file system of a copy of IMAGE is clean, as it is or after a crash's recovery,
# and it holds what the client's LOG says. MORE goes to understudy-disk-check. IMAGE "-": only the bare one. disk_tree: a folder whose
# files must be there too, unchanged. disk_clean 0: the disk has failed the guest, so its file system need not be clean, only mendable.
disk_tree="" disk_clean=1
disk_check() {
    local build=$1 log=$2 image=$3 here without=() status=0 file
    shift 3
    here=$(mktemp -d)
    mkdir "$here/files"
    if [ "${1:-}" = --bare ]; then
        disk_raw "$2" "$here/bare" || return 1
        without=(--bare "$here/bare")
        shift 2
    fi
    if [ "$image" != - ]; then
        disk_raw "$image" "$here/raw" || return 1
        if dumpe2fs -h "$here/raw" 2>/dev/null | grep -q needs_recovery; then
            disk_recover "$here/raw" || [ $disk_clean -eq 0 ] || { echo "the file system cannot be recovered" >&2; return 1; }
        fi
        [ $disk_clean -eq 1 ] || e2fsck -fy "$here/raw" >"$here/mended" 2>&1 || [ $? -le 2 ] || cat "$here/mended" >&2
        e2fsck -fn "$here/raw" >"$here/fsck" 2>&1 || { cat "$here/fsck" >&2; return 1; }
        debugfs -R "rdump / $here/files" "$here/raw" >"$here/debugfs" 2>&1 || status=1
        for file in ${disk_tree:+"$disk_tree"/*}; do
            cmp "$file" "$here/files/${file##*/}" >&2 || status=1
        done
    fi
    "$build/tests/client/understudy-disk-check" "$log" "$here/files" "${without[@]}" "$@" || status=1
    rm -rf "$here"
    return $status
}
