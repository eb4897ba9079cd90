//! Links, opened as a player's client opens them: a connect, pings, their pongs. No session is opened.
//!
//! - `link`: one link. `failure`: the reasons why there is no pong, and their remedies.
//! - `series`: pings of one address, one after the other, and their figures.

mod failure;
mod link;
mod series;

pub use failure::{PROBE_ERRORS, ProbeError};
pub(crate) use link::shown;
pub use link::{ProbeLink, Probing};
pub use series::{PingFigures, PingSeries, Pinged};

use std::hash::{BuildHasher, RandomState};

use otproxy_protocol::frame::ClientId;

/// Returns a client id for links of this process. It opens no session, so it is in nobody's way.
#[must_use]
pub fn client_id() -> ClientId {
    ClientId(RandomState::new().hash_one(0u8) as u32 | 1)
}
