//! Why a stream of the tunnel was refused.

use otproxy_protocol::words;

words! {
    /// The reason for which a stream of the tunnel was refused.
    pub enum TunnelError {
        /// The edge's bytes are no header of a stream, or the header lacks the listener or the player.
        BadHeader = "bad_header",
        /// The header names no listener of the core.
        UnknownListener = "unknown_listener",
        /// The edge said nothing for so long that it cannot be there any more.
        Silent = "silent",
    }
}
