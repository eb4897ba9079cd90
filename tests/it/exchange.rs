//! Whole exchanges between a client, the core's machine and a game server, in memory and in simulated
//! time, over links that delay, cut and come back. Both machines are the ones that run on sockets. Hostile
//! peers of the core's are in `fuzz/bodies`.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use otproxy::roles::LAST_SPREAD;
use otproxy_protocol::core::{
    self, AdmittedSession, ClientOwner, Effect, EndReason, FrameCounts, FrozenClient, LinkDuty, LinkKey, OpenError,
    OpenRules, RecordedSession, SessionKey, SessionLimits, ThawedSession,
};
use otproxy_protocol::frame::{ClientId, HEADER_LEN, PONG, PacketId, SessionId};
use otproxy_protocol::game_packet::Framing;
use otproxy_protocol::player::clocks::SESSION_SILENCE;
use otproxy_protocol::player::machine::{LinkAction, SessionEvent};
use otproxy_protocol::player::{
    ClientClocks, ClientEndReason as PlayerEnd, LinkId, PlayerCore, SendError, SessionStats,
};
use otproxy_testkit::mock::packet::{PacketOrigin, numbered, split};
use proptest::collection::vec;
use proptest::prelude::*;

const CLIENT: ClientId = ClientId(77);
const PORT: u16 = 7172;
/// The player's address, as the game server is told it before all packets.
const HEADER: &[u8] = b"203.0.113.7";
/// Addresses that the player's links have, counted from 0.
const ADDRESSES: u64 = 5;
const MS: Duration = Duration::from_millis(1);
/// Simulated time between two looks at everything.
const TICK: Duration = Duration::from_millis(50);
/// Simulated time after which an exchange that makes no end is stuck.
const STUCK: Duration = Duration::from_secs(600);
/// The silence of a link after which the relay says so.
const SILENCE: Duration = Duration::from_secs(3);
/// The silence after which it closes the link: the default of `timeouts.idle` for links.
const IDLE: Duration = Duration::from_secs(10);

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

/// The owner of the core's machine.
struct Host {
    now: Cell<Instant>,
    unacked: usize,
    linger: Duration,
}

impl ClientOwner for Host {
    /// The player's address, which may be another on each link.
    type Link = u8;
    type Session = SessionId;
    type Player = u8;

    fn now(&self) -> Instant {
        self.now.get()
    }

    fn rules(&self) -> OpenRules {
        OpenRules { max_per_link: 16, bind_to_player: false }
    }

    fn player(&self, address: &u8) -> u8 {
        *address
    }

