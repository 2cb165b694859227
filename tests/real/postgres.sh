#!/usr/bin/env bash
# PostgreSQL in a protected Debian guest, under load, while the host that runs it is killed again and again: no transaction that a
# client saw committed may be lost.
#   tests/real/postgres.sh [--kills N] [--seconds S] [--check-every N] [--plain] [--durability memory|disk] [--no-install]
#   --kills N       kills of the host that runs the guest (5); 0: without end
#   --check-every N kills, after which the ledger is checked and begun anew, so that the disk never fills (50)
#   --seconds S     of load before each kill (10)
#   --plain         the same guest and load under plain QEMU, which is killed once: shows what the test itself can do
#   --durability D  handed to understudy run
#   --no-install    leave the packages alone
#
# Two psql sessions add rows to a ledger, one transaction each; the server makes up a random word for each row, and the row
# counts once the client has read that it is committed. pgbench (TPC-B) runs beside it. Connections are never made again by
# the ledger's clients: a failover must be invisible. At the end the load is stopped, the host that runs the guest dies a last
# time, and the image of the other, which has taken over, is looked at with everything else dead: the file system is clean
# after a mount, PostgreSQL recovers, each row of the clients' logs is in the ledger with its word, pgbench's four sums agree,
# and pg_amcheck finds heap and indexes in order.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() { sed -n '4,10s/^# \{0,1\}//p' "$0"; }
kills=5 seconds=10 check_every=50 plain=0 install=1 options=()
while [ $# -gt 0 ]; do
    case "$1" in
    --kills) kills=${2:?--kills needs a number}; shift ;;
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --check-every) check_every=${2:?--check-every needs a number}; shift ;;
    --durability) options+=(--durability "${2:?--durability needs memory or disk}"); shift ;;
    --plain) plain=1 ;;
    --no-install) install=0 ;;
    --help | -h) usage; exit 0 ;;
    *) echo "postgres.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || { echo "postgres.sh: become root: it makes network namespaces" >&2; exit 1; }
say() { echo "== [$SECONDS s] $*"; }
if [ $install -eq 1 ]; then
    say "packages"
    scripts/install-deps.sh --real
fi
if [ -z "${BUILD:-}" ]; then
    say "build"
    cmake --preset release >/dev/null
    cmake --build --preset release -- --quiet
fi
BUILD=${BUILD:-$PWD/build/release} GUEST=$PWD/build/guest
say "Debian with PostgreSQL (the first time takes some minutes)"
debian=$PWD/build/debian
tests/real/debian.sh "$debian"
# shellcheck source=tests/failover/pair.sh
. tests/failover/pair.sh
# shellcheck source=tests/guest/disk_image.sh
. tests/guest/disk_image.sh

export MEMORY=512 INITRD=initrd-disk.img APPEND="us.root=vda" DIRTY=0
drive=file=/srv/debian.img,if=virtio,format=raw,discard=unmap
pair_prepare() {
    for host in a b; do cp --sparse=always "$debian/debian.img" "$(hosts_disk_dir "$prefix" $host)/debian.img"; done
}
in_debian() { hosts_exec "$prefix" client chroot "$debian/root" "$@"; }
sql() { in_debian psql -h $guest_address -U postgres -qAt -F ' ' bench "$@"; }

# One row after the other, until told to stop. Its log has what the server said when it was committed.
ledger_client() {
    local number=$1 id row
    coproc session { in_debian psql -h $guest_address -U postgres -qAt -F ' ' bench 2>"$work/ledger.$number.err"; }
    for ((id = 1; ; id++)); do
        [ ! -e "$work/stop" ] || break
        echo "INSERT INTO ledger VALUES ($number, $id, gen_random_uuid()) RETURNING *;" >&"${session[1]}"
        read -r row <&"${session[0]}" || return 1
        echo "$row"
    done >"$work/ledger.$number"
}
bench_client() {
    until [ -e "$work/stop" ]; do
        in_debian /usr/lib/postgresql/15/bin/pgbench -h $guest_address -U postgres -n -c 2 -T 5 bench || return 1
    done >>"$work/pgbench.log" 2>&1
}
start_load() {
    rm -f "$work/stop"
    load=()
    for number in 1 2; do
        ledger_client $number &
        load+=($!)
    done
    bench_client &
    load+=($!)
}
# Of what has been checked and thrown away, too.
checked=0
rows() { cat "$work"/ledger.[0-9] 2>/dev/null | wc -l; }
goes_on() { [ "$(rows)" -gt $((before + 10)) ]; }
load_lives() {
    local pid
    for pid in "${load[@]}"; do
        kill -0 "$pid" 2>/dev/null || fail "a client lost its connection: $(tail -n 3 "$work/pgbench.log" "$work"/ledger.?.err)"
    done
}
finish_load() {
    local pid
    touch "$work/stop"
    for pid in "${load[@]}"; do
        wait "$pid" || fail "a client lost its connection: $(tail -n 3 "$work/pgbench.log" "$work"/ledger.?.err)"
    done
}

