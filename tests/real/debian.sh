#!/usr/bin/env bash
# A small Debian with PostgreSQL and fio, as an ext4 image that the test guest's kernel and initramfs boot (us.root=vda):
#   debian.sh OUTDIR      makes OUTDIR/root (the tree) and OUTDIR/debian.img; what is there is kept, until this script changes
# Packages come from where this machine's apt has its own from. Needs root.
#
# No init system: /sbin/init is a script that starts PostgreSQL and waits. The database has pgbench's tables and an empty
# ledger, and trusts the tests' network.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: debian.sh OUTDIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)
root=$out/root

die() {
    echo "debian: $*" >&2
    exit 1
}
[ "$(id -u)" -eq 0 ] || die "become root: it makes a file tree with owners"
command -v debootstrap >/dev/null || die "debootstrap is missing: scripts/install-deps.sh --real installs it"

exec 9>"$out/lock"
flock 9
[ ! "$out/debian.img" -nt "$here/debian.sh" ] || exit 0

# The mirror that apt uses, with its protocol, for the release that it uses.
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $release" 'Component: main' | head -n 1)
[ -n "$mirror" ] || die "apt knows no mirror of $release: run apt-get update"

if [ ! -e "$out/root.done" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase --include=postgresql,iproute2,procps,fio,e2fsprogs "$release" "$root" "$mirror" >"$out/debootstrap.log" 2>&1 ||
        die "debootstrap failed: $(tail -n 3 "$out/debootstrap.log")"
    touch "$out/root.done"
fi
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,i18n}/* "$root"/usr/lib/*/libLLVM*

cat >"$root/sbin/init" <<'INIT'
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -m 2775 /run/postgresql
chown postgres:postgres /run/postgresql
setsid /postgres start >/dev/console 2>&1 && echo "understudy-guest: ready" >/dev/console
while :; do sleep 3600; done
INIT
cat >"$root/postgres" <<'POSTGRES'
#!/bin/sh
exec su postgres -c "/usr/lib/postgresql/15/bin/pg_ctl -D /var/lib/postgresql/data -l /var/lib/postgresql/log -w -t 120 $1"
POSTGRES
cat >"$root/prepare" <<'PREPARE'
#!/bin/sh
set -e
bin=/usr/lib/postgresql/15/bin data=/var/lib/postgresql/data
rm -rf $data /var/lib/postgresql/15
su postgres -c "$bin/initdb -D $data --auth-local=trust --auth-host=trust -E UTF8 --no-locale -k" >/dev/null
cat >>$data/postgresql.conf <<CONF
listen_addresses = '*'
jit = off
shared_buffers = 64MB
max_connections = 20
max_wal_size = 128MB
min_wal_size = 64MB
log_min_messages = warning
CONF
echo "host all all 10.77.0.0/24 trust" >>$data/pg_hba.conf
mkdir -p -m 2775 /run/postgresql
chown postgres:postgres /run/postgresql
/postgres start >/dev/null
su postgres -c "createdb bench && $bin/pgbench -q -i -s 1 bench" >/dev/null 2>&1
su postgres -c "psql -q bench" <<SQL
CREATE TABLE ledger (client int, id bigint, word uuid, PRIMARY KEY (client, id));
SQL
/postgres stop >/dev/null
PREPARE
chmod 755 "$root/sbin/init" "$root/postgres" "$root/prepare"
# A network and a mount namespace of its own: nothing meets a PostgreSQL of this machine, and nothing stays mounted.
unshare --mount --net --pid --fork --propagation private bash -c '
    set -e
    ip link set lo up 2>/dev/null || true
    mount -t proc proc "$0/proc"
    mount -t tmpfs tmpfs "$0/dev/shm"
    exec chroot "$0" /prepare' "$root" || die "the database could not be prepared"

rm -f "$out/debian.img.new"
truncate -s 1G "$out/debian.img.new"
mkfs.ext4 -q -F -d "$root" -E lazy_itable_init=0,lazy_journal_init=0 "$out/debian.img.new"
mv "$out/debian.img.new" "$out/debian.img"
