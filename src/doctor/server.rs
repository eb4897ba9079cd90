//! The headers that a game server reads in front of a connection, found out by trying.
//!
//! A header and a request for the status behind it are answered exactly where that header is read. Servers answer one address so
//! often only, but 127.0.0.1 always: so two answers in a row to a header with that address tell the order of its bytes. On a game port the
//! server speaks first, and one that does not know `FE FF` closes there within a millisecond.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::opening::{MAX_OPENING, Opening, shown};
use super::{CONNECT, DoctorCheck};
use crate::connection::source_for;
use otproxy_config::{
    Config, Destination, Framing, GameServerConfig, HostPort, ListenerConfig, PlayerAddress, SendProxy, SourceAddress,
    TargetHost,
};
use otproxy_net::{Source, connect_forward, resolve};
use otproxy_protocol::player_address::{PseudoIpv4, backwards};
use otproxy_protocol::status::{MAX_ANSWER, ServerStatus, StatusRequest};

/// The check of what a server reads.
const CHECK: &str = "player_address";
/// The time in which a server speaks first, or closes what it does not understand.
const AT_ONCE: Duration = Duration::from_millis(600);
/// The time between two connects to one host: servers block an address, or all together, whose connects are half a second apart.
const APART: Duration = Duration::from_millis(600);
/// The time for which servers block an address at first, and some more.
const BLOCK: Duration = Duration::from_secs(4);
/// The time limit of the answer to a request for the status, which takes a server milliseconds. One that takes the request for something
/// else waits for more.
const ANSWER: Duration = Duration::from_secs(1);
/// The time in which a server closes what it blocks, short enough for the next connect to count as one too soon.
const BLOCKED: Duration = Duration::from_millis(100);
/// The time limit of all servers of one host.
const WITHIN: Duration = Duration::from_secs(12);
/// The player that headers tell: one that servers always answer.
const PLAYER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 50_000);
/// The first length of a server that counts blocks, and of one that counts bytes.
const FIRST_IN_BLOCKS: [u8; 2] = [1, 0];
const FIRST_IN_BYTES: [u8; 2] = [12, 0];

/// A header that tells the player's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    None,
    Otc,
    OtcReversed,
    ProxyV1,
    ProxyV2,
    ProxyV2Reversed,
}

impl Header {
    fn of_session(form: PlayerAddress) -> Self {
        match form {
            PlayerAddress::Otc => Self::Otc,
            PlayerAddress::OtcReversed => Self::OtcReversed,
            PlayerAddress::ProxyV2 => Self::ProxyV2,
            PlayerAddress::ProxyV1 => Self::ProxyV1,
            PlayerAddress::None => Self::None,
        }
    }

    fn of_forward(form: SendProxy) -> Self {
        match form {
            SendProxy::V2 => Self::ProxyV2,
            SendProxy::V2Reversed => Self::ProxyV2Reversed,
            SendProxy::V1 => Self::ProxyV1,
            SendProxy::None => Self::None,
        }
    }

    /// Returns the header with the bytes of the address in the other order, where there is one.
    fn backwards(self) -> Option<Self> {
        match self {
            Self::Otc => Some(Self::OtcReversed),
            Self::OtcReversed => Some(Self::Otc),
            Self::ProxyV2 => Some(Self::ProxyV2Reversed),
            Self::ProxyV2Reversed => Some(Self::ProxyV2),
            Self::None | Self::ProxyV1 => None,
        }
    }

    /// Returns its bytes on a connection to `server`.
    fn bytes(self, player: SocketAddrV4, server: SocketAddr) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::None => {}
            Self::Otc => PlayerAddress::Otc.write(&mut out, player, server),
            Self::OtcReversed => PlayerAddress::OtcReversed.write(&mut out, player, server),
            Self::ProxyV1 => PlayerAddress::ProxyV1.write(&mut out, player, server),
            Self::ProxyV2 => PlayerAddress::ProxyV2.write(&mut out, player, server),
            Self::ProxyV2Reversed => {
                let player = SocketAddrV4::new(backwards(*player.ip()), player.port());
                PlayerAddress::ProxyV2.write(&mut out, player, server);
            }
        }
        out
    }

    /// Returns its value in the file, of `player_address` or of `send_proxy`.
    fn word(self, key: &str) -> &'static str {
        match (self, key == "send_proxy") {
            (Self::None, _) => "none",
            (Self::Otc, _) => "otc",
            (Self::OtcReversed, _) => "otc_reversed",
            (Self::ProxyV1, true) => "v1",
            (Self::ProxyV1, false) => "proxy_v1",
            (Self::ProxyV2, true) => "v2",
            (Self::ProxyV2, false) => "proxy_v2",
            (Self::ProxyV2Reversed, _) => "v2_reversed",
        }
    }

    /// Returns what a server that does not read it needs.
    fn remedy(self, key: &str) -> String {
        let otherwise = format!("or give it `{key}: none` if it has no patch for headers");
        match self {
            Self::Otc | Self::OtcReversed => format!(
                "set `allowOtcProxy = true` in its config.lua (one branch of TFS 1.4 reads `binaryPlayerItems = true` instead), {otherwise}"
            ),
            Self::ProxyV2 | Self::ProxyV2Reversed => {
                format!("set `allowHaProxy = true` in its config.lua, {otherwise}")
            }
            Self::ProxyV1 | Self::None => format!("see what its log says of it, {otherwise}"),
        }
    }
}

