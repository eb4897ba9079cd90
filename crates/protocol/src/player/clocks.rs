//! The clients' clocks: the intervals of their looks at links and sessions, and the times after which they give up.

use std::time::Duration;

/// A client looks at each link this often: connects, pings, reconnects.
pub const LINK_CHECK: Duration = Duration::from_millis(2500);
/// A connect may take this long, and then the first pong this long again.
pub const FIRST_PONG: Duration = Duration::from_millis(12_500);
/// A later pong may take this long; then the link is dropped, and made anew at its next check.
pub const LATER_PONG: Duration = Duration::from_millis(7500);
/// A client looks at each session's links this often, and joins at most one link each time.
pub const SESSION_CHECK: Duration = Duration::from_millis(500);
/// A session dies on the client after this long without a new packet from the core.
pub const SESSION_SILENCE: Duration = Duration::from_secs(30);
/// A link in use is given up only for one that is better by more than this.
pub const BETTER_BY: Duration = Duration::from_millis(20);
/// Links that carry a session, unless set otherwise.
pub const LINKS_PER_SESSION: usize = 2;
/// The round trip that a client reports right after a reconnect: unknown.
pub const UNKNOWN_RTT_MS: u32 = 5000;

/// The clocks of one player: the clients' own by default, shorter where a test cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientClocks {
    /// See [`LINK_CHECK`].
    pub link_check: Duration,
    /// See [`FIRST_PONG`].
    pub first_pong: Duration,
    /// See [`LATER_PONG`].
    pub later_pong: Duration,
    /// See [`SESSION_CHECK`].
    pub session_check: Duration,
    /// See [`SESSION_SILENCE`].
    pub session_silence: Duration,
}

impl Default for ClientClocks {
    fn default() -> Self {
        Self {
            link_check: LINK_CHECK,
            first_pong: FIRST_PONG,
            later_pong: LATER_PONG,
            session_check: SESSION_CHECK,
            session_silence: SESSION_SILENCE,
        }
    }
}

impl ClientClocks {
    /// Returns the clients' clocks, all `factor` times as fast (at least 1).
    #[must_use]
    pub fn faster(factor: u32) -> Self {
        let factor = factor.max(1);
        Self {
            link_check: LINK_CHECK / factor,
            first_pong: FIRST_PONG / factor,
            later_pong: LATER_PONG / factor,
            session_check: SESSION_CHECK / factor,
            session_silence: SESSION_SILENCE / factor,
        }
    }
}
