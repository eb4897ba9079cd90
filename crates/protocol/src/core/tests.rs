//! Each decision of the machine, with frames that come whole and byte by byte.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use super::*;
use crate::frame::{self, ClientId, FrameError, PONG, PacketId, SessionId};
use crate::game_packet::{Framing, GamePacketError};

mod lend;

const CLIENT: ClientId = ClientId(7);
const PORT: u16 = 7172;
const S: SessionId = SessionId(1);
const OTHER: SessionId = SessionId(2);
const MS: Duration = Duration::from_millis(1);
const LIMITS: SessionLimits = SessionLimits {
    linger: Duration::from_secs(30),
    leave_grace: Duration::from_secs(2),
    unacked: 1000,
    reorder: 200,
    pending: 100,
};

struct Host {
    now: Cell<Instant>,
    rules: Cell<OpenRules>,
    full: Cell<Option<OpenError>>,
    asked: RefCell<Vec<(SessionId, u32)>>,
    max_packets_per_second: Cell<Option<u32>>,
}

impl ClientOwner for Host {
    /// The player.
    type Link = u8;
    type Session = SessionId;
    type Player = u8;

    fn now(&self) -> Instant {
        self.now.get()
    }

    fn rules(&self) -> OpenRules {
        self.rules.get()
    }

    fn player(&self, link: &u8) -> u8 {
        *link
    }

    fn admit(&self, _link: &u8, session: SessionId, port: u32) -> Result<AdmittedSession<SessionId>, OpenError> {
        self.asked.borrow_mut().push((session, port));
        let max_packets_per_second = self.max_packets_per_second.get();
        match self.full.get() {
            Some(error) => Err(error),
            None => Ok(AdmittedSession { session, limits: LIMITS, framing: Framing::Bytes, max_packets_per_second }),
        }
    }
}

/// A client's machine whose links take all that is written.
struct World {
    host: Host,
    client: ClientMachine<Host>,
    /// Bytes that arrive at once.
    step: usize,
    counts: FrameCounts,
}

/// Runs a test with frames that come whole, and byte by byte.
fn both(test: impl Fn(World)) {
    for step in [usize::MAX, 1] {
        let host = Host {
            now: Cell::new(Instant::now()),
            rules: Cell::new(OpenRules { max_per_link: 3, bind_to_player: true }),
            full: Cell::new(None),
            asked: RefCell::default(),
            max_packets_per_second: Cell::new(None),
        };
        test(World { host, client: ClientMachine::default(), step, counts: FrameCounts::default() });
    }
}

impl World {
    fn link(&mut self) -> LinkKey {
        self.client.add_link(1)
    }

    fn pass(&self, time: Duration) -> Instant {
        self.host.now.set(self.host.now.get() + time);
        self.host.now.get()
    }

    /// Brings bytes over a link; returns what is to be done, but for writing on that link.
    fn send(&mut self, link: LinkKey, bytes: &[u8]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for piece in bytes.chunks(self.step.min(bytes.len()).max(1)) {
            let mut turn = self.client.receive(link, piece);
            while let Some(effect) = self.client.next_effect(&mut turn, &self.host) {
                if effect != Effect::WriteLink(link) {
                    effects.push(effect);
                }
            }
            let FrameCounts { first, duplicate, freed } = turn.take_counts();
            self.counts.first += first;
            self.counts.duplicate += duplicate;
            self.counts.freed += freed;
        }
        effects
    }

    /// Opens a session that is new.
    fn open(&mut self, link: LinkKey, id: SessionId) -> SessionKey {
        match self.send(link, &frame::open(id, PORT))[..] {
            [Effect::Connect(session)] => session,
            ref effects => panic!("{effects:?}"),
        }
    }

    /// Opens a session whose game server answers at once.
    fn play(&mut self, link: LinkKey, id: SessionId) -> SessionKey {
        let session = self.open(link, id);
        self.client.connected(session, b"");
        session
    }

    /// Joins a link to a session that there is.
    fn join(&mut self, link: LinkKey, id: SessionId) {
        assert_eq!(self.send(link, &frame::open(id, PORT)), []);
    }

    fn refused(&mut self, link: LinkKey, bytes: &[u8], session: SessionId, error: OpenError) {
        assert_eq!(self.send(link, bytes), [Effect::Refused { session, error }]);
    }

