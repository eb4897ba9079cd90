//! Links that carry a session without having been asked to.

use super::*;

const OPEN_WITHIN: Duration = Duration::from_millis(1500);
const CLOSE_EVERY: Duration = Duration::from_millis(2500);

impl World {
    /// Returns what is to be done on links unasked.
    fn duties(&mut self) -> Vec<(LinkKey, LinkDuty)> {
        std::iter::from_fn(|| self.client.poll_link(&self.host)).collect()
    }

    fn carriers(&self, session: SessionKey) -> Vec<LinkKey> {
        (0..).map_while(|number| self.client.links_of(session, number)).collect()
    }

    fn lose(&mut self, link: LinkKey) {
        self.client.lost(link, self.host.now.get());
    }

    fn tick(&mut self, session: SessionKey, time: Duration) -> Vec<(LinkKey, LinkDuty)> {
        let now = self.pass(time);
        self.client.tick(session, now);
        self.duties()
    }
}

#[test]
fn data_of_a_session_that_goes_on_is_a_join() {
    both(|mut world| {
        let (link, other) = (world.link(), world.link());
        let session = world.play(link, S);
        world.client.game_bytes(session, b"\x01\0a\x01\0b");
        assert_eq!(world.send(other, &data(S, 1, 1, b"one")), [writes(session, 1)]);
        assert_eq!(world.read(other), data(S, 2, 0, b"\x01\0b"), "from the first that is not acknowledged");
        world.lose(link);
        assert_eq!((world.client.deadline(session), world.duties()), (None, vec![]), "as if it had been opened there");
        world.refused(other, &data(OTHER, 1, 0, b"?"), OTHER, OpenError::UnknownSession);
    });
}

#[test]
fn a_session_without_links_goes_on_over_those_of_its_player_and_no_other() {
    both(|mut world| {
        let (link, other, stranger) = (world.link(), world.link(), world.client.add_link(2));
        let session = world.play(link, S);
        world.client.game_bytes(session, b"\x01\0a");
        assert_eq!(world.duties(), []);
        world.lose(link);
        assert_eq!(world.duties(), [(other, LinkDuty::Write)]);
        assert_eq!(world.read(other), data(S, 1, 0, b"\x01\0a"));
        assert_eq!(world.read(stranger), b"", "it says it is of that client, and that proves nothing");
        // One that comes later is taken too.
        let late = world.link();
        assert_eq!(world.duties(), [(late, LinkDuty::Write)]);
        assert_eq!(world.carriers(session), [other, late]);
        assert_eq!(world.client.figures(session).unwrap().phase, SessionPhase::Lingering, "its client may have gone");
        // Its client opens it: the other link is not needed any more.
        assert_eq!(world.send(late, &frame::open(S, PORT)), []);
        assert_eq!((world.duties(), world.carriers(session)), (vec![], vec![late]));
        assert_eq!((world.client.deadline(session), world.client.carried_by(other)), (None, 0));
    });
}

#[test]
fn a_session_that_its_client_left_is_not_sent_over_other_links() {
    both(|mut world| {
        let (link, other) = (world.link(), world.link());
        let session = world.play(link, S);
        assert_eq!(world.send(link, &frame::end(S)), [Effect::Changed(session)]);
        assert_eq!((world.duties(), world.carriers(session)), (vec![], vec![]));
        // Nor if it leaves on one that it was lent.
        world.join(link, S);
        world.lose(link);
        assert_eq!(world.duties(), [(other, LinkDuty::Write)]);
        world.pass(LIMITS.leave_grace);
        assert_eq!(world.send(other, &frame::end(S)), [Effect::Changed(session)]);
        assert_eq!((world.duties(), world.carriers(session)), (vec![], vec![]));
        assert_eq!(world.client.deadline(session), Some(world.host.now.get() + LIMITS.leave_grace));
    });
}

