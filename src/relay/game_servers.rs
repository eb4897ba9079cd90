//! Game servers as they are known to be, up or down: by checks, or by what sessions met.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::admission::ConnectQueues;
use crate::events::{EventLog, Happening};
use crate::metrics::{Metrics, PanicCount};
use otproxy_config::{GameServerCheck, GameServerConfig};
use otproxy_net::{ConnectResult, connect};
use otproxy_protocol::core::EndReason;

/// The time limit of a check of a game server, which is that of connects by default.
pub const CHECK_WITHIN: Duration = Duration::from_secs(4);

/// All game servers of the file. A session locks them once, when it has connected.
#[derive(Debug, Default)]
pub struct GameServers {
    list: Mutex<Vec<Arc<GameServer>>>,
    /// Notifies the watching task that they have changed.
    changed: watch::Sender<()>,
    /// Those of the process.
    metrics: OnceLock<Arc<Metrics>>,
    events: OnceLock<Arc<EventLog>>,
}

#[derive(Debug)]
struct GameServer {
    config: GameServerConfig,
    known: Mutex<Known>,
    up: IntGauge,
    events: Arc<EventLog>,
    /// Sessions in a row that ended in vain.
    in_vain: AtomicU32,
}

/// Sessions in a row that end in vain before the log says so.
const IN_VAIN: u32 = 5;
/// The bytes of a game server's first packet, which it sends before it has read anything.
const FIRST_PACKET: u64 = 14;

/// What is known of a game server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    up: bool,
    /// Results in a row that say otherwise.
    otherwise: u32,
}

impl Known {
    /// It is up until something fails.
    const AT_FIRST: Self = Self { up: true, otherwise: 0 };

    /// Records a result. Returns whether it changes what is known, as this many in a row do.
    fn record(&mut self, up: bool, in_a_row: u32) -> bool {
        if up == self.up {
            self.otherwise = 0;
            return false;
        }
        self.otherwise += 1;
        let changes = self.otherwise >= in_a_row;
        if changes {
            *self = Self { up, otherwise: 0 };
        }
        changes
    }
}

impl GameServers {
    /// Shows from now on in `metrics`, which are no worker's, which are up, and tells `events` of those that change.
    pub fn show_in(&self, metrics: &Arc<Metrics>, events: &Arc<EventLog>) {
        // This is called once.
        let _ = self.metrics.set(Arc::clone(metrics));
        let _ = self.events.set(Arc::clone(events));
    }

    /// Changes to these. What is known of one stays as long as its port leads to it.
    pub fn set(&self, servers: &[GameServerConfig]) {
        let Some(metrics) = self.metrics.get() else { return };
        let mut list = self.list.lock();
        if list.iter().map(|server| &server.config).eq(servers) {
            return;
        }
        let before = std::mem::take(&mut *list);
        for config in servers {
            let same = |before: &&Arc<GameServer>| {
                (before.config.port, &before.config.address) == (config.port, &config.address)
            };
            let known = before.iter().find(same).map_or(Known::AT_FIRST, |before| *before.known.lock());
            let up = metrics.game_server_up.with_label_values(&[&config.port.to_string()]);
            up.set(known.up.into());
            let (known, in_vain) = (Mutex::new(known), AtomicU32::new(0));
            let events = self.events.get().cloned().unwrap_or_default();
            list.push(Arc::new(GameServer { config: config.clone(), known, up, events, in_vain }));
        }
        for gone in before.iter().filter(|before| servers.iter().all(|server| server.port != before.config.port)) {
            // What is removed already needs no removal.
            let _ = metrics.game_server_up.remove_label_values(&[&gone.config.port.to_string()]);
        }
        self.changed.send_replace(());
    }

    /// Records the result of a session's connect, which counts where nothing checks the server.
    pub fn connected(&self, port: u16, result: ConnectResult) {
        if let Some(server) = self.at(port).filter(|server| server.config.check == GameServerCheck::Off) {
            server.record(result, 1);
        }
    }

    /// Records the end of a session that had these bytes of the game server. Returns whether it was told in the log that none has
    /// more than a first packet, as where a server closes on a form of `player_address` that it does not read.
    pub fn ended(&self, port: u16, reason: EndReason, bytes: u64) -> bool {
        let Some(server) = self.at(port) else { return false };
        if bytes > FIRST_PACKET {
            server.in_vain.store(0, Ordering::Relaxed);
        }
        if reason != EndReason::GameClosed || bytes > FIRST_PACKET {
            return false;
        }
        let told = server.in_vain.fetch_add(1, Ordering::Relaxed) + 1 == IN_VAIN;
        if told {
            let GameServerConfig { address, player_address, .. } = &server.config;
            warn!(
                port,
                %address,
                %player_address,
                "the game server has closed the last {IN_VAIN} sessions after no more than a first packet: see that it reads this \
                 `player_address`, as `otproxy doctor` tries"
            );
        }
        told
    }

    fn at(&self, port: u16) -> Option<Arc<GameServer>> {
        self.list.lock().iter().find(|server| server.config.port == port).map(Arc::clone)
    }