    /// Takes all that a link has to write.
    fn read(&mut self, link: LinkKey) -> Vec<u8> {
        let mut out = Vec::new();
        let written = self.client.write_link(link, |_, slices: &[IoSlice<'_>]| {
            slices.iter().for_each(|slice| out.extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        });
        assert_eq!(written.unwrap().bytes, out.len() as u64);
        out
    }

    /// Takes all that a game server gets.
    fn game_reads(&mut self, session: SessionKey) -> Vec<u8> {
        let mut out = Vec::new();
        let now = || self.host.now.get();
        let full = self.client.write_game(session, now, |_, bytes| {
            out.extend_from_slice(bytes);
            Ok(bytes.len())
        });
        assert!(!full);
        out
    }

    fn changed(&mut self) -> Vec<SessionKey> {
        std::iter::from_fn(|| self.client.poll_changed()).collect()
    }

    fn figures(&self, session: SessionKey) -> SessionFigures {
        self.client.figures(session).unwrap()
    }
}

fn data(id: SessionId, packet: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    [&frame::data_header(id, PacketId(packet), PacketId(ack), payload.len())[..], payload].concat()
}

fn writes(session: SessionKey, packets: u32) -> Effect {
    Effect::WriteGame { session, packets }
}

#[test]
fn an_open_asks_the_owner_and_has_it_connect() {
    both(|mut world| {
        let link = world.link();
        let session = world.open(link, S);
        assert_eq!(world.host.asked.take(), [(S, u32::from(PORT))]);
        assert_eq!(world.client.session(session), Some(&S));
        assert_eq!((world.client.links_of(session, 0), world.client.links_of(session, 1)), (Some(link), None));
        assert_eq!((world.figures(session).phase, world.figures(session).connecting), (SessionPhase::Carried, true));
        assert_eq!(world.read(link), b"");
    });
}

#[test]
fn what_the_owner_does_not_let_in_is_refused_and_the_client_is_told() {
    both(|mut world| {
        let link = world.link();
        world.host.full.set(Some(OpenError::SessionLimit));
        world.refused(link, &frame::open(S, PORT), S, OpenError::SessionLimit);
        assert_eq!(world.read(link), frame::end(S));
        assert_eq!(world.client.sessions().count(), 0);
        world.host.full.set(None);
        world.open(link, S);
    });
}

#[test]
fn an_open_of_what_the_link_carries_changes_nothing() {
    both(|mut world| {
        let link = world.link();
        world.open(link, S);
        world.host.asked.take();
        world.join(link, S);
        assert_eq!((world.host.asked.take(), world.client.carried_by(link)), (vec![], 1));
    });
}

#[test]
fn a_link_that_joins_gets_what_is_not_acknowledged() {
    both(|mut world| {
        let (first, second) = (world.link(), world.link());
        let session = world.play(first, S);
        world.client.game_bytes(session, b"\x01\0a\x01\0b");
        assert_eq!(world.read(first), [data(S, 1, 0, b"\x01\0a"), data(S, 2, 0, b"\x01\0b")].concat());
        assert_eq!(world.send(first, &data(S, 1, 1, b"x")), [writes(session, 1)]);
        world.join(second, S);
        assert_eq!(world.read(second), data(S, 2, 0, b"\x01\0b"));
        assert_eq!(world.read(first), b"");
    });
}

#[test]
fn a_link_of_another_player_is_refused_where_sessions_are_bound_to_players() {
    both(|mut world| {
        let (link, other) = (world.link(), world.client.add_link(2));
        let session = world.play(link, S);
        world.refused(other, &data(S, 1, 0, b"not mine"), S, OpenError::Identity);
        world.refused(other, &frame::open(S, PORT), S, OpenError::Identity);
        assert_eq!(world.send(other, &data(S, 1, 0, b"not mine")), [], "the client takes it for one that has joined");
        assert_eq!(world.read(other), b"", "an end on any link would be the end of the game");
        assert_eq!(world.send(link, &data(S, 1, 0, b"mine")), [writes(session, 1)]);
        world.host.rules.set(OpenRules { bind_to_player: false, ..world.host.rules() });
        assert_eq!(world.send(other, &frame::open(S, PORT)), [Effect::JoinedElsewhere(session)]);
        world.client.end(session, EndReason::GameClosed);
        world.read(link);
        world.host.rules.set(OpenRules { bind_to_player: true, ..world.host.rules() });
        let third = world.client.add_link(3);
        world.refused(third, &frame::open(S, PORT), S, OpenError::Identity);
        assert_eq!(world.read(third), frame::end(S), "it is over");
    });
}

#[test]
fn a_session_goes_on_from_any_address_and_from_so_many_at_once() {
    both(|mut world| {
        world.host.rules.set(OpenRules { bind_to_player: false, ..world.host.rules() });
        let link = world.link();
        let session = world.play(link, S);
        let join = |world: &mut World, player| {
            let link = world.client.add_link(player);
            (link, world.send(link, &frame::open(S, PORT)))
        };
        let (second, joined) = join(&mut world, 2);
        assert_eq!(joined, [Effect::JoinedElsewhere(session)]);
        assert_eq!(join(&mut world, 2).1, [], "it is known");
        assert_eq!(join(&mut world, 1).1, []);
        world.client.game_bytes(session, b"\x01\0a");
        assert_eq!(world.read(second), data(S, 1, 0, b"\x01\0a"));
        assert_eq!(world.send(second, &data(S, 1, 1, b"on")), [writes(session, 1)]);
        for player in 3..=MAX_ADDRESSES as u8 {
            assert_eq!(join(&mut world, player).1, [Effect::JoinedElsewhere(session)]);
        }
        let (over, refused) = join(&mut world, 100);
        assert_eq!(refused, [Effect::Refused { session: S, error: OpenError::SessionAddresses }]);
        assert_eq!(world.read(over), b"", "the game goes on");
        // An address that no link has any more makes room, whatever its place.
        let now = world.host.now.get();
        let fourth = world.client.links_of(session, 5).unwrap();
        assert_eq!(world.client.lost(fourth, now), Some(4));
        assert_eq!(join(&mut world, 100).1, [Effect::JoinedElsewhere(session)]);
        assert_eq!(join(&mut world, 3).1, []);
        assert_eq!(world.client.ended(session), None);
    });
}

#[test]
fn no_refusal_of_a_join_is_an_end_of_the_game() {
    both(|mut world| {
        let link = world.link();
        world.play(link, S);
        let full = world.link();
        for id in 11..=13 {
            world.open(full, SessionId(id));
        }
        world.refused(full, &frame::open(S, PORT), S, OpenError::LinkSessions);
        world.refused(full, &frame::open(S, PORT), S, OpenError::LinkSessions);
        assert_eq!(world.send(full, &data(S, 1, 0, b"x")), []);
        assert_eq!(world.read(full), b"");
        world.send(full, &frame::end(SessionId(11)));
        world.join(full, S);
        world.refused(full, &frame::open(SessionId(99), PORT), SessionId(99), OpenError::LinkSessions);
        assert_eq!(world.read(full), frame::end(SessionId(99)), "nothing of it goes on");
    });
}

#[test]
fn a_link_carries_so_many_sessions_and_one_that_left_makes_room() {
    both(|mut world| {
        let link = world.link();
        for id in 1..=3 {
            world.open(link, SessionId(id));
        }
        world.refused(link, &frame::open(SessionId(4), PORT), SessionId(4), OpenError::LinkSessions);
        world.send(link, &frame::end(OTHER));
        world.open(link, SessionId(4));
    });
}

#[test]
fn a_session_has_so_many_links_and_one_that_left_makes_room() {
    both(|mut world| {
        let links: Vec<_> = (0..=MAX_LINKS).map(|_| world.link()).collect();
        let session = world.open(links[0], S);
        for &link in &links[1..MAX_LINKS] {
            world.join(link, S);
        }
        world.refused(links[MAX_LINKS], &frame::open(S, PORT), S, OpenError::SessionLinks);
        assert_eq!(world.read(links[MAX_LINKS]), b"");
        assert_eq!(world.send(links[0], &frame::end(S)), [Effect::Changed(session)]);
        world.join(links[MAX_LINKS], S);
    });
}

#[test]
fn packets_reach_the_game_server_once_and_in_order() {
    both(|mut world| {
        let (first, second) = (world.link(), world.link());
        let session = world.play(first, S);
        world.join(second, S);
        assert_eq!(world.send(first, &data(S, 2, 0, b"two")), [writes(session, 0)]);
        assert_eq!((world.game_reads(session), world.figures(session).reorder > 0), (vec![], true));
        assert_eq!(world.send(second, &data(S, 2, 0, b"TWO")), [writes(session, 0)]);
        assert_eq!(world.send(second, &data(S, 1, 0, b"one")), [writes(session, 2)]);
        assert_eq!(world.send(first, &data(S, 1, 0, b"ONE")), [writes(session, 0)]);
        assert_eq!(world.game_reads(session), b"onetwo");
        assert_eq!(world.counts, FrameCounts { first: 2, duplicate: 2, freed: 0 });
        let figures = world.figures(session);
        assert_eq!((figures.packets_in, figures.bytes_in, figures.pending, figures.reorder), (PacketId(2), 6, 0, 0));
    });
}

#[test]
fn each_session_of_a_read_writes_before_the_next_one() {
    both(|mut world| {
        let link = world.link();
        let (a, b) = (world.play(link, S), world.play(link, OTHER));
        let read = [data(S, 1, 0, b"1"), data(S, 2, 0, b"2"), data(OTHER, 1, 0, b"3"), data(S, 3, 0, b"4")].concat();
        let effects = world.send(link, &read);
        if world.step == 1 {
            assert_eq!(effects, [writes(a, 1), writes(a, 1), writes(b, 1), writes(a, 1)]);
        } else {
            assert_eq!(effects, [writes(a, 2), writes(b, 1), writes(a, 1)]);
        }
    });
}

#[test]
fn what_comes_before_the_game_server_answers_is_kept_behind_the_header() {
    both(|mut world| {
        let link = world.link();
        let session = world.open(link, S);
        assert_eq!(world.send(link, &data(S, 1, 0, b"early")), [writes(session, 1)]);
        assert_eq!((world.game_reads(session), world.figures(session).pending), (vec![], 5));
        world.client.connected(session, b"player:");
        assert_eq!(world.game_reads(session), b"player:early");
        assert!(!world.figures(session).connecting);
        world.client.disconnected(session);
        world.send(link, &data(S, 2, 0, b"late"));
        assert_eq!(world.game_reads(session), b"", "nothing is written to a connection that is closed");
    });
}

#[test]
fn a_client_that_leaves_or_stays_away_while_the_session_connects_ends_it() {
    both(|mut world| {
        let link = world.link();
        let (left, lost) = (world.open(link, S), world.open(link, OTHER));
        assert_eq!(world.send(link, &frame::end(S)), [Effect::Changed(left)]);
        let now = world.host.now.get();
        assert_eq!(world.client.lost(link, now), Some(1));
        assert_eq!(world.changed(), [lost]);
        for (session, wait, reason) in
            [(left, LIMITS.leave_grace, EndReason::ClientLeft), (lost, LIMITS.linger, EndReason::LinksLost)]
        {
            assert_eq!(world.client.deadline(session), Some(now + wait));
            world.client.tick(session, now + wait - MS);
            assert_eq!(world.client.ended(session), None);
            world.client.tick(session, now + wait);
            assert_eq!((world.client.ended(session), world.client.is_finished(session)), (Some(reason), true));
        }
    });
}

#[test]
fn a_game_server_that_cannot_be_reached_is_an_end_at_once() {
    both(|mut world| {
        let link = world.link();
        let session = world.open(link, S);
        world.client.connect_failed(session);
        assert_eq!(world.read(link), frame::end(S));
        assert_eq!((world.changed(), world.client.is_finished(session)), (vec![session], true));
        assert_eq!(world.client.ended(session), Some(EndReason::GameUnreachable));
        // The client's second link opens it too: that must not connect once more.
        let (now, second) = (world.host.now.get(), world.link());
        world.client.close(session, EndReason::Shutdown, now);
        world.join(second, S);
        assert_eq!(world.read(second), frame::end(S));
    });
}

#[test]
fn data_for_what_there_is_not_is_answered_with_an_end() {
    both(|mut world| {
        let (link, other) = (world.link(), world.link());
        let session = world.play(link, S);
        world.refused(other, &data(OTHER, 9, 1, b"?"), OTHER, OpenError::UnknownSession);
        assert_eq!(world.read(other), frame::end(OTHER), "its client has got packets of a session that is over");
        assert_eq!(world.send(other, &frame::end(S)), [], "it cannot leave what it does not carry");
        assert_eq!((world.game_reads(session), world.counts), (vec![], FrameCounts::default()));
    });
}

#[test]
fn an_ack_of_what_was_never_sent_ends_the_session_and_no_other() {
    both(|mut world| {
        let link = world.link();
        let (session, other) = (world.play(link, S), world.play(link, OTHER));
        world.client.game_bytes(session, b"\x01\0a");
        let error = ProtocolError::Ack(AckBeyondSent { ack: PacketId(2), sent: PacketId(1) });
        assert_eq!(world.send(link, &data(S, 1, 2, b"?")), [Effect::Ended { session, error }, writes(session, 0)]);
        assert_eq!(world.client.ended(session), Some(EndReason::ProtocolError));
        assert_eq!(world.read(link), [data(S, 1, 0, b"\x01\0a"), frame::end(S).to_vec()].concat());
        assert_eq!(world.send(link, &data(S, 1, 1, b"?")), [], "it is late");
        assert_eq!(world.send(link, &data(OTHER, 1, 0, b"on")), [writes(other, 1)]);
    });
}

#[test]
fn too_much_ahead_of_its_turn_ends_the_session() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        world.send(link, &data(S, 2, 0, &[0; 100]));
        let error = ProtocolError::Reorder(ReorderFull { limit: LIMITS.reorder, missing: PacketId(1) });
        assert_eq!(world.send(link, &data(S, 3, 0, &[0; 100])), [Effect::Ended { session, error }, writes(session, 0)]);
        assert_eq!(world.client.ended(session), Some(EndReason::Limit));
    });
}

