//! Profiles of game servers: the settings that go together for each of the servers that people run.

use otproxy_protocol::game_packet::Framing;
use otproxy_protocol::player_address::PlayerAddress;
use otproxy_protocol::words;

use super::forward::SendProxy;

words! {
    /// `game_server` of a topology: the server that people run, from which all settings for it follow.
    pub enum GameServerProfile {
        /// TFS 1.4, or another, with the OTC proxy patch.
        Tfs14Otc = "tfs14-otc",
        /// The TFS 1.6 branch of that patch, which reads all addresses backwards.
        Tfs16Otc = "tfs16-otc",
        /// TFS with the PROXY protocol of its pull request 5090.
        TfsProxy = "tfs-proxy",
        /// Canary, which reads no header, with clients of today.
        Canary = "canary",
        /// Canary with clients of 8.60, which matches login and game by their address.
        Canary860 = "canary-860",
        /// The Violet Project, which reads no header and locks addresses out.
        Tvp = "tvp",
        /// Any other server that reads no header.
        Unpatched = "unpatched",
        /// A server of another kind: `player_address` says how it is told addresses.
        Custom = "custom",
    }
}

/// The settings of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GameServerSettings {
    /// The form of a player's address on connections of sessions.
    pub player_address: PlayerAddress,
    /// The header on connections that are forwarded to it: logins, status requests, and games of players without links.
    pub send_proxy: SendProxy,
    /// The framing of its packets.
    pub framing: Framing,
    /// True if it takes all addresses for one when it counts connects, whatever it is told: then connects have to be slow.
    pub counts_all_as_one: bool,
    /// True if its answer to a login depends on the way on which that came: 127.0.0.1 over links, its public address
    /// otherwise. Then players without links find the edge's port of the world.
    pub tells_ways_apart: bool,
    /// True if it knows nothing of edges, and the core puts them into its answers to classic logins.
    pub edges_in_logins: bool,
}

impl GameServerSettings {
    /// Returns whether players without links are told an edge's address, and find the world's port there.
    #[must_use]
    pub fn lets_others_play(&self) -> bool {
        self.tells_ways_apart || self.edges_in_logins
    }
}

impl GameServerProfile {
    /// Returns the settings. `told` is the topology's `player_address`, which [`GameServerProfile::Custom`] goes by.
    #[must_use]
    pub fn settings(self, told: PlayerAddress) -> GameServerSettings {
        use PlayerAddress::{None, Otc, OtcReversed, ProxyV1, ProxyV2};
        let settings = |player_address, send_proxy, framing| GameServerSettings {
            player_address,
            send_proxy,
            framing,
            counts_all_as_one: false,
            tells_ways_apart: matches!(player_address, Otc | OtcReversed),
            edges_in_logins: matches!(self, Self::Canary860 | Self::Tvp | Self::Unpatched),
        };
        match self {
            Self::Tfs14Otc => settings(Otc, SendProxy::V2, Framing::Bytes),
            Self::Tfs16Otc => settings(OtcReversed, SendProxy::V2Reversed, Framing::Bytes),
            Self::TfsProxy => {
                GameServerSettings { counts_all_as_one: true, ..settings(ProxyV2, SendProxy::V2, Framing::Bytes) }
            }
            Self::Canary | Self::Unpatched => settings(None, SendProxy::None, Framing::Auto),
            Self::Canary860 | Self::Tvp => settings(None, SendProxy::None, Framing::Bytes),
            Self::Custom => {
                let send_proxy = match told {
                    Otc | OtcReversed | ProxyV2 => SendProxy::V2,
                    ProxyV1 => SendProxy::V1,
                    None => SendProxy::None,
                };
                settings(told, send_proxy, Framing::Auto)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_both_ways_go_together() {
        for profile in GameServerProfile::ALL {
            let GameServerSettings { player_address, send_proxy, .. } = profile.settings(PlayerAddress::None);
            let (session, forward) = (player_address != PlayerAddress::None, send_proxy != SendProxy::None);
            assert_eq!(session, forward, "{profile}: it reads headers, or it does not");
            let reversed = player_address == PlayerAddress::OtcReversed;
            assert_eq!(reversed, send_proxy == SendProxy::V2Reversed, "{profile}: one order of bytes");
        }
    }

    #[test]
    fn a_custom_one_is_told_as_its_topology_says() {
        for told in PlayerAddress::ALL.iter().copied() {
            assert_eq!(GameServerProfile::Custom.settings(told).player_address, told);
        }
    }
}
