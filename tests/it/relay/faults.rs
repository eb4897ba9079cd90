//! What happens to links: cut, reset, half-closed, stalled, left and joined, with packets under way in
//! both directions. None is lost, doubled or out of its turn.

use std::net::Ipv4Addr;
use std::time::Duration;

use otproxy_protocol::frame::{self, HEADER_LEN, SessionId};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;

use crate::relay::harness::*;

/// No link or session ends for want of time, whatever the machine does meanwhile.
const PATIENT: &str = "linger: 1h, leave_grace: 1h";
const IDLE: &str = "timeouts: { idle: 1h }";

/// Xorshift: the same order of events for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Packet `number` of a direction: its content and its length say which it is.
fn numbered(number: u32) -> Vec<u8> {
    packet(&[&number.to_le_bytes()[..], &vec![number as u8; (number as usize * 7919) % 3000]].concat())
}

/// One of the client's links.
struct Path {
    edge: Ipv4Addr,
    link: Option<Link>,
    /// Whether it carries the session.
    joined: bool,
    /// Nothing is read from it nor written to it.
    stalled: bool,
    /// The last packet that came on it since it joined.
    last: u32,
    /// The next packet that is to be sent on it.
    next: u32,
}

impl Path {
    fn usable(&self) -> bool {
        self.link.is_some() && self.joined && !self.stalled
    }
}

/// A client, and what it knows.
struct Client<'a> {
    core: &'a Core,
    paths: Vec<Path>,
    sent: u32,
    /// The highest packet of its own that the core acknowledged.
    acked: u32,
    received: u32,
    /// The highest acknowledgement that it sent.
    said: u32,
}

impl<'a> Client<'a> {
    fn new(core: &'a Core) -> Self {
        let path = |edge| Path { edge, link: None, joined: false, stalled: false, last: 0, next: 1 };
        Self { core, paths: [EDGE_A, EDGE_B, EDGE_A].map(path).into(), sent: 0, acked: 0, received: 0, said: 0 }
    }

    /// Connects where there is no link, and joins where it does not carry the session.
    async fn join(&mut self, index: usize, random: &mut Random) {
        let path = &mut self.paths[index];
        if path.link.is_none() {
            let mut link = match random.below(2) {
                0 => self.core.silent_link(path.edge, player(1)).await,
                _ => Link::narrow(self.core.links, path.edge, player(1)).await,
            };
            link.ping_first(CLIENT).await;
            (path.link, path.joined, path.stalled) = (Some(link), false, false);
        }
        if !path.joined && !path.stalled {
            path.link.as_mut().unwrap().open(S, PORT).await;
            (path.joined, path.last, path.next) = (true, 0, self.acked + 1);
            self.catch_up(index).await;
        }
    }

    /// Sends what was not sent on that link yet.
    async fn catch_up(&mut self, index: usize) {
        let path = &mut self.paths[index];
        if path.usable() {
            while path.next <= self.sent {
                self.said = self.received;
                let link = path.link.as_mut().unwrap();
                link.data(S, path.next, self.received, &numbered(path.next)).await;
                path.next += 1;
            }
        }
    }

    async fn send(&mut self, count: usize) {
        self.sent += count as u32;
        for index in 0..self.paths.len() {
            self.catch_up(index).await;
        }
    }

    /// Takes what came on a link.
    fn see(&mut self, index: usize, seen: Seen) {
        let Seen::Data { session: S, packet, ack, payload } = seen else { panic!("{seen:?}") };
        let path = &mut self.paths[index];
        // A link that carries the session again, asked or not, begins at the first that is not acknowledged.
        let from_acked = packet - 1 <= self.said;
        assert!(packet == path.last + 1 || from_acked, "{packet} after {}, {} acked", path.last, self.said);
        assert_eq!(payload, numbered(packet));
        assert!(ack <= self.sent);
        path.last = packet;
        self.acked = self.acked.max(ack);
        self.received = self.received.max(packet);
    }

    /// Reads every link that is read up to that packet.
    async fn read_to(&mut self, number: u32) {
        for index in 0..self.paths.len() {
            while self.paths[index].usable() && self.paths[index].last < number {
                let seen = self.paths[index].link.as_mut().unwrap().next().await.expect("the link stands");
                self.see(index, seen);
            }
        }
    }

    /// Takes a link off the session. What was under way on it still comes.
    async fn leave(&mut self, index: usize) {
        let path = &mut self.paths[index];
        if !path.usable() {
            return;
        }
        path.joined = false;
        let link = path.link.as_mut().unwrap();
        link.leave(S).await;
        link.send(&frame::ping(CLIENT, 20)).await;
        loop {
            match self.paths[index].link.as_mut().unwrap().next().await.expect("the link stands") {
                Seen::Pong => return,
                seen => self.see(index, seen),
            }
        }
    }

