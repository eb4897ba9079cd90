//! Closing of links one after the other, so that their players do not come back as a crowd.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::connection::{Closing, ConnectionHandle, ConnectionRegistry};

/// The time over which an edge that is drained spreads the closing of its links. Their players have others, and come back
/// over these later. All at once they would ask the other edges, and a login at that moment, to do at once what otherwise
/// takes this time.
pub const SPREAD: Duration = Duration::from_secs(5);

/// The same for an edge that ends. It may be the last, or all may end at once, and then players wait for it to be back:
/// each moment more is one that they stand still. Their own clocks spread what follows, as they do if it is killed: a
/// client looks after its sessions every half second, and after its links every 2.5 seconds.
pub const LAST_SPREAD: Duration = Duration::from_millis(200);

/// Closes the links that `wanted` picks, evenly spread over that time, the first at once.
pub(super) async fn close_links(
    registry: &ConnectionRegistry,
    over: Duration,
    mut wanted: impl FnMut(&ConnectionHandle) -> bool,
) {
    let links: Vec<Arc<ConnectionHandle>> = registry.select(|handle| handle.is_link() && wanted(handle));
    let (start, count) = (Instant::now(), u32::try_from(links.len()).unwrap_or(u32::MAX));
    for (turn, link) in (0..).zip(links) {
        // Timers count whole milliseconds: several links due in one do not wait for each other.
        sleep_until(start + over.mul_f64(f64::from(turn) / f64::from(count))).await;
        link.close(Closing::Drained);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_closed_one_after_the_other_and_nothing_else_is() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let registry: Arc<ConnectionRegistry> = Arc::default();
            let enter = |listener: &str, port: u16, link: bool| {
                let present = registry.enter(&Arc::from(listener), ([192, 0, 2, 1], port).into());
                if link {
                    present.handle().set_link();
                }
                present
            };
            let links: Vec<_> = (1..=100).map(|port| enter("links", port, true)).collect();
            let others = [enter("links", 101, false), enter("backup", 102, true)];
            let closed = || links.iter().filter(|link| link.handle().closing() == Some(Closing::Drained)).count();
            let closing = close_links(&registry, SPREAD, |handle| handle.listener() == "links");
            let started = Instant::now();
            let looking = async {
                let mut seen = Vec::new();
                for turn in 0..5 {
                    // Half an interval after the last one, so that it is clear which are due.
                    let passed = SPREAD.mul_f64(0.005 + 0.2 * f64::from(turn));
                    tokio::time::sleep_until(started + passed).await;
                    seen.push(closed());
                }
                seen
            };
            let (seen, ()) = tokio::join!(looking, closing);
            assert_eq!(seen, [1, 21, 41, 61, 81]);
            assert_eq!(closed(), 100);
            assert!(others.iter().all(|other| other.handle().closing().is_none()));
        });
    }
}