#[test]
fn more_than_a_game_server_takes_ends_the_session() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        assert_eq!(world.send(link, &data(S, 1, 0, &[0; 100])), [writes(session, 1)], "as much may wait");
        let error = ProtocolError::Pending { pending: 101 };
        assert_eq!(world.send(link, &data(S, 2, 0, &[0])), [Effect::Ended { session, error }, writes(session, 1)]);
        assert_eq!(world.client.ended(session), Some(EndReason::Limit));
        assert_eq!(world.game_reads(session).len(), 101, "it still gets what it takes");
    });
}

#[test]
fn a_game_server_is_not_read_until_what_it_sent_is_acknowledged() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        assert!(world.client.wants_game_data(session));
        let packet = [&[100, 0][..], &[1; 100]].concat();
        let framed = world.client.game_bytes(session, &packet.repeat(10));
        assert_eq!((framed.packets, framed.unacked, framed.error), (10, 10 * (14 + 102), None));
        assert!(!world.client.wants_game_data(session));
        assert_eq!(world.send(link, &data(S, 1, 5, b"")), [Effect::Changed(session), writes(session, 1)]);
        assert_eq!(world.counts.freed, 5 * (14 + 102));
        assert!(world.client.wants_game_data(session));
        assert_eq!(world.send(link, &data(S, 1, 6, b"")), [writes(session, 0)], "on a double it counts too");
        assert_eq!(world.counts.freed, 6 * (14 + 102));
    });
}

