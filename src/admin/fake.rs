//! An operator for tests, which knows one of everything and records what it was asked to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::api::*;
use crate::events::{EventLog, Happening};
use crate::history::{EDGE_FIGURES, Figure, History, Row};
use otproxy_protocol::frame::ClientId;

/// The fake operator.
pub(crate) struct FakeOperator {
    pub role: Role,
    /// The number of connections that it reports.
    pub connections: u64,
    /// The actions that were done completely.
    pub done: Mutex<Vec<String>>,
    /// Connections left on its listener while it drains: one fewer at each look.
    pub draining: Mutex<Option<u64>>,
    /// Permits for reloads: each takes one, and waits until there is one.
    pub reloads: Arc<Semaphore>,
    /// Its events.
    pub events: Arc<EventLog>,
    /// Its figures.
    pub history: Arc<History>,
}

impl FakeOperator {
    pub fn new(role: Role) -> Self {
        let reloads = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let (events, history) = (Arc::new(EventLog::new(time().0)), Arc::<History>::default());
        events.emit(Happening::GameStall { port: 7172, seconds: 1.8, ongoing: false });
        events.emit(Happening::Drain { listener: None, edge: None, drained: true });
        let mut row = Row { edges: vec![("waw1".into(), [0.5; EDGE_FIGURES])], ..Row::default() };
        row.set(Figure::Sessions, 3.0);
        history.push(&row, Instant::now() + Duration::from_secs(1));
        let (done, draining) = (Mutex::default(), Mutex::default());
        Self { role, connections: 2, done, draining, reloads, events, history }
    }

    /// Returns the actions that were done so far.
    pub fn done(&self) -> Vec<String> {
        self.done.lock().clone()
    }

    fn does(&self, what: String) {
        self.done.lock().push(what);
    }

    fn drained(&self, listener: Option<&str>, state: ListenerState) -> Result<Drained, ApiError> {
        match listener {
            None | Some("login") => {
                Ok(Drained { listeners: vec![DrainedListener { name: "login".to_owned(), state, connections: 7 }] })
            }
            Some(name) => Err(no_listener(name)),
        }
    }
}

/// Returns a time that is always the same.
pub(crate) fn time() -> Time {
    Time(SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000))
}

fn no_listener(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no listener `{name}`"), "the listeners are: login")
}

fn target(state: TargetState) -> TargetView {
    let check = CheckView { result: "ok".to_owned(), age_seconds: 1.5, round_trip_seconds: Some(0.0123) };
    TargetView {
        listener: "login".to_owned(),
        name: "first".to_owned(),
        address: "game.example:7171".to_owned(),
        up: true,
        state,
        backup: false,
        connections: 7,
        check: Some(check),
    }
}

impl Operator for FakeOperator {
    fn status(&self) -> StatusView {
        StatusView {
            role: self.role,
            name: "waw1".to_owned(),
            version: "1.2.3".to_owned(),
            pid: 4711,
            started: time(),
            uptime_seconds: 93_784,
            ready: true,
            draining: false,
            workers: 2,
            listeners: 1,
            connections: Count { open: 7, limit: Some(1000) },
            sessions: (self.role == Role::Core).then_some(Count { open: 3, limit: None }),
            trunks: Some(4),
            bans: 1,
            files: Count { open: 40, limit: Some(1024) },
            last_reload: Some(ReloadView { time: time(), ok: false, errors: vec!["edge.yaml:1:1: bad".to_owned()] }),
        }
    }

    fn listeners(&self) -> ListenersView {
        let reasons = |reasons: &[(&str, u64)]| -> BTreeMap<_, _> {
            reasons.iter().map(|(reason, count)| (reason.to_string(), *count)).collect()
        };
        let mut draining = self.draining.lock();
        let (state, open) = match &mut *draining {
            None => (ListenerState::Open, 7),
            Some(0) => (ListenerState::Drained, 0),
            Some(left) => {
                *left -= 1;
                (ListenerState::Draining, *left + 1)
            }
        };
        let listener = ListenerView {
            name: "login".to_owned(),
            kind: ListenerKind::Forward,
            addresses: vec!["0.0.0.0:7171".parse().unwrap(), "[::]:7171".parse().unwrap()],
            state,
            connections: Count { open, limit: None },
            accepted: 1_234_567,
            rejected: reasons(&[("rate", 1_000_000), ("silent", 3)]),
            closed: reasons(&[("client", 234_557)]),
            bytes_in: 5_000_000_000,
            bytes_out: 1023,
        };
        ListenersView { listeners: vec![listener] }
    }

