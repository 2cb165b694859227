#!/usr/bin/env bash
# Reads the counters of the boot-sector guest (tests/guest/bootsector) on a running host. To be sourced after pair.sh.

# The process of QEMU on host $1, as this shell sees it. To be replaced by a test whose host has process numbers of its own.
qemu_of() { field "$1" qemu_pid; }
word_at() { od -An -tu4 -j "$2" -N 4 "/proc/$1/fd/63" | tr -d ' '; }
magic=1414744898 # 0x54534b42, once the rounds begin
guest_counts() { [ "$(word_at "$(qemu_of "$1")" $((0x8000)))" = $magic ] && [ "$(word_at "$(qemu_of "$1")" $((0x8004)))" -gt 0 ]; }

all_stopped() { ! sed 's/.*) //' /proc/"$1"/task/*/stat | grep -qv '^T'; }
# Reads the counters of the guest on a host, with its QEMU stopped, and prints the round. Fails unless they are of one instant:
# n + 1 up to some page, n from there on, and the round counter n, or n + 1 where all pages are.
round_of() {
    local pid
    pid=$(qemu_of "$1")
    kill -STOP "$pid"
    # Each thread stops when it next looks, a virtual processor a little after the others.
    until all_stopped "$pid"; do :; done
    # In one go: QEMU stands still meanwhile.
    # shellcheck disable=SC2154 # work is pair.sh's
    {
        word_at "$pid" $((0x8004))
        od -An -v -tu4 -w4096 -j $((0x200000)) -N $((64 * 4096)) "/proc/$pid/fd/63" | awk '{print $1}'
    } >"$work/counters"
    kill -CONT "$pid"
    awk 'NR == 1 {round = $1; next}
        NR == 2 {first = last = $1}
        $1 > last || $1 < first - 1 {bad = 1}
        {last = $1}
        END {
            if (bad || (round != last && round != last - 1) || (round == last - 1 && first != last)) {
                print "torn: round " round ", first page " first ", last page " last > "/dev/stderr"
                exit 1
            }
            print round
        }' "$work/counters"
}
