//! The reasons for which connections are refused or end.

use otproxy_net::pump::PumpEnd;
use otproxy_protocol::words;

words! {
    /// The reason for which an accepted connection was not admitted.
    pub enum AdmissionError {
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
        /// On a relay: the client has more links than any client.
        ClientLinks = "client_links",
        /// On a relay: the link came over a trunk of another worker than the one that owns its client.
        WrongWorker = "wrong_worker",
        /// Its place was given to another one, as a limit of connections in all was reached.
        Evicted = "evicted",
        /// The operator had it closed.
        Disconnected = "disconnected",
        /// Its listener is drained.
        Drained = "drained",
    }
}

impl AdmissionError {
    /// Returns whether it counts for `bans.after`: the peer did something that no honest client does, or more of it
    /// than one does.
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
            | Self::NoPing
            | Self::ClientLinks => true,
            // Caused by others.
            Self::Limit | Self::ProcessLimit => false,
            // The peer is refused whatever it does, at no more cost than by a ban.
            Self::Denied | Self::NotAllowed | Self::Banned => false,
            // Only trusted peers are asked for a header.
            Self::BadHeader => false,
            // Health checks do this, and people who lose patience.
            Self::Closed => false,
            // The edge's fault.
            Self::WrongWorker => false,
            // For what was decided here.
            Self::Evicted | Self::Disconnected | Self::Drained => false,
        }
    }
}

words! {
    /// The reason for which a forwarded connection or a link ended.
    pub enum CloseReason {
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
        /// It was a request over HTTP, which was answered.
        Answered = "answered",
        /// Over HTTP no whole request came within `timeouts.header`, or what came is no HTTP.
        NoRequest = "no_request",
        /// The process is shutting down.
        Shutdown = "shutdown",
        /// The client's side was reset or failed.
        ClientError = "client_error",
        /// The target's side was reset or failed.
        TargetError = "target_error",
        /// On a relay: what the peer sent is not the protocol.
        ProtocolError = "protocol_error",
        /// On a relay: more of the peer's requests were refused than a client ever makes.
        Refused = "refused",
        /// The task that carried it failed: a defect of this program.
        Panic = "panic",
        /// The edge that it came through is trusted no more.
        Revoked = "revoked",
        /// The trunk that carried it, between edge and core, has ended.
        Tunnel = "tunnel",
        /// Its place was given to another one, as a limit of connections in all was reached.
        Evicted = "evicted",
        /// The operator had it closed.
        Disconnected = "disconnected",
        /// Its listener is drained.
        Drained = "drained",
        /// On a relay: a session of its client was on no link that had opened it, or was never opened: the client opens it anew.
        Rejoin = "rejoin",
    }
}

words! {
    /// The reason for which another task closes a connection.
    pub enum Closing {
        /// Its place is given to another one.
        Evicted = "evicted",
        /// The operator has it closed.
        Disconnected = "disconnected",
        /// Its listener is drained.
        Drained = "drained",
        /// The operator has thrown out the edge that it came through.
        Revoked = "revoked",
    }
}

impl From<Closing> for AdmissionError {
    fn from(closing: Closing) -> Self {
        match closing {
            Closing::Evicted => Self::Evicted,
            // One that was not admitted yet is closed with the others.
            Closing::Disconnected | Closing::Revoked => Self::Disconnected,
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
            Closing::Revoked => Self::Revoked,
        }
    }
}

impl From<PumpEnd> for CloseReason {
    fn from(end: PumpEnd) -> Self {
        match end {
            PumpEnd::Client => Self::Client,
            PumpEnd::Target => Self::Target,
            PumpEnd::ClientError => Self::ClientError,
            PumpEnd::TargetError => Self::TargetError,
            PumpEnd::Idle => Self::Idle,
        }
    }
}

impl CloseReason {
    /// Returns whether it counts for `bans.after`.
    pub const fn breaks_rule(self) -> bool {
        matches!(self, Self::ProtocolError | Self::Refused | Self::NoRequest)
    }
}
