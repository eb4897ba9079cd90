//! The core and the edges of the demo: as `otproxy core` and `otproxy edge` run them, each on a
//! thread of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::config;
use crate::limits::GateLimits;
use crate::roles::{self, Service};
use otproxy_protocol::rate::Rate;

use super::DemoError;

/// The port that players ask for.
pub(super) const GAME_PORT: u16 = 7172;
/// The listener of an edge, and of the core.
const LINKS: &str = "links";
/// The core has nothing to finish once the players have left.
const CORE_SHUTDOWN: Duration = Duration::from_millis(500);

/// A role that is being stopped.
pub(super) struct Stopped(oneshot::Receiver<()>);

impl Stopped {
    /// Waits until all its sockets are closed.
    pub async fn wait(self) {
        // Where the thread panicked it is stopped as well.
        let _ = self.0.await;
    }
}

/// A role that runs. Dropping it stops it.
struct Running {
    stop: CancellationToken,
    stopped: Option<oneshot::Receiver<()>>,
}

impl Running {
    fn start(name: &str, service: Service) -> Result<Self, DemoError> {
        let fail = |source| DemoError::Start { what: name.to_owned(), source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let stop = CancellationToken::new();
        let (sender, stopped) = oneshot::channel();
        let stopping = stop.clone().cancelled_owned();
        let who = name.to_owned();
        let main = move || {
            if let Err(error) = runtime.block_on(service.run(stopping)) {
                error!(role = who, %error, "ended");
            }
            drop(runtime);
            // Nobody waits where the demo is over.
            let _ = sender.send(());
        };
        thread::Builder::new().name(name.to_owned()).spawn(main).map_err(fail)?;
        Ok(Self { stop, stopped: Some(stopped) })
    }

    fn stop(mut self) -> Option<Stopped> {
        self.stop.cancel();
        self.stopped.take().map(Stopped)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The core.
pub(super) struct Core {
    running: Option<Running>,
    links: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
}

impl Core {
    /// Starts a core with one address for each edge, so that many links do not run out of ports.
    pub fn start(game_server: SocketAddr, edges: usize) -> Result<Self, DemoError> {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); edges];
        // All edges connect from here; players do not, so that none of them is believed.
        let trusted: IpNet = Ipv4Net::from(Ipv4Addr::LOCALHOST).into();
        let relay = config::Relay {
            inbound: config::Inbound {
                accept_proxy: config::AcceptProxy::Required,
                trusted_peers: vec![trusted],
                idle_timeout: Duration::from_secs(10),
                ..inbound(listen)
            },
        };
        let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(2);
        let config = config::Core {
            process: process("core", workers, Some(admin), CORE_SHUTDOWN),
            tunnel: None,
            edges: vec![config::EdgePeer {
                name: "edges".to_owned(),
                addresses: vec![trusted],
                dial: None,
                revoked: false,
            }],
            forwards: Vec::new(),
            relays: vec![relay],
            game_servers: vec![config::GameServer {
                port: GAME_PORT,
                address: game_server.into(),
                player_address: config::PlayerAddress::Otc,
                framing: config::Framing::Auto,
                max_packets_per_second: None,
                connects_per_second: None,
                source: config::Source::Default,
                ipv6_players: config::Ipv6Players::PseudoIpv4,
            }],
            sessions: config::Sessions {
                bind_sessions: config::BindSessions::Address,
                linger: Duration::from_secs(30),
                leave_grace: Duration::from_secs(2),
                max_per_address: 20,
                max: 20_000,
                max_per_link: 16,
                opens_per_address: Some(Rate::per(60, Duration::from_secs(10))),
                unacked: 4 << 20,
                reorder: 256 << 10,
                pending: 1 << 20,
            },
        };
        let service = roles::core::bind(config)?;
        let (links, admin) = (service.addresses(LINKS).to_vec(), service.admin_address());
        Ok(Self { running: Some(Running::start("core", service)?), links, admin })
    }

    /// Where each edge forwards to.
    pub fn links(&self) -> &[SocketAddr] {
        &self.links
    }

    /// Where its metrics are.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Stops it; `None` where it is already.
    pub fn stop(&mut self) -> Option<Stopped> {
        self.running.take().and_then(Running::stop)
    }
}

/// An edge, up or cut.
pub(super) struct Edge {
    name: String,
    core: SocketAddr,
    address: SocketAddr,
    running: Option<Running>,
}

impl Edge {
    /// Starts an edge on a free port.
    ///
    /// Its address is not 127.0.0.1, from which other programs connect: while it is cut, the kernel
    /// could give its port to one of their connections.
    pub fn start(index: usize, core: SocketAddr) -> Result<Self, DemoError> {
        let host = u8::try_from(index + 2).unwrap_or(u8::MAX);
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
        let mut edge = Self { name: format!("edge {}", index + 1), core, address, running: None };
        edge.restart()?;
        Ok(edge)
    }

    /// What the table calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is not cut.
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Cuts it: all its connections die. `None` where it is cut already.
    pub fn stop(&mut self) -> Option<Stopped> {
        self.running.take().and_then(Running::stop)
    }

    /// Starts it again, on the port that it had.
    pub fn restart(&mut self) -> Result<(), DemoError> {
        let listener = config::Forward {
            inbound: inbound(vec![self.address]),
            forward_to: vec![config::ForwardTarget {
                name: "core".to_owned(),
                destination: config::Destination::Target(self.core.into()),
                backup: false,
            }],
            choice: config::Choice::First,
            check: config::Check::OFF,
            resolve: Duration::ZERO,
            send_proxy: config::SendProxy::V2,
            status: None,
        };
        let config = config::Edge {
            process: process(&self.name, 1, None, Duration::ZERO),
            listeners: vec![listener],
            tunnel: None,
        };
        let service = roles::edge::bind(config)?;
        if let Some(address) = service.addresses(LINKS).first() {
            self.address = *address;
        }
        self.running = Some(Running::start(&self.name, service)?);
        Ok(())
    }
}

fn process(name: &str, workers: usize, admin: Option<SocketAddr>, shutdown_timeout: Duration) -> config::Process {
    config::Process {
        name: name.to_owned(),
        workers: NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN),
        admin: config::Admin { listen: admin, ..config::Admin::default() },
        access: Arc::default(),
        limits: GateLimits::default(),
        bans: config::Bans::OFF,
        shutdown_timeout,
        log_format: config::LogFormat::Auto,
        log_level: config::LogLevel::Error,
        access_log: None,
    }
}

fn inbound(listen: Vec<SocketAddr>) -> config::Inbound {
    config::Inbound {
        name: LINKS.to_owned(),
        listen,
        accept_proxy: config::AcceptProxy::None,
        trusted_peers: Vec::new(),
        access: Arc::default(),
        limits: GateLimits::default(),
        reset: false,
        expect: config::Expect::Any,
        first_bytes_timeout: Duration::from_secs(5),
        header_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(50),
        connect_timeout: Duration::from_secs(4),
    }
}
