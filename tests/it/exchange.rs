//! Whole exchanges between a client, the core's session machine and a game server, in memory and in
//! simulated time, over links that delay, cut and come back. What a hostile peer may do to the machine
//! is in `fuzz/bodies`.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};

use otproxy_protocol::core::EndReason;
use otproxy_protocol::core::{Arrival, Batch, LinkWriter, Machine, MachineLimits, Outbox};
use otproxy_protocol::frame::{ClientId, Frame, FromClient, HEADER_LEN, PacketId, SessionId};
use otproxy_protocol::player::machine::{Action, Event};
use otproxy_protocol::player::{ClientClocks, EndReason as PlayerEnd, LinkId, PlayerCore, SendError, SessionStats};
use otproxy_testkit::mock::packet::{Origin, numbered};
use proptest::collection::vec;
use proptest::prelude::*;

const CLIENT: ClientId = ClientId(77);
const PORT: u16 = 7172;
const MS: Duration = Duration::from_millis(1);
/// Simulated time between two looks at everything.
const TICK: Duration = Duration::from_millis(2);
/// Simulated time after which an exchange that makes no end is stuck.
const STUCK: Duration = Duration::from_secs(120);

/// SplitMix64: all chance of a case from one number, so that a case can be had again.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to `most`.
    fn up_to(&mut self, most: u64) -> u64 {
        self.next() % (most + 1)
    }
}

/// One direction of a connection: bytes arrive in order, later, in pieces.
#[derive(Default)]
struct Pipe {
    flying: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    last: Option<Instant>,
}

impl Pipe {
    fn send(&mut self, bytes: &[u8], at: Instant) {
        let at = self.last.map_or(at, |last| last.max(at));
        self.last = Some(at);
        self.bytes += bytes.len();
        self.flying.push_back((at, bytes.to_vec()));
    }

    fn arrived(&mut self, now: Instant) -> Vec<u8> {
        let mut all = Vec::new();
        while self.flying.front().is_some_and(|(at, _)| *at <= now) {
            all.extend(self.flying.pop_front().unwrap().1);
        }
        self.bytes -= all.len();
        all
    }
}

/// One connection between the client and the core. Either side may notice its end later.
struct Conn {
    link: LinkId,
    up: Pipe,
    down: Pipe,
    /// Nothing moves any more.
    dead: bool,
    /// The client closed it; the core still gets what was sent before.
    closed_by_client: bool,
    core_loses_at: Option<Instant>,
    client_loses_at: Option<Instant>,
    input: Vec<u8>,
    writer: LinkWriter<Rc<RefCell<Machine>>>,
    pinged: bool,
}

#[derive(Default)]
struct Path {
    conn: Option<usize>,
    connects_at: Option<Instant>,
    down_until: Option<Instant>,
}

/// One session, with the truth about it.
#[derive(Default)]
struct Game {
    machine: Option<Rc<RefCell<Machine>>>,
    client_sent: Vec<Vec<u8>>,
    server_got: Vec<Vec<u8>>,
    server_sent: Vec<Vec<u8>>,
    client_got: Vec<Vec<u8>>,
    /// Sent by the server, not read by the core yet.
    unread: VecDeque<Vec<u8>>,
    pushed: u64,
    closed: bool,
    ended: Option<SessionStats>,
}

#[derive(Debug, Clone)]
struct Setting {
    seed: u64,
    paths: usize,
    links_per_session: usize,
    sessions: u32,
    max_delay: u64,
    room: usize,
    unacked: usize,
    echo: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Send { session: u32, count: usize, size: usize },
    Push { session: u32, count: usize, size: usize },
    Cut { paths: u8, how: u8, down: u64 },
}

struct Exchange {
    setting: Setting,
    chance: Chance,
    now: Instant,
    player: PlayerCore,
    paths: Vec<Path>,
    conns: Vec<Option<Conn>>,
    games: HashMap<SessionId, Game>,
    calm: bool,
}

