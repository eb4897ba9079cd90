//! Telling the service manager what this process is about: sd_notify(3).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::handover::ManagerSocket;

/// The time within which the service manager must take a message.
const WITHIN: Duration = Duration::from_secs(5);

/// The part of its life that a process is in.
#[derive(Debug, Clone, Copy)]
pub(super) enum NotifyState {
    /// It works.
    Ready,
    /// It reads its configuration again.
    Reloading,
    /// It ends.
    Stopping,
}

impl NotifyState {
    fn message(self) -> String {
        match self {
            Self::Ready => "READY=1\n".to_owned(),
            Self::Reloading => {
                // So that the `READY=1` of a reload before is not taken for that of this one.
                let now = clock_gettime(ClockId::Monotonic);
                let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
                format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n")
            }
            Self::Stopping => "STOPPING=1\n".to_owned(),
        }
    }
}

/// Notifies the service manager, if there is one that listens.
pub(super) fn notify(state: NotifyState) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, state, WITHIN) {
        warn!(%error, socket = %socket.display(), "cannot tell the service manager about it");
    }
}

/// Sends a message to the manager's socket.
fn send(socket: &OsStr, state: NotifyState, within: Duration) -> io::Result<()> {
    ManagerSocket::named(socket)?.send(&state.message(), None, within)
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    fn said(manager: &UnixDatagram) -> String {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_of_either_kind_is_told() {
        let name = format!("otproxy-notify-{}", std::process::id());
        let path = env::temp_dir().join(&name);
        let managers = [
            (format!("@{name}"), SocketAddr::from_abstract_name(&name).unwrap()),
            (path.display().to_string(), SocketAddr::from_pathname(&path).unwrap()),
        ];
        for (socket, address) in managers {
            let manager = UnixDatagram::bind_addr(&address).unwrap();
            let tell = |state| send(OsStr::new(&socket), state, WITHIN).unwrap();
            tell(NotifyState::Ready);
            tell(NotifyState::Reloading);
            tell(NotifyState::Stopping);
            assert_eq!(said(&manager), "READY=1\n");
            let reloading = said(&manager);
            let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
            assert!(at.trim_end().parse::<u64>().unwrap() > 0);
            assert_eq!(said(&manager), "STOPPING=1\n");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nothing_up() {
        let name = format!("otproxy-notify-full-{}", std::process::id());
        let _manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let socket = format!("@{name}");
        let tell = || send(OsStr::new(&socket), NotifyState::Ready, Duration::from_millis(1));
        let error = (0..100_000).find_map(|_| tell().err()).expect("its queue has an end");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(send(OsStr::new("/nonexistent/socket"), NotifyState::Ready, WITHIN).is_err());
    }
}
