//! The player's side: any bytes of a core, in any pieces, on links that come and go.
//!
//! Two players are told the same, one of them in pieces: they must do the same. And each packet for
//! the game must be the one that a plain reading of the bytes says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use otproxy_protocol::frame::{ClientId, Frame, FromCore, PONG, SessionId, data_header, end};
use otproxy_protocol::player::machine::{LinkAction, MAX_OUTPUT, SessionEvent};
use otproxy_protocol::player::{ClientClocks, ClientEndReason, LinkId, PathStats, PlayerCore};

use super::pieces::Pieces;

/// Paths of the player.
const LINKS: usize = 3;
/// Its session ids are 1 to this.
const SESSIONS: u32 = 2;

/// The events, each followed by its arguments.
pub mod event {
    /// LINK: the connection stands.
    pub const CONNECTED: u8 = 0;
    /// LINK: it is gone.
    pub const LOST: u8 = 1;
    /// LINK COUNT, and so many bytes: they arrive.
    pub const BYTES: u8 = 2;
    /// LINK: a pong arrives.
    pub const PONG: u8 = 3;
    /// LINK SESSION u32 u32 COUNT, and so many bytes: a packet, an ack and a payload arrive.
    pub const DATA: u8 = 4;
    /// LINK SESSION: an end arrives.
    pub const END: u8 = 5;
    /// u16: so many milliseconds pass.
    pub const WAIT: u8 = 6;
    /// SESSION: the player opens it.
    pub const OPEN: u8 = 7;
    /// SESSION LENGTH: it sends a packet.
    pub const SEND: u8 = 8;
    /// SESSION: it leaves.
    pub const LEAVE: u8 = 9;
    /// LINK LENGTH: so much of its output is written.
    pub const WROTE: u8 = 10;
    /// The number of kinds.
    pub const COUNT: u8 = 11;
}

/// Takes [`Pieces`], then events.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(pieces) = Pieces::take(&mut input) else { return };
    let start = Instant::now();
    let player = || {
        let priorities = (0..LINKS as u64).map(|n| Duration::from_millis(n * 10));
        PlayerCore::new(ClientId(7), priorities, 2, ClientClocks::default(), start)
    };
    let mut pair = Pair {
        now: start,
        whole: player(),
        cut: player(),
        pieces,
        streams: Default::default(),
        received: BTreeMap::new(),
        expected: Vec::new(),
    };
    while !input.is_empty() && pair.event(&mut input).is_ok() {
        pair.check();
    }
}

struct Pair {
    now: Instant,
    whole: PlayerCore,
    cut: PlayerCore,
    pieces: Pieces,
    /// Incomplete frames of each connection.
    streams: [Vec<u8>; LINKS],
    /// The last packet received of each session that is open.
    received: BTreeMap<SessionId, u32>,
    /// The events that must occur.
    expected: Vec<(SessionId, Option<Vec<u8>>)>,
}

impl Pair {
    fn event(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.arbitrary::<u8>()? % event::COUNT {
            event::CONNECTED => {
                let link = link(input)?;
                self.both(|player, now| player.connected(link, now));
            }
            event::LOST => {
                let link = link(input)?;
                self.both(|player, _| player.lost(link));
                self.streams[link.0].clear();
            }
            event::BYTES => {
                let link = link(input)?;
                let count = usize::from(input.arbitrary::<u8>()?).min(input.len());
                self.arrive(link, input.bytes(count)?);
            }
            event::PONG => self.arrive(link(input)?, &PONG),
            event::DATA => {
                let (link, session) = (link(input)?, session(input)?);
                let (packet, ack) = (input.arbitrary::<u32>()?, input.arbitrary::<u32>()?);
                let count = usize::from(input.arbitrary::<u8>()?).min(input.len());
                let payload = input.bytes(count)?;
                let [packet, ack] = [packet, ack].map(otproxy_protocol::frame::PacketId);
                self.arrive(link, &[&data_header(session, packet, ack, count), payload].concat());
            }
            event::END => {
                let (link, session) = (link(input)?, session(input)?);
                self.arrive(link, &end(session));
            }
            event::WAIT => {
                self.now += Duration::from_millis(input.arbitrary::<u16>()?.into());
                self.both(|player, now| player.tick(now));
            }
            event::OPEN => {
                let session = session(input)?;
                let opened = self.whole.open(session, 7172, self.now);
                assert_eq!(self.cut.open(session, 7172, self.now), opened);
                assert_eq!(opened, !self.received.contains_key(&session));
                self.received.entry(session).or_insert(0);
            }
            event::SEND => {
                let (session, length) = (session(input)?, input.arbitrary::<u8>()?);
                let packet = vec![length; usize::from(length) * 50];
                let sent = self.whole.send(session, &packet);
                assert_eq!(self.cut.send(session, &packet), sent);
                assert!(sent.is_err() || self.received.contains_key(&session));
            }
            event::LEAVE => {
                let session = session(input)?;
                self.both(|player, _| player.leave(session));
                self.over(session);
            }
            _ => {
                let (link, length) = (link(input)?, input.arbitrary::<u8>()?);
                self.both(|player, _| player.wrote(link, length.into()));
            }
        }
        Ok(())
    }

