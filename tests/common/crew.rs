//! Whole players who play over real edges, and proof that they lose nothing.

use std::net::SocketAddr;
use std::time::Duration;

use otproxy_protocol::frame::ClientId;
use otproxy_testkit::delivery::DeliveryCheck;
use otproxy_testkit::mock::game_server::{MockGameServer, MockGameServerOptions};
use otproxy_testkit::mock::packet::{self, PacketOrigin};
use otproxy_testkit::player::{ClientClocks, GameSession, Player, PlayerOptions};

use super::HANG;
use super::link::PORT;

/// A game server that pushes all the time.
pub async fn pushing() -> MockGameServer {
    let push = MockGameServerOptions { push_every: Some(Duration::from_millis(2)), push_size: 100 };
    MockGameServer::start(push).await.unwrap()
}

/// Players, each with a session over two links.
pub struct Crew {
    players: Vec<Playing>,
    sent: u64,
}

struct Playing {
    player: Player,
    session: GameSession,
    pushed: DeliveryCheck,
    echoed: DeliveryCheck,
}

impl Crew {
    /// So many of them, who play over these edges.
    pub async fn start(players: u32, paths: &[SocketAddr]) -> Self {
        Self::with(players, paths, ClientClocks::faster(20)).await
    }

    /// The same, with these clocks.
    pub async fn with(players: u32, paths: &[SocketAddr], clocks: ClientClocks) -> Self {
        let mut crew = Self { players: Vec::new(), sent: 0 };
        for client in 1..=players {
            // While all links are away, patience is no subject.
            let clocks = ClientClocks { session_silence: HANG, ..clocks };
            let options = PlayerOptions { clocks, ..PlayerOptions::new(ClientId(client), paths.to_vec()) };
            let player = Player::connect(options);
            let session = player.open(PORT).await;
            session.wait_until(|stats| stats.links == 2).await.unwrap();
            crew.players.push(Playing { player, session, pushed: DeliveryCheck::new(), echoed: DeliveryCheck::new() });
        }
        crew
    }

    /// Each sends a packet, and gets one.
    pub async fn play(&mut self) {
        self.sent += 1;
        for playing in &mut self.players {
            playing.session.send(packet::numbered(PacketOrigin::Player, self.sent, 60)).await.unwrap();
            playing.take().await;
        }
    }

    /// Each sends a packet, and waits for none.
    pub async fn act(&mut self) {
        self.sent += 1;
        for playing in &mut self.players {
            playing.session.send(packet::numbered(PacketOrigin::Player, self.sent, 60)).await.unwrap();
        }
    }

    /// Waits until each has two links again. Packets that are pushed are taken meanwhile: else the game server is held up, and the
    /// links with it.
    pub async fn rejoin(&mut self) {
        while self.players.iter().any(|playing| playing.session.stats().links < 2) {
            for playing in &mut self.players {
                playing.take().await;
            }
        }
    }

    /// All that was sent has come back, and nothing was lost, doubled or out of order. Gives how often each lost a
    /// link.
    pub async fn lost_nothing(&mut self) -> Vec<u64> {
        let mut losses = Vec::new();
        for playing in &mut self.players {
            while playing.echoed.highest() < self.sent {
                playing.take().await;
            }
            let stats = playing.session.stats();
            assert_eq!((stats.gaps, stats.miscut, stats.bad_acks), (0, 0, 0), "{stats:?}");
            assert!(playing.pushed.so_far().perfect() && playing.echoed.so_far().perfect());
            losses.push(playing.player.stats().paths.iter().map(|path| path.losses).sum());
        }
        losses
    }

    /// All of them leave.
    pub async fn leave(self) {
        for Playing { player, session, .. } in self.players {
            session.leave();
            player.close().await.unwrap();
        }
    }
}

impl Playing {
    async fn take(&mut self) {
        let packet = self.session.recv().await.expect("the session goes on");
        match packet::number(&packet) {
            Some((PacketOrigin::Server, number)) => self.pushed.see(number),
            Some((PacketOrigin::Player, number)) => self.echoed.see(number),
            // The game server's first word.
            None => assert_eq!(packet.len(), 14),
        }
    }
}
