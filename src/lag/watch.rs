//! The watch over worlds and threads: one task, which looks twenty times a second at what others have noted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Histogram;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use super::host::{HeldUp, Host, HostWatch, MAIN};
use super::world::{LOOK, Stall, WorldSeen, WorldWatch};
use crate::events::{EventLog, Happening};
use crate::metrics::Metrics;
use crate::relay::{RelayShared, WorldLook};

/// The time from one look to the next while nobody plays, and at an edge.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// A world, with what was counted at the last look.
#[derive(Debug)]
struct Watched {
    watch: WorldWatch,
    /// Its stalls.
    stalls: Histogram,
    before: WorldLook,
}

/// Watches for ever. Stalls are counted in `metrics`, which are no worker's.
pub async fn watch(relay: Option<Arc<RelayShared>>, host: Arc<Host>, events: Arc<EventLog>, metrics: Arc<Metrics>) {
    let (mut worlds, mut held_up): (BTreeMap<u16, Watched>, _) = (BTreeMap::new(), HostWatch::default());
    let main = Arc::from(MAIN);
    host.add_thread();
    loop {
        let players = relay.as_ref().map_or(0, |relay| relay.sessions());
        let time = if players > 0 { LOOK } else { IDLE_LOOK };
        let due = Instant::now() + time;
        sleep(time).await;
        host.record(&main, due, Instant::now());
        look_at_host(&host, &mut held_up, &events).await;
        let Some(relay) = &relay else { continue };
        let (looked, now) = (relay.look_at_worlds(), Instant::now());
        worlds.retain(|port, _| looked.contains_key(port));
        for (port, look) in looked {
            let new = || {
                let stalls = metrics.game_stall.with_label_values(&[&port.to_string()]);
                Watched { watch: WorldWatch::default(), stalls, before: look }
            };
            let world = worlds.entry(port).or_insert_with(new);
            let before = std::mem::replace(&mut world.before, look);
            let seen = WorldSeen {
                heard: look.heard.wrapping_sub(before.heard),
                acts: look.packets_in.saturating_sub(before.packets_in),
                sessions: look.sessions,
            };
            if let Some(stall) = world.watch.look(seen, now) {
                tell_stall(port, &stall, &held_up, &events, &world.stalls);
            }
        }
    }
}

fn tell_stall(port: u16, stall: &Stall, held_up: &HostWatch, events: &EventLog, stalls: &Histogram) {
    let (seconds, ongoing) = (stall.length.as_secs_f64(), stall.ongoing);
    if held_up.explains(stall.from, stall.until) {
        info!(port, seconds, "nothing came from the world, as this host was held up");
        return;
    }
    if ongoing {
        warn!(port, seconds, "the world has been standing still while people play");
    } else {
        warn!(port, seconds, "the world stood still while people played");
        stalls.observe(seconds);
    }
    events.emit(Happening::GameStall { port, seconds, ongoing });
}

async fn look_at_host(host: &Arc<Host>, held_up: &mut HostWatch, events: &EventLog) {
    let (threads, delays) = host.take();
    let mut settled: Vec<_> = delays.iter().filter_map(|delay| held_up.add(delay, threads)).collect();
    settled.extend(held_up.due(threads, Instant::now()));
    for HeldUp { from, until, threads } in settled {
        let asked = Arc::clone(host);
        // If it fails, less is known.
        let _ = spawn_blocking(move || asked.look()).await;
        let share = host.share_since(from);
        let (seconds, names) = (until.saturating_duration_since(from).as_secs_f64(), threads.join(", "));
        let (steal, run_queue) = (share.steal, share.run_queue.map(|waited| waited.as_secs_f64()));
        warn!(seconds, threads = names, steal, run_queue_seconds = run_queue, "threads had no turn in time");
        events.emit(Happening::HostDelay { seconds, threads, steal, run_queue });
    }
}
