//! The restart of a role: what it takes over from its predecessor, and what it leaves to its successor.

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::handover::{self, DescriptorStore, INHERITANCE, Inheritance, Lifeline, Tail, WITHIN};
use crate::relay::{FrozenRelay, RecoveredSessions, RelayJournal, RelayShared, Standstill};
use otproxy_config::{Config, Reach, RestartMode};
use otproxy_journal::Journal;
use otproxy_net::Inherited;

/// Takes over listening sockets; those of addresses that `config` does not have are closed.
pub(super) fn take_over(sockets: Vec<TcpListener>, config: &Config) -> Inherited {
    let mut inherited = Inherited::new(sockets);
    if !inherited.is_empty() {
        let closed = inherited.close_all_but(&addresses_of(config));
        let closed: Vec<_> = closed.iter().map(SocketAddr::to_string).collect();
        info!(sockets = inherited.len(), closed = closed.join(", "), "took over listening sockets of the last process");
    }
    inherited
}

/// Returns all addresses that a configuration has for listeners, for the tunnel and for admin.
fn addresses_of(config: &Config) -> Vec<SocketAddr> {
    let tunnel: &[SocketAddr] = match config {
        Config::Edge(edge) => match edge.tunnel.as_ref().map(|tunnel| tunnel.reach()) {
            Some(Reach::Accept(addresses)) => addresses,
            Some(Reach::Dial(_)) | None => &[],
        },
        Config::Core(core) => core.tunnel.as_ref().map_or(&[], |tunnel| &tunnel.accept),
    };
    let listeners = config.listeners().iter().flat_map(|listener| &listener.inbound().listen);
    listeners.chain(tunnel).copied().chain(config.process().admin.listen).collect()
}

/// Has all sessions of a core stand still.
///
/// # Errors
/// Fails if a worker does not do so in time. Then all go on.
pub(super) async fn freeze(relay: &RelayShared) -> io::Result<FrozenRelay> {
    let frozen = timeout(WITHIN, relay.freeze())
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "a worker does not stand still"))?;
    if frozen.without > 0 {
        let sessions = frozen.without;
        warn!(sessions, "no descriptor is left for connections of sessions, which end: raise LimitNOFILE");
    }
    Ok(frozen)
}

/// Returns the sessions that a predecessor has left, if there are any. Of a state that cannot be read the connections are closed.
pub(super) fn sessions_of(Inheritance { state, sockets, .. }: Inheritance) -> Option<RecoveredSessions> {
    if state.is_empty() {
        return None;
    }
    let connections = sockets.len();
    let read = RecoveredSessions::read(&state, sockets);
    read.inspect_err(|error| warn!(connections, "cannot go on with the sessions of the process before: {error}")).ok()
}

/// The things of a core that outlive it if it is killed: a journal for each worker, and what holds them and the connections of
/// sessions. Empty, where sessions end with the process.
#[derive(Default)]
pub struct Outliving {
    /// The journals, one for each worker.
    pub(super) journals: Vec<RelayJournal>,
    /// Holds them.
    pub(super) lifeline: Option<Arc<Lifeline>>,
}

impl Outliving {
    /// Begins with them, if `config` is a core's that is to keep its sessions. All that is in `tail` stays until they are back.
    pub fn begin(config: &Config, store: Option<DescriptorStore>, tail: Option<Tail>) -> Self {
        let process = config.process();
        let keeps = matches!(config, Config::Core(_)) && process.restart == RestartMode::Keep;
        let Some(store) = store.filter(|_| keeps) else { return Self::default() };
        let begin = || {
            let journals = (0..process.workers.get()).map(|_| Journal::create()).collect::<io::Result<Vec<_>>>()?;
            let files = journals.iter().map(|journal| Ok(journal.file()?.into())).collect::<io::Result<_>>()?;
            let lifeline = Lifeline::begin(store, files, tail)?;
            let renewing = Arc::clone(&lifeline);
            thread::Builder::new().name("lifeline".to_owned()).spawn(move || renewing.run())?;
            let of = |journal| RelayJournal::new(journal, Arc::clone(&lifeline));
            io::Result::Ok(Self { journals: journals.into_iter().map(of).collect(), lifeline: Some(lifeline) })
        };
        begin().unwrap_or_else(|error| {
            error!(%error, "sessions would not outlive this process if it were killed");
            Self::default()
        })
    }
}