    /// Checks those that are to be checked, until dropped. They wait for their turn to connect in `connects`.
    pub async fn watch(&self, connects: &Arc<ConnectQueues>) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let list = self.list.lock().clone();
            let mut tasks = JoinSet::new();
            if let Some(metrics) = self.metrics.get() {
                for server in list.into_iter().filter(|server| server.config.check == GameServerCheck::Tcp) {
                    tasks.spawn(server.keep_checking(Arc::clone(connects), metrics.panic_count()));
                }
            }
            // This does not fail, as the sender is held here. Once dropped, the tasks end.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl GameServer {
    async fn keep_checking(self: Arc<Self>, connects: Arc<ConnectQueues>, _panics: PanicCount) {
        let GameServerConfig { address, source, inter, fall, rise, .. } = &self.config;
        let mut ticks = interval(*inter);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // One that does not have its turn before the next one says nothing.
            if let Some(queue) = connects.of(address)
                && queue.turn_behind((Instant::now() + *inter).into_std()).await.is_err()
            {
                continue;
            }
            let checked = connect((&address.host, address.port), source.of_checks(address).into(), CHECK_WITHIN).await;
            match checked {
                Ok(_) => self.record(ConnectResult::Ok, *rise),
                Err(result) => self.record(result, *fall),
            }
        }
    }

    /// Records the result of a connect. This many in a row change what is known.
    fn record(&self, result: ConnectResult, in_a_row: u32) {
        if result.is_of_this_host() {
            return;
        }
        let up = result == ConnectResult::Ok;
        if !self.known.lock().record(up, in_a_row) {
            return;
        }
        self.up.set(up.into());
        let GameServerConfig { port, address, .. } = &self.config;
        let (address_text, reason) = (address.to_string(), result.as_str());
        self.events.emit(Happening::GameServer { port: *port, address: address_text, up, reason });
        if up {
            info!(port, %address, "the game server is up");
        } else {
            warn!(port, %address, reason = %result, "the game server is down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otproxy_config as config;

    #[test]
    fn so_many_in_a_row_change_what_is_known() {
        let mut known = Known::AT_FIRST;
        let mut record = |up, in_a_row| known.record(up, in_a_row);
        assert_eq!([false, false, true, false, false].map(|up| record(up, 3)), [false; 5], "one in between");
        assert!(record(false, 3));
        assert_eq!([true, false, true].map(|up| record(up, 2)), [false; 3]);
        assert!(record(true, 2));
        assert!(record(false, 1));
    }

    fn servers(text: &str) -> Vec<GameServerConfig> {
        let text = format!(
            "role: core\nlisteners: [{{ name: l, kind: relay, listen: '127.0.0.1:1', accept_proxy: none }}]\n\
             game_servers: {text}\n"
        );
        let config::Config::Core(core) = config::parse("core.yaml", &text).unwrap() else { panic!("a core") };
        core.game_servers
    }

    #[test]
    fn sessions_that_all_end_in_vain_are_told_once() {
        let game_servers = GameServers::default();
        game_servers.show_in(&Arc::new(Metrics::new()), &Arc::default());
        game_servers.set(&servers("[{ port: 1, address: '127.0.0.1:1' }]"));
        let ended = |reason, bytes| game_servers.ended(1, reason, bytes);
        let in_vain = || (0..20).filter(|_| ended(EndReason::GameClosed, FIRST_PACKET)).count();
        assert!((1..IN_VAIN).all(|_| !ended(EndReason::GameClosed, 0)));
        assert!(!ended(EndReason::ClientLeft, FIRST_PACKET), "a player's own end says nothing");
        assert_eq!(in_vain(), 1);
        assert!(!ended(EndReason::GameClosed, FIRST_PACKET + 1), "somebody played");
        assert_eq!(in_vain(), 1);
        assert!(!game_servers.ended(2, EndReason::GameClosed, 0), "a port that is gone");
    }

    #[test]
    fn what_sessions_meet_counts_where_nothing_checks_and_a_reload_keeps_it() {
        let (game_servers, metrics) = (GameServers::default(), Arc::new(Metrics::new()));
        let events = Arc::<EventLog>::default();
        game_servers.show_in(&metrics, &events);
        let text = "[{ port: 1, address: '127.0.0.1:1' }, { port: 2, address: '127.0.0.1:2', check: tcp }]";
        game_servers.set(&servers(text));
        let up = |port: &str| metrics.game_server_up.with_label_values(&[port]).get();
        assert_eq!((up("1"), up("2")), (1, 1));
        [1, 2].iter().for_each(|port| game_servers.connected(*port, ConnectResult::Refused));
        assert_eq!((up("1"), up("2")), (0, 1), "the second is checked");
        let more = text.replace("check: tcp }", "check: off }, { port: 3, address: '127.0.0.1:3' }");
        game_servers.set(&servers(&more));
        assert_eq!((up("1"), up("2"), up("3")), (0, 1, 1));
        game_servers.connected(1, ConnectResult::NoAddress);
        assert_eq!(up("1"), 0, "that is of this host");
        game_servers.connected(1, ConnectResult::Ok);
        assert_eq!(up("1"), 1);
        game_servers.connected(1, ConnectResult::Timeout);
        game_servers.set(&servers("[{ port: 1, address: '127.0.0.1:9' }]"));
        assert_eq!(up("1"), 1, "another one is there");
        let told: Vec<_> = events.after(0, 10).iter().map(|event| event.what.to_string()).collect();
        let down = |reason: &str| format!("the game server of world 1, 127.0.0.1:1, cannot be reached: {reason}");
        let back = "the game server of world 1, 127.0.0.1:1, is up".to_owned();
        assert_eq!(told, [down("refused"), back, down("timeout")]);
        let shown: usize =
            prometheus::core::Collector::collect(&metrics.game_server_up).iter().map(|f| f.get_metric().len()).sum();
        assert_eq!(shown, 1);
    }
}