/// The reaction of a server to a header.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reaction {
    /// There is no connection.
    Unreachable,
    /// It closes at once.
    Closes,
    /// It speaks first, as a game port does, and does not close. The first bytes that it sent.
    Speaks(Vec<u8>),
    /// It answers a request for the status.
    Answers(Vec<u8>),
    /// It neither speaks nor closes, and does not answer such a request.
    Nothing,
}

/// A server to be tried: one of `game_servers`, or the target of a core's forward.
pub(super) struct ServerTrial {
    subject: String,
    target: HostPort,
    source: SourceAddress,
    header: Header,
    /// The key of the header.
    key: &'static str,
    /// The framing that the file says.
    framing: Framing,
}

/// Returns the servers behind a core.
pub(super) fn of(config: &Config) -> Vec<ServerTrial> {
    let Config::Core(core) = config else { return Vec::new() };
    let sessions = core.game_servers.iter().map(ServerTrial::of_game_server);
    let forwards = core.listeners.iter().filter_map(ListenerConfig::forward).flat_map(|forward| {
        forward.forward_to.iter().filter_map(|to| match &to.destination {
            Destination::Core(_) => None,
            Destination::Target(target) => Some(ServerTrial {
                subject: forward.inbound.name.clone(),
                target: target.clone(),
                source: forward.source,
                header: Header::of_forward(forward.send_proxy),
                key: "send_proxy",
                framing: Framing::Auto,
            }),
        })
    });
    sessions.chain(forwards).collect()
}

/// Tries servers of one host, one after the other, as long as there is time.
pub(super) async fn examine(trials: Vec<ServerTrial>) -> Vec<DoctorCheck> {
    let (mut checks, mut late) = (Vec::new(), Vec::new());
    // The other checks have just connected.
    let (pace, end) = (Pace::now(), Instant::now() + WITHIN);
    for trial in trials {
        match timeout_at(end, trial.examine(&pace)).await {
            Ok(found) => checks.extend(found),
            Err(_) => late.push(trial),
        }
    }
    if let Some(first) = late.first() {
        let subjects: Vec<_> = late.iter().map(|trial| trial.subject.as_str()).collect();
        let message =
            format!("not tried, as servers of one host are tried one after the other: {}", subjects.join(", "));
        checks.push(DoctorCheck::ok(CHECK, first.host().to_string(), message));
    }
    checks
}

/// The pace of connects to one host.
struct Pace(Mutex<Instant>);

impl Pace {
    /// Returns one that has just connected.
    fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Waits until the next connect may come.
    async fn turn(&self) {
        let at = {
            let mut last = self.0.lock();
            *last = Instant::now().max(*last + APART);
            *last
        };
        sleep_until(at).await;
    }
}

impl ServerTrial {
    /// Makes the trial of one of `game_servers`.
    pub fn of_game_server(game: &GameServerConfig) -> Self {
        Self {
            subject: game.port.to_string(),
            target: game.address.clone(),
            source: game.source,
            header: Header::of_session(game.player_address),
            key: "player_address",
            framing: game.framing,
        }
    }

    /// Connects as this player, which has the address `own` on loopback where players have such, and returns whether the server closes at
    /// once. `None` without a connection.
    pub async fn closes_at_once(&self, player: SocketAddrV4, own: Ipv4Addr) -> Option<bool> {
        let source = match self.source.towards(&self.target) {
            SourceAddress::LoopbackPerPlayer => Source::Own(own.into()),
            // The player has an IPv4 address, for which the key does not matter.
            source => source_for(source, (*player.ip()).into(), &PseudoIpv4::new([0; 16])),
        };
        let mut stream = self.connect(self.header, player, source).await?;
        let (_, closed) = read_for(&mut stream, BLOCKED, MAX_OPENING).await;
        Some(closed)
    }