    /// Ends a link in one of the ways in which links end, perhaps in the middle of a frame.
    async fn break_link(&mut self, index: usize, random: &mut Random) {
        let path = &mut self.paths[index];
        let Some(mut link) = path.link.take() else { return };
        if path.joined && !path.stalled && random.below(2) == 0 {
            // The next packet, of which not all gets there.
            let next = data_frame(S, path.next, self.received, &numbered(path.next));
            link.send(&next[..random.below(next.len())]).await;
        }
        match random.below(3) {
            0 => {}
            1 => SockRef::from(&link.stream).set_linger(Some(Duration::ZERO)).unwrap(),
            _ => {
                link.stream.shutdown().await.unwrap();
                while let Some(seen) = link.next_or_cut().await {
                    if self.paths[index].joined {
                        self.see(index, seen);
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_is_lost_whatever_becomes_of_the_links() {
    run(async {
        let game = Game::new().await;
        for seed in 1..=8 {
            let mut random = Random(0x9E37_79B9_7F4A_7C15 / seed);
            let setup = Setup { listener: IDLE, workers: 2, ..Setup::to(&game, "").sessions(PATIENT) };
            let core = setup.start();
            let mut client = Client::new(&core);
            client.join(0, &mut random).await;
            let (mut conn, _) = game.accept_otc().await;
            let (mut pushed, mut arrived) = (0, 0);
            for round in 0..60 {
                // What is under way while it happens.
                for _ in 0..random.below(60) {
                    pushed += 1;
                    conn.send(&numbered(pushed)).await;
                }
                let count = random.below(20);
                client.send(count).await;
                let index = random.below(3);
                let other = (index + 1 + random.below(2)) % 3;
                match random.below(10) {
                    0 | 1 => client.break_link(index, &mut random).await,
                    2 => client.paths[index].stalled = true,
                    3 => {
                        client.paths[index].stalled = false;
                        client.catch_up(index).await;
                    }
                    4 | 8 | 9 => client.join(index, &mut random).await,
                    // A change of links, in both orders.
                    5 => {
                        client.leave(index).await;
                        client.join(other, &mut random).await;
                    }
                    6 => {
                        client.join(other, &mut random).await;
                        client.leave(index).await;
                    }
                    _ => {
                        for index in 0..3 {
                            client.break_link(index, &mut random).await;
                        }
                    }
                }
                if round % 10 == 9 {
                    for index in 0..3 {
                        client.paths[index].stalled = false;
                        client.join(index, &mut random).await;
                        client.catch_up(index).await;
                    }
                }
                // One that nobody has acknowledged: it comes on every link.
                pushed += 1;
                conn.send(&numbered(pushed)).await;
                client.send(1).await;
                client.read_to(pushed).await;
                if client.paths.iter().any(Path::usable) {
                    while arrived < client.sent {
                        arrived += 1;
                        conn.expect(&numbered(arrived)).await;
                    }
                }
            }
            assert_eq!((client.received, arrived), (pushed, client.sent), "the last round was with all links");
            client.send(1).await;
            conn.expect(&numbered(client.sent)).await;
            core.wait("otproxy_relay_unacked_bytes", &[], 0.0).await;
            core.wait("otproxy_relay_packets_total", &["direction=\"in\""], f64::from(client.sent)).await;
            assert_eq!(core.metric("otproxy_relay_packets_total", &["direction=\"out\""]).await, f64::from(pushed));
            assert_eq!(core.metric("otproxy_relay_sessions_opened_total", &[]).await, 1.0);
            assert_eq!(core.metric("otproxy_relay_sessions_ended_total", &[]).await, 0.0);
            core.close().await;
        }
    });
}

#[test]
fn a_link_that_the_client_closes_on_its_side_is_over() {
    run(async {
        let game = Game::new().await;
        let setup = Setup { listener: IDLE, ..Setup::to(&game, "").sessions(PATIENT) };
        let core = setup.start();
        let (mut half, mut conn) = core.play(&game).await;
        let mut whole = core.link_of(EDGE_B, player(1), CLIENT).await;
        whole.open(S, PORT).await;
        whole.sync().await;
        // What it said before the end counts.
        half.data(S, 1, 0, &packet(b"last")).await;
        half.stream.shutdown().await.unwrap();
        conn.expect(&packet(b"last")).await;
        assert_eq!(half.next().await, None);
        core.wait("otproxy_connections_closed_total", &["reason=\"client\""], 1.0).await;
        core.wait("otproxy_relay_links_active", &[], 1.0).await;
        conn.send(&packet(b"on")).await;
        assert_eq!(whole.next().await, data(1, 1, &packet(b"on")));
        whole.data(S, 2, 1, &packet(b"and on")).await;
        conn.expect(&packet(b"and on")).await;
        core.close().await;
    });
}

#[test]
fn a_pong_waits_for_no_backlog() {
    /// What the core's kernel may hold for the link: a window, what may wait unsent (16 KiB), and one write.
    const IN_KERNELS: usize = 160 * 1024;
    /// What waits, in all.
    const PACKETS: u32 = 1500;
    run(async {
        let game = Game::new().await;
        let setup = Setup { listener: IDLE, ..Setup::to(&game, "") };
        let core = setup.start();
        let mut link = Link::narrow(core.links, EDGE_A, player(1)).await;
        link.ping_first(CLIENT).await;
        link.open(S, PORT).await;
        let (mut conn, _) = game.accept_otc().await;
        let body = packet(&[5; 2000]);
        for _ in 0..PACKETS {
            conn.send(&body).await;
        }
        core.wait("otproxy_relay_packets_total", &["direction=\"out\""], PACKETS.into()).await;
        let written = core.metric("otproxy_bytes_total", &["direction=\"out\""]).await as usize;
        assert!(written < IN_KERNELS, "{written} bytes can no longer be overtaken");
        link.send(&frame::ping(CLIENT, 20)).await;
        // Behind the open, so that it has arrived when this is answered; it is answered after the pong.
        link.open(SessionId(9), 1).await;
        core.refused("port", 1.0).await;
        // The first pong was read already.
        let mut position = HEADER_LEN;
        loop {
            match link.next().await {
                Some(Seen::Pong) => break,
                Some(Seen::Data { payload, .. }) => position += HEADER_LEN + payload.len(),
                other => panic!("{other:?}"),
            }
        }
        let frame = HEADER_LEN + body.len();
        assert!(position <= written + frame, "after {position} bytes, {written} of them on their way already");
        core.close().await;
    });
}
