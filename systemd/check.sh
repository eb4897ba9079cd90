#!/usr/bin/env bash
# Checks the units with systemd's own tools, without installing them.
#
#   systemd/check.sh [BINARY]      BINARY: an otproxy to put in the place of the installed one,
#                                  target/dist/otproxy unless given
set -euo pipefail

# The exposure that systemd-analyze may find at most, times ten: 15 is 1.5 of 10.
threshold=15

here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:-$here/../target/dist/otproxy}")
[ -x "$binary" ] || { echo "no program at $binary: build it first, bash dist.sh" >&2; exit 1; }

copies=$(mktemp -d)
trap 'rm -rf "$copies"' EXIT

systemd-analyze --version | head -n 1
for unit in "$here"/otproxy-edge.service "$here"/otproxy-core.service; do
    name=$(basename "$unit")
    copy=$copies/$name
    sed "s|=otproxy |=$binary |" "$unit" >"$copy"

    # verify exits 0 on an unknown key: it only says so. Any word about this unit is a failure.
    said=$(systemd-analyze verify --man=no --recursive-errors=no "$copy" 2>&1) || { echo "$said" >&2; exit 1; }
    if grep -F "$name" <<<"$said" >&2; then exit 1; fi
    echo "$name: verify: no complaint"

    security=$(systemd-analyze security --offline=true --no-pager --threshold="$threshold" "$copy" 2>&1) ||
        { echo "$security" >&2; exit 1; }
    echo "$name: security: $(grep -F 'Overall exposure' <<<"$security" | sed 's/^[^O]*//'), threshold $threshold tenths"
done
