//! The upgrade of a role: another process takes everything over that was started beside this one.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::control::Control;
use super::succession;
use crate::admin::AdminSockets;
use crate::admin::api::{ApiError, UpgradeBegun, UpgradeRequest};
use crate::handover::{Successor, is_managed};
use crate::relay::{FrozenRelay, RelayShared, Standstill};
use crate::traffic::TrafficMeter;
use otproxy_config::{RestartMode, RoleKind};

/// A request to hand over.
pub(super) struct UpgradeCall {
    request: UpgradeRequest,
    answer: oneshot::Sender<Result<UpgradeBegun, ApiError>>,
    /// Keeps other upgrades away, and reloads and drains, until this one is done.
    _turn: (OwnedSemaphorePermit, OwnedMutexGuard<()>),
}

/// The place where requests to hand over are taken or refused.
pub(super) struct UpgradeDesk {
    role: RoleKind,
    calls: mpsc::UnboundedSender<UpgradeCall>,
    turns: Arc<Semaphore>,
}

/// The facts about a process that decide whether another one may take over.
#[derive(Debug, Clone, Copy)]
struct UpgradeFacts {
    role: RoleKind,
    restart: RestartMode,
    /// A service manager would take its end for that of the service.
    managed: bool,
}

impl UpgradeFacts {
    /// Returns why it does not hand over to a process of this role.
    fn refusal(self, role: &str) -> Option<ApiError> {
        let Self { role: own, restart, managed } = self;
        let refuse = |error: &str, remedy: &str| Some(ApiError::conflict(error, remedy));
        if own.as_str() != role {
            let error = format!("this is the process of the {}, and the file is that of the {role}", own.as_str());
            return refuse(&error, "name the file of this role, or with --socket the process of the other one");
        }
        if managed {
            return refuse(
                "a service manager runs this process, and would take its end for that of the service",
                "use `systemctl restart`: it hands over as well",
            );
        }
        if restart == RestartMode::End {
            return refuse(
                "its file says `restart: end`, so nothing of it goes over to another process",
                "stop it and start the new one; or take that out of its file, and reload",
            );
        }
        None
    }
}

impl UpgradeDesk {
    /// Makes the desk of a role, and the other end, at which requests arrive that are taken.
    pub fn new(role: RoleKind) -> (Self, mpsc::UnboundedReceiver<UpgradeCall>) {
        let (calls, taken) = mpsc::unbounded_channel();
        (Self { role, calls, turns: Arc::new(Semaphore::new(1)) }, taken)
    }

    /// Takes a request, and returns when the process that waits was reached.
    ///
    /// # Errors
    /// Fails if this process does not hand over, or if the other one cannot be reached.
    pub async fn take(&self, request: UpgradeRequest, control: &Control) -> Result<UpgradeBegun, ApiError> {
        let restart = control.with_config(|config| config.process().restart);
        request.place()?;
        let facts = UpgradeFacts { role: self.role, restart, managed: is_managed() };
        if let Some(refusal) = facts.refusal(request.role.as_str()) {
            return Err(refusal);
        }
        let turn = Arc::clone(&self.turns).try_acquire_owned();
        let turn = turn.map_err(|_| ApiError::conflict("another upgrade is under way", "wait until it is done"))?;
        // A reload may be reading from a disk that hangs, which must not keep the process from its end.
        let _turn = (turn, control.hold().await);
        let ending = || ApiError::conflict("it is shutting down", "start the new one when it has ended");
        let (answer, answered) = oneshot::channel();
        self.calls.send(UpgradeCall { request, answer, _turn }).map_err(|_| ending())?;
        answered.await.unwrap_or_else(|_| Err(ending()))
    }
}

/// The things that a role hands over.
pub(super) struct Estate<'a> {
    pub control: &'a Control,
    pub relay: Option<&'a Arc<RelayShared>>,
    /// The listening sockets of the tunnel.
    pub tunnel: &'a [TcpListener],
    /// The sockets of the admin server.
    pub doors: &'a AdminSockets,
    pub traffic: Option<&'a Arc<TrafficMeter>>,
}

/// The things that were handed over, for the log.
struct HandedOver {
    sessions: usize,
    listeners: usize,
    connections: usize,
    standstill: Option<Standstill>,
}

