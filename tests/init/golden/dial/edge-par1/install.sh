#!/bin/sh
# Puts the files of the edge par1 in their places and starts it. As root: sh install.sh
# To be run again whenever files here have changed. It leaves the firewall alone. Made by `otproxy init`.
set -eu
cd "$(dirname "$0")"
bin=${DESTDIR:-}/usr/local/bin
packaged=${DESTDIR:-}/usr
etc=${DESTDIR:-}/etc
unit=otproxy-edge.service
units=$etc/systemd/system
program=

# A program that runs cannot be written to: a new one is copied beside it, and takes its place here.
if [ -e "$bin/otproxy.new" ]; then
    chmod 755 "$bin/otproxy.new"
    "$bin/otproxy.new" --version >/dev/null || { echo "$bin/otproxy.new does not run on this host" >&2; exit 1; }
    mv -f "$bin/otproxy.new" "$bin/otproxy"
    program=new
fi
command -v otproxy >/dev/null || { echo "install the package, or copy the program to /usr/local/bin/otproxy.new first" >&2; exit 1; }
if [ -e "$bin/otproxy" ] && [ -e "$packaged/bin/otproxy" ]; then
    echo "/usr/local/bin/otproxy is what runs, and not the package's program: rm /usr/local/bin/otproxy" >&2
fi
getent passwd otproxy >/dev/null || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin otproxy

# All is put together beside its place, with what is there already, and checked. So an error changes nothing; and each file
# takes its place in one step, so that nobody reads half of one.
install -d -m 755 "$etc/otproxy" "$units/$unit.d"
stage=$(mktemp -d "$etc/.otproxy.XXXXXX")
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
cp -a "$etc/otproxy/." "$stage/"
install -m 644 edge.yaml ca.pem par1.pem "$stage/"
install -m 600 -o otproxy -g otproxy par1.key "$stage/"
otproxy check -c "$stage/edge.yaml"
for file in par1.key par1.pem ca.pem edge.yaml; do mv -f "$stage/$file" "$etc/otproxy/$file"; done
# One here would hide a package's unit, and what upgrades change in that.
if [ -e "$packaged/lib/systemd/system/$unit" ]; then
    rm -f "$units/$unit"
else
    install -m 644 "$unit" "$units/$unit.new"
    mv -f "$units/$unit.new" "$units/$unit"
fi
install -m 644 tunnel.conf "$units/$unit.d/tunnel.conf.new"
mv -f "$units/$unit.d/tunnel.conf.new" "$units/$unit.d/tunnel.conf"

systemctl daemon-reload
if systemctl --quiet is-active "$unit"; then
    systemctl reload "$unit"
    # So does a package's new program leave the one that runs.
    case $(readlink "/proc/$(systemctl show --property=MainPID --value "$unit")/exe" || true) in *' (deleted)') program=new ;; esac
    if [ -n "$program" ]; then
        echo "$unit still runs the old program, and takes up the new one with a restart:"
    else
        echo "$unit has read its files again. If its log says that a change needs a restart:"
    fi
    echo "    systemctl restart $unit"
else
    systemctl enable --now "$unit"
fi