impl Exchange {
    fn new(setting: Setting) -> Self {
        let now = Instant::now();
        // As fast as the simulated delays are; the silence of a stalled session is no subject here.
        let clocks = ClientClocks { session_silence: Duration::from_secs(3600), ..ClientClocks::faster(25) };
        let mut chance = Chance(setting.seed);
        let priorities: Vec<_> = (0..setting.paths).map(|_| chance.up_to(40) as u32 * MS).collect();
        let player = PlayerCore::new(CLIENT, priorities, setting.links_per_session, clocks, now);
        let paths = (0..setting.paths).map(|_| Path::default()).collect();
        let mut exchange =
            Self { chance, now, player, paths, conns: Vec::new(), games: HashMap::new(), calm: false, setting };
        for id in 1..=exchange.setting.sessions {
            assert!(exchange.player.open(SessionId(id), PORT, now));
            exchange.games.insert(SessionId(id), Game::default());
        }
        exchange
    }

    fn ids(&self) -> impl Iterator<Item = SessionId> + use<> {
        (1..=self.setting.sessions).map(SessionId)
    }

    fn arrival(&mut self) -> Instant {
        let most = if self.calm { 1 } else { self.setting.max_delay };
        self.now + self.chance.up_to(most) as u32 * MS
    }

    /// How much a pipe takes now: the end of a write may be at any byte.
    fn room(&mut self, pipe: usize) -> usize {
        if self.calm {
            return usize::MAX;
        }
        let free = self.setting.room.saturating_sub(pipe);
        self.chance.up_to(free as u64) as usize
    }

    fn send(&mut self, id: SessionId, size: usize) {
        let game = self.games.get_mut(&id).unwrap();
        let packet = numbered(Origin::Player, game.client_sent.len() as u64 + 1, size);
        match self.player.send(id, &packet) {
            Ok(()) => game.client_sent.push(packet),
            Err(error) => assert!(error == SendError::Full || game.ended.is_some(), "{error}"),
        }
    }

