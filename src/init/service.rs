//! Files for systemd, the script that installs a host's files, and where it puts them.

use super::host::Host;
use super::yaml::has_player_sources;
use otproxy_config::{RoleKind, Topology};

/// The file of settings beside the unit.
pub(super) const DROP_IN: &str = "tunnel.conf";

/// Returns the unit from the repository.
pub(super) fn unit(host: &Host<'_>) -> &'static str {
    match host.role() {
        RoleKind::Core => include_str!("../../systemd/otproxy-core.service"),
        RoleKind::Edge => include_str!("../../systemd/otproxy-edge.service"),
    }
}

/// Returns the name of the unit.
#[must_use]
pub fn unit_name(host: &Host<'_>) -> String {
    format!("otproxy-{}.service", host.role())
}

/// Returns the place of the unit, without a package.
#[must_use]
pub fn unit_place(host: &Host<'_>) -> String {
    format!("/etc/systemd/system/{}", unit_name(host))
}

/// A file of a host's folder, and where `install.sh` puts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledFile {
    /// Its name in the folder.
    pub name: String,
    /// Its path on the host.
    pub place: String,
}

/// The script of a host's folder that puts its files in place.
pub const INSTALL: &str = "install.sh";

/// Returns the files that `install.sh` puts in place.
#[must_use]
pub fn installed(host: &Host<'_>) -> Vec<InstalledFile> {
    let (role, name, unit) = (host.role(), host.name(), unit_name(host));
    let own = [format!("{role}.yaml"), "ca.pem".to_owned(), format!("{name}.pem"), format!("{name}.key")];
    let own = own.map(|name| InstalledFile { place: format!("/etc/otproxy/{name}"), name });
    let drop_in = InstalledFile { name: DROP_IN.to_owned(), place: format!("/etc/systemd/system/{unit}.d/{DROP_IN}") };
    let unit = InstalledFile { place: unit_place(host), name: unit };
    own.into_iter().chain([unit, drop_in]).collect()
}

/// The settings of a service that connects from players' addresses.
const PLAYER_SOURCES: &str = include_str!("../../systemd/source-player.conf");

/// Returns whether a host's service connects from players' addresses.
fn needs_player_sources(topology: &Topology, host: &Host<'_>) -> bool {
    host.role() == RoleKind::Core && has_player_sources(topology)
}

/// Returns the drop-in of the unit.
pub(super) fn drop_in(topology: &Topology, host: &Host<'_>) -> String {
    let mut text = "\
# Made by `otproxy init`. The key of the tunnel's certificate can be read by the user otproxy alone, so the service is
# that user: one that exists takes the place of the unit's dynamic one. All else in the unit holds.
[Service]
User=otproxy
"
    .to_owned();
    if needs_player_sources(topology, host) {
        // Its first lines are for those who install it by hand.
        let settings = PLAYER_SOURCES.split_once("[Service]\n").map_or(PLAYER_SOURCES, |(_, settings)| settings);
        text += "\n# For `source: player`: game servers on this host see players' own addresses. A change takes a restart.\n";
        text += settings;
    }
    text
}

/// Returns the line of `install.sh` that has a running service read its files. The first time that it is to connect from players'
/// addresses it has no privilege for that, and refuses.
fn reload(topology: &Topology, host: &Host<'_>) -> &'static str {
    if !needs_player_sources(topology, host) {
        return "    systemctl reload \"$unit\"\n";
    }
    "    if ! systemctl reload \"$unit\"; then
        echo \"$unit runs on with what it had: see why in \\`journalctl -u $unit\\`. The first time that game servers are to see players' own\"
        echo \"addresses it takes a restart (at a server save: it ends all sessions):\"
        echo \"    systemctl restart $unit\"
        exit
    fi
"
}

/// Returns `install.sh`. Program and unit of a package stay where it put them.
pub(super) fn install(topology: &Topology, host: &Host<'_>) -> String {
    let reload = reload(topology, host);
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
bin=${{DESTDIR:-}}/usr/local/bin
packaged=${{DESTDIR:-}}/usr
etc=${{DESTDIR:-}}/etc
unit=otproxy-{role}.service
units=$etc/systemd/system
program=

# A program that runs cannot be written to: a new one is copied beside it, and takes its place here.
if [ -e \"$bin/otproxy.new\" ]; then
    chmod 755 \"$bin/otproxy.new\"
    \"$bin/otproxy.new\" --version >/dev/null || {{ echo \"$bin/otproxy.new does not run on this host\" >&2; exit 1; }}
    mv -f \"$bin/otproxy.new\" \"$bin/otproxy\"
    program=new
fi
command -v otproxy >/dev/null || {{ echo \"install the package, or copy the program to /usr/local/bin/otproxy.new first\" >&2; exit 1; }}
if [ -e \"$bin/otproxy\" ] && [ -e \"$packaged/bin/otproxy\" ]; then
    echo \"/usr/local/bin/otproxy is what runs, and not the package's program: rm /usr/local/bin/otproxy\" >&2
fi
getent passwd otproxy >/dev/null || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin otproxy

# All is put together beside its place, with what is there already, and checked. So an error changes nothing; and each file
# takes its place in one step, so that nobody reads half of one.
install -d -m 755 \"$etc/otproxy\" \"$units/$unit.d\"
stage=$(mktemp -d \"$etc/.otproxy.XXXXXX\")
trap 'rm -rf \"$stage\"' EXIT
chmod 755 \"$stage\"
cp -a \"$etc/otproxy/.\" \"$stage/\"
install -m 644 {role}.yaml ca.pem {name}.pem \"$stage/\"
install -m 600 -o otproxy -g otproxy {name}.key \"$stage/\"
otproxy check -c \"$stage/{role}.yaml\"
for file in {name}.key {name}.pem ca.pem {role}.yaml; do mv -f \"$stage/$file\" \"$etc/otproxy/$file\"; done
# One here would hide a package's unit, and what upgrades change in that.
if [ -e \"$packaged/lib/systemd/system/$unit\" ]; then
    rm -f \"$units/$unit\"
else
    install -m 644 \"$unit\" \"$units/$unit.new\"
    mv -f \"$units/$unit.new\" \"$units/$unit\"
fi
install -m 644 {DROP_IN} \"$units/$unit.d/{DROP_IN}.new\"
mv -f \"$units/$unit.d/{DROP_IN}.new\" \"$units/$unit.d/{DROP_IN}\"

systemctl daemon-reload
if systemctl --quiet is-active \"$unit\"; then
{reload}    # So does a package's new program leave the one that runs.
    case $(readlink \"/proc/$(systemctl show --property=MainPID --value \"$unit\")/exe\" || true) in *' (deleted)') program=new ;; esac
    if [ -n \"$program\" ]; then
        echo \"$unit still runs the old program, and takes up the new one with a restart{when}:\"
    else
        echo \"$unit has read its files again. If its log says that a change needs a restart{when}:\"
    fi
    echo \"    systemctl restart $unit\"
else
    systemctl enable --now \"$unit\"
fi
",
    )
}
