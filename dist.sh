#!/usr/bin/env bash
# Builds what ships: target/dist/otproxy without its symbols, and beside it otproxy.debug, which has them.
#
#   bash dist.sh [--target TRIPLE] [FLAGS]      FLAGS: for cargo, as --locked
#
# For another TRIPLE than this machine's, both are in target/dist/TRIPLE.
set -euo pipefail
cd "$(dirname "$0")"
. packaging/env.sh
triple=
[ "${1:-}" != --target ] || triple=$2
# The other architecture's tools have its name in front of theirs.
tools=
if [[ $triple == aarch64-* && $(uname -m) != aarch64 ]]; then
    tools=aarch64-linux-gnu-
    # musl needs no other compiler than glibc does: what is C in here calls no library.
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_{GNU,MUSL}_LINKER=${tools}gcc CC_aarch64_unknown_linux_{gnu,musl}=${tools}gcc
fi
command -v "${tools}objcopy" >/dev/null || { echo "no ${tools}objcopy: install the package binutils${tools:+-aarch64-linux-gnu}" >&2; exit 1; }
cargo build --release "$@"
cd "${CARGO_TARGET_DIR:-target}"
whole=$PWD/${triple:+$triple/}release/otproxy
mkdir -p "dist/$triple"
cd "dist/$triple"

sections=$(readelf --section-headers --wide "$whole")
[[ $sections == *.debug_line* ]] || { echo "the program has no symbols to set apart" >&2; exit 1; }
# The name and the checksum of the one are in the other: gdb, perf and the program's own backtraces find it by them.
"${tools}objcopy" --only-keep-debug --compress-debug-sections=zlib "$whole" otproxy.debug
chmod 644 otproxy.debug
"${tools}objcopy" --strip-all --add-gnu-debuglink=otproxy.debug "$whole" otproxy.stripped
mv otproxy.stripped otproxy
du -h --apparent-size "$PWD/otproxy" "$PWD/otproxy.debug"
