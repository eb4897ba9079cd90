#!/usr/bin/env bash
# Holds the packages in target/packages to what the documents say of them, and to Debian's rules: bash packaging/check.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/env.sh
packages=${CARGO_TARGET_DIR:-target}/packages
program=${CARGO_TARGET_DIR:-target}/dist/otproxy
version=$(sed -n '/^\[workspace.package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "$*" >&2; exit 1; }

# contents KIND FILE LIST: every line of LIST, as "-rw-r--r-- root/root /path", is a row of packaging/README.md, and each row for this
# KIND is in LIST. Folders are listed only below /etc.
contents() {
    local kind=$1 file=$2 list=$3 path mode in line found count=0
    local -A used=()
    while read -r line; do
        found=
        while IFS='|' read -r _ path mode in _; do
            path=${path//[\` ]/} mode=${mode// /} in=${in// /}
            [ "$in" = both ] || [ "$in" = "$kind" ] || continue
            # The pattern is to match as one.
            # shellcheck disable=SC2053
            if [[ $line == "$mode root/root "$path ]]; then
                found=yes used[$path]=1
                break
            fi
        done < <(grep '^| `/' packaging/README.md)
        [ -n "$found" ] || fail "$file: $line: packaging/README.md has no such row"
        count=$((count + 1))
    done <"$list"
    while IFS='|' read -r _ path _ in _; do
        path=${path//[\` ]/} in=${in// /}
        { [ "$in" != both ] && [ "$in" != "$kind" ]; } || [ -n "${used[$path]:-}" ] || fail "$file lacks $path"
    done < <(grep '^| `/' packaging/README.md)
    [ "$count" -ge 60 ] || fail "$file has only $count files"
    echo "$file: $count files, as packaging/README.md has them"
}

# All documents and examples, dashboards and rules, and each command's page, are in a package whose paths LIST has.
nothing_forgotten() {
    local list=$1 file name count=0
    for file in docs/*.md configs/*.yaml; do
        grep -q " /usr/share/doc/otproxy/$file\$" "$list" || fail "$list lacks $file"
    done
    for file in $(cd configs && find monitoring -type f); do
        grep -q " /usr/share/otproxy/$file\$" "$list" || fail "$list lacks $file"
    done
    for name in $("$program" --help | sed -n '/^Commands:/,/^$/ s/^  \([a-z-]*\) .*/\1/p'); do
        [ "$name" != help ] || continue
        grep -q " /usr/share/man/man1/otproxy-$name.1.gz\$" "$list" || fail "$list lacks the page of otproxy $name"
        count=$((count + 1))
    done
    [ "$count" -ge 20 ] || fail "only $count commands in otproxy --help"
}

# The image has the program where build.sh put it, is nobody's, and asks after its health with a command that there is.
image() {
    local file=packaging/Dockerfile
    grep -qF '${TARGETARCH}/otproxy /usr/bin/otproxy' $file || fail "$file copies another program"
    grep -qF 'container/$debian/otproxy' packaging/build.sh || fail "packaging/build.sh has another context than $file"
    grep -qxF 'ENTRYPOINT ["/usr/bin/otproxy"]' $file || fail "$file starts another program"
    grep -qE '^USER [1-9][0-9]*:[1-9][0-9]*$' $file || fail "$file runs as root"
    grep -qE '^HEALTHCHECK .* CMD \["/usr/bin/otproxy", "status"\]$' $file || fail "$file has no look at its health"
    "$program" status --help >/dev/null
    grep -qF -- '--file packaging/Dockerfile --tag otproxy target/packages/container' docs/container.md || fail "docs/container.md builds another"
}
image

(cd "$packages" && sha256sum --check --quiet SHA256SUMS)
[ "$("$program" --version)" = "otproxy $version" ] || fail "the program is not of version $version"

debs=0
for deb in "$packages"/*.deb; do
    [ "$(dpkg-deb --field "$deb" Version)" = "$version-1" ] || fail "$deb: not of version $version"
    dpkg-deb --contents "$deb" | sed -E 's|^(\S+) (\S+) .* \.(/\S*)$|\1 \2 \3|' | grep -E '^-|/etc/otproxy' >"$work/deb"
    contents deb "${deb##*/}" "$work/deb"
    nothing_forgotten "$work/deb"
    # Its own words on each finding, and a failure for what is an error to it.
    lintian --fail-on error --tag-display-limit 0 "$deb"
    debs=$((debs + 1))
done
for rpm in "$packages"/*.rpm; do
    [ "$(rpm --query --package --queryformat '%{VERSION}' "$rpm" 2>/dev/null)" = "$version" ] || fail "$rpm: not of version $version"
    rpm --query --package --queryformat '[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]' "$rpm" |
        grep -E '^-|/etc/otproxy' | sed 's|/etc/otproxy$|&/|' >"$work/rpm"
    contents rpm "${rpm##*/}" "$work/rpm"
    nothing_forgotten "$work/rpm"
done
[ "$debs" -ge 1 ] || fail "no deb in $packages"

# The same program gives the same packages, to the last byte.
bash packaging/build.sh --out "$work/again" >/dev/null
diff "$packages/SHA256SUMS" "$work/again/SHA256SUMS" || fail "packed once more, the packages differ"
echo "packed twice: $(wc -l <"$packages/SHA256SUMS") files, the same bytes"
