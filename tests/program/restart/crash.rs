//! A core that is killed while people play.

use otproxy_testkit::player::ClientClocks;

use super::Service;
use super::sessions::yaml;
use crate::common::crew::{Crew, pushing};
use crate::common::{run, tunnel};

impl Service {
    /// Kills it at this moment, and starts the next one.
    fn crash(&mut self) {
        let mut running = self.running.take().unwrap();
        running.kill();
        self.starts_with("goes on with the sessions of the process before");
    }
}

#[test]
fn sessions_go_on_to_the_byte() {
    run(async {
        let game = pushing().await;
        let listen = tunnel::free_address();
        let mut core = Service::core(&yaml(listen, 2, &[game.addr()]));
        let mut crew = Crew::with(10, &[listen; 2], ClientClocks::default()).await;
        for workers in [1, 3, 2] {
            for _ in 0..20 {
                crew.play().await;
            }
            core.write(&yaml(listen, workers, &[game.addr()]));
            core.crash();
            crew.rejoin().await;
        }
        crew.play().await;
        crew.lost_nothing().await;
        let connections = game.connections();
        assert_eq!(connections.len(), 10, "one for each player all the time");
        assert!(connections.iter().all(|connection| connection.received.perfect()), "{connections:?}");
        crew.leave().await;
    });
}
