//! Why things end or are refused: the words that logs show and metrics count, each in one place.

use otproxy_protocol::reasons;

reasons! {
    /// Why an accepted connection was refused before it was of any use.
    RejectReason {
        /// `limits.connections` of the listener was reached.
        Limit = "limit",
        /// `limits.connections_per_address` of the listener was reached.
        AddressLimit = "address_limit",
        /// `limits.rate_per_address` of the listener was reached.
        Rate = "rate",
        /// `limits.connections` of the whole process was reached.
        ProcessLimit = "process_limit",
        /// `limits.connections_per_address` of the whole process was reached.
        ProcessAddressLimit = "process_address_limit",
        /// `limits.rate_per_address` of the whole process was reached.
        ProcessRate = "process_rate",
        /// The peer or the player is in `deny`, of the listener or of the process.
        Denied = "denied",
        /// The player is not in `allow`, of the listener or of the process.
        NotAllowed = "not_allowed",
        /// The peer or the player is banned.
        Banned = "banned",
        /// A PROXY header was required and the peer is not in `trusted_peers`.
        Untrusted = "untrusted",
        /// The PROXY header was malformed, or absent where one is required.
        BadHeader = "bad_header",
        /// The PROXY header, or with `status` the first packet, was not whole within `timeouts.header`.
        HeaderTimeout = "header_timeout",
        /// The first bytes are not what `expect` of the listener says.
        Unexpected = "unexpected",
        /// They were not whole within `timeouts.first_bytes`.
        Silent = "silent",
        /// The peer closed before it sent anything of use, as a health check does.
        Closed = "closed",
        /// On a relay: the first frame was not a ping.
        NoPing = "no_ping",
        /// Its place was given to another one, as a limit of connections in all was reached.
        Evicted = "evicted",
        /// The operator had it closed.
        Disconnected = "disconnected",
        /// Its listener is drained.
        Drained = "drained",
    }
}

impl RejectReason {
    /// Whether it counts for `bans.after`: he did what no honest client does, or more of it than one does.
    pub const fn breaks_rule(self) -> bool {
        match self {
            Self::AddressLimit
            | Self::Rate
            | Self::ProcessAddressLimit
            | Self::ProcessRate
            | Self::Untrusted
            | Self::HeaderTimeout
            | Self::Unexpected
            | Self::Silent
            | Self::NoPing => true,
            // What others did.
            Self::Limit | Self::ProcessLimit => false,
            // He is refused whatever he does, at no more cost than by a ban.
            Self::Denied | Self::NotAllowed | Self::Banned => false,
            // Only trusted peers are asked for a header.
            Self::BadHeader => false,
            // As health checks do, and people who lose patience.
            Self::Closed => false,
            // For what was decided here.
            Self::Evicted | Self::Disconnected | Self::Drained => false,
        }
    }
}

reasons! {
    /// Why a forwarded connection or a link ended.
    CloseReason {
        /// The client's side closed first.
        Client = "client",
        /// The target's side closed first.
        Target = "target",
        /// Nothing moved for `timeouts.idle`.
        Idle = "idle",
        /// No target could be reached.
        ConnectFailed = "connect_failed",
        /// It was a status request, which is answered here or not at all.
        Status = "status",
        /// The process is shutting down.
        Shutdown = "shutdown",
        /// The client's side was reset or failed.
        ClientError = "client_error",
        /// The target's side was reset or failed.
        TargetError = "target_error",
        /// On a relay: what the peer sent is not the protocol.
        ProtocolError = "protocol_error",
        /// The task that carried it failed: a defect of this program.
        Panic = "panic",
        /// The edge that it came through is trusted no more.
        Revoked = "revoked",
        /// Its place was given to another one, as a limit of connections in all was reached.
        Evicted = "evicted",
        /// The operator had it closed.
        Disconnected = "disconnected",
        /// Its listener is drained.
        Drained = "drained",
    }
}

reasons! {
    /// Why a connection is closed by somebody who does not carry it.
    Closing {
        /// Its place is given to another one.
        Evicted = "evicted",
        /// The operator has it closed.
        Disconnected = "disconnected",
        /// Its listener is drained.
        Drained = "drained",
    }
}

impl From<Closing> for RejectReason {
    fn from(closing: Closing) -> Self {
        match closing {
            Closing::Evicted => Self::Evicted,
            Closing::Disconnected => Self::Disconnected,
            Closing::Drained => Self::Drained,
        }
    }
}

impl From<Closing> for CloseReason {
    fn from(closing: Closing) -> Self {
        match closing {
            Closing::Evicted => Self::Evicted,
            Closing::Disconnected => Self::Disconnected,
            Closing::Drained => Self::Drained,
        }
    }
}

impl CloseReason {
    /// Whether it counts for `bans.after`.
    pub const fn breaks_rule(self) -> bool {
        matches!(self, Self::ProtocolError)
    }
}

