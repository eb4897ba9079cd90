//! The machine against the model core: whatever happens to the links, nothing is lost, doubled or
//! out of order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use otproxy_protocol::frame::{self, ClientId, SessionId};
use otproxy_protocol::player::clocks::{SESSION_CHECK, SESSION_SILENCE};
use otproxy_protocol::player::machine::{LinkAction, MAX_OUTPUT, SessionEvent};
use otproxy_protocol::player::{ClientClocks, ClientEndReason, LinkId, PlayerCore};
use proptest::prelude::*;

use crate::player::model_core::{Conn, ModelCore};

const SESSION: SessionId = SessionId(77);
const MS: Duration = Duration::from_millis(1);

struct Path {
    conn: Option<Conn>,
    to_core: VecDeque<u8>,
    to_client: VecDeque<u8>,
}

struct World {
    now: Instant,
    player: PlayerCore,
    core: ModelCore,
    paths: Vec<Path>,
    conns: usize,
    /// Connects fail.
    down: bool,
    received: Vec<Vec<u8>>,
    ended: Option<ClientEndReason>,
    last_stats: otproxy_testkit::player::SessionStats,
}

impl World {
    fn new(paths: usize, links_per_session: usize, clocks: ClientClocks) -> Self {
        let now = Instant::now();
        let player = PlayerCore::new(ClientId(5), vec![Duration::ZERO; paths], links_per_session, clocks, now);
        let path = || Path { conn: None, to_core: VecDeque::new(), to_client: VecDeque::new() };
        Self {
            now,
            player,
            core: ModelCore::new(false),
            paths: std::iter::repeat_with(path).take(paths).collect(),
            conns: 0,
            down: false,
            received: Vec::new(),
            ended: None,
            last_stats: Default::default(),
        }
    }

    fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self.player.deadline().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.player.tick(self.now);
            self.pump();
        }
        self.now = until;
    }

    fn lose(&mut self, link: usize) {
        if let Some(conn) = self.paths[link].conn.take() {
            self.core.lost(conn);
            self.player.lost(LinkId(link));
        }
        self.paths[link].to_core.clear();
        self.paths[link].to_client.clear();
    }

    /// Moves outputs into the pipes, and does what the machine asks for.
    fn pump(&mut self) {
        while let Some(action) = self.player.poll_action() {
            match action {
                LinkAction::Connect(link) if self.down => self.player.lost(link),
                LinkAction::Connect(link) => {
                    self.conns += 1;
                    let conn = Conn(self.conns);
                    self.paths[link.0].conn = Some(conn);
                    self.core.connected(conn);
                    self.player.connected(link, self.now);
                }
                LinkAction::Close(link) => self.lose(link.0),
            }
        }
        while let Some(event) = self.player.poll_event() {
            match event {
                SessionEvent::Packet(SESSION, packet) => self.received.push(packet.to_vec()),
                SessionEvent::Packet(id, _) => panic!("a packet for {id}"),
                SessionEvent::Ended(_, stats) => {
                    self.ended = stats.ended;
                    self.last_stats = stats;
                }
            }
        }
        for (index, path) in self.paths.iter_mut().enumerate() {
            path.to_core.extend(self.player.take_output(LinkId(index)));
            if let Some(conn) = path.conn {
                path.to_client.extend(self.core.take_output(conn));
            }
        }
    }

    fn reach_core(&mut self, link: usize, count: usize) {
        let path = &mut self.paths[link];
        let count = count.min(path.to_core.len());
        let bytes: Vec<u8> = path.to_core.drain(..count).collect();
        if let Some(conn) = path.conn {
            self.core.bytes(conn, &bytes);
        }
        self.pump();
    }

    fn reach_client(&mut self, link: usize, count: usize) {
        let path = &mut self.paths[link];
        let count = count.min(path.to_client.len());
        let bytes: Vec<u8> = path.to_client.drain(..count).collect();
        self.player.bytes(LinkId(link), &bytes, self.now);
        self.pump();
    }

    /// Loses all links for long enough that the client notices, and joins new ones.
    fn restart(&mut self) {
        self.down = true;
        (0..self.paths.len()).for_each(|link| self.lose(link));
        self.advance(2 * SESSION_CHECK);
        self.down = false;
    }

    /// Lets all links work for a while.
    fn settle(&mut self, checks: u32) {
        self.pump();
        for _ in 0..checks {
            for link in 0..self.paths.len() {
                self.reach_core(link, usize::MAX);
                self.reach_client(link, usize::MAX);
            }
            self.advance(SESSION_CHECK);
        }
    }
}

fn packet(number: usize) -> Vec<u8> {
    let mut packet = vec![8, 0];
    packet.extend((number as u64).to_le_bytes());
    packet
}

