//! The files for clients and the game server: the table `proxies`, the client's lines, the server's.

use std::fmt::Write;

use otproxy_config::{LINKS_PORT, Topology, TopologyEdge, World};

/// Returns `proxies.sql`. Hosts are names or addresses, so nothing in them needs escaping.
pub(super) fn sql(topology: &Topology) -> String {
    let mut text = "\
-- The edges, for login servers that hand them out: in the game's database. Made by `otproxy init`; it can be run again.
CREATE TABLE IF NOT EXISTS `proxies` (
  `id` INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  `host` TINYTEXT NOT NULL,
  `port` SMALLINT UNSIGNED NOT NULL,
  `priority` SMALLINT UNSIGNED NOT NULL DEFAULT 0,
  `disabled` TINYINT UNSIGNED NOT NULL DEFAULT 0,
  KEY `disabled` (`disabled`)
);
"
    .to_owned();
    for edge in live(topology) {
        let (name, host) = (&edge.name, &edge.public);
        let _ = write!(
            text,
            "-- {name}\n\
             INSERT INTO `proxies` (`host`, `port`, `priority`) SELECT '{host}', {LINKS_PORT}, 0 FROM DUAL\n  \
             WHERE NOT EXISTS (SELECT 1 FROM `proxies` WHERE `host` = '{host}' AND `port` = {LINKS_PORT});\n"
        );
    }
    for edge in topology.edges.iter().filter(|edge| edge.revoked) {
        let (name, host) = (&edge.name, &edge.public);
        let _ = write!(
            text,
            "-- {name} is given up\nUPDATE `proxies` SET `disabled` = 1 WHERE `host` = '{host}' AND `port` = {LINKS_PORT};\n"
        );
    }
    text
}

/// Returns `client.lua`.
pub(super) fn client(topology: &Topology) -> String {
    let mut text = "\
-- For the client's init.lua. Made by `otproxy init`. The third argument is a priority: milliseconds added to the ping that
-- the client measures. 0 leaves the choice to the ping; 50 on an edge makes it a spare.
"
    .to_owned();
    for edge in live(topology) {
        let _ = writeln!(text, "g_proxy.addProxy(\"{}\", {LINKS_PORT}, 0)", edge.public);
    }
    let _ = write!(
        text,
        "-- And where the client has its server's address: 127.0.0.1, port {}. Not an edge's name: it is this address that makes\n\
         -- the login go over links as well.\n",
        topology.login.port
    );
    text
}

/// Returns the lines of `config.lua` that matter here.
pub(super) fn server(topology: &Topology) -> String {
    let login = topology.login.port;
    let on_loopback = topology.worlds.iter().all(World::is_on_loopback);
    let mut text = "\
-- Lines of the game server's config.lua. Made by `otproxy init`. Older branches name the ports loginPort, gamePort and
-- statusPort.

-- What the login hands out as the world's address: with 127.0.0.1 a client uses its links. It is also in the status that
-- server lists get. Where a web service does the login, it is that service's world address.
ip = \"127.0.0.1\"
"
    .to_owned();
    text += if on_loopback {
        "bindOnlyGlobalAddress = true   -- listen on that address only\n"
    } else {
        "bindOnlyGlobalAddress = false   -- the core connects from elsewhere: let your firewall keep all others out\n"
    };
    let status = topology.status.as_ref().map_or(login, |status| status.port);
    let _ = write!(text, "loginProtocolPort = {login}\nstatusProtocolPort = {status}\n");
    if topology.worlds.len() > 1 {
        text += "-- Of the worlds on one host only one can have these two ports.\n";
    }
    for world in &topology.worlds {
        if topology.worlds.len() > 1 || world.name.is_some() {
            let name = world.name.as_deref().unwrap_or("a world");
            let _ = write!(text, "\n-- {name:?}\n");
        }
        let _ = writeln!(text, "gameProtocolPort = {}", world.address.port);
        if world.address.port != world.port {
            let _ = writeln!(
                text,
                "-- Clients ask for port {}: the login must hand out that one as the world's.",
                world.port
            );
        }
    }
    text
}

fn live(topology: &Topology) -> impl Iterator<Item = &TopologyEdge> {
    topology.edges.iter().filter(|edge| !edge.revoked)
}
