#!/usr/bin/env bash
# Builds all packages once more, from a clone in a folder of its own with a home of its own, and compares.
#
#   bash packaging/reproduce.sh [SUMS]
#
# SUMS: the SHA256SUMS to compare with. Without it a first build makes them, in another such folder: that takes two whole builds of what ships.
# The commit is what is built: changes that are not committed are not.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# build FOLDER: builds in a folder of this name, and puts the sums into its SHA256SUMS.
build() {
    local folder=$work/$1
    git clone --quiet . "$folder/otproxy"
    mkdir -p "$folder/home" "$folder/tmp"
    echo "building in $folder"
    env -u CARGO_TARGET_DIR -u SOURCE_DATE_EPOCH CARGO_HOME="$folder/home" TMPDIR="$folder/tmp" \
        bash "$folder/otproxy/packaging/build.sh" >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
    grep '^NOT BUILT' "$folder/log" || true
    cp "$folder/otproxy/target/packages/SHA256SUMS" "$folder/SHA256SUMS"
}

sums=${1:-}
if [ -z "$sums" ]; then
    build one
    sums=$work/one/SHA256SUMS
fi
build another/and-a-longer
if ! diff "$sums" "$work/another/and-a-longer/SHA256SUMS"; then
    echo "the two builds differ; diffoscope says in what" >&2
    exit 1
fi
echo "built again, in another folder: $(wc -l <"$sums") files, the same bytes"