#[test]
fn a_game_servers_packets_are_framed_once_for_all_links() {
    both(|mut world| {
        let (first, second) = (world.link(), world.link());
        let session = world.play(first, S);
        world.join(second, S);
        world.send(first, &data(S, 1, 0, b"up"));
        assert_eq!(world.game_reads(session), b"up");
        let stream = b"\x03\0one\0\0\x03\0two";
        for piece in stream.chunks(world.step.min(stream.len())) {
            assert_eq!(world.client.game_bytes(session, piece).error, None);
        }
        let all = [data(S, 1, 1, b"\x03\0one"), data(S, 2, 1, b"\0\0"), data(S, 3, 1, b"\x03\0two")].concat();
        assert_eq!((world.read(first), world.read(second)), (all.clone(), all));
        let figures = world.figures(session);
        assert_eq!((figures.packets_out, figures.bytes_out), (PacketId(3), stream.len() as u64));
    });
}

#[test]
fn only_what_the_game_servers_socket_has_is_acknowledged() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        world.send(link, &data(S, 1, 0, b"one"));
        world.client.game_bytes(session, b"\x01\0a");
        world.game_reads(session);
        world.send(link, &data(S, 2, 0, b"two"));
        world.client.game_bytes(session, b"\x01\0b");
        let record = world.client.record(session).unwrap();
        assert_eq!((record.received, record.written, record.bytes_in), (PacketId::NONE, 0, 0), "one of two is there");
        world.game_reads(session);
        world.client.game_bytes(session, b"\x01\0c\x09");
        let acks = [data(S, 1, 0, b"\x01\0a"), data(S, 2, 0, b"\x01\0b"), data(S, 3, 2, b"\x01\0c")].concat();
        assert_eq!(world.read(link), acks);
        let record = world.client.record(session).unwrap();
        assert_eq!((record.received, record.written, record.bytes_in), (PacketId(2), 6, 6));
        assert_eq!((record.bytes_out, record.read(), record.partial), (9, 10, &b"\x09"[..]));
        assert_eq!(record.frames(0).collect::<Vec<_>>().concat(), acks);
    });
}

