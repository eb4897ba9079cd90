//! Why a stream or a trunk of the tunnel was refused.

use otproxy_protocol::words;

words! {
    /// The reason for which a stream of the tunnel was refused, or a whole trunk.
    pub enum TunnelError {
        /// It was to lead to a listener that the core does not have.
        UnknownListener = "unknown_listener",
        /// Its opening lacks the listener or the player.
        BadHeader = "bad_header",
        /// The trunk, or the stream, is one more than an edge may have.
        TooMany = "too_many",
        /// The trunk ended as the edge sent what the format does not allow.
        Protocol = "protocol",
    }
}
