//! Game servers that block an address which connects too often, as those without a patch do: how often they are connected to,
//! and the warnings of a file in which all their players have one address.

use std::collections::BTreeMap;

use otproxy_protocol::player_address::PlayerAddress;
use otproxy_protocol::quota::Quota;

use super::address::{HostPort, TargetHost};
use super::file::Config;
use super::forward::SendProxy;
use super::listener::ListenerConfig;
use super::source::SourceAddress;

/// A server to which all players seem to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockServerWarning {
    /// The path of the key that makes it so.
    pub path: String,
    /// The listener's name, or the port that clients ask for.
    pub subject: String,
    /// True if it is one of `game_servers`.
    pub is_game_server: bool,
    /// The problem.
    pub message: String,
    /// The remedy.
    pub remedy: String,
}

impl Config {
    /// Returns the rate of connects to each host for which the file gives one: the slowest of those that it gives.
    #[must_use]
    pub fn connect_rates(&self) -> BTreeMap<TargetHost, Quota> {
        let mut rates = BTreeMap::new();
        let mut add = |target: &HostPort, rate: Option<Quota>| {
            if let Some(rate) = rate {
                rates
                    .entry(TargetHost::from(target))
                    .and_modify(|known: &mut Quota| *known = known.slower(rate))
                    .or_insert(rate);
            }
        };
        if let Self::Core(core) = self {
            core.game_servers.iter().for_each(|server| add(&server.address, server.connect_rate()));
        }
        // A login service over HTTP is no game server, and has no `connects`.
        for forward in self.listeners().iter().filter_map(ListenerConfig::leading) {
            forward.hosts().for_each(|target| add(target, forward.connects));
        }
        rates
    }

    /// Returns the servers behind a core to which all players seem to be one, and which are connected to at any rate.
    #[must_use]
    pub fn stock_server_warnings(&self) -> Vec<StockServerWarning> {
        let Self::Core(core) = self else { return Vec::new() };
        let rates = self.connect_rates();
        let one_for_all = |target: &HostPort, told: bool, source: SourceAddress| {
            !told && !source.tells_apart(target) && !rates.contains_key(&TargetHost::from(target))
        };
        let mut warnings = Vec::new();
        for (index, server) in core.game_servers.iter().enumerate() {
            let told = server.player_address != PlayerAddress::None;
            if one_for_all(&server.address, told, server.source) {
                let path = format!("game_servers[{index}].player_address");
                warnings.push(warning(path, server.port.to_string(), true, &server.address, server.source));
            }
        }
        for (index, listener) in core.listeners.iter().enumerate() {
            let Some(forward) = listener.forward() else { continue };
            let told = forward.send_proxy != SendProxy::None;
            if let Some(target) = forward.hosts().find(|target| one_for_all(target, told, forward.source)) {
                let path = format!("listeners[{index}].send_proxy");
                warnings.push(warning(path, forward.inbound.name.clone(), false, target, forward.source));
            }
        }
        warnings
    }
}

fn warning(
    path: String,
    subject: String,
    is_game_server: bool,
    target: &HostPort,
    source: SourceAddress,
) -> StockServerWarning {
    let message = format!(
        "`none` tells {target} no player's address, so all players have one there: a game server without a patch blocks it \
         when a few of them come at once, and then nobody gets in"
    );
    let here = TargetHost::from(target) == TargetHost::Loopback && source == SourceAddress::Default;
    let own = if here {
        "leave out `source`, and write the address as `127.0.0.1:..`, so that each has its own; or "
    } else {
        ""
    };
    let remedy = format!("{own}give `connects: 1/600ms` for that host, or a patched server the form that it reads");
    StockServerWarning { path, subject, is_game_server, message, remedy }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::file::parse;
    use super::*;

    fn core(listener: &str, servers: &str) -> Config {
        let text = format!(
            "role: core\nadmin: {{ listen: off }}\nlisteners:\n- {{ name: links, kind: relay, listen: '0.0.0.0:7162', accept_proxy: none }}\n\
             - {{ name: login, listen: '0.0.0.0:7171', accept_proxy: none, {listener} }}\ngame_servers:\n{servers}"
        );
        parse("core.yaml", &text).unwrap()
    }

    fn paths(config: &Config) -> Vec<String> {
        config.stock_server_warnings().into_iter().map(|warning| warning.path).collect()
    }

    #[test]
    fn a_stock_server_on_loopback_tells_players_apart_unless_the_file_says_otherwise() {
        let sources = |forward: &str, server: &str| {
            let config = core(
                &format!("forward_to: 'localhost:7171', {forward}"),
                &format!("- {{ port: 7172, address: '127.0.0.1:7172', {server} }}"),
            );
            let Config::Core(core) = &config else { panic!() };
            (core.listeners[1].forward().unwrap().source, core.game_servers[0].source, paths(&config).len())
        };
        let (own, kernel) = (SourceAddress::LoopbackPerPlayer, SourceAddress::Default);
        assert_eq!(sources("send_proxy: none", "player_address: none"), (own, own, 0));
        assert_eq!(sources("send_proxy: v2", "player_address: otc"), (kernel, kernel, 0));
        let explicit = sources("send_proxy: none, source: default", "player_address: none, source: default");
        assert_eq!(explicit, (kernel, kernel, 2));
        let told = sources("source: loopback_per_player", "source: loopback_per_player");
        assert_eq!(told, (own, own, 0));
    }

    #[test]
    fn a_stock_server_elsewhere_is_warned_of_unless_what_leads_to_its_host_is_paced() {
        let forward = "forward_to: ['localhost:7171', 'Game.example:7171'], send_proxy: none";
        let server = "- { port: 7172, address: 'game.example:7172', player_address: none }";
        let unpaced = core(forward, server);
        assert_eq!(paths(&unpaced), ["game_servers[0].player_address", "listeners[1].send_proxy"]);
        assert!(unpaced.stock_server_warnings()[0].remedy.contains("connects: 1/600ms"));
        let paced = core(forward, &server.replace('}', ", connects: 1/600ms }"));
        assert!(paths(&paced).is_empty(), "the forward leads to the same host");
        let told = core("forward_to: 'game.example:7171'", "- { port: 7172, address: 'game.example:7172' }");
        assert!(paths(&told).is_empty());
    }

    #[test]
    fn the_slowest_rate_for_a_host_holds_for_all_that_leads_there() {
        let config = core(
            "forward_to: 'localhost:7171', connects: 5/1s",
            "- { port: 7172, address: '127.0.0.1:7172', connects: 1/600ms }\n\
             - { port: 7173, address: '[::1]:7173', connects_per_second: 10 }\n\
             - { port: 7174, address: '10.0.0.1:7174' }",
        );
        let rates: Vec<_> = config.connect_rates().into_iter().collect();
        assert_eq!(rates, [(TargetHost::Loopback, Quota::per(1, Duration::from_millis(600)))]);
    }
}