reasons! {
    /// What somebody was banned for.
    BanReason {
        /// The operator banned him.
        Operator = "operator",
        /// He broke the rules more often than `bans.after` says.
        Rules = "rules",
    }
}

reasons! {
    /// How an attempt to reach a target ended.
    ConnectResult {
        /// Connected.
        Ok = "ok",
        /// Refused by the target's host.
        Refused = "refused",
        /// No answer within `timeouts.connect`.
        Timeout = "timeout",
        /// The host or network cannot be reached.
        Unreachable = "unreachable",
        /// The target's name does not resolve.
        Resolve = "resolve",
        /// Through the tunnel: the handshake failed.
        Handshake = "handshake",
        /// Any other failure, such as no free descriptor.
        Error = "error",
    }
}

impl ConnectResult {
    /// The result that an I/O error from a connect stands for.
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind::*;
        match error.kind() {
            ConnectionRefused => Self::Refused,
            TimedOut => Self::Timeout,
            HostUnreachable | NetworkUnreachable | NetworkDown => Self::Unreachable,
            _ => Self::Error,
        }
    }
}

reasons! {
    /// How a check of a target ended.
    CheckResult {
        /// The target is up.
        Ok = "ok",
        /// Refused by the target's host.
        Refused = "refused",
        /// No answer in time.
        Timeout = "timeout",
        /// The host or network cannot be reached.
        Unreachable = "unreachable",
        /// The target's name does not resolve.
        Resolve = "resolve",
        /// It took the connection, and closed it or said something else than a relay does.
        NoPong = "no_pong",
        /// Through the tunnel: no spare connection is there.
        NoSpare = "no_spare",
        /// Any other failure, such as no free descriptor.
        Error = "error",
    }
}

impl From<ConnectResult> for CheckResult {
    fn from(result: ConnectResult) -> Self {
        match result {
            ConnectResult::Ok => Self::Ok,
            ConnectResult::Refused => Self::Refused,
            ConnectResult::Timeout => Self::Timeout,
            ConnectResult::Unreachable => Self::Unreachable,
            ConnectResult::Resolve => Self::Resolve,
            ConnectResult::Handshake | ConnectResult::Error => Self::Error,
        }
    }
}

reasons! {
    /// What an operator wants of a target.
    TargetState {
        /// It has connections as far as it is up.
        Ready = "ready",
        /// It has no new connections; those that it has go on, and it is checked.
        Drain = "drain",
        /// It has no new connections and is not checked; those that it has go on.
        Maint = "maint",
    }
}

reasons! {
    /// What became of a status request.
    StatusResult {
        /// Answered with what was known, younger than `status.cache`.
        Cached = "cached",
        /// Answered with what the target was just asked for, by this request or another at the same time.
        Fresh = "fresh",
        /// Answered with what was known before the target had no answer.
        Stale = "stale",
        /// Closed: the target has no answer, and what was known is too old.
        Failed = "failed",
        /// Closed: too many different requests at once, or one that is too long.
        Refused = "refused",
    }
}

reasons! {
    /// Why a stream of the tunnel was refused.
    StreamRefusal {
        /// What the edge sent is not the header of a stream, or does not say which listener and which player.
        BadHeader = "bad_header",
        /// The header names no listener of the core.
        UnknownListener = "unknown_listener",
        /// The edge said nothing for so long that it cannot be there any more.
        Silent = "silent",
    }
}

reasons! {
    /// How a handshake of the tunnel ended.
    HandshakeResult {
        /// Both sides have proved who they are.
        Ok = "ok",
        /// It was not through in time.
        Timeout = "timeout",
        /// The other side closed before it was through.
        Closed = "closed",
        /// What came is not TLS.
        NotTls = "not_tls",
        /// The other side speaks TLS, and has no version or cipher in common with this one.
        Incompatible = "incompatible",
        /// It asked for another name or protocol, as a scanner does, and was shown no certificate.
        Stranger = "stranger",
        /// The other side did not agree on the protocol in the tunnel.
        NoAlpn = "no_alpn",
        /// The other side has no certificate.
        NoCertificate = "no_certificate",
        /// The other side's certificate comes from another authority.
        UnknownCa = "unknown_ca",
        /// The other side's certificate has expired.
        Expired = "expired",
        /// The other side's certificate is not valid yet: one of both clocks is wrong.
        NotYetValid = "not_yet_valid",
        /// The other side's certificate is for another name, or not for exactly one.
        WrongName = "wrong_name",
        /// The other side's certificate is for another use, or damaged.
        BadCertificate = "bad_certificate",
        /// At the core: no edge has the name in the certificate.
        UnknownEdge = "unknown_edge",
        /// At the core: the edge is revoked.
        Revoked = "revoked",
        /// The other side did not accept this one: it said so with an alert, or did not use the connection.
        Refused = "refused",
        /// Too many handshakes were under way.
        Limit = "limit",
        /// Anything else.
        Error = "error",
    }
}
