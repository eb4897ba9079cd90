//! The writer of a link: pongs first, then each session's frames in order, then its end.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;

use super::frozen::{FrozenJoined, FrozenStood, FrozenWriter};
use super::keys::{LinkKey, SessionKey};
use super::machine::{Machine, Standing};
use super::outbox::{Cursor, Outbox};
use super::session::Sessions;
use crate::frame::{self, PONG, PacketId, SessionId};

/// Pieces of an outbox given to one write.
const SLICES: usize = 16;
/// Pongs that one write carries at the most.
const PONGS_AT_ONCE: usize = 8;
/// Pongs that may wait: a client pings every 2.5 s, so more than this is not a client. Further
/// ones are not answered.
pub const MAX_PONGS: usize = 64;
/// Ends for sessions that the link does not carry which may wait; further ones are not sent.
pub const MAX_ENDS: usize = 64;
/// Sessions of which a link remembers where it stood: more than a client has at once.
const MAX_STOOD: usize = 32;
/// Sessions of which a link remembers that it may not join them: more than a client has at once.
const MAX_KEPT_OFF: usize = 8;

/// The sessions that links may carry.
pub(super) trait SessionSource {
    /// Returns the machine of a session.
    fn machine(&mut self, session: SessionKey) -> Option<&mut Machine>;

    /// Takes note that a link has written all data of the session and the end after it.
    fn end_written(&mut self, session: SessionKey, standing: Standing);
}

/// A session that a link carries.
#[derive(Debug)]
pub(super) struct Joined {
    id: SessionId,
    pub session: SessionKey,
    pub standing: Standing,
    born: u64,
    cursor: Cursor,
}

/// The state that most links never have: sessions that they do not carry and must answer for.
#[derive(Debug, Default)]
struct NotCarried {
    /// Sessions whose ends are to be told.
    ends: VecDeque<SessionId>,
    /// Sessions that it may not join, though they go on: the last ones that it asked for.
    kept_off: VecDeque<SessionId>,
    /// The places at which it stood in sessions that it carries no more.
    stood: VecDeque<Stood>,
    /// A session of which packets came over it, though nobody has opened it: the last one.
    unopened: Option<SessionId>,
}

/// The place at which a link stood in a session.
#[derive(Debug)]
struct Stood {
    /// The number of the session, which no other one of the client has or had.
    born: u64,
    cursor: Cursor,
    /// It has written all data and the end.
    told: bool,
}

/// The result of a call of [`ClientMachine::write_link`](super::ClientMachine::write_link).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Bytes taken by the link.
    pub bytes: u64,
    /// Data frames that no other link had written.
    pub first: u32,
    /// Data frames that another link had written before.
    pub duplicate: u32,
    /// True if the link takes no more for now.
    pub blocked: bool,
}

/// The sessions that a link carries, with a cursor each, and what else waits to be written on it.
///
/// There is one for each link, and a packet touches all of it: what is rare is apart.
#[derive(Debug, Default)]
pub(super) struct LinkWriter {
    /// The rest of a frame that a write cut; nothing may come before it.
    cut: Bytes,
    pongs: usize,
    joined: Vec<Joined>,
    /// The session whose turn is next, so that none starves another.
    turn: usize,
    not_carried: Option<Box<NotCarried>>,
}

/// A writer that goes on.
pub(super) struct ThawedWriter {
    pub writer: LinkWriter,
    /// The sessions that it carried and that are not there.
    pub missing: Vec<SessionKey>,
}

