//! Whose lag it was: three causes that players cannot tell apart, each with a judge of its own. All of them are pure, and told what
//! there is by tasks that are on no packet's way.
//!
//! - `world`: a world that sends nothing to anybody while people play.
//! - `edges`: an edge whose round trips jump, with `jitter` and `shares`.
//! - `host`: threads of this process that have no turn in time, with `proc`, what the kernel tells of that.

mod edges;
mod host;
mod jitter;
mod proc;
mod shares;
mod watch;
mod world;

pub use edges::{EdgeSecond, EdgesWatch};
pub use host::{HELD_UP, Host, LEAST_DELAY, TICK, WAITING, keep_ticking};
pub use jitter::{
    BEGINS_AFTER, EXCESS_SHARE, GIVES_UP_AFTER, LEAST_EXCESS, LEAST_TRIPS, NORMAL_FROM, NORMAL_OVER, OVER_AFTER,
    PRESENT,
};
pub use shares::{GAINED, REMEMBERED};
pub use watch::watch;
pub use world::{
    GAPS, LEAST_ACTS, LEAST_GAPS, LEAST_STALL, LOOK, ONGOING, PLAYED_WITHIN, RESUMED_SHARE, TIMES_USUAL, USUAL,
};
