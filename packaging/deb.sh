#!/usr/bin/env bash
# Makes a deb.
#
#   bash packaging/deb.sh ROOT ARCHITECTURE VERSION OUT
#
# ROOT: what stage.sh laid out; it gets what Debian asks for beside. ARCHITECTURE: amd64 or arm64; VERSION: as 0.1.0; OUT: the folder
# that the package goes to.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/env.sh
root=$1 architecture=$2 version=$3-1 out=$4
doc=$root/usr/share/doc/otproxy
# Debian wants an address by mail, and the project has none: this one cannot exist (RFC 6761). SECURITY.md says how to report.
maintainer="otproxy contributors <nobody@otproxy.invalid>"

# The packages that the program's libraries come from, in the versions that it needs.
depends() {
    local library glibc
    for library in $(readelf --dynamic --wide "$root/usr/bin/otproxy" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        case $library in
        libc.so.6 | libm.so.6 | ld-linux-*)
            glibc=$(readelf --version-info --wide "$root/usr/bin/otproxy" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
            echo "libc6 (>= ${glibc#GLIBC_})"
            ;;
        libgcc_s.so.1) echo "libgcc-s1" ;;
        *) echo "$library: which package has it?" >&2 && return 1 ;;
        esac
    done | sort -u
    # They make the user.
    echo "systemd | systemd-standalone-sysusers | systemd-sysusers"
}

gzip -9n <CHANGELOG.md >"$doc/changelog.gz"
gzip -9n >"$doc/changelog.Debian.gz" <<END
otproxy ($version) unstable; urgency=medium

  * Release of this version: see changelog.gz.

 -- $maintainer  $(date --utc --date="@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')
END
# The licence, in the form of Debian's file.
{
    echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    echo "Upstream-Name: otproxy"
    echo "Comment: The program has crates of others linked into it: third-party.txt, beside this file, has their licences."
    echo
    echo "Files: *"
    sed -n 's/^Copyright (c) /Copyright: /p' LICENSE
    echo "License: Expat"
    sed -n '/^Permission/,$ { s/^$/./; s/^/ /; p }' LICENSE
} >"$doc/copyright"

install -D -m 644 packaging/deb/lintian-overrides "$root/usr/share/lintian/overrides/otproxy"

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do
    sed -e '/^@NOTICE@$/ { r packaging/notice.sh' -e 'd }' "packaging/deb/$script" >"$root/DEBIAN/$script"
    chmod 755 "$root/DEBIAN/$script"
done
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
depends=$(depends | paste -sd , | sed 's/,/, /g')
cat >"$root/DEBIAN/control" <<END
Package: otproxy
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f 1)
Depends: $depends
Suggests: nftables
Section: net
Priority: optional
Description: multi-path relay and edge proxy for Open Tibia game servers
 Players connect to edges, on small hosts at several providers, and edges to
 the core, beside the game server. A player's client holds connections over all
 edges and plays over the best two at once, so that an edge can be attacked,
 restarted or lost while the game goes on.
 .
 This package has both roles, with a unit of systemd for each. Neither is
 started until its operator does so.
END
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group --threads-max=1 -Zxz -z2 --build "$root" "$out/otproxy_${version}_$architecture.deb"
