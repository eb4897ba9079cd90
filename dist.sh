#!/usr/bin/env bash
# Builds what ships: target/dist/otproxy without its symbols, and beside it otproxy.debug, which has them.
#
#   bash dist.sh [FLAGS]      FLAGS: for cargo, as --locked
set -euo pipefail
cd "$(dirname "$0")"
command -v objcopy >/dev/null || { echo "no objcopy: install the package binutils" >&2; exit 1; }
cargo build --release "$@"
cd "${CARGO_TARGET_DIR:-target}"
mkdir -p dist
whole=$PWD/release/otproxy
cd dist

sections=$(readelf --section-headers --wide "$whole")
[[ $sections == *.debug_line* ]] || { echo "the program has no symbols to set apart" >&2; exit 1; }
# The name and the checksum of the one are in the other: gdb, perf and the program's own backtraces find it by them.
objcopy --only-keep-debug --compress-debug-sections=zlib "$whole" otproxy.debug
chmod 644 otproxy.debug
objcopy --strip-all --add-gnu-debuglink=otproxy.debug "$whole" otproxy.stripped
mv otproxy.stripped otproxy
du -h --apparent-size "$PWD/otproxy" "$PWD/otproxy.debug"
