#!/usr/bin/env bash
# Builds all packages into target/packages: README.md beside this file says which.
#
#   bash packaging/build.sh [--all] [--out FOLDER]
#
# --all: a package that cannot be built is an error, as for a release; FOLDER: another than target/packages. It is emptied.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/env.sh
all="" out=${CARGO_TARGET_DIR:-target}/packages
while [ $# -gt 0 ]; do
    case $1 in
    --all) all=yes ;;
    --out) out=$2 && shift ;;
    *) echo "$1: unknown; see the head of $0" >&2 && exit 2 ;;
    esac
    shift
done
version=$(cargo pkgid -p otproxy | sed 's/.*[#@]//')
host=$(rustc --version --verbose | sed -n 's/^host: //p')
rm -rf "$out"
mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# lacking TRIPLE: what this machine needs to build for it, as a command.
lacking() {
    [ -d "$(rustc --print target-libdir --target "$1")" ] || { echo "rustup target add $1"; return; }
    case $1 in
    "$host") ;;
    aarch64-*) command -v aarch64-linux-gnu-gcc >/dev/null || echo "apt-get install gcc-aarch64-linux-gnu" ;;
    *-musl) command -v musl-gcc >/dev/null || echo "apt-get install musl-tools" ;;
    esac
}

# This machine's own program writes the manual and the completions.
bash dist.sh --locked
runnable=$(realpath "${CARGO_TARGET_DIR:-target}/dist/otproxy")

missing=()
for triple in x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl; do
    lacks=$(lacking "$triple")
    if [ -n "$lacks" ]; then
        missing+=("$triple: $lacks")
        continue
    fi
    dist=$(dirname "$runnable")
    [ "$triple" = "$host" ] || { bash dist.sh --target "$triple" --locked; dist+=/$triple; }
    machine=${triple%%-*}
    case $machine in x86_64) debian=amd64 ;; aarch64) debian=arm64 ;; esac
    bash packaging/stage.sh "$triple" "$dist/otproxy" "$runnable" "$work/$triple/root"
    case $triple in
    *-gnu)
        cp -a "$work/$triple/root" "$work/$triple/deb"
        bash packaging/deb.sh "$work/$triple/deb" "$debian" "$version" "$out"
        mv "$work/$triple/root/usr/share/zsh/vendor-completions" "$work/$triple/root/usr/share/zsh/site-functions"
        bash packaging/rpm.sh "$work/$triple/root" "$machine" "$version" "$out"
        ;;
    *-musl)
        bash packaging/tar.sh "$work/$triple/root" "$machine" "$version" "$out"
        # The context of the container's build.
        install -D -m 755 "$dist/otproxy" "$out/container/$debian/otproxy"
        ;;
    esac
    install -m 644 "$dist/otproxy.debug" "$out/otproxy-$version-$machine-${triple##*-}.debug"
done
bash packaging/sbom.sh "$version" "$out"
(cd "$out" && find . -maxdepth 1 -type f -printf '%f\n' | sort | xargs sha256sum >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
(cd "$out" && ls -l)
for triple in "${missing[@]}"; do echo "NOT BUILT: $triple"; done
[ -z "$all" ] || [ ${#missing[@]} -eq 0 ]
