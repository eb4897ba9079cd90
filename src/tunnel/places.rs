//! The places of an edge's trunks: which worker has each, and which worker of the core.

use std::ops::Range;

use tokio_util::sync::CancellationToken;

use super::trunks_wanted;

/// A worker of the edge, and one of the core.
pub(super) type WorkerPair = (usize, u16);

/// All places, those of trunks that are being made included.
#[derive(Debug)]
pub(super) struct TrunkPlaces {
    all: Vec<Place>,
    /// The number of the last place.
    last: u64,
    workers: usize,
    /// The number of the core's workers, as it has told.
    owners: u16,
}

#[derive(Debug)]
struct Place {
    number: u64,
    pair: WorkerPair,
    /// Has its trunk take no more streams, once that is made.
    leave: Option<CancellationToken>,
}

impl TrunkPlaces {
    /// Makes none, for an edge of so many workers.
    pub fn new(workers: usize) -> Self {
        Self { all: Vec::new(), last: 0, workers, owners: 1 }
    }

    /// Takes a place of the pair that has the fewest, of those with one of these workers of the core. Returns its number, and the pair.
    pub fn take(&mut self, owners: Range<u16>) -> (u64, WorkerPair) {
        let pair = self.emptiest(owners);
        self.last += 1;
        self.all.push(Place { number: self.last, pair, leave: None });
        (self.last, pair)
    }

    /// Records that the trunk of a place is made, that `leave` has it take no more streams, and that the core has so many workers.
    pub fn fill(&mut self, number: u64, leave: CancellationToken, owners: u16) {
        self.owners = owners;
        if let Some(place) = self.all.iter_mut().find(|place| place.number == number) {
            place.leave = Some(leave);
        }
        self.even_out();
    }

    /// Frees a place.
    pub fn free(&mut self, number: u64) {
        self.all.retain(|place| place.number != number);
        self.even_out();
    }

    /// Has a trunk of a pair with more than its share take no more streams, if another pair has less: the one that is made for it gets
    /// to where one is missing. This comes to pass where the core has chosen without knowing the edge's places, and where the side that
    /// connects has found dead trunks, and made others, before the edge knew that they were dead. The oldest leaves: it may be one of those.
    fn even_out(&self) {
        let pairs = (self.workers * usize::from(self.owners)).max(1);
        let share = trunks_wanted(self.workers, self.owners.into()) / pairs;
        if self.count(self.emptiest(0..self.owners)) < share {
            let surplus = self.all.iter().filter(|place| self.count(place.pair) > share);
            let mut leaves = surplus.filter_map(|place| place.leave.as_ref()).filter(|leave| !leave.is_cancelled());
            leaves.next().into_iter().for_each(CancellationToken::cancel);
        }
    }

    fn count(&self, pair: WorkerPair) -> usize {
        self.all.iter().filter(|place| place.pair == pair).count()
    }

    fn emptiest(&self, owners: Range<u16>) -> WorkerPair {
        let pairs = owners.flat_map(|owner| (0..self.workers).map(move |worker| (worker, owner)));
        pairs.min_by_key(|pair| self.count(*pair)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the pairs that have places.
    fn pairs(places: &TrunkPlaces) -> Vec<WorkerPair> {
        let mut pairs: Vec<_> = places.all.iter().map(|place| place.pair).collect();
        pairs.sort_unstable();
        pairs
    }

    /// Makes a trunk to one of these workers of a core that has two; returns its number, and what has it leave.
    fn make(places: &mut TrunkPlaces, owners: Range<u16>) -> (u64, CancellationToken) {
        let ((number, _), leave) = (places.take(owners), CancellationToken::new());
        places.fill(number, leave.clone(), 2);
        (number, leave)
    }

    #[test]
    fn each_pair_of_workers_has_as_many_trunks() {
        let mut places = TrunkPlaces::new(2);
        let all: Vec<_> = (0..2).flat_map(|worker| (0..3).map(move |owner| (worker, owner))).collect();
        let first: Vec<_> = (0..6).map(|_| places.take(0..3)).collect();
        assert_eq!(pairs(&places), all);
        let second: Vec<_> = (0..6).map(|_| places.take(0..3)).collect();
        first.iter().for_each(|(number, _)| places.free(*number));
        assert_eq!(pairs(&places), all);
        // The place of one that is gone, or that takes no more streams, is the next one.
        let (gone, pair) = second[4];
        places.free(gone);
        assert_eq!(places.take(0..3).1, pair);
        // The core has chosen the other one.
        assert_eq!(places.take(2..3).1.1, 2);
        assert_eq!(places.take(0..0).1, (0, 0), "nonsense is no panic");
    }

    #[test]
    fn a_pair_that_lost_its_trunk_gets_the_surplus_of_another() {
        let mut places = TrunkPlaces::new(2);
        // Four trunks, all of which are dead. The edge finds one so, when the core has made another for each.
        let dead: Vec<_> = (0..4).map(|_| make(&mut places, 0..2)).collect();
        places.free(dead[0].0);
        let made: Vec<_> = (0..4).map(|_| make(&mut places, 0..2)).collect();
        let leaving = || made.iter().filter(|(_, leave)| leave.is_cancelled()).count();
        places.free(dead[1].0);
        places.free(dead[2].0);
        assert_eq!(leaving(), 0);
        places.free(dead[3].0);
        assert_eq!(leaving(), 1, "a pair has none, and another two");
        let (number, _) = made.iter().find(|(_, leave)| leave.is_cancelled()).unwrap();
        places.free(*number);
        make(&mut places, 0..2);
        assert_eq!(pairs(&places), [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert_eq!(leaving(), 1);
    }

    #[test]
    fn a_core_that_chooses_one_worker_too_often_is_asked_again() {
        let mut places = TrunkPlaces::new(4);
        // Each of the core's two workers is to have four trunks.
        let mut made: Vec<_> = [0, 0, 0, 0, 1, 1, 1].map(|owner| make(&mut places, owner..owner + 1)).into();
        assert!(made.iter().all(|(_, leave)| !leave.is_cancelled()), "one is still to come");
        made.push(make(&mut places, 0..1));
        let leaving: Vec<_> = made.iter().filter(|(_, leave)| leave.is_cancelled()).collect();
        assert_eq!(leaving.len(), 1);
        places.free(leaving[0].0);
        make(&mut places, 0..2);
        let all: Vec<_> = (0..4).flat_map(|worker| [(worker, 0), (worker, 1)]).collect();
        assert_eq!(pairs(&places), all);
    }

    #[test]
    fn trunks_stay_while_others_are_made_in_the_place_of_lost_ones() {
        let mut places = TrunkPlaces::new(2);
        let trunks: Vec<_> = (0..4).map(|_| make(&mut places, 0..2)).collect();
        places.free(trunks[0].0);
        places.free(trunks[1].0);
        assert!(trunks.iter().all(|(_, leave)| !leave.is_cancelled()));
    }
}
