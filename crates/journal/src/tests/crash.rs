//! A process that dies between any two stores, or in the middle of one.

use proptest::collection::vec;
use proptest::prelude::*;

use super::Store;
use super::model::{Image, Pair, Step, state, step};
use crate::Journal;
use crate::layout::FIRST_BLOCK;
use crate::memory::Memory;

/// Blocks of a segment: few, so that journals grow.
const SEGMENT_BLOCKS: u32 = FIRST_BLOCK + 7;

/// Returns what may have been stored of these bytes when the process died within: parts of them, from either end and
/// scattered.
fn torn(before: &[u8], bytes: &[u8]) -> Vec<Vec<u8>> {
    if bytes.len() < 2 {
        return Vec::new();
    }
    if cfg!(miri) {
        // Miri is slow, and looks for other things.
        let (stored, not) = (bytes.split_at(bytes.len() / 2).0, before.split_at(bytes.len() / 2).1);
        return vec![[stored, not].concat()];
    }
    let mix = |stored: &dyn Fn(usize) -> bool| {
        let pairs = before.iter().zip(bytes).enumerate();
        pairs.map(|(at, (old, new))| if stored(at) { *new } else { *old }).collect()
    };
    let cuts = [1, bytes.len() / 2, bytes.len() - 1];
    let mut torn: Vec<Vec<u8>> = cuts.iter().flat_map(|cut| [mix(&|at| at < *cut), mix(&|at| at >= *cut)]).collect();
    torn.push(mix(&|at| at % 2 == 0));
    torn
}

/// A pair, and the image that its file has after each store.
struct Course {
    pair: Pair,
    image: Image,
}

impl Course {
    fn new(max_segments: usize) -> Self {
        let mut memory = Memory::on_heap(SEGMENT_BLOCKS);
        memory.limit(max_segments);
        let mut journal = Journal::on(memory);
        let image = Image(journal.memory().image());
        Self { pair: Pair::new(journal), image }
    }

    /// Does a step, and looks at the file after each of its stores and within them: it has the state before the step or
    /// the one after it, and goes from one to the other once.
    fn step(&mut self, step: &Step) {
        let before = self.pair.model.clone();
        self.pair.journal.memory().trace = Some(Vec::new());
        let done = self.pair.step(step);
        let trace = self.pair.journal.memory().trace.take().expect("the trace");
        let after = &self.pair.model;
        if done.is_err() {
            assert_eq!(before, *after, "a model that has a step that failed");
        }
        let mut changed = false;
        let count = trace.len();
        for (k, store) in trace.into_iter().enumerate() {
            let look = |image: &Image, changed: &mut bool, how: &str| {
                let found = state(image);
                let place = format_args!("store {k} of {count}, {how}, of {step:?}");
                if *changed || found != before {
                    assert!(found == *after, "{place}: {found:?} is neither {before:?} nor {after:?}");
                    *changed = true;
                }
            };
            match store {
                Store::Grow(len) => self.image.0.resize(self.image.0.len() + len, 0),
                Store::Bytes { at, bytes } => {
                    let there = at..at + bytes.len();
                    let old = self.image.0[there.clone()].to_vec();
                    for torn in torn(&old, &bytes) {
                        self.image.0[there.clone()].copy_from_slice(&torn);
                        let mut shows = changed;
                        look(&self.image, &mut shows, "torn");
                        assert_eq!(shows, changed, "half of store {k} of {count} of {step:?} shows");
                    }
                    self.image.0[there].copy_from_slice(&bytes);
                }
            }
            look(&self.image, &mut changed, "whole");
        }
        assert!(self.image.0 == self.pair.journal.memory().image(), "stores that were not seen");
        assert!(state(&self.image) == *after, "{step:?} is done, and not in the file");
        self.pair.assert_memory();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 48 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn each_change_is_there_whole_or_not_at_all(
        steps in vec(step(), if cfg!(miri) { 12 } else { 24 }),
        max_segments in prop_oneof![Just(1_usize), Just(2), Just(100)],
    ) {
        let mut course = Course::new(max_segments);
        for step in &steps {
            course.step(step);
        }
        course.pair.close_all();
    }
}
