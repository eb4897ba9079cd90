#!/usr/bin/env bash
# Has schemathesis test the admin API of a core that runs, by the API's own description: every path with right and wrong requests,
# acts among them, and whether each answer is one that the description allows.
#
#   tests/api/run.sh [BINARY]      BINARY: target/dist/otproxy unless given
set -euo pipefail

# From PyPI, into an environment of its own.
version=4.32.5

here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
binary=$(realpath "${1:-$root/target/dist/otproxy}")
[ -x "$binary" ] || { echo "no program at $binary: build it first, bash dist.sh" >&2; exit 1; }

environment=$(realpath -m "$root/target")/schemathesis-$version
if [ ! -x "$environment/bin/schemathesis" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
fi

work=$(mktemp -d)
pid=
stop() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

token=$(umask 077; openssl rand -hex 32 | tee "$work/token")
cat >"$work/core.yaml" <<'YAML'
role: core
name: tested
workers: 2
shutdown_timeout: 0s
admin: { listen: "127.0.0.1:0", token_file: token }
log: { format: json }
listeners:
  - { name: links, kind: relay, listen: "127.0.0.1:0", accept_proxy: none }
  - name: login
    listen: "127.0.0.1:0"
    accept_proxy: none
    forward_to: [{ address: "127.0.0.1:9", name: first }, { address: "127.0.0.1:9", name: second, backup: true }]
game_servers:
  - { port: 7172, address: "127.0.0.1:9" }
YAML
"$binary" core -c "$work/core.yaml" 2>"$work/log" &
pid=$!
address=
for _ in $(seq 600); do
    address=$(sed -n 's/.*"admin":"\([0-9.:]*\)".*/\1/p' "$work/log" | head -n 1)
    [ -z "$address" ] || break
    kill -0 "$pid" || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done

# It keeps notes where it is run.
(cd "$work" && "$environment/bin/schemathesis" --config-file "$here/schemathesis.toml" run --header "Authorization: Bearer $token" "http://$address/api/v1/openapi.json")
# Whatever it was sent, it is still there, and nothing in it failed.
metrics=$(curl --silent --show-error --fail "http://$address/metrics")
grep -x 'otproxy_panics_total 0' <<<"$metrics"