    /// Returns the host, for which connects have to wait for each other.
    pub fn host(&self) -> TargetHost {
        TargetHost::from(&self.target)
    }

    /// Tries the server. Without a finding it could not be told, or another check tells it.
    async fn examine(&self, pace: &Pace) -> Vec<DoctorCheck> {
        let mut reaction = self.try_with(self.header, pace).await;
        let mut always = reaction == Reaction::Closes && self.closes_always(pace).await;
        if always {
            // A server that has blocked this host for its connects has forgotten it by then.
            sleep(BLOCK).await;
            reaction = self.try_with(self.header, pace).await;
            always = reaction == Reaction::Closes && self.closes_always(pace).await;
        }
        match reaction {
            Reaction::Unreachable => Vec::new(),
            Reaction::Speaks(first) => vec![self.framing_of(&first)],
            Reaction::Closes => vec![self.closes(always)],
            Reaction::Answers(status) => {
                let reads =
                    if self.header == Header::None { self.unasked(pace).await } else { self.order(true, pace).await };
                [reads].into_iter().chain(self.shown(&status).await).collect()
            }
            // Without an answer to a bare request there is nothing to tell by.
            Reaction::Nothing if self.header == Header::None || !self.answers(Header::None, pace).await => Vec::new(),
            Reaction::Nothing => vec![self.order(false, pace).await],
        }
    }

    fn ok(&self, message: impl Into<String>) -> DoctorCheck {
        DoctorCheck::ok(CHECK, self.subject.as_str(), message)
    }

    fn fail(&self, message: impl Into<String>, remedy: impl Into<String>) -> DoctorCheck {
        DoctorCheck::fail((CHECK, &self.subject), message, remedy)
    }

    fn warn(&self, message: impl Into<String>, remedy: impl Into<String>) -> DoctorCheck {
        DoctorCheck::warn((CHECK, &self.subject), message, remedy)
    }

    /// Returns the value of its header, with the key.
    fn said(&self) -> String {
        format!("`{}: {}`", self.key, self.header.word(self.key))
    }

    /// Checks the framing of a game port's first packet.
    fn framing_of(&self, first: &[u8]) -> DoctorCheck {
        let target = &self.target;
        if Opening::of(first) != Opening::Packet {
            return self.fail(
                format!("{target} speaks first, and not as a game server: {}", shown(first)),
                "see which program listens there (`ss -ltnp` on its host), and give the game server's port",
            );
        }
        let (wrong, right) = match self.framing {
            Framing::Bytes if first.starts_with(&FIRST_IN_BLOCKS) => ("bytes", "blocks"),
            Framing::Blocks if first.starts_with(&FIRST_IN_BYTES) => ("blocks", "bytes"),
            _ if self.header == Header::None => {
                return self.ok(format!("{target} speaks first, as a game port does"));
            }
            _ => {
                let what = "speaks first, as a game port does, and does not close on";
                return self.ok(format!("{target} {what} {}; that is no proof that it reads that", self.said()));
            }
        };
        self.fail(
            format!("{target} counts {right} in the length of a packet, and the file says `framing: {wrong}`"),
            format!("needs `framing: {right}`, or `auto`"),
        )
    }

    /// Returns whether it closes without a header too.
    async fn closes_always(&self, pace: &Pace) -> bool {
        self.header == Header::None
            || matches!(self.try_with(Header::None, pace).await, Reaction::Closes | Reaction::Unreachable)
    }

    /// Returns the finding that it closes: `always`, or for the header.
    fn closes(&self, always: bool) -> DoctorCheck {
        let target = &self.target;
        if always {
            return self.fail(
                format!("{target} takes connections, and closes them at once"),
                "see its log: it may be starting, be full, or block this host because it connects too often (`connects: 1/600ms`)",
            );
        }
        let otc = matches!(self.header, Header::Otc | Header::OtcReversed);
        let bytes = if otc { "`FE FF`" } else { "the header" };
        self.fail(
            format!("{target} accepts, and closes on {bytes}, so it does not read {}", self.said()),
            self.header.remedy(self.key),
        )
    }