impl Estate<'_> {
    /// Hands everything over. Returns the standstill of a core's sessions when the other process has taken over; `None` if this one
    /// goes on.
    pub async fn hand_over(&self, call: UpgradeCall) -> Option<Option<Standstill>> {
        let UpgradeCall { request, answer, _turn } = call;
        let place = self.doors.path.as_deref().unwrap_or(Path::new("")).with_file_name(&request.place);
        let successor = match Successor::at(&place).await {
            Ok(successor) if successor.is_near() && std::process::id() == 1 => {
                let error = "this is the first process of its container, which would end with it";
                let remedy = "start the new one in a container of its own";
                let _ = answer.send(Err(ApiError::conflict(error, remedy)));
                return None;
            }
            Ok(successor) => successor,
            Err(error) => {
                let error = format!("the process that waits at {} cannot be reached: {error}", place.display());
                let remedy = "start it as the user that this process runs as";
                let _ = answer.send(Err(ApiError::unavailable(error, remedy)));
                return None;
            }
        };
        let begun = UpgradeBegun { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned() };
        // If nobody takes the answer any more, the stream has its end soon.
        let _ = answer.send(Ok(begun));
        let began = Instant::now();
        match self.give(Arc::new(successor), request.takes_socket).await {
            Ok(HandedOver { sessions, listeners, connections, standstill }) => {
                if request.takes_socket {
                    self.doors.ownership.iter().for_each(|socket| socket.set(false));
                }
                self.doors.close.cancel();
                let seconds = began.elapsed().as_secs_f64();
                info!(sessions, listeners, connections, seconds, "another process has taken over");
                Some(standstill)
            }
            Err(error) => {
                warn!(%error, "the process that was to take over did not, so this one goes on");
                None
            }
        }
    }

    async fn give(&self, successor: Arc<Successor>, takes_socket: bool) -> io::Result<HandedOver> {
        let mut listeners = self.control.sockets()?;
        for socket in self.tunnel.iter().chain(&self.doors.tcp) {
            listeners.push(socket.try_clone()?);
        }
        let unix = self.doors.unix.as_ref().filter(|_| takes_socket);
        let unix = unix.map(|unix| unix.try_clone().map(OwnedFd::from)).transpose()?;
        let count = listeners.len();
        offer(&successor, Vec::new(), listeners, Vec::from_iter(unix)).await?;

        if let Some(traffic) = self.traffic.cloned() {
            // A failure here is told at its own time.
            let _ = spawn_blocking(move || traffic.keep()).await;
        }
        let (state, sockets, sessions, standstill) = match self.relay {
            Some(relay) => {
                let FrozenRelay { state, sockets, sessions, standstill, .. } = succession::freeze(relay).await?;
                (state, sockets, sessions, Some(standstill))
            }
            None => (Vec::new(), Vec::new(), 0, None),
        };
        let connections = sockets.len();
        offer(&successor, state, Vec::new(), sockets).await?;
        blocking(move || successor.give_up()).await?;
        Ok(HandedOver { sessions, listeners: count, connections, standstill })
    }
}

/// Offers these, copies of which are closed here afterwards.
async fn offer(
    successor: &Arc<Successor>,
    state: Vec<u8>,
    listeners: Vec<TcpListener>,
    sockets: Vec<OwnedFd>,
) -> io::Result<()> {
    let successor = Arc::clone(successor);
    blocking(move || {
        let listeners: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
        let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        successor.offer(&state, &listeners, &sockets)
    })
    .await
}

/// Does what may wait for the other process, beside all else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_end_others_would_notice_hands_nothing_over() {
        let facts = UpgradeFacts { role: RoleKind::Core, restart: RestartMode::Keep, managed: false };
        assert_eq!(facts.refusal("core"), None);
        for (facts, role, says) in [
            (facts, "edge", "the process of the core, and the file is that of the edge"),
            (UpgradeFacts { managed: true, ..facts }, "core", "a service manager"),
            (UpgradeFacts { restart: RestartMode::End, ..facts }, "core", "`restart: end`"),
        ] {
            let refusal = facts.refusal(role).expect(says);
            assert!(refusal.error.contains(says), "{refusal:?}");
        }
    }
}
