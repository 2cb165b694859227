#!/usr/bin/env bash
# Commands that must be refused: in bounded time, by one clear sentence and an exit code, with nothing left behind. To be sourced
# after pair.sh.
# shellcheck disable=SC2154 # prefix and work are pair.sh's
PATIENCE_S=20

processes() {
    local p
    for p in $(ip netns pids "$prefix-$1"); do
        cat "/proc/$p/comm" 2>/dev/null || true
    done | grep -c "^$2" || true
}
no_vm() { [ "$(processes "$1" qemu)" -eq 0 ] && [ "$(processes "$1" understudy-repl)" -eq 0 ]; }

# refused CODE PATTERN HOST ARGS...: the command ends with that code and says, in one line, what matches.
refused() {
    local code=$1 pattern=$2 host=$3 got=0
    shift 3
    timeout $PATIENCE_S ip netns exec "$prefix-$host" true
    understudy "$host" "$@" >"$work/out" 2>"$work/err.txt" &
    local pid=$!
    (sleep $PATIENCE_S; kill "$pid" 2>/dev/null) &
    local watchdog=$!
    wait "$pid" || got=$?
    kill "$watchdog" 2>/dev/null && wait "$watchdog" 2>/dev/null || true
    [ $got -eq "$code" ] || fail "understudy $*: ended with $got, not $code: $(cat "$work/out" "$work/err.txt")"
    grep -qE -- "$pattern" "$work/err.txt" || fail "understudy $*: does not say '$pattern': $(cat "$work/err.txt")"
    [ "$(wc -l <"$work/err.txt")" -le 3 ] || fail "understudy $*: says too much: $(cat "$work/err.txt")"
    readable "$work/err.txt" || fail "understudy $*: says what a terminal should not get: $(cat -v "$work/err.txt")"
    echo "ok: $(tail -n 1 "$work/err.txt")"
}
# Whether a file is UTF-8 without control characters.
readable() { iconv -f UTF-8 -t UTF-8 "$1" >/dev/null 2>&1 && ! LC_ALL=C grep -qP '[\x00-\x08\x0b-\x1f\x7f]' "$1"; }
no_sockets() { [ -z "$(find "$(hosts_run_dir "$prefix" "$1")" -name 'us-*')" ]; }
unknown() { ! understudy "$1" status bad >/dev/null 2>&1; }
# The same for `understudy run`, after which no part of a VM may be left on either host.
run_refused() {
    local pattern=$1
    shift
    refused 1 "$pattern" a run --name bad "$@"
    await 5 "host a to be clean" no_vm a
    await 5 "host b to be clean" no_vm b
    await 5 "host a to forget the VM" unknown a
    await 5 "host b to forget the VM" unknown b
    no_sockets a && no_sockets b || fail "sockets are left"
}
