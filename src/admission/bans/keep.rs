//! What bans need beside the look at each connection: the end of those that are over, and a word to the kernel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::{Bans, Kernel};

/// How often what has ended is forgotten, and the kernel is told what has changed since: all at once.
const ROUND: Duration = Duration::from_secs(1);

/// Forgets the bans that have ended, and keeps the `kernel`'s like them where there is one; until it is dropped.
pub async fn keep(bans: Arc<Bans>, mut kernel: Option<Kernel>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        bans.sweep(Instant::now());
        if let Some(kernel) = &mut kernel {
            kernel.follow(&bans).await;
        }
    }
}
