#!/usr/bin/env bash
# Installs, upgrades, removes and purges the deb in a Debian of its own, and runs the units there under a systemd of their own.
#
#   bash packaging/try.sh SUITE [--without-units]
#
# SUITE: bookworm, trixie, ...; as root, with debootstrap and systemd-container. What was fetched is kept in target/try/SUITE.tar for the next
# time.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:?which suite: bookworm, trixie, ...} units=${2:-}
[ -z "$units" ] || [ "$units" = --without-units ] || { echo "$units: unknown" >&2; exit 2; }
deb=$(realpath target/packages/otproxy_*_"$(dpkg --print-architecture)".deb)
cache=target/try/$suite.tar
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
log=$root.log
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

fail() { echo "$suite: $*" >&2; cat "$log" >&2; exit 1; }
ok() { echo "$suite: $*"; }
# inside COMMAND...: runs it there; all that it says is in the log.
inside() {
    LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive unshare --fork --pid --mount-proc="$root/proc" chroot "$root" "$@" >"$log" 2>&1
}
says() { grep -qF -- "$1" "$log" || fail "lacks: $1"; }
apt() { inside apt-get -q -y --no-install-recommends --allow-downgrades -o Dpkg::Options::=--force-confold -o DPkg::Path="$PATH" "$@" || fail "apt-get $*"; }

if [ ! -e "$cache" ]; then
    mkdir -p target/try
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,man-db "$suite" "$root" >"$log" 2>&1 || fail "debootstrap"
    chroot "$root" apt-get clean
    tar --create --file "$cache.new" --directory "$root" .
    mv "$cache.new" "$cache"
else
    tar --extract --file "$cache" --directory "$root"
fi
# mktemp lets nobody else in.
chmod 755 "$root"

# The same package, of an older version.
dpkg-deb --raw-extract "$deb" "$root/old"
sed -i 's/^Version: .*/Version: 0.0.1-1/' "$root/old/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip --build "$root/old" "$root/old.deb" >/dev/null
rm -r "$root/old"
cp "$deb" "$root/new.deb"
version=$(dpkg-deb --field "$deb" Version)

apt install /old.deb
says "nothing is started"
inside otproxy --version && says "otproxy ${version%-*}" || fail "the program does not run"
inside otproxy demo --players 4 --edges 2 --seconds 3 || fail "the demo"
inside getent passwd otproxy && says "/nonexistent:/usr/sbin/nologin" || fail "no user"
for unit in otproxy-core otproxy-edge; do
    ! inside systemctl is-enabled "$unit" && says disabled || fail "$unit is enabled"
done
[ "$(stat -c '%a %U %G' "$root/etc/otproxy")" = "755 root root" ] || fail "/etc/otproxy"
inside man --where otproxy-cert-edge && says "/usr/share/man/man1/otproxy-cert-edge.1.gz" || fail "no page of the manual"
ok "installs: nothing enabled, nothing started, the user is there, the program plays a demo"

# The files that an owner has there.
echo "role: core" >"$root/etc/otproxy/core.yaml"
install -m 600 /dev/null "$root/etc/otproxy/core.key"
inside chown otproxy:otproxy /etc/otproxy/core.key
echo "# mine" >>"$root/etc/needrestart/conf.d/otproxy.conf"
before=$(cd "$root/etc/otproxy" && stat -c '%n %a %u %g %s' -- *)
is_kept() { [ "$(cd "$root/etc/otproxy" && stat -c '%n %a %u %g %s' -- *)" = "$before" ] || fail "/etc/otproxy has changed"; }
# A core that runs, as far as the package can tell.
mkdir -p "$root/run/systemd/system"
cat >"$root/usr/local/sbin/systemctl" <<'END'
#!/bin/sh
echo "$*" >>/systemctl.log
case "$*" in *is-active*otproxy-core*) exit 0 ;; *is-active*) exit 3 ;; esac
END
chmod 755 "$root/usr/local/sbin/systemctl"
touch "$root/usr/local/bin/otproxy" "$root/etc/systemd/system/otproxy-core.service"
apt install /new.deb
says "the core still runs the old program. A restart ends every game. At a server save:"
says "systemctl restart otproxy-core"
says "rm /usr/local/bin/otproxy"
says "rm /etc/systemd/system/otproxy-core.service"
! grep -E 'restart|stop|start' "$root/systemctl.log" >"$log" || fail "the upgrade touched a unit"
! grep -qF "nothing is started" "$log" || fail "an upgrade is no installation"
inside dpkg-query --show otproxy && says "$version" || fail "not upgraded"
grep -qx "# mine" "$root/etc/needrestart/conf.d/otproxy.conf" || fail "the file of configuration was overwritten"
is_kept
ok "upgrades: names what runs, restarts nothing, keeps /etc/otproxy and changed files of configuration"
rm "$root/usr/local/bin/otproxy" "$root/usr/local/sbin/systemctl" "$root/etc/systemd/system/otproxy-core.service" "$root/systemctl.log"
rmdir "$root/run/systemd/system"