impl LinkWriter {
    /// Freezes it; `outbox` finds those of sessions.
    pub fn freeze<'a>(&self, outbox: impl Fn(SessionKey) -> Option<&'a Outbox>) -> FrozenWriter {
        let next = |cursor: &Cursor, outbox: Option<&Outbox>| {
            let mut cursor = *cursor;
            outbox.iter().for_each(|outbox| outbox.skip_acked(&mut cursor));
            cursor.packet().0
        };
        let joined = self.joined.iter().map(|joined| FrozenJoined {
            session: joined.session.0,
            standing: joined.standing,
            packet: next(&joined.cursor, outbox(joined.session)),
        });
        let not_carried = self.not_carried.as_deref();
        let ids = |ids: &VecDeque<SessionId>| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        let stood = not_carried.map(|not_carried| &not_carried.stood);
        let stood = stood.into_iter().flatten();
        FrozenWriter {
            cut: self.cut.clone(),
            pongs: u32::try_from(self.pongs).unwrap_or(u32::MAX),
            turn: u32::try_from(self.turn).unwrap_or_default(),
            joined: joined.collect(),
            ends: not_carried.map(|not_carried| ids(&not_carried.ends)).unwrap_or_default(),
            kept_off: not_carried.map(|not_carried| ids(&not_carried.kept_off)).unwrap_or_default(),
            stood: stood
                .map(|stood| FrozenStood { born: stood.born, packet: stood.cursor.packet().0, told: stood.told })
                .collect(),
            unopened: not_carried.and_then(|not_carried| not_carried.unopened).map(|id| id.0),
        }
    }

    /// Makes the writer of a link that was frozen, which carries of its sessions those that there are.
    pub fn thaw<S, P>(frozen: FrozenWriter, sessions: &mut Sessions<S, P>, link: LinkKey) -> ThawedWriter {
        let FrozenWriter { cut, pongs, turn, joined, ends, kept_off, stood, unopened } = frozen;
        let mut writer = Self { cut, pongs: (pongs as usize).min(MAX_PONGS), turn: turn as usize, ..Self::default() };
        let mut missing = Vec::new();
        for FrozenJoined { session, standing, packet } in joined {
            let key = SessionKey(session);
            let session = sessions.get_mut(key).filter(|session| session.links.contains(&link));
            let Some(session) = session.filter(|session| !writer.carries(session.born)) else {
                missing.push(key);
                continue;
            };
            session.machine.rejoined(standing);
            let cursor = session.machine.outbox().before(PacketId(packet));
            let (id, born) = (session.machine.id(), session.born);
            writer.joined.push(Joined { id, session: key, standing, born, cursor });
        }
        let ids = |ids: Vec<u32>, most| ids.into_iter().map(SessionId).take(most).collect::<VecDeque<_>>();
        if !(ends.is_empty() && kept_off.is_empty() && stood.is_empty() && unopened.is_none()) {
            let stood = stood.into_iter().take(MAX_STOOD).map(|FrozenStood { born, packet, told }| Stood {
                born,
                // In one that is gone it matters no more.
                cursor: sessions.cursor_before(born, PacketId(packet)),
                told,
            });
            writer.not_carried = Some(Box::new(NotCarried {
                ends: ids(ends, MAX_ENDS),
                kept_off: ids(kept_off, MAX_KEPT_OFF),
                stood: stood.collect(),
                unopened: unopened.map(SessionId),
            }));
        }
        ThawedWriter { writer, missing }
    }

    /// Answers a ping.
    pub fn pong(&mut self) {
        self.pongs = (self.pongs + 1).min(MAX_PONGS);
    }

    /// Tells the client that a session which the link does not carry is over.
    pub fn end(&mut self, session: SessionId) {
        let ends = &mut self.not_carried.get_or_insert_default().ends;
        if ends.len() < MAX_ENDS && !ends.contains(&session) {
            ends.push_back(session);
        }
    }

    /// Takes note that the link may not join that session, which goes on.
    pub fn keep_off(&mut self, session: SessionId) {
        let kept_off = &mut self.not_carried.get_or_insert_default().kept_off;
        if !kept_off.contains(&session) {
            if kept_off.len() >= MAX_KEPT_OFF {
                kept_off.pop_front();
            }
            kept_off.push_back(session);
        }
    }

    /// Returns whether the link was told that it may not join that session, which went on then.
    pub fn is_kept_off(&self, session: SessionId) -> bool {
        self.not_carried.as_ref().is_some_and(|not_carried| not_carried.kept_off.contains(&session))
    }

    /// Takes note that packets of a session came over it which nobody has opened.
    pub fn note_unopened(&mut self, session: SessionId) {
        self.not_carried.get_or_insert_default().unopened = Some(session);
    }

    /// Takes the last session of which packets came over it and which nobody had opened then.
    pub fn take_unopened(&mut self) -> Option<SessionId> {
        self.not_carried.as_mut()?.unopened.take()
    }

    /// Carries a session from now on, the client's `born`th: from where this link stood in it, or else from its first
    /// unacknowledged frame.
    pub fn join(&mut self, session: SessionKey, born: u64, machine: &mut Machine, standing: Standing) {
        machine.joined(standing);
        let stood = self.not_carried.as_mut().and_then(|not_carried| {
            not_carried.kept_off.retain(|other| *other != machine.id());
            let stood = not_carried.stood.iter().position(|stood| stood.born == born)?;
            not_carried.stood.remove(stood)
        });
        let cursor = stood.map_or(machine.outbox().start(), |stood| stood.cursor);
        // Most links carry one, and there are many links.
        self.joined.reserve_exact(1);
        self.joined.push(Joined { id: machine.id(), session, standing, born, cursor });
    }

    /// Returns the session of that id, if the link carries it.
    pub fn get(&self, session: SessionId) -> Option<&Joined> {
        self.joined.iter().find(|joined| joined.id == session)
    }

    /// Returns the session of that id, to change its standing.
    pub fn get_mut(&mut self, session: SessionId) -> Option<&mut Joined> {
        self.joined.iter_mut().find(|joined| joined.id == session)
    }

    /// Stops carrying that session; returns it if it was carried.
    pub fn remove(&mut self, session: SessionId) -> Option<Joined> {
        let at = self.joined.iter().position(|joined| joined.id == session)?;
        let joined = self.joined.remove(at);
        self.stand(&joined, false);
        Some(joined)
    }

    /// Remembers where the link stood in a session that it carries no more. All that it was given before arrives, so a
    /// client that takes the link into use again has no need of it a second time.
    fn stand(&mut self, joined: &Joined, told: bool) {
        let stood = &mut self.not_carried.get_or_insert_default().stood;
        if stood.len() >= MAX_STOOD {
            stood.pop_front();
        }
        stood.push_back(Stood { born: joined.born, cursor: joined.cursor, told });
    }

    /// Returns whether the link carries the client's `born`th session.
    pub fn carries(&self, born: u64) -> bool {
        self.joined.iter().any(|joined| joined.born == born)
    }

    /// Returns whether the link carried the client's `born`th session, and does not any more.
    pub fn stood_in(&self, born: u64) -> bool {
        self.stood(born).is_some()
    }

    /// Returns whether the link has told the client the end of its `born`th session.
    pub fn told(&self, born: u64) -> bool {
        self.stood(born).is_some_and(|stood| stood.told)
    }

    fn stood(&self, born: u64) -> Option<&Stood> {
        self.not_carried.as_ref()?.stood.iter().find(|stood| stood.born == born)
    }

    /// Tells the client that a session is over which the link may not join, if there is one of that id.
    pub fn end_kept_off(&mut self, session: SessionId) -> bool {
        let kept_off = self.is_kept_off(session);
        if kept_off && let Some(not_carried) = &mut self.not_carried {
            not_carried.kept_off.retain(|other| *other != session);
            self.end(session);
        }
        kept_off
    }

    /// Returns the sessions carried.
    pub fn carried(&self) -> &[Joined] {
        &self.joined
    }

    /// Returns how many sessions are carried.
    pub fn sessions(&self) -> usize {
        self.joined.len()
    }

    /// Writes all that waits, through `write`, until nothing is left or the link takes no more:
    /// `write` takes fewer bytes than it was given, or fails with `WouldBlock`.
    ///
    /// # Errors
    /// Any other error of `write`; the link is then of no more use.
    pub fn write_to(
        &mut self,
        sessions: &mut impl SessionSource,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<WriteOutcome> {
        let mut done = WriteOutcome::default();
        let mut write = |slices: &[IoSlice<'_>], done: &mut WriteOutcome| -> io::Result<usize> {
            let wanted: usize = slices.iter().map(|s| s.len()).sum();
            let taken = match write(slices) {
                Ok(taken) => taken,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(e) => return Err(e),
            };
            done.bytes += taken as u64;
            done.blocked = taken < wanted;
            Ok(taken)
        };
        loop {
            while !self.cut.is_empty() || self.pongs > 0 {
                let pongs = self.pongs.min(PONGS_AT_ONCE);
                let mut slices = [IoSlice::new(&PONG); 1 + PONGS_AT_ONCE];
                slices[0] = IoSlice::new(&self.cut);
                let from = usize::from(self.cut.is_empty());
                let taken = write(slices.get(from..=pongs).unwrap_or_default(), &mut done)?;
                self.take_control(taken);
                if done.blocked {
                    return Ok(done);
                }
            }
            if let Some(ends) = self.not_carried.as_mut().map(|not_carried| &mut not_carried.ends)
                && let Some(&session) = ends.front()
            {
                let end = frame::end(session);
                let taken = write(&[IoSlice::new(&end)], &mut done)?;
                // Until it has begun, a pong may still overtake it.
                if taken > 0 {
                    ends.pop_front();
                    self.cut = Bytes::copy_from_slice(end.get(taken..).unwrap_or_default());
                }
                if done.blocked {
                    return Ok(done);
                }
                continue;
            }
            let count = self.joined.len();
            let mut idle = true;
            for _ in 0..count {
                self.turn = if self.turn + 1 < self.joined.len() { self.turn + 1 } else { 0 };
                let Some(joined) = self.joined.get_mut(self.turn) else { break };
                let Some(machine) = sessions.machine(joined.session) else { continue };
                let outbox = machine.outbox();
                outbox.skip_acked(&mut joined.cursor);
                if !outbox.is_drained(&joined.cursor) {
                    idle = false;
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let filled = outbox.gather(&joined.cursor, &mut slices);
                    let taken = write(slices.get(..filled).unwrap_or_default(), &mut done)?;
                    let from = outbox.packet_at(&joined.cursor);
                    let advance = outbox.advance(&mut joined.cursor, taken);
                    let first = machine.note_written(from, advance.frames);
                    done.first += first;
                    done.duplicate += advance.frames - first;
                    self.cut = advance.cut;
                    if done.blocked {
                        return Ok(done);
                    }
                } else if machine.ended().is_some() {
                    idle = false;
                    let end = frame::end(joined.id);
                    let taken = write(&[IoSlice::new(&end)], &mut done)?;
                    if taken == 0 {
                        return Ok(done);
                    }
                    self.cut = Bytes::copy_from_slice(end.get(taken..).unwrap_or_default());
                    let told = self.joined.remove(self.turn);
                    self.stand(&told, true);
                    sessions.end_written(told.session, told.standing);
                    if done.blocked {
                        return Ok(done);
                    }
                }
            }
            if idle {
                return Ok(done);
            }
        }
    }

    /// Takes `taken` written bytes off the cut frame and the pongs behind it.
    fn take_control(&mut self, taken: usize) {
        let of_cut = taken.min(self.cut.len());
        let _ = self.cut.split_to(of_cut);
        let of_pongs = taken - of_cut;
        self.pongs -= of_pongs / PONG.len();
        let rest = of_pongs % PONG.len();
        if rest > 0 {
            self.pongs -= 1;
            self.cut = Bytes::from_static(&PONG).slice(rest..);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Batch, EndReason, SessionLimits};
    use crate::frame::{Frame, FromCore, PacketId};
    use std::time::{Duration, Instant};

    const A: SessionKey = SessionKey(0);
    const B: SessionKey = SessionKey(1);

    /// Machines by the number of their key.
    struct Machines(Vec<Machine>);

    impl Machines {
        fn new<const N: usize>(ids: [u32; N]) -> Self {
            let limits = SessionLimits {
                linger: Duration::from_secs(30),
                leave_grace: Duration::from_secs(2),
                unacked: 1 << 20,
                reorder: 1 << 20,
                pending: 1 << 20,
            };
            Self(ids.map(|id| Machine::new(SessionId(id), limits, Instant::now())).into())
        }

        fn join(&mut self, writer: &mut LinkWriter, session: SessionKey) {
            writer.join(session, 1, self.machine(session).unwrap(), Standing::Complete);
        }

        fn push(&mut self, session: SessionKey, body: &[u8]) {
            let machine = self.machine(session).unwrap();
            let mut batch = Batch::default();
            batch.push(machine.id(), machine.outbox().next(), machine.received(), body.len() as u16, body);
            machine.push(batch);
        }

        /// Writes to a link that takes `room` bytes in all.
        fn write(&mut self, writer: &mut LinkWriter, out: &mut Vec<u8>, mut room: usize) -> WriteOutcome {
            writer
                .write_to(self, |slices| {
                    let mut taken = 0;
                    for slice in slices {
                        let n = slice.len().min(room);
                        out.extend_from_slice(&slice[..n]);
                        (room, taken) = (room - n, taken + n);
                    }
                    if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
                })
                .unwrap()
        }
    }

    impl SessionSource for Machines {
        fn machine(&mut self, session: SessionKey) -> Option<&mut Machine> {
            self.0.get_mut(session.0 as usize)
        }

        fn end_written(&mut self, session: SessionKey, standing: Standing) {
            self.machine(session).unwrap().end_written(standing);
        }
    }

    fn frames(mut bytes: &[u8]) -> Vec<FromCore<'_>> {
        let mut all = Vec::new();
        while let Some((frame, rest)) = Frame::split(bytes).unwrap() {
            all.push(frame.from_core().unwrap());
            bytes = rest;
        }
        assert!(bytes.is_empty(), "half a frame at the end");
        all
    }

    #[test]
    fn a_pong_overtakes_what_waits_but_never_cuts_a_frame() {
        let mut m = Machines::new([1]);
        let mut writer = LinkWriter::default();
        m.join(&mut writer, A);
        m.push(A, b"first");
        m.push(A, b"second");
        let mut out = Vec::new();
        assert!(m.write(&mut writer, &mut out, 10).blocked);
        writer.pong();
        assert!(m.write(&mut writer, &mut out, 20).blocked);
        assert!(!m.write(&mut writer, &mut out, 1000).blocked);
        let kinds: Vec<bool> = frames(&out).iter().map(|f| *f == FromCore::Pong).collect();
        assert_eq!(kinds, [false, true, false]);
    }

    #[test]
    fn a_pong_overtakes_an_end_that_has_not_begun() {
        for room in 0..3 {
            let (mut writer, mut m) = (LinkWriter::default(), Machines::new([]));
            writer.end(SessionId(7));
            let mut out = Vec::new();
            assert!(m.write(&mut writer, &mut out, room).blocked);
            writer.pong();
            assert!(!m.write(&mut writer, &mut out, 1000).blocked);
            let first = if room == 0 { FromCore::Pong } else { FromCore::End { session: SessionId(7) } };
            assert_eq!((frames(&out)[0], frames(&out).len()), (first, 2), "{room} bytes taken before");
        }
    }

    #[test]
    fn data_then_end_on_every_link_at_any_room() {
        for room in 1..40 {
            let mut m = Machines::new([1]);
            let mut writers = [LinkWriter::default(), LinkWriter::default()];
            for w in &mut writers {
                m.join(w, A);
            }
            m.push(A, b"one");
            m.push(A, b"two");
            m.0[0].end(EndReason::GameClosed);
            for w in &mut writers {
                let mut out = Vec::new();
                w.pong();
                while m.write(w, &mut out, room).blocked {}
                let data: Vec<_> = frames(&out).into_iter().filter(|f| *f != FromCore::Pong).collect();
                assert!(matches!(
                    data[..],
                    [
                        FromCore::Data { packet: PacketId(1), .. },
                        FromCore::Data { packet: PacketId(2), .. },
                        FromCore::End { session: SessionId(1) }
                    ]
                ));
                assert_eq!(w.sessions(), 0);
            }
            assert!(m.0[0].is_finished());
        }
    }

    #[test]
    fn a_slow_link_skips_what_is_acknowledged_and_nothing_else() {
        let mut m = Machines::new([1]);
        let (mut fast, mut slow) = (LinkWriter::default(), LinkWriter::default());
        m.join(&mut fast, A);
        m.join(&mut slow, A);
        for i in 0..10u8 {
            m.push(A, &[i; 20]);
        }
        let (mut out_fast, mut out_slow) = (Vec::new(), Vec::new());
        let written = m.write(&mut fast, &mut out_fast, 10_000);
        assert_eq!((written.first, written.duplicate), (10, 0));
        assert!(m.write(&mut slow, &mut out_slow, 40).blocked);
        m.0[0].ack(PacketId(6)).unwrap();
        let written = m.write(&mut slow, &mut out_slow, 10_000);
        assert_eq!((written.first, written.duplicate), (0, 4));
        let ids: Vec<u32> = frames(&out_slow)
            .iter()
            .map(|f| match f {
                FromCore::Data { packet, .. } => packet.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ids, [1, 2, 7, 8, 9, 10]);
    }

    #[test]
    fn what_a_link_that_does_not_read_can_pile_up_is_bounded() {
        let (mut writer, mut m) = (LinkWriter::default(), Machines::new([]));
        for i in 0..10_000 {
            writer.pong();
            writer.end(SessionId(i + 1));
        }
        let mut out = Vec::new();
        assert!(!m.write(&mut writer, &mut out, usize::MAX).blocked);
        assert_eq!(out.len(), (MAX_PONGS + MAX_ENDS) * PONG.len());
    }

    #[test]
    fn sessions_on_one_link_take_turns() {
        let mut m = Machines::new([1, 2]);
        let mut writer = LinkWriter::default();
        m.join(&mut writer, A);
        m.join(&mut writer, B);
        for _ in 0..SLICES * 4 {
            m.push(A, &[1; 100]);
        }
        m.push(B, &[2; 100]);
        let mut out = Vec::new();
        m.write(&mut writer, &mut out, usize::MAX);
        let place =
            frames(&out).iter().position(|f| matches!(f, FromCore::Data { session: SessionId(2), .. })).unwrap();
        assert!(place <= SLICES, "b waited for {place} frames of a");
    }

    #[test]
    fn what_is_discarded_leaves_no_half_frame_and_the_end_follows() {
        for room in 0..60 {
            let (mut writer, mut m) = (LinkWriter::default(), Machines::new([1]));
            m.join(&mut writer, A);
            m.push(A, b"first");
            m.push(A, b"second");
            let mut out = Vec::new();
            m.write(&mut writer, &mut out, room);
            m.0[0].end(EndReason::Memory);
            let kept = m.0[0].outbox().unacked();
            assert_eq!((m.0[0].discard(), m.0[0].kept()), (kept, 0));
            assert!(!m.write(&mut writer, &mut out, 1000).blocked);
            let seen = frames(&out);
            let begun = [0, 21].iter().filter(|start| room > **start).count();
            assert_eq!(seen.len(), begun + 1, "{room} bytes were taken before");
            assert_eq!(seen.last(), Some(&FromCore::End { session: SessionId(1) }));
            assert!(m.0[0].is_finished());
        }
    }
}
