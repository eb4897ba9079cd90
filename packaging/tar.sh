#!/usr/bin/env bash
# Makes a tar.gz of a program that needs no library.
#
#   bash packaging/tar.sh ROOT ARCHITECTURE VERSION OUT
#
# ROOT: what stage.sh laid out; ARCHITECTURE: x86_64 or aarch64; VERSION: as 0.1.0; OUT: the folder that the archive goes to.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/env.sh
root=$1 name=otproxy-$3-$2-linux-static out=$4
if readelf --dynamic --wide "$root/usr/bin/otproxy" | grep -q NEEDED; then
    echo "$root/usr/bin/otproxy needs libraries: it is not static" >&2
    exit 1
fi
folder=$(dirname "$root")/$name
mkdir "$folder"
cp -r "$root/usr/share/doc/otproxy/." "$folder"
cp -r "$root/usr/share/otproxy/monitoring" "$root/usr/share/man" "$root/usr/bin/otproxy" systemd/otproxy-*.service CHANGELOG.md LICENSE "$folder"
mkdir "$folder/completions"
cp "$root"/usr/share/{bash-completion/completions/otproxy,fish/vendor_completions.d/otproxy.fish,zsh/*/_otproxy} "$folder/completions"
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mode=go=rX,u+w --mtime="@$SOURCE_DATE_EPOCH" --format=ustar \
    --directory="$(dirname "$folder")" "$name" | gzip -9n >"$out/$name.tar.gz"