    fn admit(&self, _: &u8, session: SessionId, port: u32) -> Result<AdmittedSession<SessionId>, OpenError> {
        assert_eq!(port, u32::from(PORT));
        let limits = SessionLimits {
            linger: self.linger,
            leave_grace: Duration::from_secs(3600),
            unacked: self.unacked,
            reorder: 1 << 20,
            pending: 1 << 30,
        };
        Ok(AdmittedSession { session, limits, framing: Framing::Auto, max_packets_per_second: None })
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
    /// Bytes of a first frame that is not whole yet.
    early: Vec<u8>,
    /// When the core last had a frame of it, and whether it knows that it was long ago.
    heard_at: Instant,
    silent: bool,
    /// The link, once its first frame has said whose it is.
    key: Option<LinkKey>,
}

#[derive(Default)]
struct Path {
    conn: Option<usize>,
    connects_at: Option<Instant>,
    down_until: Option<Instant>,
    /// Bytes that the core has written to its links.
    written: usize,
}

/// One session, with the truth about it.
#[derive(Default)]
struct Game {
    session: Option<SessionKey>,
    /// There has been one.
    opened: bool,
    /// The reason for which it ended, once the core has accounted for it.
    reason: Option<EndReason>,
    /// When the game server answers the connect, and whether it has.
    connects_at: Option<Instant>,
    connected: bool,
    client_sent: Vec<Vec<u8>>,
    server_got: Vec<Vec<u8>>,
    server_sent: Vec<Vec<u8>>,
    client_got: Vec<Vec<u8>>,
    /// The start of a packet that is not whole at the server yet.
    arriving: Vec<u8>,
    /// Bytes that the server got, and that the core read of it.
    taken: usize,
    read: usize,
    /// The record of it, which outlives a core that is killed.
    record: Recorded,
    /// Sent by the server, not read by the core yet.
    unread: VecDeque<u8>,
    pushed: u64,
    closed: bool,
    ended: Option<SessionStats>,
    /// The longest time without a new packet at the client, and at the server.
    down: Freeze,
    up: Freeze,
}

/// The record of a session.
#[derive(Default)]
struct Recorded {
    received: PacketId,
    written: u64,
    bytes_in: u64,
    bytes_out: u64,
    read: u64,
    framing: Option<Framing>,
    base: PacketId,
    /// Frames from this position in their stream on.
    start: u64,
    frames: Vec<u8>,
    partial: Vec<u8>,
}

/// The longest time in which nothing arrived.
#[derive(Default)]
struct Freeze {
    last: Option<Instant>,
    longest: Duration,
}

impl Freeze {
    fn arrived(&mut self, now: Instant) {
        self.longest = self.longest.max(now - self.last.unwrap_or(now));
        self.last = Some(now);
    }
}

#[derive(Debug, Clone)]
struct Setting {
    seed: u64,
    tick: Duration,
    /// Addresses that the player's links have beside the first.
    addresses: u64,
    paths: usize,
    links_per_session: usize,
    sessions: u32,
    max_delay: u64,
    room: usize,
    unacked: usize,
    echo: bool,
}

impl Setting {
    fn all(&self) -> impl Iterator<Item = SessionId> + use<> {
        (1..=self.sessions).map(SessionId)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Send {
        session: u32,
        count: usize,
        size: usize,
    },
    Push {
        session: u32,
        count: usize,
        size: usize,
    },
    Cut {
        paths: u8,
        how: u8,
        down: u64,
    },
    /// Another process goes on; the connections of these paths end with the one before.
    Restart {
        lost: u8,
    },
    /// The core is killed; the next one goes on with what was recorded. Of one game server it had read so many bytes more.
    Kill {
        more: usize,
    },
}

struct Exchange {
    setting: Setting,
    chance: Chance,
    now: Instant,
    player: PlayerCore,
    paths: Vec<Path>,
    conns: Vec<Option<Conn>>,
    games: HashMap<SessionId, Game>,
    core: core::ClientMachine<Host>,
    host: Host,
    calm: bool,
}

impl Exchange {
    fn new(setting: Setting) -> Self {
        let now = Instant::now();
        // The silence of a stalled session is no subject where the delays are as long as here.
        let silence = if setting.tick == TICK { Duration::from_secs(3600) } else { SESSION_SILENCE };
        let clocks = ClientClocks { session_silence: silence, ..ClientClocks::default() };
        let mut chance = Chance(setting.seed);
        let priorities: Vec<_> = (0..setting.paths).map(|_| chance.up_to(40) as u32 * MS).collect();
        let player = PlayerCore::new(CLIENT, priorities, setting.links_per_session, clocks, now);
        let paths = (0..setting.paths).map(|_| Path::default()).collect();
        let mut exchange = Self {
            chance,
            now,
            player,
            paths,
            conns: Vec::new(),
            games: HashMap::new(),
            core: core::ClientMachine::default(),
            host: Host { now: Cell::new(now), unacked: setting.unacked, linger: silence },
            calm: false,
            setting,
        };
        // A session's clock starts at another moment than that of the links.
        exchange.games = exchange.ids().map(|id| (id, Game::default())).collect();
        let wait = exchange.chance.up_to(2500) as u32 * MS;
        exchange.run_for(wait);
        let now = exchange.now;
        for id in 1..=exchange.setting.sessions {
            assert!(exchange.player.open(SessionId(id), PORT, now));
        }
        exchange
    }

    fn ids(&self) -> impl Iterator<Item = SessionId> + use<> {
        self.setting.all()
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
        let packet = numbered(PacketOrigin::Player, game.client_sent.len() as u64 + 1, size);
        match self.player.send(id, &packet) {
            Ok(()) => game.client_sent.push(packet),
            Err(error) => assert!(error == SendError::Full || game.ended.is_some(), "{error}"),
        }
    }

    fn push(&mut self, id: SessionId, size: usize) {
        let game = self.games.get_mut(&id).unwrap();
        if game.closed || !game.connected {
            return;
        }
        game.pushed += 1;
        let packet = numbered(PacketOrigin::Server, game.pushed, size);
        game.unread.extend(&packet);
        game.server_sent.push(packet);
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
            Step::Restart { lost } => self.restart(lost),
            Step::Kill { more } => self.kill(more),
        }
        self.tick();
    }