#[test]
fn a_packet_that_no_client_can_read_ends_the_session_behind_those_before_it() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        let framed = world.client.game_bytes(session, b"\x02\0ok\xFF\xFF");
        assert_eq!((framed.packets, framed.error), (1, Some(GamePacketError::TooLong { length: 65535 })));
        assert_eq!(world.client.ended(session), Some(EndReason::ProtocolError));
        assert_eq!(world.read(link), [data(S, 1, 0, b"\x02\0ok"), frame::end(S).to_vec()].concat());
    });
}

#[test]
fn no_packet_gets_the_number_that_means_end() {
    both(|mut world| {
        let link = world.link();
        let session = world.open(link, S);
        world.client.sessions.get_mut(session).unwrap().machine.skip_to(PacketId(PacketId::LAST.0 - 2));
        world.client.connected(session, b"");
        world.client.game_bytes(session, b"\0\0");
        assert_eq!(world.client.ended(session), None);
        world.client.game_bytes(session, b"\0\0");
        assert_eq!(world.client.ended(session), Some(EndReason::Limit));
        assert_eq!(world.figures(session).packets_out, PacketId(PacketId::LAST.0 - 1));
    });
}

#[test]
fn what_a_game_server_sent_before_it_closed_comes_before_the_end_on_every_link() {
    both(|mut world| {
        let (first, second) = (world.link(), world.link());
        let session = world.play(first, S);
        world.join(second, S);
        world.client.game_bytes(session, b"\x04\0last");
        world.client.game_closed(session);
        let all = [data(S, 1, 0, b"\x04\0last"), frame::end(S).to_vec()].concat();
        assert!(!world.client.is_finished(session));
        assert_eq!(world.read(first), all);
        assert_eq!((world.changed(), world.client.is_finished(session)), (vec![session], true));
        assert_eq!(world.read(second), all);
        assert_eq!((world.client.carried_by(first), world.client.carried_by(second)), (0, 0));
    });
}

#[test]
fn a_join_on_its_way_meets_the_end_and_later_the_id_is_free() {
    both(|mut world| {
        let (link, late) = (world.link(), world.link());
        let session = world.play(link, S);
        world.client.game_closed(session);
        world.read(link);
        let now = world.host.now.get();
        let figures = world.client.close(session, EndReason::Shutdown, now).unwrap();
        assert_eq!((figures.ended, figures.phase), (Some(EndReason::GameClosed), SessionPhase::Ending));
        assert_eq!(world.client.deadline(session), Some(now + LIMITS.leave_grace));
        world.join(late, S);
        assert_eq!(world.read(late), frame::end(S));
        world.client.tick(session, now + LIMITS.leave_grace - MS);
        assert!(!world.client.is_over(session));
        world.client.tick(session, now + LIMITS.leave_grace);
        assert!(world.client.is_over(session));
        world.client.remove(session);
        assert_eq!(world.client.session(session), None);
        world.open(late, S);
    });
}

#[test]
fn only_an_end_that_the_client_may_not_know_of_is_kept_for_joins() {
    both(|mut world| {
        use EndReason::*;
        let link = world.link();
        for (number, &reason) in (1..).zip(EndReason::ALL) {
            let session = world.open(link, SessionId(number));
            let now = world.host.now.get();
            let figures = world.client.close(session, reason, now).unwrap();
            assert_eq!(figures.ended, Some(reason));
            let kept = !matches!(reason, ClientLeft | Shutdown | Panic);
            assert_eq!(world.client.is_over(session), !kept, "{reason}");
            assert_eq!(world.client.deadline(session), kept.then(|| now + LIMITS.leave_grace), "nothing is left");
            world.read(link);
        }
    });
}

