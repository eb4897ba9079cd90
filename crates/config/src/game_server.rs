//! `game_servers[]`: the ports that clients may ask for.

use std::time::Duration;

use otproxy_protocol::game_packet::Framing;
use otproxy_protocol::player_address::PlayerAddress;
use otproxy_protocol::quota::Quota;
use otproxy_protocol::words;

use super::address::{HostPort, TARGET};
use super::declare::{Read, section};
use super::formats::{COUNT, COUNT_OR_NONE, PERIOD, PORT, RATE_OR_NONE};
use super::scope::Scope;
use super::source::{BY_DEFAULT, SOURCE, SourceAddress, for_targets};
use super::takes::{value, word};

section! {
    /// `game_servers[]`: a port that clients may ask for, and the game server that it leads to.
    #[derive(Debug, Clone, PartialEq)]
    pub struct GameServerConfig from GameServerKeys {
        /// the port that clients ask for; unique
        port: u16 = value(PORT).unique().required("7172"),
        /// the game server it leads to
        address: HostPort = value(TARGET).required("127.0.0.1:7172"),
        /// how the game server is told the player's address
        player_address: PlayerAddress = word().or("otc"),
        /// what the length of a game packet counts; `auto` sees it in the first packet
        framing: Framing = word().or("auto"),
        /// the limit of the game server on packets of one player in a second, as its `maxPacketsPerSecond`: no second has
        /// more; they are held back, not dropped
        max_packets_per_second: Option<u32> = value(COUNT_OR_NONE).or("25"),
        /// connects to the host of this game server, over all that leads there; for servers that block an address which connects
        /// too often
        connects: Option<Quota> = value(RATE_OR_NONE).or("none").example("1/600ms"),
        /// the same as a number in each second, spread evenly
        connects_per_second: Option<u32> = value(COUNT_OR_NONE).or("none").example("10"),
        /// the local address of connections to it; `loopback_per_player` takes one in 127.0.0.0/8 for each player, so that a server
        /// on this host tells players apart; `player` takes the player's own, which needs a privilege and a route
        source: SourceAddress = value(SOURCE).or_else(BY_DEFAULT, SourceAddress::default).example("default"),
        /// whether the game server is checked while nobody plays: `tcp` connects; see `otproxy_game_server_up`
        check: GameServerCheck = word().or("off"),
        /// with `check`, from one check to the next
        inter: Duration = value(PERIOD).or("10s"),
        /// with `check`, failures one after the other until it is down
        fall: u32 = value(COUNT).or("3"),
        /// with `check`, checks that it must pass one after the other to be up again
        rise: u32 = value(COUNT).or("2"),
        /// players without an IPv4 address get a stable one in 240.0.0.0/4, or are refused
        ipv6_players: Ipv6Players = word().or("pseudo_ipv4"),
    }
}

impl Read for GameServerConfig {
    fn read(item: &Scope<'_>) -> Option<Self> {
        let mut keys = GameServerKeys::read(item);
        if let Some(address) = &keys.address {
            let told = ("player_address", keys.player_address != Some(PlayerAddress::None));
            keys.source = for_targets(item, keys.source, std::iter::once(address), told);
        }
        if let (Some(Some(_)), Some(Some(count))) = (keys.connects, keys.connects_per_second) {
            let rate = format!("1/{}ms", 1000_u32.div_ceil(count));
            item.wrong(
                "connects_per_second",
                format!("says the same as `connects`; keep that, as in `connects: {rate}`"),
            );
        }
        keys.complete()
    }
}

impl GameServerConfig {
    /// Returns the rate of connects that the file gives.
    #[must_use]
    pub fn connect_rate(&self) -> Option<Quota> {
        let per_second = self.connects_per_second.map(|count| Quota::new(Duration::from_secs(1) / count.max(1), 1));
        self.connects.or(per_second)
    }
}

words! {
    /// `game_servers[].check`: the way in which a game server is checked.
    pub enum GameServerCheck {
        /// It is not.
        Off = "off",
        /// By a connect.
        Tcp = "tcp",
    }
}

words! {
    /// `game_servers[].ipv6_players`: the fate of players that have no IPv4 address.
    pub enum Ipv6Players {
        /// They get one in 240.0.0.0/4, stable for their /64.
        PseudoIpv4 = "pseudo_ipv4",
        /// They are refused.
        Refuse = "refuse",
    }
}
