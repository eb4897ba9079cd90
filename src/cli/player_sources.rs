//! The trial of connects from players' own addresses, when a role starts.

use tracing::error;

use otproxy_config::Config;
use otproxy_net::{remedy_as_player, try_as_player};

/// Tries whether servers on this host can be connected to from players' own addresses, where the file says so, and logs each
/// way that does not work. Nobody waits for it.
pub(super) fn try_player_sources(config: &Config) {
    for loopback in config.loopbacks_of_players() {
        tokio::spawn(async move {
            if let Err(result) = try_as_player(loopback).await {
                error!(
                    %result,
                    "no player reaches the servers at {loopback} that have `source: player`; {}", remedy_as_player(result)
                );
            }
        });
    }
}
