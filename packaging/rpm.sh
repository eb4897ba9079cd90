#!/usr/bin/env bash
# Makes an rpm.
#
#   bash packaging/rpm.sh ROOT ARCHITECTURE VERSION OUT
#
# ROOT: what stage.sh laid out; ARCHITECTURE: x86_64 or aarch64; VERSION: as 0.1.0; OUT: the folder that the package goes to.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/env.sh
root=$(realpath "$1") architecture=$2 version=$3 out=$(realpath "$4")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install -D -m 644 LICENSE "$root/usr/share/licenses/otproxy/LICENSE"
install -D -m 644 CHANGELOG.md "$root/usr/share/doc/otproxy/CHANGELOG.md"
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
sed -e '/^@NOTICE@$/ { r packaging/notice.sh' -e 'd }' packaging/rpm/otproxy.spec >"$work/otproxy.spec"
rpmbuild -bb --quiet --target "$architecture-linux" \
    --define "_topdir $work" --define "_rpmdir $out" --define "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
    --define "_buildhost otproxy" --define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" \
    --define "_binary_payload w2.xzdio" --define "_build_id_links none" \
    --define "staged $root" --define "released $version" "$work/otproxy.spec"
