#!/usr/bin/env bash
# A protected Linux guest on two namespaces, for the tests of this folder. To be sourced after BUILD (the build tree) and
# GUEST (a folder for the test guest) are set. Ends with everything removed, whatever happens; pair_leftovers says if not.
# shellcheck source=tests/net/hosts.sh
. "$(dirname "${BASH_SOURCE[0]}")/../net/hosts.sh"

# A lock that the caller holds must not live on in what is started here.
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-

# Of together.sh: PAIR_PREFIX and PAIR_WORK, which its tests have in common; PAIR_STARTED 1: the test before this one has left its pair;
# PAIR_STAYS 1: this one's stays for the next.
prefix=${PAIR_PREFIX:-us$$}
work=${PAIR_WORK:-$(mktemp -d)}
guest_address=10.77.0.10

pair_cleanup() {
    [ "${PAIR_STAYS:-0}" -eq 0 ] || return 0
    hosts_down "$prefix" 2>/dev/null || true
    rm -rf "$work"
}
trap pair_cleanup EXIT
trap 'exit 130' INT TERM

fail() {
    echo "FAILED: $*" >&2
    for log in "$work"/*.log "$work"/*.err; do
        [ -s "$log" ] && { echo "--- $log" >&2; tail -n 15 "$log" >&2; }
    done
    exit 1
}

understudy() {
    local host=$1
    shift
    hosts_exec "$prefix" "$host" "$BUILD/cli/understudy" "$@"
}

# Whether host $1 has told the event $2 of the VM.
tells() { understudy "$1" events web --json 2>/dev/null | jq -r .event | grep -x "$2" >/dev/null; }

# One field of `status --json` on a host, or nothing.
field() {
    understudy "$1" status web --json 2>/dev/null | sed -n "s/^ *\"$2\": *\"\{0,1\}\([^\",{]*\)\"\{0,1\},\{0,1\}$/\1/p" | head -n 1
}

# await SECONDS WHAT COMMAND...: until the command succeeds. The limit is for what hangs, not for what is slow: never below a minute. The
# command is tried each POLL_S seconds (from the environment): it costs several programs, so on a slow or shared machine seldom.
POLL_S=${POLL_S:-0.05}
await() {
    local until=$((SECONDS + ($1 < 60 ? 60 : $1))) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $until ] || fail "waited in vain: $what"
        sleep "$POLL_S"
    done
}

field_is() { [ "$(field "$1" "$2")" = "$3" ]; }
# status_says HOST PATTERN: whether a line of its status matches, for people or in JSON. The whole answer is read before it is looked at:
# "| grep -q" would end the command in the middle of it now and then, and the pipe would count as failed.
status_says() {
    local said
    said=$(understudy "$1" status web 2>/dev/null && understudy "$1" status web --json 2>/dev/null) || true
    grep -q "$2" <<<"$said"
}
gone() { [ -z "$(field "$1" state)" ]; }

# The programs that a daemon starts for its peer: the usual ones, those that the environment names (now: a test may unset that later), and
# what a test puts into $work or into a folder $work/bin*. A link's name and what it leads to must both be among them.
daemon_qemus=(--qemu '/usr/bin/qemu-system-*' --qemu "$(realpath "$work")/*" --qemu "$(realpath "$work")/bin*/*")
for program in qemu-system-x86_64 "${UNDERSTUDY_QEMU:-}" "${UNDERSTUDY_QEMU2:-}" "${UNDERSTUDY_QEMU3:-}"; do
    program=$(command -v "$program") || continue
    daemon_qemus+=(--qemu "$(realpath -s "$program")" --qemu "$(realpath "$program")")
done
unset program
# BEFORE_PAIRING, from the environment: 1 for a build from before pairing (bench/run.sh --against).
[ "${BEFORE_PAIRING:-0}" -eq 0 ] || daemon_qemus=()

address_of() { echo "10.77.0.$([ "$1" = a ] && echo 1 || echo 2)"; }
# Words before the daemon's command line, for a host that is not like the other.
# shellcheck disable=SC2034 # used by name
in_daemon_a=() in_daemon_b=()
start_daemon() {
    local host=$1 address
    local -n before="in_daemon_$host"
    address=$(address_of "$host")
    rm -f "$(hosts_run_dir "$prefix" "$host")/control.sock"
    # shellcheck disable=SC2086 # DAEMON_OPTIONS is a list of words
    hosts_exec "$prefix" "$host" "${before[@]}" "$BUILD/daemon/understudyd" --listen "$address:7070" "${daemon_qemus[@]}" ${DAEMON_OPTIONS:-} \
        --replicator "${REPLICATOR:-$BUILD/replicator/understudy-replicator}" >>"$work/$host.log" 2>&1 &
    disown
    await $((30 * ${PATIENCE:-1})) "understudyd on $host" test -S "$(hosts_run_dir "$prefix" "$host")/control.sock"
    [ "${BEFORE_PAIRING:-0}" -eq 1 ] || ! hosts_serve "$prefix" || hosts_pair "$prefix" "$BUILD/cli/understudy" || fail "the hosts cannot be paired"
}

build_guest() {
    "$(dirname "${BASH_SOURCE[0]}")/../guest/build-guest.sh" "$GUEST" 2>"$work/guest.err" || fail "the guest could not be built"
}

# Sets qemu to the command line of the test guest. From the environment: UNDERSTUDY_QEMU (the program), MEMORY (MiB), MACHINE, NIC (its
# -device), DIRTY (pages a second), DIRTY_SET (pages they are spread over), INITRD (a file in GUEST), APPEND (for the guest's kernel).
guest_command() {
    # shellcheck disable=SC2054 # commas are QEMU's
    qemu=("${UNDERSTUDY_QEMU:-qemu-system-x86_64}" -accel tcg -m "${MEMORY:-256}" -machine "${MACHINE:-pc}" -nodefaults -nographic
        -serial "file:$work/serial" -kernel "$GUEST/vmlinuz" -initrd "$GUEST/${INITRD:-initrd.img}"
        -append "console=ttyS0 quiet panic=-1 us.ip=$guest_address/24 us.dirty=${DIRTY:-1000} us.set=${DIRTY_SET:-16384} ${APPEND:-}"
        -netdev tap,id=n0,ifname=tap0,script=no,downscript=no
        -device "${NIC:-virtio-net-pci},netdev=n0,mac=52:54:00:77:00:10")
}
guest_ready() { grep -q 'understudy-guest: ready' "$work/serial" 2>/dev/null; }

# To be replaced by a test that puts something on the hosts before their daemons start.
pair_prepare() { :; }

# The guest on host a, protected by b. Arguments: more for `understudy run`, then -- and more for QEMU. From the environment: RUN_OPTIONS, a list
# of words, more for `understudy run` too.
start_pair() {
    local word
    # shellcheck disable=SC2206 # a list of words
    local options=(${RUN_OPTIONS:-})
    while [ $# -gt 0 ]; do
        word=$1
        shift
        [ "$word" = -- ] && break
        options+=("$word")
    done
    guest_command
    word="${options[*]} -- ${qemu[*]} $* ${DAEMON_OPTIONS:-}"
    if [ "${PAIR_STARTED:-0}" -eq 1 ]; then
        PAIR_STARTED=0
        take_pair "$word"
        return
    fi
    build_guest
    hosts_up "$prefix"
    pair_prepare
    start_daemon b
    start_daemon a
    rm -f "$work/serial"
    understudy a run --name web --peer 10.77.0.2 --wait-s "${WAIT_S:-60}" "${options[@]}" -- "${qemu[@]}" "$@" \
        >"$work/run.log" 2>&1 || fail "the VM could not be protected"
    await "${READY_S:-60}" "the guest to come up" guest_ready
    echo "$word" >"$work/pair"
}
# The pair of the test before, which must have been started like this one, and be whole. What its logs say was that test's.
take_pair() {
    [ "$(cat "$work/pair")" = "$1" ] || fail "this test starts another pair, '$1', than the one before it, '$(cat "$work/pair")'"
    if field_is b guest_here true; then
        await 60 "protection by host a" field_is b state protected
        understudy b failover web --planned || fail "the guest does not come back to host a"
    fi
    await 60 "protection by host b" field_is a state protected
    await 10 "host b to stand by" field_is b state standby
    ask_guest next >/dev/null || fail "the guest that the test before has left does not answer"
    : >"$work/a.log"
    : >"$work/b.log"
}

# More options for the client as arguments. From the environment: CLIENT_PATIENCE_S, after which it gives up, for a test that is to end with a
# connection that stands still.
start_client() {
    hosts_exec "$prefix" client "$BUILD/tests/client/understudy-test-client" $guest_address 7000 0 \
        --progress "$work/progress" ${CLIENT_PATIENCE_S:+--patience-s "$CLIENT_PATIENCE_S"} "$@" \
        >"$work/client.json" 2>"$work/client.err" &
    client=$!
    await 5 "the client" client_pid_known
}
# Whether the client has had an answer since `answers` was set to $(client_answers).
answers=0
client_answers() { cat "$work/progress" 2>/dev/null || echo 0; }
client_goes_on() { [ "$(client_answers)" != "$answers" ] || ! kill -0 "$client_pid" 2>/dev/null; }
client_pid_known() {
    client_pid=$(for p in $(ip netns pids "$prefix-client"); do
        [ "$(cat "/proc/$p/comm" 2>/dev/null)" = understudy-test ] && echo "$p"
    done)
    [ -n "$client_pid" ]
}
ask_guest() { hosts_exec "$prefix" client "$BUILD/tests/client/understudy-test-client" $guest_address 7000 --ask "$1"; }

# Ends the client; it must have lost nothing.
finish_client() {
    kill -TERM "$client_pid"
    wait "$client" || fail "the client lost something: $(cat "$work/client.json")"
}

# A moment to kill the host that runs the guest: within so many ms, the one place where passing time is the point. With FORCE_MOMENT, a
# number of answers, and the chaos replicator: the moment that must show its fault. The host cuts no epoch any more, and the client has
# had that many answers since, of which the other host knows nothing. With OPERATIONS, a number of answers: the moment after so many, for
# a fault that is on the disk by then.
moment_to_kill() {
    local host=$1 within=$2 before p goal
    if [ -n "${OPERATIONS:-}" ]; then
        # All of them since one synchronisation, which brings over what was left out before it.
        for _ in 1 2 3 4 5; do
            await 120 "protection" field_is "$host" state protected
            before=$(synchronisations "$host")
            goal=$((10#$(client_answers) + OPERATIONS))
            await 120 "$OPERATIONS operations" client_heard "$goal"
            [ "$(synchronisations "$host")" -ne "$before" ] || return 0
        done
        fail "the standby was synchronised again and again"
    fi
    if [ -z "${FORCE_MOMENT:-}" ]; then
        sleep "0.$(printf %03d $((RANDOM % within)))"
        return
    fi
    before=$(moments "$host")
    for p in $(ip netns pids "$prefix-$host"); do
        if [[ "$(readlink "/proc/$p/exe")" = */understudy-replicator-chaos ]]; then
            kill -USR1 "$p"
        fi
    done
    await 60 "the planted fault's moment" moment_came "$host" "$before"
    goal=$((10#$(client_answers) + FORCE_MOMENT))
    await 60 "answers of which the other host does not know" client_heard "$goal"
}
synchronisations() { grep -c 'web: synchronising, was' "$work/$1.log" || true; }
moments() { grep -c 'no epoch is cut any more' "$work/$1.log" || true; }
moment_came() { [ "$(moments "$1")" -gt "$2" ]; }
client_heard() { [ $((10#$(client_answers))) -ge "$1" ]; }

# Lets the host live again after hosts_kill.
revive() {
    hosts_links_up "$prefix" "$1"
    start_daemon "$1"
}

# After everything was removed: nothing may be left.
pair_leftovers() {
    if [ "${PAIR_STAYS:-0}" -eq 1 ]; then
        trap - EXIT
        return
    fi
    pair_cleanup
    trap - EXIT
    ! ip netns list | grep -q "^$prefix-" || fail "network namespaces are left"
    [ ! -e "/run/us-$prefix" ] || fail "files are left in /run/us-$prefix"
}
