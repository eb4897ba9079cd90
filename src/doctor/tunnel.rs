//! The tunnel: a connection, a handshake with our certificate, and a sign that the other side accepted it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use rustls::{AlertDescription, ClientConnection};
use tokio::task::spawn_blocking;

use super::admin::RunningProcess;
use super::reach::{self, ConnectFailure, ConnectSuccess};
use super::{ANSWER, CheckStatus, DoctorCheck};
use crate::certs::identity::Identity;
use crate::certs::{HandshakeResult, failure};
use crate::tunnel;
use otproxy_config::{CORE_NAME, Config, HostPort, Reach, RoleKind};
use otproxy_net::tls::{ALPN, FORMER_ALPN};
use otproxy_protocol::trunk::Hello;

/// The bytes that the other side may still send when it is told that this was all.
const MOST_LEFT: u64 = 64 * 1024;

/// The metric of the tunnel's trunks, by edge.
const TRUNKS: &str = "otproxy_tunnel_trunks";

/// A trial of the tunnel.
pub(super) enum TunnelTrial {
    /// A connect by this side.
    Dial {
        /// The role of this side.
        role: RoleKind,
        /// The name that the other side must have.
        name: String,
        target: HostPort,
    },
    /// A look at whether the other side has connected to what runs here.
    Wait {
        role: RoleKind,
        /// The edge's name, at the core.
        name: Option<String>,
    },
}

/// Returns the trials of a configuration.
pub(super) fn of(config: &Config) -> Vec<TunnelTrial> {
    match config {
        Config::Edge(edge) => {
            let role = RoleKind::Edge;
            let trial = edge.tunnel.as_ref().map(|tunnel| match tunnel.reach() {
                Reach::Dial(core) => TunnelTrial::Dial { role, name: CORE_NAME.to_owned(), target: core.clone() },
                Reach::Accept(_) => TunnelTrial::Wait { role, name: None },
            });
            trial.into_iter().collect()
        }
        Config::Core(core) if core.tunnel.is_some() => {
            let role = RoleKind::Core;
            let edges = core.edges.iter().filter(|edge| !edge.revoked);
            let trial = |edge: &otproxy_config::EdgePeer| {
                let name = edge.name.clone();
                match &edge.dial {
                    Some(target) => TunnelTrial::Dial { role, name, target: target.clone() },
                    None => TunnelTrial::Wait { role, name: Some(name) },
                }
            };
            edges.map(trial).collect()
        }
        Config::Core(_) => Vec::new(),
    }
}

impl TunnelTrial {
    pub async fn examine(self, identity: Option<Identity>, running: &Option<RunningProcess>) -> DoctorCheck {
        match self {
            Self::Dial { role, name, target } => dial(role, &name, &target, identity).await,
            Self::Wait { role, name } => wait(role, name, running.as_ref()),
        }
    }
}

fn wait(role: RoleKind, name: Option<String>, running: Option<&RunningProcess>) -> DoctorCheck {
    let (subject, other) = match &name {
        Some(name) => (name.clone(), format!("the edge {name}")),
        None => (CORE_NAME.to_owned(), "the core".to_owned()),
    };
    let what = ("tunnel", subject.as_str());
    let label = name.as_deref().map(|name| ("edge", name));
    let Some(running) = running else {
        return DoctorCheck::warn(
            what,
            format!("{other} connects to here: whether it can is only seen where otproxy runs here"),
            "run `otproxy doctor` on its host; and here again once otproxy runs",
        );
    };
    let count = running.sum(TRUNKS, label);
    if count > 0.0 {
        return DoctorCheck::ok("tunnel", &subject, format!("{count} trunks with {other}"));
    }
    // Other edges go on without this one; without any nobody plays.
    let status = if running.sum(TRUNKS, None) > 0.0 { CheckStatus::Warn } else { CheckStatus::Fail };
    let known = running.edges.iter().find(|edge| Some(&edge.name) == name.as_ref());
    let last = known.and_then(|edge| edge.last_error.as_ref()).map(|error| {
        let from = error.address.map(|address| format!(" from {address}")).unwrap_or_default();
        format!("; its last error: {}{from}", error.reason)
    });
    DoctorCheck::bad(
        status,
        what,
        format!("{other} connects to here, and has no connection now{}", last.unwrap_or_default()),
        format!("run `otproxy doctor` on its host, and see the log here: `journalctl -u {}`", super::unit_name(role)),
    )
}

async fn dial(role: RoleKind, name: &str, target: &HostPort, identity: Option<Identity>) -> DoctorCheck {
    let what = ("tunnel", name);
    let other = match role {
        RoleKind::Edge => "the core".to_owned(),
        RoleKind::Core => format!("the edge {name}"),
    };
    let ConnectSuccess { stream, address, took } = match reach::connect(target).await {
        Ok(reached) => reached,
        Err(ConnectFailure { message, error }) => return DoctorCheck::fail(what, message, error.remedy(&other)),
    };
    let took = took.as_millis();
    let Some(identity) = identity else {
        let message = format!("{target}{address} answers, in {took} ms; no handshake is tried without a certificate");
        return DoctorCheck::warn(what, message, "see the certificate above");
    };
    let sni = name.to_owned();
    let tried = spawn_blocking(move || shake_hands(stream.into_std()?, role, &sni, &identity)).await;
    let failure = match tried.unwrap_or_else(|error| Err(io::Error::other(error).into())) {
        Ok(()) => {
            let message = format!("{target}{address} answers, in {took} ms, is `{name}`, and accepts our certificate");
            return DoctorCheck::ok("tunnel", name, message);
        }
        Err(failure) => failure,
    };
    let (found, remedy) = failure.explained(role, name, &other);
    DoctorCheck::fail(what, format!("{target}{address} {found}"), remedy)
}