    fn push(&mut self, id: SessionId, size: usize) {
        let game = self.games.get_mut(&id).unwrap();
        if game.closed || game.machine.is_none() {
            return;
        }
        game.pushed += 1;
        let packet = numbered(Origin::Server, game.pushed, size);
        game.server_sent.push(packet.clone());
        game.unread.push_back(packet);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Wait(ms) => self.run_for(ms as u32 * MS),
            Step::Send { session, count, size } => {
                let id = SessionId(session % self.setting.sessions + 1);
                (0..count).for_each(|_| self.send(id, size));
            }
            Step::Push { session, count, size } => {
                let id = SessionId(session % self.setting.sessions + 1);
                (0..count).for_each(|_| self.push(id, size));
            }
            Step::Cut { paths, how, down } => {
                for path in (0..self.paths.len()).filter(|path| paths >> path & 1 == 1) {
                    self.paths[path].down_until = Some(self.now + down as u32 * MS);
                    self.cut(path, how);
                }
            }
        }
        self.tick();
    }

    /// Cuts a path's connection; who notices when depends on `how`.
    fn cut(&mut self, path: usize, how: u8) {
        let Some(index) = self.paths[path].conn else { return };
        let late = self.now + self.chance.up_to(200) as u32 * MS;
        let Some(conn) = &mut self.conns[index] else { return };
        let (client, core) = match how % 4 {
            0 => (self.now, self.now),
            1 => (self.now, late),
            2 => (late, self.now),
            _ => {
                conn.closed_by_client = true;
                conn.client_loses_at = Some(self.now);
                return;
            }
        };
        conn.dead = true;
        conn.client_loses_at.get_or_insert(client);
        conn.core_loses_at.get_or_insert(core);
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        self.losses();
        self.connects();
        if self.player.deadline().is_some_and(|at| at <= self.now) {
            self.player.tick(self.now);
        }
        for index in 0..self.conns.len() {
            self.move_up(index);
        }
        self.read_games();
        for index in 0..self.conns.len() {
            self.move_down(index);
        }
        self.actions();
        self.events();
        for game in self.games.values_mut() {
            if let Some(machine) = &game.machine {
                machine.borrow_mut().tick(self.now);
            }
        }
    }

    fn losses(&mut self) {
        for index in 0..self.conns.len() {
            let Some(conn) = &mut self.conns[index] else { continue };
            if conn.client_loses_at.is_some_and(|at| at <= self.now) && self.paths[conn.link.0].conn == Some(index) {
                self.paths[conn.link.0].conn = None;
                self.player.lost(conn.link);
            }
            if conn.closed_by_client && conn.up.flying.is_empty() {
                conn.core_loses_at.get_or_insert(self.now);
            }
            if conn.core_loses_at.is_some_and(|at| at <= self.now) && self.paths[conn.link.0].conn != Some(index) {
                for machine in conn.writer.clear() {
                    machine.borrow_mut().lost(self.now);
                }
                self.conns[index] = None;
            }
        }
    }

    fn connects(&mut self) {
        for path in 0..self.paths.len() {
            if self.paths[path].connects_at.is_none_or(|at| at > self.now) {
                continue;
            }
            self.paths[path].connects_at = None;
            if self.paths[path].down_until.is_some_and(|until| until > self.now) {
                self.player.lost(LinkId(path));
                continue;
            }
            self.paths[path].conn = Some(self.conns.len());
            self.conns.push(Some(Conn {
                link: LinkId(path),
                up: Pipe::default(),
                down: Pipe::default(),
                dead: false,
                closed_by_client: false,
                core_loses_at: None,
                client_loses_at: None,
                input: Vec::new(),
                writer: LinkWriter::default(),
                pinged: false,
            }));
            self.player.connected(LinkId(path), self.now);
        }
    }

    fn actions(&mut self) {
        while let Some(action) = self.player.poll_action() {
            match action {
                Action::Connect(link) => self.paths[link.0].connects_at = Some(self.arrival()),
                Action::Close(link) => {
                    self.paths[link.0].connects_at = None;
                    let Some(index) = self.paths[link.0].conn.take() else { continue };
                    let at = self.arrival();
                    if let Some(conn) = &mut self.conns[index] {
                        conn.dead = true;
                        conn.core_loses_at = Some(at);
                    }
                }
            }
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.player.poll_event() {
            match event {
                Event::Packet(id, packet) => {
                    let game = self.games.get_mut(&id).unwrap();
                    assert!(game.ended.is_none());
                    game.client_got.push(packet.to_vec());
                    let at = game.client_got.len() - 1;
                    assert!(game.client_got.get(at) == game.server_sent.get(at), "packet {} of {id}", at + 1);
                }
                Event::Ended(id, stats) => {
                    let game = self.games.get_mut(&id).unwrap();
                    assert!(game.closed, "ended, and nobody ended it: {stats:?}");
                    assert!(game.ended.replace(stats).is_none(), "ended twice");
                }
            }
        }
    }

    /// From the client's output to the core's sessions.
    fn move_up(&mut self, index: usize) {
        let Some(mut conn) = self.conns[index].take() else { return };
        if self.paths[conn.link.0].conn == Some(index) && !conn.closed_by_client {
            let room = self.room(conn.up.bytes);
            let output = self.player.output(conn.link);
            let part = output[..output.len().min(room)].to_vec();
            self.player.wrote(conn.link, part.len());
            if !part.is_empty() && !conn.dead {
                let at = self.arrival();
                conn.up.send(&part, at);
            }
        }
        if !conn.dead {
            let bytes = conn.up.arrived(self.now);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let most = if self.calm { rest.len() } else { 1 + self.chance.up_to(400) as usize };
                let (piece, next) = rest.split_at(most.min(rest.len()));
                rest = next;
                self.core_reads(&mut conn, piece);
            }
        }
        self.conns[index] = Some(conn);
    }

    fn core_reads(&mut self, conn: &mut Conn, piece: &[u8]) {
        let mut input = std::mem::take(&mut conn.input);
        input.extend_from_slice(piece);
        let mut rest = &input[..];
        while let Some((frame, next)) = Frame::split(rest).expect("a client's frame") {
            rest = next;
            match frame.from_client() {
                FromClient::Ping { client, .. } => {
                    assert_eq!(client, CLIENT);
                    conn.pinged = true;
                    conn.writer.pong();
                }
                FromClient::Open { session: id, port } => {
                    assert!(conn.pinged, "an open before a ping");
                    assert_eq!(port, u32::from(PORT));
                    let game = self.games.get_mut(&id).unwrap();
                    let machine = game.machine.get_or_insert_with(|| {
                        let limits = MachineLimits {
                            linger: Duration::from_secs(3600),
                            leave_grace: Duration::from_secs(3600),
                            unacked: self.setting.unacked,
                            reorder: 1 << 20,
                        };
                        Rc::new(RefCell::new(Machine::new(id, limits, self.now)))
                    });
                    // One that has ended as well: another link may have lost the end.
                    if conn.writer.get(id).is_none() {
                        conn.writer.join(machine.clone());
                    }
                }
                FromClient::Leave { session } => {
                    if let Some(machine) = conn.writer.remove(session) {
                        machine.borrow_mut().left(self.now);
                    }
                }
                FromClient::Data { session: id, packet, ack, payload } => {
                    let game = self.games.get_mut(&id).unwrap();
                    let Some(machine) = conn.writer.get(id) else {
                        assert!(game.closed, "data on a link that does not carry the session");
                        continue;
                    };
                    let mut machine = machine.borrow_mut();
                    if machine.ended().is_some() {
                        continue;
                    }
                    machine.ack(ack).expect("an ack of what was sent");
                    match machine.accept(packet, payload).expect("a packet in its turn") {
                        Arrival::InOrder => {
                            game.server_got.push(payload.to_vec());
                            if self.setting.echo && !game.closed {
                                game.server_sent.push(payload.to_vec());
                                game.unread.push_back(payload.to_vec());
                            }
                            assert_eq!(machine.pop_held(), None);
                        }
                        Arrival::Duplicate => {}
                        Arrival::Held => panic!("packet {packet} came ahead of its turn: a client leaves no gap"),
                    }
                }
            }
        }
        conn.input = rest.to_vec();
    }

    /// What the core reads from its game connections, some packets at a time.
    fn read_games(&mut self) {
        for id in self.ids() {
            let count = 1 + self.chance.up_to(4);
            let game = self.games.get_mut(&id).unwrap();
            let Some(machine) = &game.machine else { continue };
            let mut machine = machine.borrow_mut();
            if !machine.wants_game_data() {
                continue;
            }
            let mut batch = Batch::default();
            for _ in 0..count {
                let Some(packet) = game.unread.pop_front() else { break };
                let number = PacketId(machine.outbox().next().0 + batch.frames());
                let (length, body) = packet.split_first_chunk::<2>().unwrap();
                batch.push(id, number, machine.received(), u16::from_le_bytes(*length), body);
            }
            machine.push(batch);
            if game.closed && game.unread.is_empty() {
                machine.end(EndReason::GameClosed);
            }
        }
    }

    /// From the core's sessions to the client.
    fn move_down(&mut self, index: usize) {
        let Some(mut conn) = self.conns[index].take() else { return };
        let mut room = self.room(conn.down.bytes);
        let mut out = Vec::new();
        let written = conn.writer.write_to(|slices| {
            let mut taken = 0;
            for slice in slices {
                let part = &slice[..slice.len().min(room)];
                out.extend_from_slice(part);
                (room, taken) = (room - part.len(), taken + part.len());
            }
            if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        });
        assert_eq!(written.unwrap().bytes, out.len() as u64);
        let reachable = !conn.dead && !conn.closed_by_client;
        if !out.is_empty() && reachable {
            let at = self.arrival();
            conn.down.send(&out, at);
        }
        if reachable {
            let bytes = conn.down.arrived(self.now);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let most = if self.calm { rest.len() } else { 1 + self.chance.up_to(400) as usize };
                let (piece, next) = rest.split_at(most.min(rest.len()));
                rest = next;
                self.player.bytes(conn.link, piece, self.now);
            }
        }
        self.conns[index] = Some(conn);
    }

    /// Lets all links stay up, and waits until everything sent has arrived.
    fn settle(&mut self) {
        self.calm = true;
        self.paths.iter_mut().for_each(|path| path.down_until = None);
        let until = self.now + STUCK;
        while !self.games.values().all(|g| {
            g.machine.is_some()
                && g.unread.is_empty()
                && g.server_got.len() == g.client_sent.len()
                && g.client_got.len() == g.server_sent.len()
        }) {
            assert!(self.now < until, "stuck: {:?}", self.counts());
            self.run_for(50 * MS);
            // Clients acknowledge with packets only: without one now and then, nothing moves.
            if !self.games.values().all(|g| g.unread.is_empty()) {
                self.ids().for_each(|id| self.send(id, 20));
            }
        }
    }

    fn counts(&self) -> Vec<(usize, usize, usize, usize, usize)> {
        let count = |g: &Game| {
            (g.client_sent.len(), g.server_got.len(), g.server_sent.len(), g.client_got.len(), g.unread.len())
        };
        self.games.values().map(count).collect()
    }

    /// One more packet each way acknowledges all before it.
    fn acknowledge(&mut self) {
        for _ in 0..2 {
            self.ids().for_each(|id| {
                self.push(id, 20);
            });
            self.settle();
            self.ids().for_each(|id| self.send(id, 20));
            self.settle();
        }
        self.ids().for_each(|id| self.push(id, 20));
        self.settle();
    }

    fn check(&mut self) {
        self.settle();
        self.acknowledge();
        for id in self.ids() {
            let game = &self.games[&id];
            assert!(game.server_got == game.client_sent && game.client_got == game.server_sent);
            let stats = self.player.session_stats(id).unwrap();
            assert_eq!((stats.gaps, stats.miscut, stats.bad_acks), (0, 0, 0));
            assert_eq!(stats.unacked, 0, "the client keeps nothing");
            let machine = game.machine.as_ref().unwrap().borrow();
            assert!(machine.ended().is_none());
            assert!(machine.outbox().unacked() <= 3 * (HEADER_LEN + 20), "{}", machine.outbox().unacked());
        }
    }

    /// The server closes right after some last packets: they arrive, and then the end.
    fn close(&mut self, last: usize) {
        for id in self.ids() {
            (0..last).for_each(|_| self.push(id, 300));
            self.games.get_mut(&id).unwrap().closed = true;
        }
        self.calm = false;
        // A link so narrow that the client gives it up could take the end with it.
        self.setting.room = self.setting.room.max(4000);
        let until = self.now + STUCK;
        while !self.games.values().all(|g| g.ended.is_some()) {
            assert!(self.now < until, "no end: {:?}", self.counts());
            for id in self.ids() {
                let game = self.games.get_mut(&id).unwrap();
                if !game.unread.is_empty() {
                    // A client that acknowledges what came, so that the rest is read.
                    let _ = self.player.send(id, &numbered(Origin::Player, 1, 20));
                }
            }
            self.run_for(50 * MS);
        }
        for game in self.games.values() {
            let stats = game.ended.unwrap();
            assert!(game.client_got == game.server_sent, "all data before the end: {:?}", self.counts());
            assert_eq!(stats.ended, Some(PlayerEnd::Core));
            assert_eq!((stats.gaps, stats.miscut, stats.bad_acks), (0, 0, 0));
            let machine = game.machine.as_ref().unwrap().borrow();
            assert_eq!((machine.ended(), machine.is_finished()), (Some(EndReason::GameClosed), true));
        }
    }
}

