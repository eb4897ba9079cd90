#!/usr/bin/env bash
# Lists the crates that are linked into the program, as CycloneDX: bash packaging/sbom.sh VERSION OUT
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/env.sh
version=$1 out=$(realpath "$2")
tool=0.5.9
export PATH=$PWD/target/sbom/bin:$PATH
# Built without optimisation, for it runs for a second.
[ "$(cargo-cyclonedx --version 2>/dev/null)" = "cargo-cyclonedx-cyclonedx $tool" ] ||
    env -u CARGO_ENCODED_RUSTFLAGS -u CFLAGS cargo install -q cargo-cyclonedx --version "$tool" --locked --debug --root target/sbom
cargo cyclonedx --format json --spec-version 1.5 --describe binaries --target all --override-filename "otproxy-$version.cdx"