#[test]
fn other_links_carry_a_session_while_all_its_own_are_silent() {
    both(|mut world| {
        let (a, b, third) = (world.link(), world.link(), world.link());
        let session = world.play(a, S);
        world.join(b, S);
        world.client.silent(a);
        assert_eq!(world.duties(), [], "one is enough");
        world.client.silent(b);
        assert_eq!(world.duties(), [(third, LinkDuty::Write)]);
        world.client.game_bytes(session, b"\x01\0a");
        assert_eq!(world.read(third), data(S, 1, 0, b"\x01\0a"));
        assert_eq!(world.client.deadline(session), None, "its client has opened it, and is waited for");
        world.client.heard(b);
        assert_eq!((world.duties(), world.carriers(session)), (vec![], vec![a, b]));
        world.client.game_bytes(session, b"\x01\0b");
        assert_eq!(world.read(third), b"");
        // Silence of one that does not carry it changes nothing, and a silent one is lent to nobody.
        world.client.silent(third);
        world.client.silent(b);
        assert_eq!(world.duties(), []);
    });
}

/// A client sends its packets on the links that it counts as joined. Those that were lost with the links before come only
/// if it opens the session anew, so it is made to notice that one is gone.
#[test]
fn a_link_that_brings_packets_behind_a_hole_is_closed_so_that_the_client_opens_anew() {
    both(|mut world| {
        let link = world.link();
        let session = world.play(link, S);
        let unused = world.link();
        world.lose(link);
        let back = world.link();
        world.duties();
        assert_eq!(world.send(back, &data(S, 2, 0, b"two")), [writes(session, 0)]);
        assert_eq!(world.client.deadline(session), Some(world.host.now.get() + OPEN_WITHIN));
        assert_eq!(world.tick(session, OPEN_WITHIN - MS), []);
        assert_eq!(world.tick(session, MS), [(back, LinkDuty::Close)], "that one, as the client counts it as joined");
        world.lose(back);
        assert_eq!((world.duties(), world.carriers(session)), (vec![], vec![unused]), "the other one carries on");
        // It opens on another, and brings all again.
        let frames = [&frame::open(S, PORT)[..], &data(S, 1, 0, b"one"), &data(S, 2, 0, b"two")].concat();
        world.send(unused, &frames);
        assert_eq!(world.game_reads(session), b"onetwo");
        assert_eq!(world.tick(session, CLOSE_EVERY), [], "nothing more is to be closed");
    });
}

#[test]
fn links_are_closed_one_at_a_time_until_the_client_opens_one() {
    both(|mut world| {
        let first = world.link();
        let session = world.play(first, S);
        world.lose(first);
        let (a, b) = (world.link(), world.link());
        assert_eq!(world.duties().len(), 2);
        assert_eq!(world.tick(session, OPEN_WITHIN), [(a, LinkDuty::Close)]);
        world.lose(a);
        // It comes back, and is the last to be closed again: first is one that was not.
        let a = world.link();
        assert_eq!(world.duties(), [(a, LinkDuty::Write)]);
        assert_eq!(world.tick(session, OPEN_WITHIN), [(b, LinkDuty::Close)]);
        world.lose(b);
        assert_eq!(world.tick(session, CLOSE_EVERY), [(a, LinkDuty::Close)]);
        // It ends in its time, though links carry it: nobody has shown any interest in it.
        world.tick(session, LIMITS.linger);
        assert_eq!(world.client.ended(session), Some(EndReason::LinksLost));
    });
}

/// A client that logged in anew while it could not say so has forgotten its session before.
#[test]
fn a_forgotten_session_does_not_cost_the_links_of_another_for_ever() {
    both(|mut world| {
        let first = world.link();
        let forgotten = world.play(first, S);
        world.lose(first);
        let (a, b) = (world.link(), world.link());
        world.play(a, OTHER);
        world.join(b, OTHER);
        world.duties();
        let mut closed = world.tick(forgotten, OPEN_WITHIN).len();
        while world.client.ended(forgotten).is_none() {
            closed += world.tick(forgotten, CLOSE_EVERY).len();
        }
        assert_eq!(closed, 4);
        assert_eq!(world.read(a), frame::end(S), "if it has not, it learns of the end");
    });
}

