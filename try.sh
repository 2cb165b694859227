#!/usr/bin/env bash
# understudy in two minutes: installs, builds, protects a Linux guest on host A, kills host A, and shows that the client
# noticed nothing. Hosts A and B and the client are network namespaces of this machine, joined by a bridge.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    cat <<'USAGE'
usage: ./try.sh [OPTIONS]
  --accel auto|kvm|tcg  how the guest runs (auto: KVM if it can really run the guest, else TCG)
  --memory SIZE         the guest's memory, as QEMU's -m takes it (256M)
  --cpus N              the guest's processors (1)
  --machine TYPE        QEMU's machine: pc, q35, microvm (pc)
  --epoch-ms N          time between checkpoints (20)
  --seconds N           time under protection before host A is killed (10)
  --dirty N             pages the guest dirties a second, besides what it does anyway (1000)
  --json FILE           write the figures there
  --quiet               print the summary only
  --no-install          leave the packages alone
Exit status: 0 only if host B took the guest over and the client lost nothing.
USAGE
}

accel=auto memory=256M cpus=1 machine=pc epoch_ms=20 seconds=10 dirty=1000 json="" quiet=0 install=1
fail_usage() {
    echo "try.sh: $1; './try.sh --help' lists the options" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case "$1" in
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    case "$1" in
    --accel | --memory | --cpus | --machine | --epoch-ms | --seconds | --dirty | --json)
        [ $# -ge 2 ] || fail_usage "$1 needs a value"
        name=${1#--}
        printf -v "${name//-/_}" %s "$2"
        shift 2
        ;;
    --quiet) quiet=1; shift ;;
    --no-install) install=0; shift ;;
    --help | -h) usage; exit 0 ;;
    *) fail_usage "unknown option $1" ;;
    esac
done
case "$accel" in auto | kvm | tcg) ;; *) fail_usage "--accel is auto, kvm or tcg" ;; esac
# number OPTION VALUE LEAST MOST
number() {
    [[ "$2" =~ ^[0-9]{1,7}$ ]] && [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] || fail_usage "$1 $2: give a number from $3 to $4"
}
number --cpus "$cpus" 1 1024
number --epoch-ms "$epoch_ms" 1 1000
number --seconds "$seconds" 1 86400
number --dirty "$dirty" 0 9999999
[ "$(id -u)" -eq 0 ] || { echo "try.sh: become root: it makes network namespaces" >&2; exit 1; }

# Now, and not after everything else.
[ -z "$json" ] || { : >>"$json"; } 2>/dev/null || { echo "try.sh: $json cannot be written" >&2; exit 1; }

say() { [ "$quiet" -eq 1 ] || echo "$@"; }

if [ "$install" -eq 1 ]; then
    say "== packages"
    scripts/install-deps.sh
elif missing=$(scripts/install-deps.sh --missing) && [ -n "$missing" ]; then
    echo "try.sh: not installed, and perhaps needed (without --no-install they would be): $missing" >&2
fi
say "== build"
cmake --preset release >/dev/null
cmake --build --preset release -- --quiet | { grep -v '^ninja: no work to do' || true; }
build=$PWD/build/release
guest=$PWD/build/guest
say "== guest"
tests/guest/build-guest.sh "$guest"