    /// Has the core go on as another process that read what it was: with the links of all paths but these.
    fn restart(&mut self, lost: u8) {
        for index in 0..self.conns.len() {
            let late = self.arrival();
            let Some(conn) = &mut self.conns[index] else { continue };
            // One whose first frame has not come belongs to nobody yet.
            if conn.key.is_none() || conn.dead || lost >> conn.link.0 & 1 == 1 {
                (conn.key, conn.dead) = (None, true);
                conn.client_loses_at.get_or_insert(late);
                conn.core_loses_at = Some(self.now);
            }
        }
        let before = std::mem::take(&mut self.core);
        let kept: Vec<_> = self.conns.iter().flatten().filter_map(|conn| conn.key).collect();
        let bytes = before.freeze(self.now, |link| kept.contains(&link)).to_bytes();
        // The successor begins a little later.
        self.now += self.setting.tick;
        self.host.now.set(self.now);
        let frozen = FrozenClient::from_bytes(&bytes).expect("they are whole");
        let session = |key| {
            let id = *before.session(key)?;
            let mut players = before.players(key).copied();
            let player = players.next()?;
            let AdmittedSession { session, limits, max_packets_per_second, .. } =
                self.host.admit(&player, id, PORT.into()).expect("it is let in");
            Some(ThawedSession { session, player, elsewhere: players.collect(), limits, max_packets_per_second })
        };
        let (core, over) = core::ClientMachine::thaw(frozen, self.now, |link| before.link(link).copied(), session);
        assert_eq!(over, []);
        self.core = core;
        for game in self.games.values_mut() {
            // The next process begins a record of its own.
            game.record = Recorded::default();
            game.session.into_iter().for_each(|session| Self::record(&self.core, session, &mut game.record));
        }
    }

    /// Records what of a session outlives a kill, as the relay does it: with as little copying as can be.
    fn record(core: &core::ClientMachine<Host>, session: SessionKey, record: &mut Recorded) {
        let now = core.record(session).expect("it is there");
        let (base, start) = now.base();
        let end = record.start + record.frames.len() as u64;
        now.frames(end).for_each(|piece| record.frames.extend_from_slice(piece));
        record.frames.drain(..(start - record.start) as usize);
        (record.base, record.start) = (base, start);
        assert_eq!(record.frames.len() as u64, now.end() - start);
        (record.received, record.written, record.bytes_in) = (now.received, now.written, now.bytes_in);
        (record.bytes_out, record.read, record.framing) = (now.bytes_out, now.read(), Some(now.framing));
        record.partial = now.partial.to_vec();
    }

    /// Ends the core at once, and has another one go on with what was recorded and what kernels count.
    fn kill(&mut self, mut more: usize) {
        for index in 0..self.conns.len() {
            let late = self.arrival();
            let Some(conn) = &mut self.conns[index] else { continue };
            (conn.key, conn.dead) = (None, true);
            conn.client_loses_at.get_or_insert(late);
            conn.core_loses_at = Some(self.now);
        }
        let before = std::mem::take(&mut self.core);
        self.now += self.setting.tick;
        self.host.now.set(self.now);
        let (mut sessions, mut ids) = (Vec::new(), Vec::new());
        for id in self.setting.all() {
            let game = self.games.get_mut(&id).unwrap();
            let Some(session) = game.session else { continue };
            let Recorded { received, written, bytes_in, bytes_out, read, framing, base, .. } = game.record;
            let ended = before.ended(session);
            assert_eq!(read, game.read as u64);
            let more = std::mem::take(&mut more).min(game.unread.len());
            game.read += more;
            let unread: Vec<_> = game.unread.drain(..more).collect();
            sessions.push(RecordedSession {
                id,
                received,
                written,
                taken: game.taken as u64,
                bytes_in,
                bytes_out,
                framing: framing.unwrap_or(Framing::Auto),
                header: HEADER.into(),
                base: base.max(PacketId::FIRST),
                frames: game.record.frames.clone().into(),
                partial: [&game.record.partial[..], &unread].concat().into(),
                connected: game.connected,
                ended,
            });
            ids.push((id, session));
            // The next one accounts for its end once more.
            game.reason = None;
        }
        let frozen = FrozenClient::from_bytes(&FrozenClient::recorded(sessions).to_bytes()).expect("they are whole");
        let keys: Vec<_> = frozen.sessions().map(|(_, key)| key).collect();
        let session = |key| {
            let before_it = ids[keys.iter().position(|known| *known == key)?].1;
            let id = *before.session(before_it)?;
            let mut players = before.players(before_it).copied();
            let player = players.next()?;
            let AdmittedSession { session, limits, max_packets_per_second, .. } =
                self.host.admit(&player, id, PORT.into()).expect("it is let in");
            Some(ThawedSession { session, player, elsewhere: players.collect(), limits, max_packets_per_second })
        };
        let (core, over) = core::ClientMachine::thaw(frozen, self.now, |_| None, session);
        assert_eq!(over, []);
        self.core = core;
        for ((id, _), key) in ids.into_iter().zip(keys) {
            let game = self.games.get_mut(&id).unwrap();
            game.session = Some(key);
            game.record = Recorded::default();
            self.core.game_bytes(key, &[]);
            Self::record(&self.core, key, &mut game.record);
            if game.closed && game.unread.is_empty() && game.connected {
                self.core.game_closed(key);
            }
        }
    }

