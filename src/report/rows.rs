//! The rows of a report: which sockets are in it, and what is shown of them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::lsof::{End, Row, State};
use super::sockets::OwnSocket;
use otproxy_config::RoleKind;

/// A connection that came through the tunnel, which has no socket of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelledConnection {
    /// The address that the edge's trunk comes from.
    pub edge: IpAddr,
    /// The player. Its port is that of the player's own connection to the edge.
    pub player: SocketAddr,
    /// The port that stands for the listener.
    pub port: u16,
}

/// Returns the rows of the sockets that `lsof -i :PORT` prints for these ports, in its order. All of a core's own addresses are
/// hidden, and the far end of each connection that this process made itself.
#[must_use]
pub fn rows(sockets: &[OwnSocket], ports: &[u16], role: RoleKind) -> Vec<Row> {
    let listening = listening_ports(sockets);
    let row = |socket: &OwnSocket| {
        let local = match role {
            // One that listens on all addresses says nothing of them.
            RoleKind::Core if !socket.local.ip().to_canonical().is_unspecified() => End::Backend(socket.local),
            _ => End::Shown(socket.local),
        };
        let remote = match socket.state {
            State::LISTEN => None,
            _ if listening.contains(&socket.local.port()) => Some(End::Shown(socket.remote)),
            _ => Some(End::Backend(socket.remote)),
        };
        Row { fd: socket.fd, v6: socket.v6, inode: socket.inode, local, remote, state: socket.state }
    };
    let meets = |socket: &&OwnSocket| {
        let far = (socket.state != State::LISTEN).then(|| socket.remote.port());
        ports.contains(&socket.local.port()) || far.is_some_and(|port| ports.contains(&port))
    };
    sockets.iter().filter(meets).map(row).collect()
}

/// Returns the rows that stand for connections of the tunnel: each with the descriptor and inode of a trunk of its edge, from the
/// edge's address and the player's port. `ports` are those of the report. Connections that have a socket, and those of edges
/// without a trunk, have none.
#[must_use]
pub fn tunnelled(connections: &[TunnelledConnection], sockets: &[OwnSocket], ports: &[u16]) -> Vec<Row> {
    let own: HashSet<_> = sockets.iter().map(|socket| canonical(socket.remote)).collect();
    let mut trunks: HashMap<IpAddr, &OwnSocket> = HashMap::new();
    for socket in sockets.iter().filter(|socket| socket.state == State::ESTABLISHED) {
        if !ports.contains(&socket.local.port()) && !ports.contains(&socket.remote.port()) {
            trunks.entry(socket.remote.ip().to_canonical()).or_insert(socket);
        }
    }
    let row = |connection: &TunnelledConnection| {
        let edge = connection.edge.to_canonical();
        let trunk = trunks.get(&edge).filter(|_| !own.contains(&canonical(connection.player)))?;
        Some(Row {
            fd: trunk.fd,
            v6: trunk.v6,
            inode: trunk.inode,
            local: End::Backend(SocketAddr::new(trunk.local.ip(), connection.port)),
            remote: Some(End::Shown(SocketAddr::new(edge, connection.player.port()))),
            state: State::ESTABLISHED,
        })
    };
    connections.iter().filter_map(row).collect()
}

/// Returns the far ends of all connections that this process made itself, and of those to `tunnel` ports, where the core connects.
pub fn backends<'a>(sockets: &'a [OwnSocket], tunnel: &'a [u16]) -> impl Iterator<Item = IpAddr> + 'a {
    let listening = listening_ports(sockets);
    let made = move |socket: &&OwnSocket| {
        socket.state != State::LISTEN
            && (tunnel.contains(&socket.local.port()) || !listening.contains(&socket.local.port()))
    };
    sockets.iter().filter(made).map(|socket| socket.remote.ip())
}

