//! The reason for which a session is over, as the client sees it.

use std::fmt;

/// The reason for which a session is over on the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientEndReason {
    /// The core said end.
    Core,
    /// The player left.
    Left,
    /// No new packet for [`SESSION_SILENCE`](super::clocks::SESSION_SILENCE).
    Silence,
    /// The player was closed.
    Closed,
}

impl fmt::Display for ClientEndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Core => "ended by the core",
            Self::Left => "left",
            Self::Silence => "silence",
            Self::Closed => "player closed",
        })
    }
}