fn play(setting: Setting, steps: &[Step]) -> Exchange {
    let mut exchange = Exchange::new(setting);
    exchange.run_for(100 * MS);
    steps.iter().for_each(|step| exchange.step(step));
    exchange.check();
    exchange
}

fn setting() -> impl Strategy<Value = Setting> {
    let room = prop_oneof![50usize..400, 2000usize..20_000];
    let unacked = prop_oneof![Just(300usize), 2000usize..8000, Just(1 << 20)];
    (any::<u64>(), 1usize..=4, 1usize..=3, 1u32..=2, 0u64..=50, room, unacked, any::<bool>()).prop_map(
        |(seed, paths, links_per_session, sessions, max_delay, room, unacked, echo)| Setting {
            seed,
            paths,
            links_per_session,
            sessions,
            max_delay,
            room,
            unacked,
            echo,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![4 => 11usize..300, 1 => 300usize..3000];
    prop_oneof![
        3 => (0u64..150).prop_map(Step::Wait),
        2 => (any::<u32>(), 1usize..12, size()).prop_map(|(session, count, size)| Step::Send { session, count, size }),
        2 => (any::<u32>(), 1usize..12, size()).prop_map(|(session, count, size)| Step::Push { session, count, size }),
        2 => (any::<u8>(), any::<u8>(), 0u64..200).prop_map(|(paths, how, down)| Step::Cut { paths, how, down }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn nothing_is_lost_doubled_or_reordered(setting in setting(), steps in vec(step(), 0..25), last in 0usize..20) {
        play(setting, &steps).close(last);
    }
}

const PLAIN: Setting = Setting {
    seed: 1,
    paths: 3,
    links_per_session: 2,
    sessions: 1,
    max_delay: 20,
    room: 4000,
    unacked: 1 << 20,
    echo: true,
};

#[test]
fn all_paths_cut_at_once_and_back_again() {
    for how in 0..4 {
        let mut steps = Vec::new();
        for _ in 0..10 {
            steps.push(Step::Send { session: 0, count: 5, size: 60 });
            steps.push(Step::Push { session: 0, count: 5, size: 400 });
            steps.push(Step::Wait(15));
            steps.push(Step::Cut { paths: 0xFF, how, down: 100 });
            steps.push(Step::Send { session: 0, count: 5, size: 60 });
            steps.push(Step::Wait(300));
        }
        let mut exchange = play(PLAIN, &steps);
        let stats = exchange.player.session_stats(SessionId(1)).unwrap();
        assert!(stats.joins >= 10, "{stats:?}");
        assert!(stats.received >= 100, "{stats:?}");
        exchange.close(10);
    }
}

#[test]
fn a_server_that_is_paused_by_the_unacked_limit_loses_nothing() {
    let setting = Setting { unacked: 500, echo: false, ..PLAIN };
    let steps = [Step::Push { session: 0, count: 200, size: 100 }, Step::Wait(500)];
    let mut exchange = Exchange::new(setting);
    exchange.run_for(100 * MS);
    steps.iter().for_each(|step| exchange.step(step));
    let unread = exchange.games[&SessionId(1)].unread.len();
    assert!(unread > 180, "nobody acknowledged, and {unread} of 200 are unread");
    exchange.check();
    exchange.close(50);
}

#[test]
fn two_links_bring_everything_twice_and_the_client_takes_it_once() {
    let steps = [Step::Wait(300), Step::Push { session: 0, count: 50, size: 50 }, Step::Wait(500)];
    let exchange = play(PLAIN, &steps);
    let stats = exchange.player.session_stats(SessionId(1)).unwrap();
    assert!(stats.links == 2 && stats.duplicates >= 40, "{stats:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn an_outbox_gives_every_cursor_the_same_stream(
        batches in vec(vec(0u16..300, 1..5), 1..8),
        writes in vec((0u32..3, 1usize..700), 0..60),
    ) {
        let mut outbox = Outbox::default();
        let mut stream = Vec::new();
        let mut starts = vec![0];
        for sizes in batches {
            let mut batch = Batch::default();
            for size in sizes {
                let number = PacketId(starts.len() as u32);
                let body = vec![number.0 as u8; size.into()];
                batch.push(SessionId(1), number, PacketId::NONE, size, &body);
                let header = otproxy_protocol::frame::data_header(SessionId(1), number, PacketId::NONE, 2 + body.len());
                stream.extend([&header[..], &size.to_le_bytes(), &body].concat());
                starts.push(stream.len());
            }
            outbox.push(batch);
        }
        let (mut cursor, mut base) = (outbox.start(), 0);
        for (ack, wanted) in writes {
            let packet = outbox.packet_at(&cursor).0 as usize;
            let mut slices = [IoSlice::new(&[]); 2];
            let filled = outbox.gather(&cursor, &mut slices);
            let given: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
            let from = starts[packet - 1];
            prop_assert_eq!(&given[..], &stream[from..from + given.len()]);
            prop_assert_eq!(given.is_empty(), outbox.is_drained(&cursor));
            let wanted = wanted.min(given.len());
            let advance = outbox.advance(&mut cursor, wanted);
            // To the end of the frame in which the write ended.
            let to = starts.iter().position(|start| *start >= from + wanted).unwrap();
            prop_assert_eq!(advance.frames as usize, to + 1 - packet);
            prop_assert_eq!(&advance.cut[..], &stream[from + wanted..starts[to]]);
            prop_assert_eq!(outbox.packet_at(&cursor).0 as usize, to + 1);
            let acked = (base + ack as usize).min(starts.len() - 1);
            let freed = outbox.ack(PacketId(acked as u32)).unwrap();
            prop_assert_eq!(freed, starts[acked] - starts[base]);
            base = acked;
            outbox.skip_acked(&mut cursor);
            prop_assert_eq!(outbox.packet_at(&cursor).0 as usize, (to + 1).max(base + 1));
            prop_assert_eq!(outbox.unacked(), stream.len() - starts[base]);
        }
    }
}
