//! The files for the game server: its lines, and the table `proxies` of its database.

use std::fmt::Write;

use otproxy_config::{GameServerProfile, LINKS_PORT, Topology, World};

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
    for edge in topology.told() {
        let (name, host, priority) = (&edge.name, &edge.public, edge.priority);
        let _ = write!(
            text,
            "-- {name}\n\
             INSERT INTO `proxies` (`host`, `port`, `priority`) SELECT '{host}', {LINKS_PORT}, {priority} FROM DUAL\n  \
             WHERE NOT EXISTS (SELECT 1 FROM `proxies` WHERE `host` = '{host}' AND `port` = {LINKS_PORT});\n"
        );
    }
    for edge in topology.live().filter(|edge| edge.reserve) {
        let _ =
            writeln!(text, "-- {} is a reserve: the core has it here while it is used, by `proxies_table`", edge.name);
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

/// Returns the lines of `config.lua` that matter here.
pub(super) fn server(topology: &Topology) -> String {
    let login = topology.login.port;
    let on_loopback = topology.worlds.iter().all(World::is_on_loopback);
    let mut text = format!(
        "\
-- Lines of the game server's config.lua, for `game_server: {}`. Made by `otproxy init`. Older branches name the ports loginPort,
-- gamePort and statusPort.

-- What the login hands out as the world's address: with 127.0.0.1 a client uses its links. It is also in the status that
-- server lists get. If a web service does the login, it is that service's world address.
ip = \"127.0.0.1\"
",
        topology.profile
    );
    text += if on_loopback {
        "bindOnlyGlobalAddress = true   -- listen on that address only\n"
    } else {
        "bindOnlyGlobalAddress = false   -- the core connects from elsewhere: let your firewall keep all others out\n"
    };
    text += &switches(topology);
    let status = topology.status.as_ref().map_or(login, |status| status.port);
    let _ = write!(text, "\nloginProtocolPort = {login}\nstatusProtocolPort = {status}\n");
    if topology.worlds.len() > 1 {
        text += "-- Of the worlds on one host only one can have these two ports.\n";
    }
    for world in &topology.worlds {
        if topology.worlds.len() > 1 || world.name.is_some() {
            let name = world.name.as_deref().unwrap_or("a world");
            let _ = write!(text, "\n-- {name:?}\n");
        }
        text += &game_port(topology, world);
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

/// Returns the switches without which a server of this kind refuses everybody, and the notes that go with it.
fn switches(topology: &Topology) -> String {
    use GameServerProfile::{Canary, Canary860, Custom, Tfs14Otc, Tfs16Otc, TfsProxy, Tvp, Unpatched};
    let profile = topology.profile;
    let mut text = String::new();
    if let Tfs14Otc | Tfs16Otc = profile {
        text += "
-- The switches of the OTC proxy patch, which are off by default: without them the server closes all that the core sends it.
allowOtcProxy = true
allowHaProxy = true
";
    }
    if profile == Tfs14Otc {
        text += "\
-- One branch of TFS 1.4 reads both from another key by mistake. The sign: with the lines above it still closes at once, as
-- `otproxy doctor` on the core says. Then:
-- binaryPlayerItems = true
";
    }
    if let Tfs14Otc | Tfs16Otc = profile
        && let Some(edge) = topology.told().next()
    {
        let _ = write!(
            text,
            "-- The address that players without links and server lists are told: an edge's. Some branches name it statusIP.\n\
             statusIp = \"{}\"\n",
            edge.public
        );
    }
    text += match profile {
        Tfs14Otc | Tfs16Otc | Custom => "",
        TfsProxy => {
            "
-- No switch: this server believes headers of its own host, so the core has to run there. It tells all players 127.0.0.1.
"
        }
        Canary | Unpatched => {
            "
-- This server reads no header of the core's. With the core on its host it sees each player's own address all the same.
"
        }
        Canary860 => {
            "
-- Clients of 8.60. The server reads no header of the core's, and matches a login to the game by its address: with the core on its
-- host it sees the player's own, for both.
allowOldProtocol = true
"
        }
        Tvp => {
            "
-- This server reads no header of the core's, and locks an address out after wrong passwords (ipLockDuration): with the core on its
-- host it sees each player's own, so that nobody locks out others.
"
        }
    };
    text
}

/// Returns the line with a world's port.
fn game_port(topology: &Topology, world: &World) -> String {
    let port = world.address.port;
    if topology.profile != GameServerProfile::Canary860 {
        return format!("gameProtocolPort = {port}\n");
    }
    // The port of newer clients must be another one.
    let status = topology.status.as_ref().map(|status| status.port);
    let mut taken: Vec<_> = topology.worlds.iter().map(|world| world.address.port).collect();
    taken.extend([topology.login.port].into_iter().chain(status));
    let other = (port..=u16::MAX).chain(1..port).find(|free| !taken.contains(free)).unwrap_or(port);
    format!("legacy860GameProtocolPort = {port}\ngameProtocolPort = {other}   -- of newer clients: any free port\n")
}
