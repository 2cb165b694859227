# shellcheck shell=bash
# What the scripts of this folder share; they source it. Outside software is fetched as Debian packages of a pinned
# version and unpacked into a temporary folder: nothing is installed, and everything is removed when the script ends.

work=$(mktemp -d)
finding_children=()
trap finding_end EXIT

finding_end() {
    local status=$?
    local child
    for child in "${finding_children[@]}"; do
        kill -9 "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    done
    rm -rf "$work"
    exit "$status"
}

# The behaviour is not as described any more.
changed() {
    echo "CHANGED: $*"
    exit 1
}

skip() {
    echo "SKIPPED: $*"
    exit 77
}

# unpack NAME=VERSION...: downloads these packages and unpacks them into $work/root. Their own dependencies are not
# fetched; a machine that builds understudy has them.
unpack() {
    mkdir -p "$work/root" "$work/packages"
    (cd "$work/packages" && apt-get -q download "$@" >"$work/apt.log" 2>&1) || {
        cat "$work/apt.log"
        skip "Debian's registry does not have $* for this machine"
    }
    local package
    for package in "$work"/packages/*.deb; do
        dpkg -x "$package" "$work/root"
    done
    rm -r "$work/packages"
    local libraries=("$work"/root/usr/lib/*-linux-gnu)
    if [ -d "${libraries[0]}" ]; then
        export LD_LIBRARY_PATH=${libraries[0]}
    fi
    export PATH=$work/root/usr/bin:$work/root/usr/sbin:$PATH
}

# needs PROGRAM...: skips if a program of the unpacked packages lacks a shared library here.
needs() {
    local program
    for program in "$@"; do
        if ldd "$work/root/usr/bin/$program" | grep 'not found'; then
            skip "$program lacks a library on this machine"
        fi
    done
}

# qemu_start ARGUMENT...: unpacks QEMU and starts it without a guest, its monitor on this script's coprocess.
qemu_start() {
    unpack qemu-system-x86=1:7.2+dfsg-7+deb12u18+b3 qemu-system-common=1:7.2+dfsg-7+deb12u18+b3 seabios=1.16.2-1
    needs qemu-system-x86_64
    coproc QEMU { exec qemu-system-x86_64 -nodefaults -display none -accel tcg -m 16 -qmp stdio \
        -L "$work/root/usr/share/seabios" -L "$work/root/usr/share/qemu" "$@" 2>&1; }
    # shellcheck disable=SC2153 # QEMU_PID comes from coproc
    finding_children+=("$QEMU_PID")
    local greeting
    read -r -t 30 greeting <&"${QEMU[0]}" || changed "QEMU does not start"
    [[ $greeting == *QMP* ]] || changed "QEMU says: $greeting"
    qmp '{"execute":"qmp_capabilities"}'
}

# qmp COMMAND: sends a command and waits for its answer, which it leaves in $answer; events are added to $events.
answer=
events=
qmp() {
    printf '%s\n' "$1" >&"${QEMU[1]}"
    while read -r -t 60 answer <&"${QEMU[0]}"; do
        case $answer in
        *'"event": '*) events+=$answer$'\n' ;;
        *'"return": '*) return 0 ;;
        *'"error": '*) changed "QEMU refuses $1: $answer" ;;
        esac
    done
    changed "QEMU does not answer $1"
}

# hmp LINE: the same for a line of the human monitor.
hmp() {
    qmp '{"execute":"human-monitor-command","arguments":{"command-line":"'"${1//\"/\\\"}"'"}}'
}

# The time in milliseconds.
now_ms() {
    local now=${EPOCHREALTIME/[.,]/}
    echo $((now / 1000))
}

# etcd_start: unpacks etcd and starts one server with an empty store. It listens on sockets in $work: etcd
# wants "name:port" after unix://, and takes that for the socket's file name.
etcd_start() {
    command -v curl >/dev/null || skip "curl is not installed"
    command -v jq >/dev/null || skip "jq is not installed"
    unpack etcd-server=3.4.23-4+b4
    needs etcd
    local client=unix://client:0 peer=unix://peer:0
    cd "$work" || exit 1
    etcd --name one --data-dir "$work/store" --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "one=$peer" \
        >"$work/etcd.log" 2>&1 &
    finding_children+=("$!")
    local i
    for ((i = 0; i < 300; i++)); do
        post kv/range '{"key":"aw=="}' >/dev/null
        [ "$http" = 200 ] && return 0
        sleep 0.1
    done
    cat "$work/etcd.log"
    changed "etcd does not serve"
}

# post PATH JSON: posts to etcd and prints both; the status in $http, the answer in $body.
http=
body=
post() {
    body=$(curl -s -m 10 --unix-socket "$work/client:0" -w '\n%{http_code}' -d "$2" "http://etcd/v3/$1") || true
    http=${body##*$'\n'}
    body=${body%$'\n'*}
    echo "POST /v3/$1 $2: $http $body"
}