    /// Cuts a path's connection; who notices when depends on `how`.
    fn cut(&mut self, path: usize, how: u8) {
        let Some(index) = self.paths[path].conn else { return };
        let late = self.now + self.chance.up_to(5000) as u32 * MS;
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
        self.now += self.setting.tick;
        self.host.now.set(self.now);
        self.losses();
        self.connects();
        if self.player.deadline().is_some_and(|at| at <= self.now) {
            self.player.tick(self.now);
        }
        for index in 0..self.conns.len() {
            self.move_up(index);
        }
        self.connect_games();
        self.read_games();
        for index in 0..self.conns.len() {
            self.move_down(index);
        }
        self.actions();
        self.events();
        self.forget();
        self.silences();
        self.serve_links();
        while self.core.poll_changed().is_some() {}
    }

    /// Accounts for sessions that have ended, and forgets them in time, as the relay does.
    fn forget(&mut self) {
        for game in self.games.values_mut() {
            let Some(session) = game.session else { continue };
            self.core.tick(session, self.now);
            if game.reason.is_none() && self.core.is_finished(session) {
                let figures = self.core.close(session, EndReason::Shutdown, self.now).unwrap();
                game.reason = figures.ended;
            }
            if game.reason.is_some() && self.core.is_over(session) {
                self.core.remove(session);
                game.session = None;
            }
        }
    }

    /// Tells the core of links that have been silent for long and closes them in the end, as the relay does.
    fn silences(&mut self) {
        for conn in self.conns.iter_mut().flatten() {
            if self.now >= conn.heard_at + IDLE {
                conn.dead = true;
                conn.core_loses_at.get_or_insert(self.now);
            }
            if let Some(link) = conn.key.filter(|_| !conn.silent && self.now >= conn.heard_at + SILENCE) {
                conn.silent = true;
                self.core.silent(link);
            }
        }
    }

    /// Closes links that the core wants closed. All of them are written to in each tick anyway.
    fn serve_links(&mut self) {
        while let Some((link, duty)) = self.core.poll_link(&self.host) {
            if duty == LinkDuty::Close {
                let at = self.arrival();
                let conn = self.conns.iter_mut().flatten().find(|conn| conn.key == Some(link)).expect("it is there");
                conn.dead = true;
                conn.core_loses_at.get_or_insert(self.now);
                conn.client_loses_at.get_or_insert(at);
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
            if conn.core_loses_at.is_some_and(|at| at <= self.now) {
                if let Some(link) = conn.key.take() {
                    self.core.lost(link, self.now);
                }
                if self.paths[conn.link.0].conn != Some(index) {
                    self.conns[index] = None;
                }
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
                early: Vec::new(),
                heard_at: self.now,
                silent: false,
                key: None,
            }));
            self.player.connected(LinkId(path), self.now);
        }
    }