fn listening_ports(sockets: &[OwnSocket]) -> HashSet<u16> {
    sockets.iter().filter(|socket| socket.state == State::LISTEN).map(|socket| socket.local.port()).collect()
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::super::hidden::Hidden;
    use super::super::lsof::{Process, print};
    use super::*;

    const SECRET: &str = "203.0.113.9";

    fn socket(fd: u32, local: &str, remote: &str) -> OwnSocket {
        let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        let state = if remote.port() == 0 { State::LISTEN } else { State::ESTABLISHED };
        OwnSocket { fd, v6: local.is_ipv6(), inode: 1000 + u64::from(fd), local, remote, state }
    }

    fn names(rows: &[Row], hidden: &Hidden) -> Vec<String> {
        let process = Process { command: "otproxy".to_owned(), pid: 7, user: "root".to_owned() };
        let text = print(&process, rows, hidden);
        text.lines().skip(1).map(|line| line.split("TCP ").nth(1).unwrap().to_owned()).collect()
    }

    #[test]
    fn an_edge_shows_players_and_hides_where_it_leads_them() {
        let sockets = [
            socket(3, "0.0.0.0:7162", "0.0.0.0:0"),
            socket(4, "[::]:9162", "[::]:0"),
            socket(5, "198.51.100.7:7162", "192.0.2.1:4000"),
            socket(6, "198.51.100.7:51000", "203.0.113.9:7162"),
            // The tunnel, which has no port of the report.
            socket(7, "198.51.100.7:51001", "203.0.113.9:7100"),
            // The core comes as a player does.
            socket(8, "[::ffff:198.51.100.7]:7162", "[::ffff:203.0.113.9]:4001"),
            socket(9, "198.51.100.7:9162", "192.0.2.77:4002"),
        ];
        let mut hidden = Hidden::default();
        backends(&sockets, &[7100]).for_each(|address| hidden.add(address));
        let shown = names(&rows(&sockets, &[7162], RoleKind::Edge), &hidden);
        assert_eq!(
            shown,
            [
                "*:7162 (LISTEN)",
                "198.51.100.7:7162->192.0.2.1:4000 (ESTABLISHED)",
                "198.51.100.7:51000->BACKEND_IP:7162 (ESTABLISHED)",
                "198.51.100.7:7162->BACKEND_IP:4001 (ESTABLISHED)",
            ]
        );
        assert!(!hidden.hides("192.0.2.77".parse().unwrap()), "it came to a listener");
        assert!(!shown.concat().contains(SECRET));
    }

    #[test]
    fn a_core_that_connects_to_an_edge_is_hidden() {
        let sockets = [
            socket(3, "0.0.0.0:7162", "0.0.0.0:0"),
            socket(4, "0.0.0.0:7100", "0.0.0.0:0"),
            socket(5, "198.51.100.7:7100", "203.0.113.9:40000"),
            socket(6, "198.51.100.7:7162", "203.0.113.9:4001"),
        ];
        let mut hidden = Hidden::default();
        backends(&sockets, &[7100]).for_each(|address| hidden.add(address));
        let shown = names(&rows(&sockets, &[7162], RoleKind::Edge), &hidden).concat();
        assert!(!shown.contains(SECRET) && shown.contains("->BACKEND_IP:4001"), "{shown}");
    }

    #[test]
    fn a_core_hides_itself_and_shows_edges() {
        let sockets = [
            socket(3, "203.0.113.9:7171", "0.0.0.0:0"),
            socket(4, "203.0.113.9:7171", "198.51.100.7:4000"),
            socket(5, "[::ffff:203.0.113.9]:7171", "[::ffff:198.51.100.8]:4000"),
            socket(6, "203.0.113.9:7100", "198.51.100.7:50000"),
            socket(7, "127.0.0.1:40000", "127.0.0.1:7171"),
        ];
        let through = |edge: &str, player: &str| TunnelledConnection {
            edge: edge.parse().unwrap(),
            player: player.parse().unwrap(),
            port: 7162,
        };
        let connections = [
            through("::ffff:198.51.100.7", "192.0.2.1:4321"),
            // It has a socket, and a row of its own.
            through("198.51.100.7", "198.51.100.7:4000"),
            // Its edge has gone.
            through("198.51.100.66", "192.0.2.1:4322"),
        ];
        let ports = [7162, 7171];
        let mut all = rows(&sockets, &ports, RoleKind::Core);
        all.extend(tunnelled(&connections, &sockets, &ports));
        assert_eq!((all.last().unwrap().fd, all.last().unwrap().inode), (6, 1006), "those of the trunk");
        let shown = names(&all, &Hidden::default());
        assert_eq!(
            shown,
            [
                "BACKEND_IP:7171 (LISTEN)",
                "BACKEND_IP:7171->198.51.100.7:4000 (ESTABLISHED)",
                "BACKEND_IP:7171->198.51.100.8:4000 (ESTABLISHED)",
                "BACKEND_IP:40000->BACKEND_IP:7171 (ESTABLISHED)",
                "BACKEND_IP:7162->198.51.100.7:4321 (ESTABLISHED)",
            ]
        );
    }
}