/// The reason why there is no tunnel.
enum Failure {
    Io(io::Error),
    Tls(rustls::Error),
    /// The connection ended after the handshake.
    Dropped,
    /// It does not speak the protocol in the tunnel.
    NoAlpn,
    /// It is an otproxy, and too old for this one.
    FormerAlpn,
    /// The name cannot be in a certificate.
    Name,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // TLS errors come wrapped.
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::Tls(error),
            Err(error) => Self::Io(error),
        }
    }
}

/// Proves both sides, and waits until the other one shows that it has accepted this one.
fn shake_hands(mut stream: TcpStream, role: RoleKind, name: &str, identity: &Identity) -> Result<(), Failure> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let name = identity.server_name(name).ok_or(Failure::Name)?;
    let mut tls = ClientConnection::new(identity.client_config(), name).map_err(Failure::Tls)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    match tls.alpn_protocol() {
        Some(ALPN) => {}
        Some(FORMER_ALPN) => return Err(Failure::FormerAlpn),
        _ => return Err(Failure::NoAlpn),
    }
    // In TLS 1.3 the client's handshake ends before the server has verified its certificate. A hello shows the result: the edge
    // says it first, the core answers.
    let mut tls = rustls::Stream::new(&mut tls, &mut stream);
    if role == RoleKind::Edge {
        tls.write_all(&tunnel::hello(1).to_frame()).and_then(|()| tls.flush())?;
    }
    let (mut heard, mut part) = (Vec::new(), [0; 2048]);
    loop {
        match tls.read(&mut part) {
            Ok(0) => return Err(Failure::Dropped),
            Ok(count) => heard.extend_from_slice(part.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(Failure::Dropped),
            Err(error) => return Err(error.into()),
        }
        match Hello::parse(&heard) {
            Ok(Some(_)) => break,
            Ok(None) => {}
            Err(_) => return Err(Failure::NoAlpn),
        }
    }
    leave(tls);
    Ok(())
}

/// Ends the connection as a trunk is ended, so that it counts as no failure on the other side. The rest is read, as the
/// end could overtake it otherwise.
fn leave(tls: rustls::Stream<'_, ClientConnection, TcpStream>) {
    tls.conn.send_close_notify();
    // The other side has shown all that was asked for, whatever becomes of this.
    let _ = tls.conn.complete_io(tls.sock).and_then(|_| tls.sock.shutdown(Shutdown::Write));
    let _ = io::copy(&mut tls.sock.take(MOST_LEFT), &mut io::sink());
}

impl Failure {
    /// Returns the finding and the remedy.
    fn explained(&self, role: RoleKind, name: &str, other: &str) -> (String, String) {
        let copy = "copy both sides' folders anew from one run of `otproxy init`";
        match self {
            // It is shown no certificate by who does not know the name that it asked for.
            Self::Tls(error @ rustls::Error::AlertReceived(AlertDescription::AccessDenied)) => (
                format!("fails the handshake: {error}: it is not asked for `{name}` of this authority there"),
                format!(
                    "{other} has the files of another authority: {copy}; or another host of yours answers there: see which \
                     address {other} has, and that its certificate is for `{name}`"
                ),
            ),
            Self::Tls(error) => {
                let remedy = match failure(error) {
                    HandshakeResult::Refused => refused(role, name, other),
                    HandshakeResult::UnknownCa => {
                        format!("one of the two has the files of another authority: {copy}")
                    }
                    HandshakeResult::Expired => format!(
                        "issue {other}'s certificate anew; or a clock is wrong: compare `date -u` on both hosts"
                    ),
                    HandshakeResult::NotYetValid => "a clock is wrong: compare `date -u` on both hosts".to_owned(),
                    HandshakeResult::WrongName => {
                        format!("another host of yours answers there: see which address {other} has")
                    }
                    HandshakeResult::NotTls => {
                        format!("another program listens there: see `ss -ltnp` on {other}'s host")
                    }
                    _ => format!("see the log of {other}; and {copy}"),
                };
                (format!("fails the handshake: {error}"), remedy)
            }
            Self::Dropped => ("closed the connection after the handshake".to_owned(), refused(role, name, other)),
            Self::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
                ("closed the connection during the handshake".to_owned(), refused(role, name, other))
            }
            Self::Io(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => (
                format!("did not answer within {} s after it took the connection", ANSWER.as_secs()),
                format!("see that it is otproxy that listens there: `ss -ltnp` on {other}'s host"),
            ),
            Self::Io(error) => (format!("broke the connection: {error}"), format!("see the log of {other}")),
            Self::NoAlpn => (
                "speaks TLS, and not otproxy's protocol in it".to_owned(),
                format!("another program listens there: see `ss -ltnp` on {other}'s host"),
            ),
            Self::FormerAlpn => (
                "speaks the tunnel of an older otproxy, from before trunks".to_owned(),
                format!("update otproxy on {other}'s host"),
            ),
            Self::Name => (format!("cannot be asked for `{name}`"), "give the edge a name like a host name".to_owned()),
        }
    }
}

/// Explains that the other side refuses this one.
fn refused(role: RoleKind, name: &str, other: &str) -> String {
    match role {
        RoleKind::Edge => {
            "the log of the core says why: this edge must be in its `edges`, under the name in the certificate, \
            not revoked, with a certificate of the same authority, and from its `address` if one is given there"
                .to_owned()
        }
        RoleKind::Core => format!(
            "the log of {other} says why: its certificate must be for `{name}`, and of the same authority as this one's"
        ),
    }
}
