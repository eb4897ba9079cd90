#!/usr/bin/env bash
# Lists the crates that are linked into the program, as CycloneDX: bash packaging/sbom.sh VERSION OUT
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/env.sh
version=$1 out=$2 tool=0.5.9
export PATH=$PWD/target/sbom/bin:$PATH
# Without optimisation and symbols, as it runs for a second. It is built with flags of its own.
if [ "$(cargo-cyclonedx --version 2>/dev/null)" != "cargo-cyclonedx-cyclonedx $tool" ]; then
    env -u CARGO_ENCODED_RUSTFLAGS -u CFLAGS -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 \
        cargo install -q "cargo-cyclonedx@$tool" --locked --debug --root target/sbom
fi
# It writes beside Cargo.toml, and names the crates of this repository by their folders, without a name where the folder has that.
cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --target x86_64-unknown-linux-gnu --no-build-deps
sed -E "s|path\\+file://$PWD|path+file:///otproxy|g; s|(path\\+file:///otproxy#)([0-9])|\\1otproxy@\\2|g" \
    otproxy_bin.cdx.json >"$out/otproxy-$version.cdx.json"
rm otproxy_bin.cdx.json