# shellcheck source=tests/net/hosts.sh
. tests/net/hosts.sh
prefix=try$$
work=$(mktemp -d)
probe=""
cleanup() {
    [ -z "$probe" ] || kill -KILL "$probe" 2>/dev/null || true
    hosts_down "$prefix" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

address=10.77.0.10
virtio_net=virtio-net-pci,disable-modern=on # a shorter pause: docs/operations.md
[ "$machine" != microvm ] || virtio_net=virtio-net-device
qemu_line() {
    printf '%s\n' qemu-system-x86_64 -machine "$machine" -accel "$1" -m "$memory" -smp "$cpus" -nodefaults -nographic \
        -serial "file:$2" -kernel "$guest/vmlinuz" -initrd "$guest/initrd.img" \
        -append "console=ttyS0 quiet panic=-1 us.ip=$address/24 us.dirty=$dirty"
}

# Does the guest really come up under KVM? A nested or paravirtual KVM may open, run small things, and still hang here.
kvm_runs_guest() {
    local line
    [ -w /dev/kvm ] || { kvm_says="there is no /dev/kvm"; return 1; }
    mapfile -t line < <(qemu_line kvm "$work/probe.log")
    "${line[@]}" -no-reboot </dev/null >"$work/probe.out" 2>&1 &
    probe=$!
    local until=$((SECONDS + 15))
    kvm_says="the guest did not come up under KVM within 15 s"
    while [ $SECONDS -lt $until ] && kill -0 $probe 2>/dev/null; do
        if grep -q 'understudy-guest: ready' "$work/probe.log" 2>/dev/null; then
            kvm_says=""
            break
        fi
        sleep 0.2
    done
    # A reset under -no-reboot ends QEMU too: a guest that KVM sent astray.
    kill -0 $probe 2>/dev/null || kvm_says="QEMU ended: $(tail -n 1 "$work/probe.out")"
    kill -KILL $probe 2>/dev/null || true
    wait $probe 2>/dev/null || true
    probe=""
    [ -z "$kvm_says" ]
}
kvm_says=""
if [ "$accel" != tcg ]; then
    say "== trying KVM"
    if kvm_runs_guest; then
        accel=kvm
    elif [ "$accel" = kvm ]; then
        echo "try.sh: KVM cannot run the guest: $kvm_says" >&2
        exit 1
    else
        say "   not usable ($kvm_says): the guest runs under TCG"
        accel=tcg
    fi
fi

say "== two hosts"
hosts_up "$prefix"
understudy() { local host=$1; shift; hosts_exec "$prefix" "$host" "$build/cli/understudy" "$@"; }
for host in a b; do
    listen=10.77.0.$([ $host = a ] && echo 1 || echo 2):7070
    hosts_exec "$prefix" $host "$build/daemon/understudyd" --listen "$listen" >"$work/$host.log" 2>&1 &
    disown
done
for host in a b; do
    for _ in $(seq 100); do
        [ -S "$(hosts_run_dir "$prefix" $host)/control.sock" ] && break
        sleep 0.05
    done
done
give_up() {
    echo "try.sh: $1" >&2
    tail -n 5 "$work"/*.log >&2 || true
    exit 1
}

say "== pairing: a code of host A, given to host B, makes the two trust each other"
code=$(understudy a pair --invite) || give_up "host A makes no code"
paired=$(understudy b pair 10.77.0.1 "$code") || give_up "the hosts cannot be paired"
say "   host A: understudy pair --invite            $code"
say "   host B: understudy pair 10.77.0.1 CODE      $paired"

say "== protecting VM web on host A, host B stands by"
mapfile -t line < <(qemu_line "$accel" "$work/serial.log")
understudy a run --name web --peer 10.77.0.2 --epoch-ms "$epoch_ms" --wait-s 120 -- "${line[@]}" \
    -netdev tap,id=n0,ifname=tap0,script=no,downscript=no -device "$virtio_net,netdev=n0,mac=52:54:00:77:00:10" \
    >"$work/run.out" || give_up "the VM could not be protected"
say "   $(cat "$work/run.out")"
for _ in $(seq 600); do
    grep -q 'understudy-guest: ready' "$work/serial.log" 2>/dev/null && break
    sleep 0.1
done
grep -q 'understudy-guest: ready' "$work/serial.log" || give_up "the guest did not come up within 60 s"

hosts_exec "$prefix" client "$build/tests/client/understudy-test-client" $address 7000 0 >"$work/client.json" 2>"$work/client.err" &
client=$!
# The shells in between pass no signals on: the client itself is wanted.
client_pid() { ip netns pids "$prefix-client" | while read -r p; do
    [ "$(cat "/proc/$p/comm" 2>/dev/null)" = understudy-test ] && echo "$p"; done; }
say "== $seconds s under protection; a client asks for the next number, over one TCP connection, without pause"
if [ "$quiet" -eq 0 ]; then
    hosts_exec "$prefix" a timeout "$seconds" "$build/cli/understudy" status web --watch || true
    echo
else
    sleep "$seconds"
fi
understudy a status web --json >"$work/a.json" || give_up "VM web is not on host A any more"
pid=$(client_pid)
[ -n "$pid" ] || give_up "the client ended early: $(cat "$work/client.err" "$work/client.json")"

say "== killing every process of host A"
kill -USR1 "$pid"
hosts_kill "$prefix" a 2>/dev/null
sleep 3
understudy b status web --json >"$work/b.json" || give_up "host B has no VM web"
kill -TERM "$pid"
lost=0
wait $client || lost=1

# A figure that is missing is null in the JSON and shows as such.
value() { local found; found=$(scalar "$@"); echo "${found:-null}"; }
scalar() { sed -n "s/^ *\"$2\": *\([^,{]*\),\{0,1\}$/\1/p" "$1" | head -n 1; }
pair() { local found; found=$(triple "$@"); echo "${found:-null null null}"; }
triple() { { tr -d "\n " <"$1"; echo; } | sed -n "s/.*\"$2\":{\"p50\":\([0-9]*\),\"p99\":\([0-9]*\),\"max\":\([0-9]*\)}.*/\1 \2 \3/p"; }
read -r pause50 pause99 pause_max < <(pair "$work/a.json" pause_us)
read -r dirty50 dirty99 _ < <(pair "$work/a.json" dirty_pages)
read -r bytes50 bytes99 _ < <(pair "$work/a.json" epoch_bytes)
answers_total=$(value "$work/client.json" answers_total)
answers_lost=$(value "$work/client.json" answers_lost)
answers_out_of_order=$(value "$work/client.json" answers_out_of_order)
tcp_resets=$(value "$work/client.json" tcp_resets)
client_gap_ms=$(value "$work/client.json" client_gap_ms)
guest_clock_drift_ppm=$(value "$work/client.json" guest_clock_drift_ppm)
detect_ms=$(value "$work/b.json" detect_ms)
promote_ms=$(value "$work/b.json" promote_ms)
epochs=$(value "$work/a.json" epochs)
qemu_version=$(value "$work/a.json" qemu_version)
memory_mib=$(value "$work/a.json" memory_mib)
took_over=$([ "$(value "$work/b.json" guest_here)" = true ] && echo 1 || echo 0)

if [ -n "$json" ]; then
    cat >"$json" <<JSON
{
  "accel": "$accel",
  "qemu_version": $qemu_version,
  "memory_mib": $memory_mib,
  "epochs": $epochs,
  "pause_us": {"p50": $pause50, "p99": $pause99, "max": $pause_max},
  "dirty_pages": {"p50": $dirty50, "p99": $dirty99},
  "epoch_bytes": {"p50": $bytes50, "p99": $bytes99},
  "detect_ms": $detect_ms,
  "promote_ms": $promote_ms,
  "client_gap_ms": $client_gap_ms,
  "answers_total": $answers_total,
  "answers_lost": $answers_lost,
  "answers_out_of_order": $answers_out_of_order,
  "tcp_resets": $tcp_resets,
  "guest_clock_drift_ppm": $guest_clock_drift_ppm
}
JSON
fi

cat <<SUMMARY
== summary
   guest                 QEMU ${qemu_version//\"}, $accel, $machine, $memory_mib MiB
   epochs                $epochs, every $epoch_ms ms
   pause                 p50 $pause50 us, p99 $pause99 us, max $pause_max us
   dirty pages an epoch  p50 $dirty50, p99 $dirty99
   bytes an epoch        p50 $bytes50, p99 $bytes99
   host A killed         detected after $detect_ms ms, guest running $promote_ms ms later
   client                longest silence $client_gap_ms ms; $answers_total answers, $answers_lost lost, $answers_out_of_order out of order, $tcp_resets resets
   guest clock           $guest_clock_drift_ppm ppm against the client's
SUMMARY
if [ "$took_over" -eq 1 ] && [ "$lost" -eq 0 ]; then
    echo "   host B took over; nothing was lost"
else
    echo "   FAILED: $([ "$took_over" -eq 1 ] && echo "the client lost something" || echo "host B did not take over")"
    tail -n 5 "$work"/*.log >&2 || true
    exit 1
fi