    fn actions(&mut self) {
        while let Some(action) = self.player.poll_action() {
            match action {
                LinkAction::Connect(link) => self.paths[link.0].connects_at = Some(self.arrival()),
                LinkAction::Close(link) => {
                    self.paths[link.0].connects_at = None;
                    let Some(index) = self.paths[link.0].conn.take() else { continue };
                    let at = self.arrival();
                    // Nothing of it reaches the core over a link that is dead already.
                    if let Some(conn) = self.conns[index].as_mut().filter(|conn| !conn.dead) {
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
                SessionEvent::Packet(id, packet) => {
                    let game = self.games.get_mut(&id).unwrap();
                    assert!(game.ended.is_none());
                    game.client_got.push(packet.to_vec());
                    game.down.arrived(self.now);
                    let at = game.client_got.len() - 1;
                    assert!(game.client_got.get(at) == game.server_sent.get(at), "packet {} of {id}", at + 1);
                }
                SessionEvent::Ended(id, stats) => {
                    let game = self.games.get_mut(&id).unwrap();
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
        let (mut early, address) = (Vec::new(), self.chance.up_to(self.setting.addresses) as u8);
        let (link, bytes) = match conn.key {
            Some(link) => (link, piece),
            None => {
                conn.early.extend_from_slice(piece);
                let Some(client) = core::first_ping(&conn.early).expect("a ping first") else { return };
                assert_eq!(client, CLIENT);
                early.append(&mut conn.early);
                (*conn.key.insert(self.core.add_link(address)), &early[..])
            }
        };
        let mut turn = self.core.receive(link, bytes);
        while let Some(effect) = self.core.next_effect(&mut turn, &self.host) {
            match effect {
                Effect::Connect(session) => {
                    let id = *self.core.session(session).unwrap();
                    let at = self.now + self.chance.up_to(self.setting.max_delay) as u32 * MS;
                    let game = self.games.get_mut(&id).unwrap();
                    assert!(!std::mem::replace(&mut game.opened, true), "a second game connection");
                    game.session = Some(session);
                    game.connects_at = Some(at);
                }
                Effect::WriteGame { session, .. } => self.write_game(session),
                Effect::WriteLink(_) | Effect::Changed(_) | Effect::RoundTrip(_) | Effect::JoinedElsewhere(_) => {}
                // Its open was lost with the link before, and the client did not notice.
                Effect::Refused { session, error: OpenError::UnknownSession } if !self.games[&session].opened => {}
                Effect::Refused { session, error } => panic!("{error} for {session}, of a client that breaks no rule"),
                Effect::Ended { error, .. } => panic!("{error}"),
                Effect::Close(error) => panic!("{error}"),
            }
        }
        let FrameCounts { first, duplicate, .. } = turn.take_counts();
        assert!(turn.heard() || (first, duplicate) == (0, 0));
        if turn.heard() {
            conn.heard_at = self.now;
            if std::mem::take(&mut conn.silent) {
                self.core.heard(link);
            }
        }
    }

    /// Takes the core's bytes for a game server, cut anywhere.
    fn write_game(&mut self, session: SessionKey) {
        let mut room = if self.calm { usize::MAX } else { self.chance.up_to(2000) as usize };
        let mut got = Vec::new();
        let full = self.core.write_game(
            session,
            || self.now,
            |_, bytes| {
                let part = &bytes[..bytes.len().min(room)];
                got.extend_from_slice(part);
                room -= part.len();
                if part.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(part.len()) }
            },
        );
        assert!(!full || room == 0);
        let id = *self.core.session(session).unwrap();
        let game = self.games.get_mut(&id).unwrap();
        let header = HEADER.len().saturating_sub(game.taken).min(got.len());
        assert_eq!(got[..header], HEADER[HEADER.len().min(game.taken)..][..header]);
        game.taken += got.len();
        game.arriving.extend(&got[header..]);
        while let Some((packet, rest)) = split(&game.arriving) {
            if self.setting.echo && !game.closed {
                game.server_sent.push(packet.to_vec());
                game.unread.extend(packet);
            }
            game.server_got.push(packet.to_vec());
            game.up.arrived(self.now);
            game.arriving = rest.to_vec();
        }
    }

    /// Game servers answer, and take more of what waits for them.
    fn connect_games(&mut self) {
        for id in self.ids() {
            let game = self.games.get_mut(&id).unwrap();
            let Some(session) = game.session else { continue };
            if game.connects_at.is_some_and(|at| at <= self.now) {
                game.connects_at = None;
                game.connected = true;
                self.core.connected(session, HEADER);
            }
            self.write_game(session);
        }
    }

    /// Has the core read its game connections, cut anywhere.
    fn read_games(&mut self) {
        for id in self.ids() {
            let reads = 1 + self.chance.up_to(2);
            let game = self.games.get_mut(&id).unwrap();
            let Some(session) = game.session.filter(|_| game.connected) else { continue };
            for _ in 0..reads {
                if !self.core.wants_game_data(session) {
                    break;
                }
                let most = self.chance.up_to(800) as usize;
                let bytes: Vec<u8> = game.unread.drain(..most.min(game.unread.len())).collect();
                game.read += bytes.len();
                let framed = self.core.game_bytes(session, &bytes);
                assert_eq!(framed.error, None);
                Self::record(&self.core, session, &mut game.record);
                if game.closed && game.unread.is_empty() {
                    self.core.game_closed(session);
                }
            }
        }
    }

    /// From the core's sessions to the client.
    fn move_down(&mut self, index: usize) {
        let Some(mut conn) = self.conns[index].take() else { return };
        let mut room = self.room(conn.down.bytes);
        let mut out = Vec::new();
        if let Some(link) = conn.key {
            let written = self.core.write_link(link, |_, slices| {
                let mut taken = 0;
                for slice in slices {
                    let part = &slice[..slice.len().min(room)];
                    out.extend_from_slice(part);
                    (room, taken) = (room - part.len(), taken + part.len());
                }
                if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            });
            assert_eq!(written.unwrap().bytes, out.len() as u64);
            self.paths[conn.link.0].written += out.len();
        }
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
            g.connected
                && g.unread.is_empty()
                && g.server_got.len() == g.client_sent.len()
                && g.client_got.len() == g.server_sent.len()
        }) {
            assert!(self.now < until, "stuck: {:?}", self.counts());
            self.run_for(25 * TICK);
            // Clients acknowledge with packets only: without one now and then, nothing moves. Nor does anything tell the core
            // of a session whose open was lost with a link that the client has back before it looks.
            if !self.games.values().all(|g| g.opened && g.unread.is_empty()) {
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
            let figures = self.core.figures(game.session.unwrap()).unwrap();
            assert_eq!((figures.ended, figures.reorder), (None, 0));
            assert!(figures.unacked <= 3 * (HEADER_LEN + 20), "{}", figures.unacked);
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
        let (cut_until, until) = (self.now + STUCK / 2, self.now + STUCK);
        while !self.games.values().all(|g| g.ended.is_some()) {
            assert!(self.now < until, "no end: {:?}", self.counts());
            // Links break while the client is told, too.
            if self.now < cut_until && self.chance.up_to(20) == 0 {
                let (paths, how, down) = (self.chance.next() as u8, self.chance.next() as u8, self.chance.up_to(5000));
                self.step(&Step::Cut { paths, how, down });
            }
            for id in self.ids() {
                let game = self.games.get_mut(&id).unwrap();
                if !game.unread.is_empty() {
                    // A client that acknowledges what came, so that the rest is read.
                    let _ = self.player.send(id, &numbered(PacketOrigin::Player, 1, 20));
                }
            }
            self.run_for(25 * TICK);
        }
        for game in self.games.values() {
            let stats = game.ended.unwrap();
            assert!(game.client_got == game.server_sent, "all data before the end: {:?}", self.counts());
            assert_eq!(stats.ended, Some(PlayerEnd::Core));
            assert_eq!((stats.gaps, stats.miscut, stats.bad_acks), (0, 0, 0));
            assert_eq!(game.reason, Some(EndReason::GameClosed));
        }
    }
}

fn play(setting: Setting, steps: &[Step]) -> Exchange {
    let mut exchange = Exchange::new(setting);
    exchange.run_for(50 * TICK);
    steps.iter().for_each(|step| exchange.step(step));
    exchange.check();
    exchange
}

fn setting() -> impl Strategy<Value = Setting> {
    let room = prop_oneof![50usize..400, 2000usize..20_000];
    let unacked = prop_oneof![Just(300usize), 2000usize..8000, Just(1 << 20)];
    (any::<u64>(), 1usize..=4, 1usize..=3, 1u32..=2, 0u64..=1250, room, unacked, any::<bool>()).prop_map(
        |(seed, paths, links_per_session, sessions, max_delay, room, unacked, echo)| Setting {
            seed,
            tick: TICK,
            addresses: ADDRESSES,
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
        3 => (0u64..3750).prop_map(Step::Wait),
        2 => (any::<u32>(), 1usize..12, size()).prop_map(|(session, count, size)| Step::Send { session, count, size }),
        2 => (any::<u32>(), 1usize..12, size()).prop_map(|(session, count, size)| Step::Push { session, count, size }),
        2 => (any::<u8>(), any::<u8>(), 0u64..5000).prop_map(|(paths, how, down)| Step::Cut { paths, how, down }),
        1 => any::<u8>().prop_map(|lost| Step::Restart { lost }),
        1 => prop_oneof![Just(0), 0usize..2000].prop_map(|more| Step::Kill { more }),
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
    tick: TICK,
    addresses: ADDRESSES,
    paths: 3,
    links_per_session: 2,
    sessions: 1,
    max_delay: 500,
    room: 4000,
    unacked: 1 << 20,
    echo: true,
};

#[test]
fn the_core_is_restarted_again_and_again() {
    // The links are lost, all but one, or none of them.
    for lost in [0xFF, 0b110, 0] {
        let mut steps = Vec::new();
        for _ in 0..10 {
            steps.push(Step::Send { session: 0, count: 5, size: 60 });
            steps.push(Step::Push { session: 0, count: 5, size: 400 });
            steps.push(Step::Restart { lost });
            steps.push(Step::Send { session: 0, count: 5, size: 60 });
            steps.push(Step::Wait(3750));
            steps.push(Step::Restart { lost });
            steps.push(Step::Restart { lost });
        }
        play(PLAIN, &steps).close(5);
    }
}

#[test]
fn the_core_is_killed_again_and_again() {
    for more in [0, 7, 300] {
        let mut steps = Vec::new();
        for _ in 0..10 {
            steps.push(Step::Send { session: 0, count: 5, size: 60 });
            steps.push(Step::Push { session: 0, count: 5, size: 400 });
            steps.push(Step::Kill { more });
            steps.push(Step::Send { session: 0, count: 5, size: 60 });
            steps.push(Step::Push { session: 0, count: 5, size: 400 });
            steps.push(Step::Wait(3750));
            steps.push(Step::Kill { more });
            steps.push(Step::Restart { lost: 0 });
            steps.push(Step::Kill { more });
        }
        play(PLAIN, &steps).close(5);
    }
}

#[test]
fn all_paths_cut_at_once_and_back_again() {
    for how in 0..4 {
        let mut steps = Vec::new();
        for _ in 0..10 {
            steps.push(Step::Send { session: 0, count: 5, size: 60 });
            steps.push(Step::Push { session: 0, count: 5, size: 400 });
            steps.push(Step::Wait(375));
            steps.push(Step::Cut { paths: 0xFF, how, down: 2500 });
            steps.push(Step::Send { session: 0, count: 5, size: 60 });
            steps.push(Step::Wait(7500));
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
    let steps = [Step::Push { session: 0, count: 200, size: 100 }, Step::Wait(12_500)];
    let mut exchange = Exchange::new(setting);
    exchange.run_for(50 * TICK);
    steps.iter().for_each(|step| exchange.step(step));
    let unread = exchange.games[&SessionId(1)].unread.len();
    assert!(unread > 180 * 100, "nobody acknowledged, and {unread} bytes of 200 packets are unread");
    exchange.check();
    exchange.close(50);
}

#[test]
fn two_links_bring_everything_twice_and_the_client_takes_it_once() {
    let steps = [Step::Wait(7500), Step::Push { session: 0, count: 50, size: 50 }, Step::Wait(12_500)];
    let exchange = play(PLAIN, &steps);
    let stats = exchange.player.session_stats(SessionId(1)).unwrap();
    assert!(stats.links == 2 && stats.duplicates >= 40, "{stats:?}");
}

/// A player at an ordinary distance, with the clients' own clocks, its game server pushing ten packets a second.
fn player(seed: u64, paths: usize, addresses: u64, plays: bool) -> Exchange {
    let setting = Setting { seed, tick: 10 * MS, addresses, paths, max_delay: 20, room: 100_000, echo: false, ..PLAIN };
    let mut exchange = Exchange::new(setting);
    exchange.run_for(200 * MS);
    play_for(&mut exchange, Duration::from_secs(8), plays);
    exchange
}

/// Has the game server push, and the player press keys if it `plays`. One that does not answers the game server's ping
/// every five seconds, as all clients do.
fn play_for(exchange: &mut Exchange, time: Duration, plays: bool) {
    let (id, every) = (SessionId(1), if plays { 15 } else { 500 });
    for turn in 0..time.as_millis() / 10 {
        if turn % 10 == 0 {
            exchange.push(id, 40);
        }
        if turn % every == every - 1 {
            exchange.send(id, 20);
        }
        exchange.run_for(10 * MS);
    }
}

/// Plays through resets of all links in one moment. Returns whether the session was lost, and the longest time in which
/// nothing new came to the client and to the game server.
fn after_resets(seed: u64, paths: usize, addresses: u64, plays: bool, resets: usize) -> (bool, Duration, Duration) {
    let mut exchange = player(seed, paths, addresses, plays);
    for _ in 0..resets {
        (0..paths).for_each(|path| exchange.cut(path, 0));
        let time = 8000 + exchange.chance.up_to(2500);
        play_for(&mut exchange, time as u32 * MS, plays);
    }
    // As long as a session without links lives.
    play_for(&mut exchange, Duration::from_secs(35), plays);
    let game = &exchange.games[&SessionId(1)];
    let lost = game.ended.is_some() || game.reason.is_some();
    (lost, game.down.longest, game.up.longest)
}

/// When edges are restarted, or a router resets what it forwards, one player in ten has its links back before it looks
/// at its session: it counts them as joined and never opens them again.
#[test]
fn nobody_is_lost_when_all_links_break_in_one_moment() {
    let most = 2700 * MS;
    let cases = [
        (2, 0, true, 1, most),
        (2, 0, false, 1, most),
        (3, 0, true, 1, most),
        (3, 0, false, 1, most),
        (2, 0, true, 3, most),
        (3, 0, false, 3, most),
        // To a new address nothing is lent before the client names its session from there.
        (2, 200, true, 1, 3300 * MS),
        (2, 200, false, 1, 5600 * MS),
    ];
    for (paths, addresses, plays, resets, most) in cases {
        let outcome = |seed| after_resets(seed, paths, addresses, plays, resets);
        let outcomes: Vec<_> = (0..60).map(outcome).collect();
        let lost = outcomes.iter().filter(|(lost, ..)| *lost).count();
        let longest = |of: fn(&(bool, Duration, Duration)) -> Duration| outcomes.iter().map(of).max().unwrap();
        let (down, up) = (longest(|(_, down, _)| *down), longest(|(.., up)| *up));
        println!(
            "{paths} paths, {addresses} addresses, plays {plays}, {resets} resets: {lost} lost, down {down:?}, up {up:?}"
        );
        assert_eq!(lost, 0, "{paths} paths, plays {plays}, {resets} resets");
        // Until a client connects again. It opens half a second and a round trip later.
        assert!(down <= most, "{down:?} without a packet for the client");
        assert!(!plays || up <= 3300 * MS, "{up:?} without a packet for the game server");
    }
}

/// A client that opens its session on its only link just before that breaks may have the link back before it looks. It
/// counts it as joined, and never opens the session that the core has never seen.
#[test]
fn a_session_begins_though_its_open_was_lost_with_the_link() {
    let mut without_open = 0;
    for seed in 0..60 {
        let setting =
            Setting { seed, tick: 10 * MS, addresses: 0, paths: 1, max_delay: 20, room: 100_000, echo: false, ..PLAIN };
        let mut exchange = Exchange::new(setting);
        exchange.cut(0, 0);
        // One that notices opens its session within a look at the links, one at the session, and the way there.
        play_for(&mut exchange, Duration::from_secs(4), true);
        if !exchange.games[&SessionId(1)].opened {
            assert_eq!(exchange.player.session_stats(SessionId(1)).unwrap().joins, 1);
            without_open += 1;
        }
        exchange.check();
        exchange.close(5);
    }
    assert!(without_open >= 5, "{without_open} of 60 were back before they looked");
}

/// A client waits for ten seconds until it gives up links that are dead. Meanwhile it takes packets over any other.
#[test]
fn a_third_link_carries_on_where_both_of_a_session_fall_silent() {
    let (mut down, mut up, mut cost) = (Duration::ZERO, Duration::ZERO, 0);
    for seed in 0..60 {
        let mut exchange = player(seed, 3, 0, true);
        let dead = exchange.player.session_links(SessionId(1)).to_vec();
        assert_eq!(dead.len(), 2);
        for link in &dead {
            let path = &mut exchange.paths[link.0];
            path.down_until = Some(exchange.now + Duration::from_secs(3600));
            exchange.conns[path.conn.unwrap()].as_mut().unwrap().dead = true;
        }
        let third = (0..3).find(|path| !dead.contains(&LinkId(*path))).unwrap();
        let before = exchange.paths[third].written;
        play_for(&mut exchange, Duration::from_secs(20), true);
        let game = &exchange.games[&SessionId(1)];
        assert!(game.ended.is_none());
        assert_eq!(exchange.player.session_links(SessionId(1)), [LinkId(third)]);
        down = down.max(game.down.longest);
        up = up.max(game.up.longest);
        cost = cost.max(exchange.paths[third].written - before);
        exchange.check();
    }
    println!("down {down:?}, up {up:?}, {cost} bytes over the third link in 20 seconds");
    // Each packet once, and pongs.
    assert!(cost <= 200 * (HEADER_LEN + 40) + 9 * PONG.len(), "{cost} bytes");
    assert!(down <= SILENCE + 200 * MS, "{down:?} without a packet for the client");
}

/// Edges that are all ended in an orderly way close their links within [`LAST_SPREAD`], and begin anew once they have ended.
#[test]
fn edges_that_all_end_at_once_cost_no_more_than_if_they_were_killed() {
    for seed in 0..60 {
        let mut exchange = player(seed, 3, 0, true);
        let back = exchange.now + LAST_SPREAD;
        for path in 0..3 {
            exchange.paths[path].down_until = Some(back);
            exchange.cut(path, 0);
            play_for(&mut exchange, LAST_SPREAD / 3, true);
        }
        play_for(&mut exchange, Duration::from_secs(10), true);
        let game = &exchange.games[&SessionId(1)];
        assert!(game.ended.is_none());
        let most = 2700 * MS + LAST_SPREAD;
        assert!(game.down.longest <= most, "{:?} without a packet for the client", game.down.longest);
    }
}
