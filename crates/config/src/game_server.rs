//! `game_servers[]`: the ports that clients may ask for.

use otproxy_protocol::game_packet::Framing;
use otproxy_protocol::player_address::PlayerAddress;
use otproxy_protocol::words;

use super::address::{HostPort, TARGET, is_ipv4_loopback};
use super::declare::{Read, section};
use super::formats::{COUNT_OR_NONE, PORT};
use super::scope::Scope;
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
        /// connects to this game server, spread evenly; for servers that block an address which connects too often
        connects_per_second: Option<u32> = value(COUNT_OR_NONE).or("none").example("10"),
        /// `loopback_per_player` connects from an address in 127.0.0.0/8 for each player, for servers on the same host that
        /// count connections by address
        source: SourceAddress = word().or("default"),
        /// players without an IPv4 address get a stable one in 240.0.0.0/4, or are refused
        ipv6_players: Ipv6Players = word().or("pseudo_ipv4"),
    }
}

impl Read for GameServerConfig {
    fn read(item: &Scope<'_>) -> Option<Self> {
        let keys = GameServerKeys::read(item);
        if let (Some(SourceAddress::LoopbackPerPlayer), Some(address)) = (keys.source, &keys.address)
            && !is_ipv4_loopback(address)
        {
            let message = format!(
                "`loopback_per_player` needs a game server on this host, and `{address}` is not on 127.0.0.0/8; write \
                 the address as `127.0.0.1:{}`, or leave this out",
                address.port
            );
            item.wrong("source", message);
        }
        keys.complete()
    }
}

words! {
    /// `game_servers[].source`: the local address of connections to the game server.
    pub enum SourceAddress {
        /// As the kernel chooses.
        Default = "default",
        /// An address in 127.0.0.0/8 for each player.
        LoopbackPerPlayer = "loopback_per_player",
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