/// Junk on one link delays nobody: after so many frames others have their turn, and nothing of it is lost.
#[test]
fn a_link_that_sends_very_many_frames_has_a_few_done_with_in_each_turn() {
    const FRAMES: u32 = 1000;
    const AT_MOST: u32 = 64;
    both(|mut world| {
        let (link, other) = (world.link(), world.link());
        let session = world.play(link, S);
        let junk: Vec<_> = (0..FRAMES).flat_map(|_| data(S, 1, 0, b"x")).collect();
        let half = &data(S, 2, 0, b"half")[..16];
        let (mut turns, mut taken) = (0, 0);
        let mut input = [&junk[..], half].concat();
        loop {
            let read = std::mem::take(&mut input);
            let mut turn = world.client.receive(link, &read).at_most(AT_MOST);
            let mut effects = Vec::new();
            while let Some(effect) = world.client.next_effect(&mut turn, &world.host) {
                effects.push(effect);
            }
            // What has come is with the game server before the rest is looked at.
            assert_eq!(effects, [writes(session, u32::from(turns == 0))]);
            let FrameCounts { first, duplicate, .. } = turn.take_counts();
            assert!(first + duplicate <= AT_MOST, "{first} and {duplicate}");
            (turns, taken) = (turns + 1, taken + first + duplicate);
            if !turn.is_paused() {
                break;
            }
            world.send(other, &frame::ping(CLIENT, 20));
            assert_eq!(world.read(other), PONG, "a pong waits for no more than that");
        }
        assert_eq!((turns, taken), (FRAMES.div_ceil(AT_MOST), FRAMES));
        assert_eq!(world.send(link, &data(S, 2, 0, b"half")[16..]), [writes(session, 1)]);
        assert_eq!(world.game_reads(session), b"xhalf");
    });
}

/// Has a session end whose link takes all and is then known to be lost. Returns it, closed as an owner does.
fn ended_unheard(world: &mut World) -> SessionKey {
    let link = world.link();
    let session = world.play(link, S);
    world.client.game_bytes(session, b"\x04\0last");
    world.client.game_closed(session);
    world.read(link);
    assert!(world.client.is_finished(session), "the kernel took it");
    let now = world.host.now.get();
    world.client.close(session, EndReason::Shutdown, now);
    world.client.lost(link, now);
    session
}

fn duties(world: &mut World) -> Vec<(LinkKey, LinkDuty)> {
    std::iter::from_fn(|| world.client.poll_link(&world.host)).collect()
}

#[test]
fn last_words_are_kept_for_as_long_as_a_client_may_come_back_for_them() {
    both(|mut world| {
        let session = ended_unheard(&mut world);
        let rest = [data(S, 1, 0, b"\x04\0last"), frame::end(S).to_vec()].concat();
        let now = world.pass(LIMITS.linger - MS);
        world.client.tick(session, now);
        assert!(!world.client.is_over(session));
        // It need not even ask for them: clients take packets over any link.
        let back = world.link();
        assert_eq!(duties(&mut world), [(back, LinkDuty::Write)]);
        assert_eq!(world.read(back), rest);
        // Another link need not bring them, and an open that was on its way meets the end, and no second game connection.
        let second = world.link();
        assert_eq!((duties(&mut world), world.read(second)), (vec![], vec![]));
        world.join(second, S);
        assert_eq!(world.read(second), rest);
        let now = world.pass(MS);
        world.client.tick(session, now);
        assert!(world.client.is_over(session));
        assert_eq!(world.client.remove(session), 14 + 6);
        assert_eq!(world.client.session(session), None);
    });
}

#[test]
fn what_was_acknowledged_is_kept_no_longer_than_for_joins_on_their_way() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        world.client.game_bytes(session, b"\x04\0last");
        world.read(link);
        world.send(link, &data(S, 1, 1, b"thanks"));
        world.client.game_closed(session);
        world.read(link);
        let now = world.host.now.get();
        world.client.close(session, EndReason::Shutdown, now);
        assert_eq!(world.client.deadline(session), Some(now + LIMITS.leave_grace));
        // An owner that needs its place has it sooner.
        world.changed();
        world.client.keep_no_longer(session);
        assert_eq!((world.changed(), world.client.is_over(session)), (vec![session], true));
    });
}

#[test]
fn a_session_that_gives_its_place_up_while_its_client_is_away_ends_at_once_and_meets_it() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        world.client.give_up(session, EndReason::Evicted);
        assert_eq!(world.client.ended(session), None, "a link carries it");
        let now = world.host.now.get();
        world.client.lost(link, now);
        world.client.give_up(session, EndReason::Evicted);
        assert_eq!((world.client.ended(session), world.client.is_finished(session)), (Some(EndReason::Evicted), true));
        world.client.close(session, EndReason::Shutdown, now);
        assert_eq!(world.client.deadline(session), Some(now + Duration::from_secs(30)), "the client's patience");
        let back = world.link();
        duties(&mut world);
        assert_eq!(world.read(back), frame::end(S));
    });
}