    fn events(&self) -> Arc<EventLog> {
        Arc::clone(&self.events)
    }

    fn history(&self) -> Arc<History> {
        Arc::clone(&self.history)
    }

    fn targets(&self) -> TargetsView {
        let unchecked = TargetView {
            name: "second".to_owned(),
            up: false,
            backup: true,
            check: None,
            ..target(TargetState::Ready)
        };
        TargetsView { targets: vec![target(TargetState::Ready), unchecked] }
    }

    fn connections(&self, asked: &ConnectionsQuestion) -> Result<ConnectionsView, ApiError> {
        if let Some(name) = asked.listener.as_deref().filter(|name| *name != "login") {
            return Err(no_listener(name));
        }
        let total = self.connections;
        let connection = |id| ConnectionView {
            id,
            listener: "login".to_owned(),
            player: (id % 2 == 0).then(|| "198.51.100.7:50000".parse().unwrap()),
            peer: "[2001:db8::7]:50000".parse().unwrap(),
            edge: (id % 2 == 0).then(|| "waw1".to_owned()),
            state: if id % 2 == 0 { ConnectionState::Link } else { ConnectionState::Opening },
            target: None,
            client: (id % 2 == 0).then_some(77),
            age_seconds: 0.25,
            bytes_in: 10,
            bytes_out: 20,
        };
        let ids = (1..=total).rev().take(asked.limit.get());
        Ok(ConnectionsView { total, connections: ids.map(connection).collect() })
    }

