//! The callers of the admin API, as far as the transport tells.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpStream, UnixStream};

use super::bounded::{BoundedListener, TimeLimit};
use crate::handover::is_own_user;

/// The file with the names of users.
const PASSWD: &str = "/etc/passwd";

/// The peer of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    /// The user whose process connected to the socket.
    pub uid: Option<u32>,
    /// The address that connected to `admin.listen`.
    pub address: Option<SocketAddr>,
    /// The name in its certificate, which was verified. It is known once the handshake is done.
    certificate: Arc<OnceLock<String>>,
    /// The limit of its connection.
    pub time_limit: Arc<TimeLimit>,
}

/// A stream that knows its caller.
pub(super) trait HasCaller {
    /// Returns the caller.
    fn caller(&self) -> Caller;
}

impl Caller {
    /// Returns the caller with an address.
    pub fn at(address: Option<SocketAddr>) -> Self {
        Self { address, ..Self::default() }
    }

    /// Records the name in the certificate that the caller has proved to be its own.
    pub fn proved(&self, name: String) {
        // A handshake is done once.
        let _ = self.certificate.set(name);
    }

    /// Returns the name in its certificate; `None` if it showed none.
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.get().map(String::as_str)
    }

    /// Returns whether it is of the user that this process runs as, or of root.
    pub fn is_own_user(&self) -> bool {
        self.uid.is_some_and(is_own_user)
    }

    /// Looks up the name of its user.
    pub fn user(&self) -> Option<String> {
        let uid = self.uid?;
        fs::read_to_string(PASSWD).ok().and_then(|passwd| user_name(&passwd, uid))
    }
}

impl HasCaller for TcpStream {
    fn caller(&self) -> Caller {
        Caller::at(self.peer_addr().ok())
    }
}

impl HasCaller for UnixStream {
    fn caller(&self) -> Caller {
        Caller { uid: self.peer_cred().ok().map(|peer| peer.uid()), ..Caller::default() }
    }
}

impl<L: Listener> Connected<IncomingStream<'_, BoundedListener<L>>> for Caller
where
    L::Io: HasCaller,
{
    fn connect_info(stream: IncomingStream<'_, BoundedListener<L>>) -> Self {
        let stream = stream.io();
        Self { time_limit: Arc::clone(stream.time_limit()), ..stream.get_ref().caller() }
    }
}

/// Returns the name of a user in the text of `/etc/passwd`.
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    let mut users = passwd.lines().map(|line| line.split(':'));
    users.find_map(|mut fields| {
        let name = fields.next()?;
        let of = fields.nth(1)?;
        (of.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_of_another_user_or_of_none_is_not_the_own_one() {
        let of = |uid| Caller { uid, ..Caller::default() }.is_own_user();
        let own = rustix::process::geteuid().as_raw();
        assert!(of(Some(own)) && of(Some(0)) && !of(Some(own + 1)) && !of(None));
    }

    #[test]
    fn users_have_names() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nnonsense\nanna:x:1000:1000:Anna,,,:/home/anna:/bin/sh\n:x::\n";
        assert_eq!(user_name(passwd, 0).as_deref(), Some("root"));
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("anna"));
        assert_eq!(user_name(passwd, 100), None);
    }
}