#[test]
fn what_comes_late_for_a_session_that_is_over_is_nothing() {
    both(|mut world| {
        let (first, second, third) = (world.link(), world.link(), world.link());
        let session = world.play(first, S);
        world.join(second, S);
        world.client.game_bytes(session, b"\x01\0a");
        world.client.game_closed(session);
        world.read(first);
        world.read(second);
        assert_eq!(world.send(second, &data(S, 9, 1, b"late")), []);
        assert_eq!((world.counts.freed, world.figures(session).unacked), (14 + 3, 0), "what it acknowledges counts");
        assert_eq!(world.send(second, &frame::end(S)), []);
        let now = world.host.now.get();
        world.client.close(session, EndReason::Shutdown, now);
        world.client.remove(session);
        for link in [first, second, third] {
            assert_eq!(world.send(link, &data(S, 9, 1, b"later")), []);
            assert_eq!(world.read(link), frame::end(S));
        }
        world.refused(third, &data(OTHER, 9, 1, b"?"), OTHER, OpenError::UnknownSession);
    });
}

#[test]
fn a_link_that_left_goes_on_where_it_stood() {
    both(|mut world| {
        let (link, other) = (world.link(), world.link());
        let session = world.play(link, S);
        world.join(other, S);
        world.client.game_bytes(session, b"\x01\0a\x01\0b");
        assert_eq!(world.read(link).len(), 2 * 17);
        world.send(link, &frame::end(S));
        world.client.game_bytes(session, b"\x01\0c");
        world.join(link, S);
        assert_eq!(world.read(link), data(S, 3, 0, b"\x01\0c"), "the rest was on this link before");
        // So does one that told the end.
        world.client.game_closed(session);
        assert_eq!(world.read(link), frame::end(S));
        world.join(link, S);
        assert_eq!(world.read(link), frame::end(S));
        assert_eq!(world.read(other).len(), 3 * 17 + 14);
    });
}

#[test]
fn a_session_is_joined_so_often_and_no_more() {
    both(|mut world| {
        let (link, again) = (world.link(), world.link());
        let session = world.play(link, S);
        let mut joins = 1;
        while world.send(again, &frame::open(S, PORT)).is_empty() {
            joins += 1;
            world.send(again, &frame::end(S));
            assert!(joins <= MAX_JOINS);
        }
        assert_eq!(joins, MAX_JOINS);
        assert_eq!(world.read(again), b"", "the game goes on");
        assert_eq!(world.send(link, &data(S, 1, 0, b"on")), [writes(session, 1)]);
        // A client changes a link every half second: that is far below.
        world.pass(JOIN_INTERVAL);
        world.join(again, S);
    });
}

#[test]
fn a_link_that_may_not_join_is_told_the_end_before_its_client_gives_up() {
    both(|mut world| {
        let (link, other) = (world.link(), world.client.add_link(2));
        let session = world.play(link, S);
        world.refused(other, &frame::open(S, PORT), S, OpenError::Identity);
        let lost = world.host.now.get();
        world.client.lost(link, lost);
        // A link may have been dead for ten seconds before it is lost, and a client waits for thirty.
        let end = world.client.deadline(session).unwrap();
        assert!(end + Duration::from_secs(10) < lost + Duration::from_secs(30), "{:?}", end - lost);
        world.client.tick(session, end);
        assert_eq!(world.client.ended(session), Some(EndReason::LinksLost));
        world.client.close(session, EndReason::Shutdown, end);
        assert!(duties(&mut world).contains(&(other, LinkDuty::Write)));
        assert_eq!(world.read(other), frame::end(S));
        // So is one that comes up later, which may join.
        let back = world.link();
        assert_eq!(duties(&mut world), [(back, LinkDuty::Write)]);
        assert_eq!(world.read(back), frame::end(S));
    });
}

#[test]
fn a_link_that_may_not_join_is_not_told_the_end_ahead_of_last_words_elsewhere() {
    both(|mut world| {
        let (link, other) = (world.link(), world.client.add_link(2));
        let session = world.play(link, S);
        world.refused(other, &frame::open(S, PORT), S, OpenError::Identity);
        world.client.game_bytes(session, b"\x04\0last");
        world.client.game_closed(session);
        world.read(link);
        let now = world.host.now.get();
        world.client.close(session, EndReason::Shutdown, now);
        world.refused(other, &frame::open(S, PORT), S, OpenError::Identity);
        assert_eq!((duties(&mut world), world.read(other)), (vec![], vec![]));
        world.client.remove(session);
        assert_eq!((duties(&mut world), world.read(other)), (vec![(other, LinkDuty::Write)], frame::end(S).to_vec()));
    });
}

#[test]
fn a_session_waits_for_a_link_to_come_back_and_goes_on_where_it_was() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        world.client.game_bytes(session, b"\x01\0a");
        world.read(link);
        let now = world.host.now.get();
        world.client.lost(link, now);
        assert_eq!((world.figures(session).phase, world.client.links_of(session, 0)), (SessionPhase::Lingering, None));
        world.client.game_bytes(session, b"\x01\0b");
        world.pass(LIMITS.linger - MS);
        world.client.tick(session, world.host.now.get());
        let back = world.link();
        world.join(back, S);
        assert_eq!(world.client.deadline(session), None);
        assert_eq!(world.read(back), [data(S, 1, 0, b"\x01\0a"), data(S, 2, 0, b"\x01\0b")].concat());
        assert_eq!(world.send(back, &frame::end(S)), [Effect::Changed(session)]);
        assert_eq!(world.figures(session).phase, SessionPhase::Grace);
    });
}

