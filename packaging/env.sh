# shellcheck shell=bash
# The environment in which a release is built, so that its bytes depend on the source and the tools alone: not on the folder, the user or the
# day. To be sourced, in the root of the repository; dist.sh does, and so does everything here.

# The time of all files in packages: that of the commit.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) || {
        echo "no commit to take the time from: set SOURCE_DATE_EPOCH, in seconds since 1970" >&2
        exit 1
    }
fi
export SOURCE_DATE_EPOCH LC_ALL=C.UTF-8 TZ=UTC
umask 022

# map FROM TO: has the compilers write TO for paths below FROM. Of several that fit, the last one counts.
release_rust=()
release_c=()
map() {
    release_rust+=("--remap-path-prefix=$1=$2")
    release_c+=("-ffile-prefix-map=$1=$2")
}
map "${CARGO_HOME:-$HOME/.cargo}" /cargo
map "$(rustc --print sysroot)/lib/rustlib/src/rust" "/rustc/$(rustc --version --verbose | sed -n 's/^commit-hash: //p')"
map "$PWD" /otproxy
map "$(realpath -m "${CARGO_TARGET_DIR:-target}")" /otproxy/target

# Cargo separates flags by this byte, so that a path may have spaces.
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${release_rust[*]}")
CFLAGS=${release_c[*]}
export CARGO_ENCODED_RUSTFLAGS CFLAGS
