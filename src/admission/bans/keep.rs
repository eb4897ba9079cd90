//! Housekeeping of bans: removal of those that have ended, and updates of the kernel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::{Bans, KernelBans};

/// The interval at which ended bans are removed and the kernel is updated.
const ROUND: Duration = Duration::from_secs(1);

/// Removes bans that have ended, and keeps the sets of the `kernel`, if any, equal to the bans; until dropped.
pub async fn keep(bans: Arc<Bans>, mut kernel: Option<KernelBans>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        bans.remove_ended(Instant::now());
        if let Some(kernel) = &mut kernel {
            kernel.follow(&bans).await;
        }
    }
}