#[derive(Debug, Clone)]
enum Op {
    Send,
    Push,
    Advance(u64),
    ToCore(usize, usize),
    ToClient(usize, usize),
    Lose(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Send),
        4 => Just(Op::Push),
        3 => (1u64..3000).prop_map(Op::Advance),
        8 => (0usize..3, 1usize..200).prop_map(|(link, count)| Op::ToCore(link, count)),
        8 => (0usize..3, 1usize..200).prop_map(|(link, count)| Op::ToClient(link, count)),
        1 => (0usize..3).prop_map(Op::Lose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(
        ops in proptest::collection::vec(op(), 0..300),
        links in 1usize..=3,
    ) {
        let clocks = ClientClocks { session_silence: Duration::from_secs(1 << 30), ..ClientClocks::default() };
        let mut world = World::new(3, links, clocks);
        world.advance(MS);
        world.settle(1);
        world.player.open(SESSION, 7172, world.now);
        world.settle(1);
        let (mut sent, mut pushed) = (0, 0);
        for op in ops {
            match op {
                Op::Send => {
                    world.player.send(SESSION, &packet(sent)).unwrap();
                    sent += 1;
                }
                Op::Push => {
                    world.core.push(SESSION, &packet(pushed));
                    pushed += 1;
                }
                Op::Advance(ms) => world.advance(ms as u32 * MS),
                Op::ToCore(link, count) => world.reach_core(link, count),
                Op::ToClient(link, count) => world.reach_client(link, count),
                Op::Lose(link) => world.lose(link),
            }
            world.pump();
        }
        world.restart();
        world.settle(20);
        let expected: Vec<_> = (0..pushed).map(packet).collect();
        prop_assert_eq!(&world.received, &expected);
        let expected: Vec<_> = (0..sent).map(packet).collect();
        prop_assert_eq!(&world.core.sessions[&SESSION].received, &expected);
        let stats = world.player.session_stats(SESSION).unwrap();
        prop_assert_eq!((stats.gaps, stats.miscut, stats.bad_acks), (0, 0, 0));
        prop_assert_eq!((stats.received, stats.sent, stats.links), (pushed as u64, sent as u64, links));
    }

    #[test]
    fn whatever_a_core_sends_nothing_breaks(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..50),
    ) {
        let mut world = World::new(1, 1, ClientClocks::default());
        world.advance(MS);
        world.settle(1);
        world.player.open(SESSION, 7172, world.now);
        for chunk in chunks {
            world.player.bytes(LinkId(0), &chunk, world.now);
            world.pump();
        }
    }
}

#[test]
fn nothing_is_opened_before_the_first_pong() {
    let mut world = World::new(1, 2, ClientClocks::default());
    world.player.open(SESSION, 7172, world.now);
    world.player.send(SESSION, &packet(0)).unwrap();
    world.advance(MS);
    assert_eq!(Vec::from(world.paths[0].to_core.clone()), frame::ping(ClientId(5), 0), "a ping, and only that");
    world.reach_core(0, usize::MAX);
    world.reach_client(0, usize::MAX);
    world.advance(SESSION_CHECK);
    world.settle(1);
    assert_eq!(world.core.sessions[&SESSION].received, [packet(0)], "then all that waited");
}

#[test]
fn one_link_joins_at_each_check() {
    let mut world = World::new(3, 3, ClientClocks::default());
    world.advance(MS);
    world.settle(1);
    world.player.open(SESSION, 7172, world.now);
    let mut links = vec![world.player.session_links(SESSION).len()];
    for _ in 0..3 {
        world.settle(1);
        links.push(world.player.session_links(SESSION).len());
    }
    assert_eq!(links, [1, 2, 3, 3]);
}

#[test]
fn a_change_of_link_opens_the_new_one_before_it_leaves_the_old_one() {
    let mut world = World::new(2, 1, ClientClocks::default());
    world.advance(MS);
    // The first path answers late: 100 ms.
    world.reach_core(1, usize::MAX);
    world.reach_core(0, usize::MAX);
    world.reach_client(0, usize::MAX);
    world.player.open(SESSION, 7172, world.now);
    assert_eq!(world.player.session_links(SESSION), [LinkId(0)]);
    world.settle(4);
    assert_eq!(world.player.session_links(SESSION), [LinkId(0)], "kept: the other is no better");

    world.player.send(SESSION, &packet(0)).unwrap();
    world.pump();
    world.advance(Duration::from_secs(1));
    for _ in 0..8 {
        // Pings of the first path come back 100 ms late from now on.
        world.reach_core(1, usize::MAX);
        world.reach_client(1, usize::MAX);
        world.advance(100 * MS);
        world.reach_core(0, usize::MAX);
        world.reach_client(0, usize::MAX);
        world.advance(400 * MS);
        if world.player.session_links(SESSION) == [LinkId(1)] {
            break;
        }
    }
    assert_eq!(world.player.session_links(SESSION), [LinkId(1)]);
    let old = Vec::from(world.paths[0].to_core.clone());
    let new = Vec::from(world.paths[1].to_core.clone());
    assert!(old.ends_with(&frame::end(SESSION)), "left on the old link");
    let open = frame::open(SESSION, 7172);
    let at = new.windows(open.len()).position(|bytes| bytes == open).expect("opened on the new link");
    let replay = &new[at + open.len()..];
    assert!(replay.ends_with(&packet(0)), "with all that is not acknowledged");
}

