//! The report of this process's sockets, for lists of servers that count players by it.
//!
//! `sockets` reads them from /proc, `rows` picks those of a report and decides what is shown, `lsof` prints them in the form that
//! such lists read, `files` puts them into place. An address of the backend stands in none of the files.

use std::collections::HashSet;
use std::io;
use std::net::ToSocketAddrs as _;
use std::time::SystemTime;

use otproxy_config::{HostPort, ReportConfig, RoleKind};

mod counter;
mod files;
mod hidden;
mod lsof;
mod players;
mod rows;
mod sockets;
#[cfg(test)]
mod tests;

pub use counter::PlayerCounter;
pub use files::{
    FILES, KEPT_PLAYERS, MAX_FILE, MAX_PLAYERS, MD5, PLAYERS, SOCKETS, md5_hex, md5_line, put, put_sockets, read,
};
pub use hidden::{Hidden, MAX_REMEMBERED};
pub use players::{COUNTED, PlayerCount};
pub use rows::TunnelledConnection;

/// The facts that a report is made from, beside the sockets.
#[derive(Debug, Clone)]
pub struct ReportFacts {
    /// The keys of the file.
    pub config: ReportConfig,
    /// The role of this process.
    pub role: RoleKind,
    /// The ports of the listeners.
    pub ports: Vec<u16>,
    /// The ports on which the other side of the tunnel connects.
    pub tunnel: Vec<u16>,
    /// The hosts that are not shown.
    pub backends: Vec<HostPort>,
    /// The connections that came through the tunnel.
    pub tunnelled: Vec<TunnelledConnection>,
    /// The players now.
    pub players: PlayerCount,
    /// The time.
    pub time: SystemTime,
}

/// The maker of reports, which remembers the addresses that none of them may show.
#[derive(Debug, Default)]
pub struct SocketReporter {
    hidden: Hidden,
}

impl SocketReporter {
    /// Makes one report and writes its files. It blocks: on /proc, on the disk, and on the resolver.
    ///
    /// # Errors
    /// Fails if /proc cannot be read, or a file cannot be written.
    pub fn report(&mut self, facts: &ReportFacts) -> io::Result<()> {
        let sockets = sockets::own()?;
        self.hide(facts, &sockets);
        let ports: Vec<_> = facts.ports.iter().copied().filter(|port| !facts.tunnel.contains(port)).collect();
        let mut all = rows::rows(&sockets, &ports, facts.role);
        all.extend(rows::tunnelled(&facts.tunnelled, &sockets, &ports));
        all.sort_by_key(|row| row.fd);
        let text = lsof::print(&sockets::process(), &all, &self.hidden);
        files::write_sockets(&facts.config.dir, &text)?;
        files::add_players(&facts.config.dir, facts.time, facts.players)
    }

    /// Adds the addresses that must not be shown from now on.
    fn hide(&mut self, facts: &ReportFacts, sockets: &[sockets::OwnSocket]) {
        self.hidden.make_room();
        self.hidden.set_networks(&facts.config.redact);
        let mut looked_up = HashSet::new();
        for backend in &facts.backends {
            // Addresses that a name led to before are remembered while it leads nowhere.
            if looked_up.insert(&backend.host) {
                let found = (backend.host.as_str(), backend.port).to_socket_addrs();
                found.into_iter().flatten().for_each(|address| self.hidden.add(address.ip()));
            }
        }
        match facts.role {
            RoleKind::Edge => {
                rows::backends(sockets, &facts.tunnel).for_each(|address| self.hidden.add(address));
            }
            // An edge may serve what the core has written.
            RoleKind::Core => sockets.iter().for_each(|socket| self.hidden.add(socket.local.ip())),
        }
    }
}