inside systemctl enable otproxy-core || fail "cannot be enabled"
apt remove otproxy
[ ! -e "$root/usr/bin/otproxy" ] || fail "the program is left"
is_kept
inside getent passwd otproxy || fail "the user is gone"
ok "removes: /etc/otproxy and the user stay"
apt purge otproxy
says "/etc/otproxy is left, with the keys in it"
is_kept
[ ! -h "$root/etc/systemd/system/multi-user.target.wants/otproxy-core.service" ] || fail "the unit is still enabled"
[ ! -e "$root/etc/needrestart/conf.d/otproxy.conf" ] || fail "files of configuration are left"
apt install /new.deb
inside env OTPROXY_PURGE_KEYS=1 apt-get -q -y purge otproxy || fail "purge"
[ ! -e "$root/etc/otproxy" ] || fail "/etc/otproxy is left"
inside sh -c 'find / -xdev -iname "*otproxy*" -not -path "/proc/*" -not -path "/var/log/*" -not -path "/var/lib/systemd/*"' && [ ! -s "$log" ] ||
    fail "something is left"
ok "purges: keys stay, but with OTPROXY_PURGE_KEYS=1; else nothing is left"

[ -z "$units" ] || exit 0
# A systemd of its own runs the rest, ends itself, and leaves what was said.
apt install /old.deb
cat >"$root/etc/systemd/system/try.service" <<'END'
[Service]
Type=oneshot
Environment=LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
ExecStart=/bin/sh -c 'sh -ex /try.sh || { journalctl --no-pager --lines 40; exit 1; }'
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=append:/try.log
StandardError=append:/try.log
[Install]
WantedBy=multi-user.target
END
cat >"$root/try.sh" <<'END'
mkdir -p /etc/otproxy
cat >/etc/otproxy/core.yaml <<'YAML'
role: core
edges: [{ name: here, address: 127.0.0.1 }]
listeners: [{ name: links, kind: relay, listen: "127.0.0.1:7163" }]
game_servers: [{ port: 7172, address: "127.0.0.1:7172" }]
YAML
cat >/etc/otproxy/edge.yaml <<'YAML'
role: edge
listeners: [{ name: links, listen: "127.0.0.1:7162", forward_to: "127.0.0.1:7163" }]
YAML
systemctl enable --now otproxy-core otproxy-edge
pid=$(systemctl show --property MainPID --value otproxy-core)
for role in core edge; do
    otproxy status --socket /run/otproxy-$role/admin.sock
    systemctl reload otproxy-$role
    unit=$(systemctl show --property MainPID --value otproxy-$role)
    [ "$(readlink /proc/$unit/exe)" = /usr/bin/otproxy ]
    [ "$(stat -c %U /proc/$unit)" = otproxy ]
done
dpkg --install /new.deb >/upgrade.log
cat /upgrade.log
grep "systemctl restart otproxy-core" /upgrade.log
grep "systemctl restart otproxy-edge" /upgrade.log
[ "$(systemctl show --property MainPID --value otproxy-core)" = "$pid" ]
systemctl reload otproxy-core
otproxy doctor -c /etc/otproxy/edge.yaml || true
# As a host has it that was installed without a package before.
cp /usr/lib/systemd/system/otproxy-edge.service /etc/systemd/system/
systemctl daemon-reload
systemctl reenable otproxy-edge
rm /etc/systemd/system/otproxy-edge.service
systemctl daemon-reload
systemctl restart otproxy-edge
systemctl is-enabled otproxy-edge
systemctl disable otproxy-edge
dpkg --remove otproxy
! systemctl is-active otproxy-core
! systemctl is-active otproxy-edge
[ ! -e /proc/$pid ]
echo all of it
END
inside systemctl enable try.service || fail "systemctl enable"
if ! timeout 180 systemd-nspawn --quiet --register=no --keep-unit --private-network --directory="$root" --boot </dev/null >"$log" 2>&1 || [ ! -e "$root/try.log" ]; then
    cat "$log" >&2
    echo "$suite: UNITS NOT TRIED: systemd-nspawn runs no systemd on this machine, as said above" >&2
    exit 3
fi
cp "$root/try.log" "$log"
[ "$(tail -n 1 "$log")" = "all of it" ] || fail "the units"
ok "runs both units as otproxy; they reload, run on through an upgrade, and end with the package"