    fn both(&mut self, tell: impl Fn(&mut PlayerCore, Instant)) {
        tell(&mut self.whole, self.now);
        tell(&mut self.cut, self.now);
    }

    fn over(&mut self, session: SessionId) {
        if self.received.remove(&session).is_some() {
            self.expected.push((session, None));
        }
    }

    fn arrive(&mut self, link: LinkId, bytes: &[u8]) {
        let connected = self.whole.path_stats().nth(link.0).is_some_and(|path| path.connected);
        self.whole.bytes(link, bytes, self.now);
        for piece in self.pieces.of(bytes) {
            self.cut.bytes(link, piece, self.now);
        }
        if !connected {
            return;
        }
        let mut stream = std::mem::take(&mut self.streams[link.0]);
        stream.extend_from_slice(bytes);
        let mut rest = &stream[..];
        loop {
            match Frame::split(rest) {
                Ok(Some((frame, next))) => {
                    rest = next;
                    self.frame(frame);
                }
                Ok(None) => break self.streams[link.0] = rest.to_vec(),
                // The link is dropped, and what was left of it with it.
                Err(_) => {
                    let path = self.whole.path_stats().nth(link.0).expect("a path");
                    assert!(!path.connected, "what is no frame drops the link");
                    break;
                }
            }
        }
    }

    fn frame(&mut self, frame: Frame<'_>) {
        match frame.from_core() {
            Some(FromCore::Data { session, packet, payload, .. }) => {
                if let Some(received) = self.received.get_mut(&session)
                    && packet.0 == *received + 1
                {
                    *received += 1;
                    self.expected.push((session, Some(payload.to_vec())));
                }
            }
            Some(FromCore::End { session }) => self.over(session),
            Some(FromCore::Pong) | None => {}
        }
    }

    fn check(&mut self) {
        let mut happened = Vec::new();
        loop {
            let event = self.whole.poll_event();
            assert_eq!(self.cut.poll_event(), event);
            match event {
                Some(SessionEvent::Packet(session, packet)) => happened.push((session, Some(packet.to_vec()))),
                Some(SessionEvent::Ended(session, stats)) => {
                    // Time ends sessions too.
                    if stats.ended == Some(ClientEndReason::Silence) {
                        self.over(session);
                    }
                    happened.push((session, None));
                }
                None => break,
            }
        }
        assert_eq!(happened, std::mem::take(&mut self.expected));
        loop {
            let action = self.whole.poll_action();
            assert_eq!(self.cut.poll_action(), action);
            match action {
                Some(LinkAction::Close(link)) => self.streams[link.0].clear(),
                Some(LinkAction::Connect(_)) => {}
                None => break,
            }
        }
        for link in (0..LINKS).map(LinkId) {
            assert_eq!(self.whole.output(link), self.cut.output(link));
            assert!(self.whole.output(link).len() <= MAX_OUTPUT);
        }
        // Bytes after a wrong one are read with it, or not at all.
        let counts = |player: &PlayerCore| {
            let paths = player.path_stats();
            paths.map(|path| PathStats { bytes_received: 0, ..path }).collect::<Vec<_>>()
        };
        assert_eq!(counts(&self.whole), counts(&self.cut));
        assert_eq!(self.whole.deadline(), self.cut.deadline());
        for session in (1..=SESSIONS).map(SessionId) {
            assert_eq!(self.whole.session_stats(session), self.cut.session_stats(session));
            assert_eq!(self.whole.session_stats(session).is_some(), self.received.contains_key(&session));
        }
    }
}

fn link(input: &mut Unstructured<'_>) -> Result<LinkId> {
    Ok(LinkId(usize::from(input.arbitrary::<u8>()?) % LINKS))
}

fn session(input: &mut Unstructured<'_>) -> Result<SessionId> {
    Ok(SessionId(u32::from(input.arbitrary::<u8>()?) % SESSIONS + 1))
}