# Every row that a client saw committed is there, and at most the one each that it was waiting for more.
check_ledger() {
    sql -c "SELECT * FROM ledger" | sort >"$work/ledger.table" || fail "$1: the ledger cannot be read"
    sort "$work"/ledger.[0-9] >"$work/ledger.seen"
    comm -13 "$work/ledger.table" "$work/ledger.seen" >"$work/ledger.lost"
    [ ! -s "$work/ledger.lost" ] || fail "$1: $(wc -l <"$work/ledger.lost") committed rows are lost or changed, for example $(head -n 1 "$work/ledger.lost")"
    [ "$(comm -23 "$work/ledger.table" "$work/ledger.seen" | wc -l)" -le 2 ] || fail "$1: rows that no client made"
    # Every transaction of pgbench changes all four by the same.
    [ "$(sql -c "SELECT count(DISTINCT s) FROM (SELECT sum(abalance) s FROM pgbench_accounts UNION ALL SELECT sum(tbalance) FROM pgbench_tellers
        UNION ALL SELECT sum(bbalance) FROM pgbench_branches UNION ALL SELECT coalesce(sum(delta), 0) FROM pgbench_history) x")" = 1 ] ||
        fail "$1: pgbench's sums differ"
}

# All is checked, and begun anew with empty tables and logs.
begin_again() {
    finish_load
    check_ledger "after $i kills"
    checked=$((checked + $(rows)))
    rm -f "$work"/ledger.[0-9]
    sql -c "BEGIN; TRUNCATE ledger, pgbench_history; UPDATE pgbench_accounts SET abalance = 0 WHERE abalance <> 0; UPDATE pgbench_tellers SET tbalance = 0;
        UPDATE pgbench_branches SET bbalance = 0; COMMIT" >/dev/null || fail "the tables could not be emptied"
    say "$checked commits checked"
    start_load
    before=0
    await 60 "rows in the ledger" goes_on
}

# The image of a host that is dead: a copy of it is mounted and unmounted by a kernel, looked at, and PostgreSQL started on it.
check_image() {
    local copy=$work/copy.img
    cp --sparse=always "$1" "$copy"
    disk_recover "$copy" || fail "the file system cannot be recovered"
    e2fsck -fn "$copy" >"$work/fsck.log" 2>&1 || fail "the file system is not clean"
    hosts_up "$prefix"
    start_plain "$copy"
    check_ledger "after PostgreSQL's recovery"
    in_debian /usr/lib/postgresql/15/bin/pg_amcheck -h $guest_address -U postgres --install-missing --heapallindexed bench \
        >"$work/amcheck.log" 2>&1 || fail "pg_amcheck finds faults"
}
start_plain() {
    rm -f "$work/serial"
    guest_command
    hosts_exec "$prefix" a "${qemu[@]}" -drive "file=$1,if=virtio,format=raw,discard=unmap" >"$work/qemu.log" 2>&1 &
    disown
    await 180 "PostgreSQL to start" guest_ready
}

build_guest
if [ $plain -eq 1 ]; then
    say "plain QEMU"
    hosts_up "$prefix"
    pair_prepare
    start_plain /srv/debian.img
    start_load
    before=0
    await 60 "rows in the ledger" goes_on
    sleep "$seconds"
    load_lives
    finish_load
    check_ledger "live"
    hosts_kill "$prefix" a 2>/dev/null
    cp --sparse=always "$(hosts_disk_dir "$prefix" a)/debian.img" "$work/last.img"
else
    say "protecting the guest"
    WAIT_S=300 READY_S=180 start_pair "${options[@]}" -- -drive $drive
    start_load
    before=0
    await 60 "rows in the ledger" goes_on
    here=a there=b
    for ((i = 1; kills == 0 || i <= kills; i++)); do
        await 300 "protection on host $here" field_is $here state protected
        before=$(rows)
        sleep "$seconds.$(printf %03d $((RANDOM % 1000)))"
        load_lives
        hosts_kill "$prefix" $here "$([ $((i % 2)) -eq 0 ] && echo quiet)" 2>/dev/null
        await 20 "host $there to take over" field_is $there guest_here true
        before=$(rows)
        await 60 "commits after the takeover" goes_on
        load_lives
        say "kill $i: host $there took over; $((checked + $(rows))) commits so far"
        revive $here
        read -r here there <<<"$there $here"
        [ $((i % check_every)) -ne 0 ] || begin_again
    done
    finish_load
    await 300 "protection on host $here" field_is $here state protected
    check_ledger "live"
    hosts_kill "$prefix" $here 2>/dev/null
    await 20 "host $there to take over" field_is $there guest_here true
    check_ledger "live, after the last kill"
    hosts_kill "$prefix" $there 2>/dev/null
    cp --sparse=always "$(hosts_disk_dir "$prefix" $there)/debian.img" "$work/last.img"
fi
transactions=$(awk '/number of transactions actually processed/ {sum += $NF} END {print sum + 0}' "$work/pgbench.log")
seen=$((checked + $(rows)))
say "the image on its own"
check_image "$work/last.img"
pair_leftovers
cat <<SUMMARY
== summary
   kills                 $([ $plain -eq 1 ] && echo "QEMU, once" || echo "$((i - 1)) under load, and one more")
   ledger                $seen commits seen by the clients, all there, live and after recovery from the image alone
   pgbench               about $transactions transactions, sums agree
   file system, indexes  clean (e2fsck, pg_amcheck)
   nothing was lost
SUMMARY