#[test]
fn a_link_that_lags_is_told_the_end_of_a_session_whose_id_is_free_again() {
    both(|mut world| {
        let (fast, slow) = (world.link(), world.link());
        let session = world.play(fast, S);
        world.join(slow, S);
        world.client.game_bytes(session, b"\x03\0old");
        world.client.end(session, EndReason::Shutdown);
        world.read(fast);
        let now = world.host.now.get();
        world.client.close(session, EndReason::Shutdown, now);
        world.client.remove(session);
        assert_eq!(world.client.session(session), Some(&S), "it counts as long as a link carries it");
        let new = world.play(fast, S);
        assert_ne!(new, session);
        world.join(slow, S);
        assert_eq!(world.read(slow), [data(S, 1, 0, b"\x03\0old"), frame::end(S).to_vec()].concat());
        assert_eq!(world.client.session(session), None);
        world.join(slow, S);
        world.client.game_bytes(new, b"\x03\0new");
        assert_eq!(world.read(slow), data(S, 1, 0, b"\x03\0new"));
    });
}

#[test]
fn pings_are_answered_and_what_they_tell_is_told() {
    both(|mut world| {
        let link = world.link();
        assert_eq!(world.send(link, &frame::ping(CLIENT, 0)), []);
        assert_eq!(world.send(link, &frame::ping(ClientId(8), 120)), [Effect::RoundTrip(120 * MS)]);
        assert_eq!(world.read(link), PONG.repeat(2));
    });
}

#[test]
fn what_is_no_frame_closes_the_link_behind_what_came_before_it() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        let effects = world.send(link, &[&data(S, 1, 0, b"before")[..], &[11, 0], &frame::PONG].concat());
        let close = Effect::Close(FrameError::TooShort(11));
        assert_eq!(effects[..2], [writes(session, 1), close]);
        assert_eq!(world.game_reads(session), b"before");
    });
}

#[test]
fn half_a_frame_is_silence() {
    both(|mut world| {
        let link = world.link();
        let (first, rest) = PONG.split_at(9);
        let mut turn = world.client.receive(link, first);
        assert_eq!(world.client.next_effect(&mut turn, &world.host), None);
        assert!(!turn.heard());
        let mut turn = world.client.receive(link, rest);
        assert_eq!(world.client.next_effect(&mut turn, &world.host), Some(Effect::WriteLink(link)));
        assert_eq!(world.client.next_effect(&mut turn, &world.host), None);
        assert!(turn.heard());
    });
}

#[test]
fn a_game_server_takes_what_it_can_and_the_rest_waits() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        world.send(link, &data(S, 1, 0, b"packet"));
        let mut room = 4;
        let mut take = |world: &mut World| {
            let now = || world.host.now.get();
            world.client.write_game(session, now, |_, bytes| {
                let taken = bytes.len().min(std::mem::take(&mut room));
                if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            })
        };
        assert!(take(&mut world), "it took a part");
        assert!(take(&mut world), "it took nothing");
        assert_eq!(world.game_reads(session), b"et");
    });
}

#[test]
fn a_game_server_that_takes_no_more_is_heard_to_its_end() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        world.send(link, &data(S, 1, 0, b"packet"));
        let broken = |_: &SessionId, _: &[u8]| Err(io::ErrorKind::BrokenPipe.into());
        assert!(!world.client.write_game(session, Instant::now, broken), "there is nothing to wait for");
        world.send(link, &data(S, 2, 0, &[7; 1000]));
        assert_eq!((world.figures(session).pending, world.game_reads(session)), (0, vec![]), "nobody takes it");
        assert!(world.client.wants_game_data(session), "what it sent before is the client's");
        assert_eq!(world.client.game_bytes(session, b"\x01\0x").packets, 1);
        world.client.game_closed(session);
        let end = frame::end(S);
        assert!(world.read(link).ends_with(&end));
    });
}

#[test]
fn packets_are_held_back_where_a_game_server_takes_so_many_a_second() {
    both(|mut world| {
        world.host.max_packets_per_second.set(Some(2));
        let link = world.link();
        let session = world.play(link, S);
        for number in 1..=3 {
            world.send(link, &data(S, number, 0, &[number as u8]));
        }
        assert_eq!(world.game_reads(session), [1, 2]);
        let next = world.client.paced_until(session).unwrap();
        assert_eq!(next, world.host.now.get() + 1100 * MS);
        world.host.now.set(next);
        assert_eq!((world.game_reads(session), world.client.paced_until(session)), (vec![3], None));
    });
}

#[test]
fn a_client_is_empty_once_links_and_sessions_are_gone() {
    both(|mut world| {
        assert!(world.client.is_empty());
        let link = world.link();
        let session = world.open(link, S);
        let now = world.host.now.get();
        world.client.lost(link, now);
        assert!(!world.client.is_empty());
        world.client.close(session, EndReason::Shutdown, now);
        world.client.remove(session);
        assert!(world.client.is_empty());
        assert_eq!(world.client.lost(link, now), None);
        assert_eq!(world.send(link, &frame::open(S, PORT)), [], "a link that is gone asks for nothing");
        assert!(world.client.is_finished(session) && world.client.is_over(session));
    });
}
