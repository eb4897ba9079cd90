//! Servers that block an address which connects too often, found out by connecting too often.
//!
//! Only if it is asked for: a server that takes all addresses for one refuses new players meanwhile, for some seconds.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::DoctorCheck;
use super::server::ServerTrial;
use otproxy_config::{Config, PlayerAddress, TargetHost};

/// The check of a server's throttle.
pub(super) const CHECK: &str = "connects";
/// Connects at once. Stock servers block an address at the sixth.
const CONNECTS: usize = 8;
/// Players of documentation's addresses, as headers or connections tell them, and on loopback as sources that no player has.
const TOLD: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2)];
const SOURCES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 0, 4)];

/// A host's servers, of which one is tried.
pub(super) struct ThrottleTrial {
    host: TargetHost,
    server: ServerTrial,
    /// True if each player has an address there: told, or of its own on loopback.
    tells_apart: bool,
    /// True if the file makes connects to the host slow.
    is_slowed: bool,
}

/// Returns one game server of each host.
pub(super) fn of(config: &Config) -> Vec<ThrottleTrial> {
    let Config::Core(core) = config else { return Vec::new() };
    let rates = config.connect_rates();
    let mut trials: Vec<ThrottleTrial> = Vec::new();
    for game in &core.game_servers {
        let (host, server) = (TargetHost::from(&game.address), ServerTrial::of_game_server(game));
        if trials.iter().all(|trial| trial.host != host) {
            let own = game.source.tells_apart(&game.address);
            let tells_apart = own || game.player_address != PlayerAddress::None;
            let is_slowed = rates.contains_key(&host);
            trials.push(ThrottleTrial { host, server, tells_apart, is_slowed });
        }
    }
    trials
}

impl ThrottleTrial {
    /// Connects as one player many times, and then as another. Without a finding the server closes on the first connect already,
    /// which other checks tell.
    pub async fn examine(self) -> Option<DoctorCheck> {
        let mut blocked = false;
        for number in 0..CONNECTS {
            blocked = self.is_closed(0).await?;
            if blocked && number == 0 {
                return None;
            }
        }
        let other = if blocked { self.is_closed(1).await? } else { false };
        Some(self.verdict(blocked, other))
    }

    async fn is_closed(&self, player: usize) -> Option<bool> {
        let told = SocketAddrV4::new(*TOLD.get(player)?, 50_000);
        self.server.closes_at_once(told, *SOURCES.get(player)?).await
    }

    fn verdict(&self, blocked: bool, other: bool) -> DoctorCheck {
        let host = self.host.to_string();
        let what = (CHECK, host.as_str());
        match (blocked, other, self.tells_apart) {
            (false, ..) => DoctorCheck::ok(CHECK, host, format!("takes {CONNECTS} connects of one player at once")),
            (true, false, true) => DoctorCheck::ok(
                CHECK,
                host,
                "throttles connects of each address, and tells players apart: no other was blocked",
            ),
            (true, ..) if self.is_slowed => DoctorCheck::ok(
                CHECK,
                host,
                "throttles connects of all players together, and `connects` makes them slow enough",
            ),
            (true, ..) => DoctorCheck::fail(
                what,
                "throttles connects of all players together: one who connects often blocks the others",
                "give one of its `game_servers` `connects: 1/600ms`",
            ),
        }
    }
}