    fn sessions(&self, asked: &SessionsQuestion) -> ApiFuture<'_, SessionsView> {
        let client = asked.client.unwrap_or(77);
        Box::pin(async move {
            if self.role == Role::Edge {
                return Err(ApiError::not_found("an edge knows of no sessions", "ask the core"));
            }
            let link = SessionLinkView {
                connection: 2,
                edge: Some("waw1".to_owned()),
                player: "198.51.100.7:50000".parse().unwrap(),
                age_seconds: 61.0,
                round_trip_seconds: Some(0.031),
                bytes_in: 100,
                bytes_out: 200,
            };
            let session = SessionView {
                client,
                session: 1,
                port: 7172,
                player: "198.51.100.7:50000".parse().unwrap(),
                state: SessionState::Carried,
                age_seconds: 62.5,
                game_server: "127.0.0.1:7172".to_owned(),
                links: vec![link.clone(), SessionLinkView { edge: None, round_trip_seconds: None, ..link }],
                unacked_bytes: 300,
                reorder_bytes: 0,
                pending_bytes: 0,
                packets_in: 5,
                packets_out: 6,
                bytes_in: 90,
                bytes_out: 180,
            };
            Ok(SessionsView { total: 1, sessions: vec![session] })
        })
    }

    fn addresses(&self, asked: &AddressesQuestion) -> AddressesView {
        let talker = |address: &str, banned| TalkerView {
            address: address.parse().unwrap(),
            connections: 9,
            bytes_in: 1,
            bytes_out: 2,
            banned,
        };
        let all = [talker("198.51.100.7", false), talker("2001:db8:0:1::/64", true)];
        AddressesView { total: 2, addresses: all.into_iter().take(asked.limit.get()).collect() }
    }

    fn edges(&self) -> Result<EdgesView, ApiError> {
        let address = |text: &str| text.parse().unwrap();
        let waw1 = EdgeView {
            name: "waw1".to_owned(),
            revoked: false,
            revoked_by: None,
            state: EdgeState::Slow,
            cause: "round_trips".to_owned(),
            state_since: time(),
            public: Some("p1.example:7162".to_owned()),
            listed: true,
            priority: 40,
            order: Some(EdgeOrderView {
                order: EdgeOrder::In,
                since: time(),
                until: Some(time()),
                why: Some("a trial".to_owned()),
            }),
            links: 11,
            round_trip_seconds: Some(0.042),
            probes: vec![EdgeProbeView { from: "fra1".to_owned(), round_trip_seconds: Some(0.0311) }],
            traffic: Some(EdgeTrafficView { bytes: 734_003_200, month_bytes: 1_000_000_000_000 }),
            addresses: vec![address("198.51.100.7"), address("2001:db8::7")],
            in_use: 12,
            trunks: Some(vec![TrunkView {
                address: address("198.51.100.7"),
                since: time(),
                streams: 12,
                bytes_in: 1_234_567,
                bytes_out: 7_654_321,
                round_trip_seconds: Some(0.0123),
                version: "1.2.3".to_owned(),
                certificate: EdgeCertificateView { serial: "40:1f:99".to_owned(), until: time() },
            }]),
            since: Some(time()),
            certificate: Some(EdgeCertificateView { serial: "40:1f:99".to_owned(), until: time() }),
            last_error: Some(EdgeErrorView {
                time: time(),
                reason: "wrong_address".to_owned(),
                address: Some(address("203.0.113.66")),
            }),
        };
        let fra1 = EdgeView {
            name: "fra1".to_owned(),
            revoked: true,
            revoked_by: Some(RevokedBy::File),
            state: EdgeState::Out,
            cause: "revoked".to_owned(),
            state_since: time(),
            public: None,
            listed: false,
            priority: 0,
            order: None,
            links: 0,
            round_trip_seconds: None,
            probes: Vec::new(),
            traffic: None,
            addresses: Vec::new(),
            in_use: 0,
            trunks: None,
            since: None,
            certificate: None,
            last_error: None,
        };
        Ok(EdgesView { edges: vec![waw1, fra1] })
    }

    fn bans(&self, asked: &BansQuestion) -> BansView {
        let ban = |network: &str, edge: Option<&str>, by| BanView {
            network: network.parse().unwrap(),
            edge: edge.map(str::to_owned),
            until: time(),
            seconds_left: 599,
            by,
        };
        let all =
            [ban("198.51.100.0/24", None, BannedBy::Operator), ban("2001:db8:0:1::/64", Some("waw1"), BannedBy::Rules)];
        BansView { total: 2, nftables: true, bans: all.into_iter().take(asked.limit.get()).collect() }
    }

    fn reload(&self) -> ApiFuture<'_, Reloaded> {
        Box::pin(async move {
            let Ok(permit) = self.reloads.acquire().await else {
                return Err(ApiError::wrong_file(vec!["edge.yaml:1:1: role: wrong".to_owned(), "and more".to_owned()]));
            };
            permit.forget();
            self.does("reload".to_owned());
            Ok(Reloaded { time: time(), needs_restart: vec!["workers".to_owned()] })
        })
    }

    fn drain(&self, listener: Option<String>, deadline: Option<Duration>) -> ApiFuture<'_, Drained> {
        Box::pin(async move {
            let drained = self.drained(listener.as_deref(), ListenerState::Draining)?;
            self.does(format!("drain {listener:?} {deadline:?}"));
            *self.draining.lock() = Some(2);
            Ok(drained)
        })
    }

    fn undrain(&self, listener: Option<String>) -> ApiFuture<'_, Drained> {
        Box::pin(async move {
            let drained = self.drained(listener.as_deref(), ListenerState::Open)?;
            self.does(format!("undrain {listener:?}"));
            *self.draining.lock() = None;
            Ok(drained)
        })
    }

    fn ban(&self, network: Network, lasts: Option<Duration>, disconnect: bool) -> ApiFuture<'_, Banned> {
        Box::pin(async move {
            if network.to_string() == "192.0.2.1" {
                return Err(ApiError::conflict("192.0.2.1 is in `bans.exempt`", "take it out of that, and reload"));
            }
            self.does(format!("ban {network} {lasts:?} {disconnect}"));
            let disconnected = Disconnected { connections: u64::from(disconnect), sessions: 0 };
            Ok(Banned { network, until: time(), disconnected, edges: Vec::new() })
        })
    }

    fn drain_edge(&self, edge: String, listener: Option<String>, deadline: Option<Duration>) -> ApiFuture<'_, Drained> {
        Box::pin(async move {
            self.does(format!("drain {edge} {listener:?} {deadline:?}"));
            self.drained(listener.as_deref(), ListenerState::Draining)
        })
    }

    fn undrain_edge(&self, edge: String, listener: Option<String>) -> ApiFuture<'_, Drained> {
        Box::pin(async move {
            self.does(format!("undrain {edge} {listener:?}"));
            self.drained(listener.as_deref(), ListenerState::Open)
        })
    }

    fn unban(&self, network: Network) -> ApiFuture<'_, Unbanned> {
        self.does(format!("unban {network}"));
        Box::pin(async move { Ok(Unbanned { networks: vec![network], edges: Vec::new() }) })
    }

    fn edges_metrics(&self) -> ApiFuture<'_, Vec<(String, String)>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn revoke(&self, edge: String, undo: bool) -> ApiFuture<'_, Revoked> {
        Box::pin(async move {
            match (&*edge, undo) {
                ("waw1", _) => {}
                ("fra1", true) => {
                    return Err(ApiError::conflict(
                        "fra1 is revoked by the file",
                        "take `revoked` out of it, and reload",
                    ));
                }
                _ => {
                    return Err(ApiError::not_found(format!("there is no edge `{edge}`"), "the edges are: waw1, fra1"));
                }
            }
            self.does(format!("revoke {edge} {undo}"));
            let (revoked_by, connections) = if undo { (None, 0) } else { (Some(RevokedBy::Operator), 12) };
            Ok(Revoked { edge, revoked_by, connections, trusted_on: Vec::new() })
        })
    }

    fn order_edge(&self, request: EdgeRequest) -> ApiFuture<'_, EdgeView> {
        Box::pin(async move {
            let lasts = request.lasts()?;
            let edge = self.edges()?.edges.into_iter().find(|edge| edge.name == request.edge);
            let edge = edge.ok_or_else(|| {
                ApiError::not_found(format!("there is no edge `{}`", request.edge), "the edges are: waw1, fra1")
            })?;
            self.does(format!("edge {} {} {lasts:?}", request.edge, request.order));
            Ok(edge)
        })
    }

    fn probe(&self, edges: Vec<VisitedEdge>, within: Duration) -> ApiFuture<'_, Probed> {
        Box::pin(async move {
            self.does(format!("probe {} {}", edges.len(), within.as_millis()));
            let visit = |_| Visit { round_trip_seconds: Some(0.0123), error: None };
            Ok(Probed { edges: edges.into_iter().map(visit).collect() })
        })
    }

    fn traffic(&self, since: Option<String>) -> ApiFuture<'_, TrafficView> {
        Box::pin(async move { Ok(TrafficView { since, bytes_in: 7, bytes_out: 8 }) })
    }

    fn disconnect(&self, what: Disconnect) -> ApiFuture<'_, Disconnected> {
        Box::pin(async move {
            if let Disconnect::Client(ClientId(0)) = what {
                panic!("a defect, for a test");
            }
            self.does(format!("{what:?}"));
            Ok(Disconnected { connections: 1, sessions: 2 })
        })
    }

    fn upgrade(&self, request: UpgradeRequest) -> ApiFuture<'_, UpgradeBegun> {
        Box::pin(async move {
            if request.role != self.role {
                return Err(ApiError::conflict("it has another role", "take the file of that role"));
            }
            self.does(format!("upgrade {} {}", request.place()?.display(), request.takes_socket));
            Ok(UpgradeBegun { pid: 4711, version: "1.2.3".to_owned() })
        })
    }

    fn set_target(&self, listener: &str, name: &str, state: TargetState) -> Result<TargetView, ApiError> {
        if listener != "login" {
            return Err(no_listener(listener));
        }
        self.does(format!("target {name} {state}"));
        Ok(target(state))
    }
}