    /// Finds out in which order it reads the bytes of an address, if it reads the header at all. `answered` says whether it has
    /// answered once: then a second answer shows that it was told 127.0.0.1.
    async fn order(&self, answered: bool, pace: &Pace) -> DoctorCheck {
        let (target, said) = (&self.target, self.said());
        if answered && self.answers(self.header, pace).await {
            return self.ok(format!("{target} reads {said}: it answers a request for the status behind it"));
        }
        if let Some(other) = self.header.backwards()
            && self.answers(other, pace).await
            && self.answers(other, pace).await
        {
            return self.fail(
                format!("{target} reverses addresses: with {said} it takes 203.0.113.7 for 7.113.0.203"),
                format!("give it `{}: {}`", self.key, other.word(self.key)),
            );
        }
        if answered {
            return self.ok(format!("{target} reads {said}; in which order of bytes could not be told"));
        }
        self.fail(
            format!(
                "{target} does not read {said}: it answers a request for the status without that, and not behind it"
            ),
            self.header.remedy(self.key),
        )
    }

    /// Finds out whether a server that is told nothing would read a header.
    async fn unasked(&self, pace: &Pace) -> DoctorCheck {
        let target = &self.target;
        let would = if self.key == "send_proxy" { Header::ProxyV2 } else { Header::Otc };
        if self.answers(would, pace).await {
            return self.warn(
                format!("{target} reads `{}: {}`, and is told no player's address", self.key, would.word(self.key)),
                format!("give it `{}: {}`, so that it sees each player's own", self.key, would.word(self.key)),
            );
        }
        self.ok(format!("{target} answers a request for the status without a header, and with none other"))
    }

    /// Warns of an answer that shows this host's own address.
    async fn shown(&self, status: &[u8]) -> Option<DoctorCheck> {
        let shown = ServerStatus::read(status)?.address;
        let mut found = timeout(CONNECT, lookup_host((shown.as_str(), 0))).await.ok()?.ok()?;
        let own = found.find(|address| is_public(address.ip()) && UdpSocket::bind((address.ip(), 0)).is_ok())?;
        Some(self.warn(
            format!("{} answers requests for the status with this host's own address, {}", self.target, own.ip()),
            "set `ip` (and `statusIp`, where it exists) in its config.lua to 127.0.0.1 or an edge's name: whoever asks over a link or a \
             forward without `status` sees it",
        ))
    }

    /// Returns the local address of this host's own connections to it.
    fn own_source(&self) -> Source {
        match self.source {
            SourceAddress::Address(own) => Source::Own(own),
            SourceAddress::Default | SourceAddress::LoopbackPerPlayer | SourceAddress::Player => Source::Kernel,
        }
    }

    /// Connects, and sends a header.
    async fn connect(&self, header: Header, player: SocketAddrV4, source: Source) -> Option<TcpStream> {
        let addresses = resolve((&self.target.host, self.target.port), CONNECT).await.ok()?;
        let (mut stream, server) = connect_forward(addresses, source, CONNECT).await.ok()?;
        // One that has closed already is seen by the next read.
        let _ = stream.write_all(&header.bytes(player, server)).await;
        Some(stream)
    }

    async fn answers(&self, header: Header, pace: &Pace) -> bool {
        matches!(self.try_with(header, pace).await, Reaction::Answers(_))
    }

    /// Connects, sends a header, and sees what comes; a request for the status, if nothing does.
    async fn try_with(&self, header: Header, pace: &Pace) -> Reaction {
        pace.turn().await;
        // Servers answer 127.0.0.1 always, and another address of loopback as seldom as any.
        let Some(mut stream) = self.connect(header, PLAYER, self.own_source()).await else {
            return Reaction::Unreachable;
        };
        let (first, closed) = read_for(&mut stream, AT_ONCE, MAX_OPENING).await;
        match (closed, first.is_empty()) {
            (true, _) => return Reaction::Closes,
            (false, false) => return Reaction::Speaks(first),
            (false, true) => {}
        }
        if stream.write_all(&StatusRequest::Xml.to_bytes()).await.is_err() {
            return Reaction::Nothing;
        }
        let (answer, _) = read_for(&mut stream, ANSWER, MAX_ANSWER).await;
        if ServerStatus::read(&answer).is_some() { Reaction::Answers(answer) } else { Reaction::Nothing }
    }
}

/// Reads until the end, this time, or so many bytes. Returns them, and whether the other side has closed.
async fn read_for(stream: &mut TcpStream, within: Duration, most: usize) -> (Vec<u8>, bool) {
    let (mut bytes, end) = (Vec::new(), Instant::now() + within);
    while bytes.len() < most {
        match timeout_at(end, stream.read_buf(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => return (bytes, true),
            Ok(Ok(_)) => {}
            Err(_) => return (bytes, false),
        }
    }
    (bytes, false)
}

/// Returns whether an address tells others where a host is.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_private() || v4.is_unspecified() || v4.is_link_local()),
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local())
        }
    }
}
