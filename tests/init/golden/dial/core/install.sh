#!/bin/sh
# Puts the files of the core in their places and starts it. As root: sh install.sh
# To be run again whenever files here have changed. It leaves the firewall alone. Made by `otproxy init`.
set -eu
cd "$(dirname "$0")"
etc=${DESTDIR:-}/etc
unit=otproxy-core.service

command -v otproxy >/dev/null || { echo "copy the program to /usr/local/bin/otproxy first" >&2; exit 1; }
getent passwd otproxy >/dev/null || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin otproxy

install -d -m 755 "$etc/otproxy" "$etc/systemd/system/$unit.d"
install -m 644 core.yaml ca.pem core.pem "$etc/otproxy/"
install -m 600 -o otproxy -g otproxy core.key "$etc/otproxy/"
install -m 644 "$unit" "$etc/systemd/system/"
install -m 644 tunnel.conf "$etc/systemd/system/$unit.d/"

otproxy check -c "$etc/otproxy/core.yaml"
systemctl daemon-reload
if systemctl --quiet is-active "$unit"; then
    systemctl reload "$unit"
    echo "$unit has read its files again. Where its log says that a change needs a restart (at a server save: it ends all sessions):"
    echo "    systemctl restart $unit"
else
    systemctl enable --now "$unit"
fi