/// The things that a role leaves to its successor.
pub(super) struct Legacy {
    /// The place that keeps them until that starts.
    pub store: DescriptorStore,
    /// Its listening sockets, on which connections wait from the drain on.
    pub listeners: Vec<TcpListener>,
}

impl Legacy {
    /// Leaves its listening sockets.
    pub async fn leave_listeners(self) {
        let listeners = self.listeners.len();
        match self.leave(Vec::new(), Vec::new()).await {
            Ok(()) => info!(listeners, "left the listening sockets to the next process"),
            Err(error) => {
                error!(%error, listeners, "listening sockets cannot be left to the next process, so they are closed");
            }
        }
    }

    /// Has all sessions of a core stand still, and leaves them and all else.
    ///
    /// # Errors
    /// Fails if a worker does not stand still, or the store does not take what is left. Then the sessions go on here.
    pub async fn leave_sessions(self, relay: &RelayShared) -> io::Result<Standstill> {
        let began = Instant::now();
        let FrozenRelay { state, sockets, sessions, standstill, .. } = freeze(relay).await?;
        let (listeners, connections, bytes) = (self.listeners.len(), sockets.len(), state.len());
        self.leave(state, sockets).await?;
        let seconds = began.elapsed().as_secs_f64();
        info!(sessions, listeners, connections, bytes, seconds, "left the sessions to the next process");
        Ok(standstill)
    }

    /// Returns the place for what was left to a start that may fail, with copies of those listening sockets that `config` has; `None`
    /// if nothing was left.
    pub fn again(store: DescriptorStore, left: &Inheritance, config: &Config) -> Option<Self> {
        // Any other would keep the start from addresses that overlap with it.
        let wanted = addresses_of(config);
        let stays = |listener: &&TcpListener| listener.local_addr().is_ok_and(|address| wanted.contains(&address));
        let listeners: Vec<_> =
            left.listeners.iter().filter(stays).filter_map(|listener| listener.try_clone().ok()).collect();
        (!listeners.is_empty() || !left.state.is_empty()).then_some(Self { store, listeners })
    }

    /// Leaves all of it again, as this process cannot go on with it.
    pub fn give_back(self, Inheritance { state, sockets, .. }: Inheritance) {
        match self.put(&state, &sockets) {
            Ok(()) => info!("what the last process has left is there for the next start"),
            Err(error) => error!(%error, "what the last process has left is lost"),
        }
    }

    async fn leave(self, state: Vec<u8>, sockets: Vec<OwnedFd>) -> io::Result<()> {
        // The service manager may take its time.
        spawn_blocking(move || self.put(&state, &sockets)).await.map_err(io::Error::other)?
    }

    fn put(self, state: &[u8], sockets: &[OwnedFd]) -> io::Result<()> {
        let short = |error: io::Error| io::Error::new(error.kind(), format!("{error}; raise LimitNOFILE= of the unit"));
        let (ours, theirs) = UnixStream::pair().map_err(short)?;
        let (listening, open): (Vec<_>, Vec<_>) =
            (self.listeners.iter().map(AsFd::as_fd).collect(), sockets.iter().map(AsFd::as_fd).collect());
        handover::send(&ours, state, &listening, &open)?;
        // One of a predecessor that nobody took would only confuse.
        self.store.remove(INHERITANCE)?;
        self.store.keep(INHERITANCE, theirs.as_fd())?;
        self.store.barrier(WITHIN)?;
        drop(theirs);
        // A store that is full closes what it was given, and says so in the manager's log alone.
        ours.set_nonblocking(true)?;
        match (&ours).read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            _ => Err(io::Error::other("the store has no room: raise FileDescriptorStoreMax= of the unit")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otproxy_config as config;

    #[test]
    fn sockets_of_addresses_that_the_file_has_no_more_are_closed() {
        let sockets: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let [kept, tunnel, gone] =
            <[_; 3]>::try_from(sockets.iter().map(|socket| socket.local_addr().unwrap()).collect::<Vec<_>>()).unwrap();
        let text = format!(
            "role: edge\ncore: {{ accept: '{tunnel}', tls: {{ ca: ca.pem, cert: a.pem, key: a.key }} }}\n\
             listeners: [{{ name: a, listen: '{kept}', forward_to: '127.0.0.1:9' }}]\n"
        );
        let config = config::parse("edge.yaml", &text).unwrap();
        let mut inherited = take_over(sockets, &config);
        assert_eq!((inherited.take(kept).len(), inherited.take(tunnel).len(), inherited.len()), (1, 1, 0));
        assert!(std::net::TcpStream::connect(gone).is_err());
    }
}