/// Carriers give some links another address each time. Data names the session, so it joins as an open would.
#[test]
fn data_from_a_new_address_joins_as_an_open_from_there_would() {
    both(|mut world| {
        world.host.rules.set(OpenRules { bind_to_player: false, ..world.host.rules.get() });
        let link = world.link();
        let session = world.play(link, S);
        let elsewhere = world.client.add_link(2);
        world.lose(link);
        assert_eq!(world.duties(), [], "not before it has named the session");
        let effects = world.send(elsewhere, &[data(S, 1, 0, b"a"), data(S, 2, 0, b"b")].concat());
        assert_eq!(effects.iter().filter(|effect| **effect == Effect::JoinedElsewhere(session)).count(), 1);
        assert_eq!((world.game_reads(session), world.client.deadline(session)), (b"ab".to_vec(), None));
        // From then on that address has proved whose it is.
        let another = world.client.add_link(2);
        world.lose(elsewhere);
        assert_eq!(world.duties(), [(another, LinkDuty::Write)]);
    });
}

/// A client whose open was lost with the link, and which has it back before it looks, sends packets of a session that the
/// core never saw. It is made to notice, right after it has looked after its links.
#[test]
fn a_session_whose_open_was_lost_with_its_link_is_opened_anew() {
    both(|mut world| {
        let link = world.link();
        for packet in [1, 2] {
            world.refused(link, &data(S, packet, 0, b"?"), S, OpenError::UnknownSession);
        }
        assert_eq!((world.duties(), world.read(link)), (vec![], vec![]), "an end would end it on all links");
        world.send(link, &frame::ping(CLIENT, 20));
        assert_eq!(world.duties(), [(link, LinkDuty::Close)]);
        world.send(link, &frame::ping(CLIENT, 20));
        assert_eq!(world.duties(), [], "once for what came");
        world.lose(link);
        let back = world.link();
        assert!(matches!(world.send(back, &frame::open(S, PORT))[..], [Effect::Connect(_)]));
        world.send(back, &[data(S, 1, 0, b"one"), frame::ping(CLIENT, 20).to_vec()].concat());
        assert_eq!(world.duties(), []);
    });
}

/// The other link of a session may be opened on a slower path.
#[test]
fn an_open_that_comes_later_on_another_link_spares_the_first() {
    both(|mut world| {
        let (fast, slow) = (world.link(), world.link());
        world.refused(fast, &data(S, 1, 0, b"one"), S, OpenError::UnknownSession);
        let session = world.play(slow, S);
        world.send(slow, &data(S, 1, 0, b"one"));
        world.send(fast, &frame::ping(CLIENT, 20));
        assert_eq!((world.duties(), world.read(fast)), (vec![], PONG.to_vec()));
        world.send(fast, &data(S, 2, 0, b"two"));
        assert_eq!((world.game_reads(session), world.carriers(session)), (b"onetwo".to_vec(), vec![slow, fast]));
    });
}

#[test]
fn packets_behind_a_refused_open_are_late_and_cost_no_link() {
    both(|mut world| {
        let (link, other) = (world.link(), world.link());
        world.host.full.set(Some(OpenError::SessionLimit));
        world.refused(other, &data(S, 1, 0, b"ahead"), S, OpenError::UnknownSession);
        world.refused(link, &frame::open(S, PORT), S, OpenError::SessionLimit);
        assert_eq!(world.send(link, &data(S, 1, 0, b"one")), []);
        for link in [link, other] {
            world.send(link, &frame::ping(CLIENT, 20));
        }
        assert_eq!((world.duties(), world.read(link)), (vec![], [&PONG[..], &frame::end(S)].concat()));
    });
}
