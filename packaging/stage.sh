#!/usr/bin/env bash
# Lays out what a package installs, for the deb and the rpm alike.
#
#   bash packaging/stage.sh TRIPLE PROGRAM RUNNABLE ROOT
#
# PROGRAM: what is installed, for TRIPLE; RUNNABLE: the same for this machine, which writes manual and completions; ROOT: a
# new folder, which becomes the root.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/env.sh
triple=$1 program=$2 runnable=$3 root=$4
doc=$root/usr/share/doc/otproxy

install -D -m 755 "$program" "$root/usr/bin/otproxy"
install -D -m 644 -t "$root/usr/lib/systemd/system" systemd/otproxy-*.service
install -D -m 644 packaging/sysusers.conf "$root/usr/lib/sysusers.d/otproxy.conf"
install -D -m 644 packaging/needrestart.conf "$root/etc/needrestart/conf.d/otproxy.conf"
install -d -m 755 "$root/etc/otproxy"

man=$root/usr/share/man/man1
install -d -m 755 "$man"
"$runnable" man --dir "$man" >/dev/null
chmod 644 "$man"/*
gzip -9n "$man"/*

# complete SHELL FILE
complete() {
    install -d -m 755 "$(dirname "$root/usr/share/$2")"
    "$runnable" completions "$1" >"$root/usr/share/$2"
}
complete bash bash-completion/completions/otproxy
complete fish fish/vendor_completions.d/otproxy.fish
# The folder of Debian; an rpm has another.
complete zsh zsh/vendor-completions/_otproxy

install -D -m 644 -t "$doc" README.md SECURITY.md
install -D -m 644 -t "$doc/docs" docs/*.md
install -D -m 644 -t "$doc/configs" configs/*.yaml
# Not below doc, which some hosts leave out: Grafana reads the dashboards where they are.
find configs/monitoring -type f | while read -r file; do install -D -m 644 "$file" "$root/usr/share/otproxy/${file#configs/}"; done
cargo metadata --format-version 1 --locked --filter-platform "$triple" | python3 packaging/third-party.py >"$doc/third-party.txt"