/// A client looks after its links by one clock and after a session's by another: a link can be lost and back between
/// two looks at the session.
#[test]
fn a_link_that_is_lost_and_back_between_two_looks_counts_as_joined() {
    for noticed in [false, true] {
        let mut world = World::new(1, 1, ClientClocks::default());
        world.advance(MS);
        world.settle(1);
        world.player.open(SESSION, 7172, world.now);
        world.settle(2);
        // The links are looked after at 2500 ms, the session at 2001 and 2501 ms; it is 1501 now.
        world.advance(if noticed { 400 * MS } else { 900 * MS });
        world.lose(0);
        world.player.send(SESSION, &packet(0)).unwrap();
        assert_eq!(world.player.session_stats(SESSION).unwrap().links, 0, "none is ready");
        while world.paths[0].conn.is_none() {
            world.advance(MS);
        }
        world.reach_core(0, usize::MAX);
        world.reach_client(0, usize::MAX);
        world.player.send(SESSION, &packet(1)).unwrap();
        world.settle(4);
        let stats = world.player.session_stats(SESSION).unwrap();
        let received: &[_] = if noticed { &[packet(0), packet(1)] } else { &[] };
        assert_eq!((stats.links, stats.joins), (1, 1 + u64::from(noticed)));
        assert_eq!(world.core.sessions[&SESSION].received, received, "noticed: {noticed}");
    }
}

#[test]
fn an_end_on_any_link_ends_the_session() {
    let mut world = World::new(2, 2, ClientClocks::default());
    world.advance(MS);
    world.settle(1);
    world.player.open(SESSION, 7172, world.now);
    world.settle(2);
    world.core.push(SESSION, &packet(0));
    world.core.end(SESSION);
    world.pump();
    world.reach_client(1, usize::MAX);
    assert_eq!((world.ended, world.received.len()), (Some(ClientEndReason::Core), 1));
    world.reach_client(0, usize::MAX);
    assert_eq!(world.received.len(), 1, "frames for a session that is over are ignored");
}

#[test]
fn a_session_dies_of_silence_and_leaves() {
    let mut world = World::new(1, 1, ClientClocks::default());
    world.advance(MS);
    world.settle(1);
    world.player.open(SESSION, 7172, world.now);
    while world.ended.is_none() {
        world.settle(1);
        assert!(world.now.elapsed() < SESSION_SILENCE, "time is simulated");
    }
    world.settle(1);
    assert_eq!(world.ended, Some(ClientEndReason::Silence));
    assert_eq!(world.core.sessions[&SESSION].leaves, 1);
}

#[test]
fn a_link_that_takes_nothing_is_dropped_before_it_takes_all_memory() {
    let mut player = PlayerCore::new(ClientId(5), [Duration::ZERO], 1, ClientClocks::default(), Instant::now());
    let now = Instant::now();
    player.tick(now);
    player.connected(LinkId(0), now);
    player.bytes(LinkId(0), &frame::PONG, now);
    let mut id = 0;
    while player.path_stats().all(|path| path.losses == 0) {
        id += 1;
        player.open(SessionId(id), 7172, now);
        while player.send(SessionId(id), &[0; 60_000]).is_ok() {}
        assert!(player.output(LinkId(0)).len() <= MAX_OUTPUT);
        assert!(id < 10, "dropped within ten sessions");
    }
    let actions: Vec<_> = std::iter::from_fn(|| player.poll_action()).collect();
    assert_eq!(actions, [LinkAction::Connect(LinkId(0)), LinkAction::Close(LinkId(0))]);
}

#[test]
fn a_link_without_pongs_is_made_anew() {
    let mut world = World::new(1, 1, ClientClocks::default());
    world.advance(MS);
    world.settle(1);
    world.core.pongs = false;
    world.settle(30);
    let stats = world.player.path_stats().next().unwrap();
    assert!(stats.losses >= 1 && stats.connects >= 2);
    let reports: Vec<_> = world.core.pings.iter().map(|(_, report)| *report).collect();
    assert_eq!((reports[0], reports[1]), (0, 1), "none at first, then what was measured");
    assert_eq!(*reports.last().unwrap(), 5000);
}
