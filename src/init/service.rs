//! Files for systemd, and the script that installs a host's files.

use super::host::Host;
use otproxy_config::RoleKind;

/// The file of settings beside the unit.
pub(super) const DROP_IN: &str = "tunnel.conf";

/// Returns the unit from the repository.
pub(super) fn unit(host: &Host<'_>) -> &'static str {
    match host.role() {
        RoleKind::Core => include_str!("../../systemd/otproxy-core.service"),
        RoleKind::Edge => include_str!("../../systemd/otproxy-edge.service"),
    }
}

pub(super) fn unit_name(host: &Host<'_>) -> String {
    format!("otproxy-{}.service", host.role())
}

pub(super) fn drop_in() -> &'static str {
    "\
# Made by `otproxy init`. The key of the tunnel's certificate can be read by the user otproxy alone, so the service is
# that user: one that exists takes the place of the unit's dynamic one. All else in the unit holds.
[Service]
User=otproxy
"
}

/// Returns `install.sh`.
pub(super) fn install(host: &Host<'_>) -> String {
    let (role, name) = (host.role(), host.name());
    let (who, when) = match host {
        Host::Core => ("the core".to_owned(), " (at a server save: it ends all sessions)"),
        Host::Edge(edge) => (format!("the edge {}", edge.name), ""),
    };
    format!(
        "\
#!/bin/sh
# Puts the files of {who} in their places and starts it. As root: sh install.sh
# To be run again whenever files here have changed. It leaves the firewall alone. Made by `otproxy init`.
set -eu
cd \"$(dirname \"$0\")\"
etc=${{DESTDIR:-}}/etc
unit=otproxy-{role}.service

command -v otproxy >/dev/null || {{ echo \"copy the program to /usr/local/bin/otproxy first\" >&2; exit 1; }}
getent passwd otproxy >/dev/null || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin otproxy

install -d -m 755 \"$etc/otproxy\" \"$etc/systemd/system/$unit.d\"
install -m 644 {role}.yaml ca.pem {name}.pem \"$etc/otproxy/\"
install -m 600 -o otproxy -g otproxy {name}.key \"$etc/otproxy/\"
install -m 644 \"$unit\" \"$etc/systemd/system/\"
install -m 644 {DROP_IN} \"$etc/systemd/system/$unit.d/\"

otproxy check -c \"$etc/otproxy/{role}.yaml\"
systemctl daemon-reload
if systemctl --quiet is-active \"$unit\"; then
    systemctl reload \"$unit\"
    echo \"$unit has read its files again. Where its log says that a change needs a restart{when}:\"
    echo \"    systemctl restart $unit\"
else
    systemctl enable --now \"$unit\"
fi
",
    )
}
