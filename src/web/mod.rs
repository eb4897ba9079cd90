//! Listeners of `kind: web`: the list of edges, the status, logins and the process's own report over HTTP/1.1.
//!
//! A core answers: `route` says what there is. An edge leads requests to its core, and keeps answers that may be kept, so that
//! a list is there while the core is not. Each connection carries one request: so limits, lists and bans of connections are
//! those of requests.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use self::answer::WebAnswer;
use self::exchange::Exchange;
use self::kept::KeptAnswers;
use self::login::LoginMetrics;
use self::report::ServedReport;
use self::tls::WebTls;
use crate::admin::TokenError;
use crate::admission::{AdmittedConnection, Carrier, Inbound, InboundShared, REFUSED_LINES, TunnelledStream};
use crate::certs::CertError;
use crate::certs::certificate::DAYS_LEFT;
use crate::forward::{Forward, ForwardShared};
use crate::metrics::{ByReason, Metrics};
use otproxy_config as config;
use otproxy_config::RoleKind;
use otproxy_net::worker::Tasks;
use otproxy_net::{CloseQueue, RateLimitedLog};
use otproxy_protocol::Word;

mod answer;
mod ask;
mod body;
mod by_player;
mod classic;
mod exchange;
mod io;
mod kept;
mod login;
mod real_ip;
mod report;
mod route;
mod tls;

pub use answer::MAX_ANSWER;
pub use kept::{ASK_AGAIN, FRESHEST, MAX_KEPT, STALE};
pub use report::MAX_REPORTS;
pub use route::{Route, WebResult};
pub use tls::REREAD;

/// Bytes of the head of a request.
pub const MAX_HEAD: usize = 16 << 10;
/// Bytes of the body of a request; a login has a few hundred.
pub const MAX_BODY: usize = 16 << 10;
/// The time for which a client may leave a connection open that has its answer, and is told to close.
pub const LINGER: Duration = Duration::from_secs(2);
/// The time for which others may keep a list.
pub const LIST_FRESH: Duration = Duration::from_secs(60);
/// The time for which others may keep the status.
pub const STATUS_FRESH: Duration = Duration::from_secs(5);

/// The part of a listener that all workers share, from one reload to the next.
#[derive(Debug)]
pub struct WebShared {
    forward: Arc<ForwardShared>,
    /// The routes that it answers itself; `None` at an edge.
    routes: Option<config::WebRoutes>,
    tls: Arc<WebTls>,
    kept: Arc<Mutex<KeptAnswers<WebAnswer>>>,
    /// The log of answers that cannot be used.
    unusable: Arc<RateLimitedLog>,
    /// The report of this process, if it is to be had here.
    report: Option<ServedReport>,
}

/// The reason why a file of a listener cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebFileError {
    /// Its certificate.
    #[error(transparent)]
    Certificate(#[from] CertError),
    /// The token of its report.
    #[error("listeners[].report: {0}")]
    Token(#[from] TokenError),
}

/// Checks that the certificates and tokens of a configuration's listeners can be used. Returns those certificates that end soon, each with what to do.
///
/// # Errors
/// The error names the file, its problem and the remedy.
pub fn check_files(config: &config::Config) -> Result<Vec<String>, WebFileError> {
    let now = std::time::SystemTime::now();
    let mut soon = Vec::new();
    for listener in config.listeners() {
        let config::ListenerConfig::Web(config::WebConfig { tls, report, .. }) = listener else { continue };
        report.iter().try_for_each(report::check_token)?;
        let Some(files) = tls else { continue };
        let watched = tls::load(files)?;
        let (file, days) = (watched.value().file().display(), watched.value().days_left(now));
        if days < DAYS_LEFT {
            soon.push(format!("{file}: ends in {days} days; renew it where it was made: no restart is needed"));
        }
    }
    Ok(soon)
}

impl WebShared {
    /// Makes it from the listener's configuration, whose part that leads to targets was made before.
    pub fn new(config: &config::WebConfig, role: RoleKind, forward: Arc<ForwardShared>) -> Arc<Self> {
        let tls = WebTls::new(&config.forward.inbound.name, config.tls.as_ref());
        let unusable = Arc::new(RateLimitedLog::new(REFUSED_LINES));
        Self::of(config, role, forward, (tls, Arc::default(), unusable), None)
    }

    /// Returns the same listener with a new `config`: certificates and answers stay.
    #[must_use]
    pub fn reloaded(&self, config: &config::WebConfig, role: RoleKind, forward: Arc<ForwardShared>) -> Arc<Self> {
        self.tls.set(config.tls.as_ref());
        let kept = (Arc::clone(&self.tls), Arc::clone(&self.kept), Arc::clone(&self.unusable));
        Self::of(config, role, forward, kept, self.report.as_ref())
    }

    fn of(
        config: &config::WebConfig,
        role: RoleKind,
        forward: Arc<ForwardShared>,
        (tls, kept, unusable): (Arc<WebTls>, Arc<Mutex<KeptAnswers<WebAnswer>>>, Arc<RateLimitedLog>),
        before: Option<&ServedReport>,
    ) -> Arc<Self> {
        let name = &config.forward.inbound.name;
        let report = config.report.as_ref().map(|report| ServedReport::new(name, report, before));
        let routes = (role == RoleKind::Core).then(|| config.routes.clone());
        Arc::new(Self { forward, routes, tls, kept, unusable, report })
    }

    /// Reads certificates again when they change, until dropped. To be run once for all workers.
    pub fn keep_certificates(&self, metrics: &Arc<Metrics>) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.tls).keep(Arc::clone(metrics))
    }

    /// Makes all counters of one worker, so that the zeros are there.
    pub fn make_counters(&self, metrics: &Metrics) {
        drop((self.counters(metrics), LoginMetrics::new(metrics, &self.inbound().config().name)));
    }

    /// Returns the part that admits connections.
    pub fn inbound(&self) -> &Arc<InboundShared> {
        self.forward.inbound()
    }

    /// Returns one worker's counters of each route.
    fn counters(&self, metrics: &Metrics) -> Vec<ByReason<WebResult>> {
        let listener = &self.inbound().config().name;
        Route::ALL.iter().map(|route| ByReason::new(&metrics.web_requests, &[listener, route.as_str()])).collect()
    }
}

/// One worker's part of a listener.
pub struct Web {
    shared: Arc<WebShared>,
    forward: Forward,
    /// The part of the listener that knows the status.
    status: Option<Forward>,
    counters: Vec<ByReason<WebResult>>,
    logins: LoginMetrics,
}

impl Carrier for Web {
    fn inbound(&self) -> &Inbound {
        self.forward.inbound()
    }

    fn spawn(self: Rc<Self>, tasks: &Tasks, stream: TcpStream, peer: SocketAddr) {
        let closes = Rc::clone(tasks.closes());
        tasks.spawn(async move {
            if let Some(admitted) = self.inbound().admit(stream, peer, &closes).await {
                self.carry(admitted, &closes).await;
            }
        });
    }

    fn spawn_tunnelled(self: Rc<Self>, tasks: &Tasks, tunnelled: TunnelledStream) {
        let closes = Rc::clone(tasks.closes());
        tasks.spawn(async move {
            if let Some(admitted) = self.inbound().admit_tunnelled(tunnelled).await {
                self.carry(admitted, &closes).await;
            }
        });
    }
}

impl Web {
    /// Makes one worker's part. `forward` leads to its targets, `status` is the part of the listener that knows the status.
    pub fn new(shared: Arc<WebShared>, forward: Forward, status: Option<Forward>, metrics: &Metrics) -> Self {
        let counters = shared.counters(metrics);
        let logins = LoginMetrics::new(metrics, &shared.inbound().config().name);
        Self { shared, forward, status, counters, logins }
    }

    fn count(&self, route: Route, result: WebResult) {
        if let Some(counter) = self.counters.get(route.index()) {
            counter.inc(result);
        }
    }

    /// Carries one admitted connection to its end.
    async fn carry(&self, admitted: AdmittedConnection, closes: &Rc<CloseQueue>) {
        let record = self.forward.record(&admitted);
        let AdmittedConnection { stream, peer, player, key, destination, early, guard, origin, accepted } = admitted;
        let handle = Arc::clone(guard.handle());
        let exchange = Exchange {
            web: self,
            guard,
            peer,
            destination,
            accepted,
            player: Cell::new((player, key)),
            record: RefCell::new(record),
            asked: Notify::new(),
            answered: Cell::new(false),
        };
        // A stream of the tunnel has ended its TLS at the edge.
        let carrying = exchange.carry(stream, early, origin.is_none());
        let ended = handle.run_until_closed(carrying).await;
        closes.turn().await;
        if let Ok(reason) = ended {
            exchange.record.into_inner().end(reason);
        }
    }
}
