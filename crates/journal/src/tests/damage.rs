//! Files whose bytes are not those that a journal stored.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::model::{Image, Pair, step};
use crate::layout::{BLOCK_HEADER, COPIES, DATA, FIRST_BLOCK, KIND, NEXT, OWNER, SELECTOR, SLOT, STATE_LEN, State};
use crate::memory::Memory;
use crate::recover::recover_from;
use crate::{BLOCK, BLOCK_DATA, Journal, Progress, RecoverError, Recovered, Torn};

/// A damage to a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip {
        at: usize,
        bits: u8,
    },
    /// A number in the header of a block, or in a state.
    Number {
        block: usize,
        word: usize,
        number: u32,
    },
    /// A block in place of another one.
    Copy {
        from: usize,
        to: usize,
    },
    Cut {
        len: usize,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let near = FIRST_BLOCK - 2..FIRST_BLOCK + 20;
    let number = prop_oneof![2 => near, 2 => 0..4_u32, 1 => any::<u32>()];
    prop_oneof![
        4 => (any::<usize>(), 1..=u8::MAX).prop_map(|(at, bits)| Damage::Flip { at, bits }),
        8 => (any::<usize>(), 0..64_usize, number)
            .prop_map(|(block, word, number)| Damage::Number { block, word, number }),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Damage::Copy { from, to }),
        1 => any::<usize>().prop_map(|len| Damage::Cut { len }),
    ]
}

/// Does the damage behind the header and the read buffer. Returns the blocks that have it.
fn inflict(damage: &Damage, bytes: &mut Vec<u8>) -> std::ops::Range<usize> {
    let blocks = bytes.len() / BLOCK;
    let first = FIRST_BLOCK as usize;
    if blocks <= first {
        return 0..0;
    }
    let pick = |block: usize| first + block % (blocks - first);
    match damage {
        Damage::Flip { at, bits } => {
            let at = first * BLOCK + at % (bytes.len() - first * BLOCK);
            bytes[at] ^= bits;
            at / BLOCK..at / BLOCK + 1
        }
        Damage::Number { block, word, number } => {
            let at = pick(*block) * BLOCK + word * 4;
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            at / BLOCK..at / BLOCK + 1
        }
        Damage::Copy { from, to } => {
            let (from, to) = (pick(*from), pick(*to));
            bytes.copy_within(from * BLOCK..(from + 1) * BLOCK, to * BLOCK);
            to..to + 1
        }
        Damage::Cut { len } => {
            let len = first * BLOCK + len % (bytes.len() - first * BLOCK);
            bytes.truncate(len);
            len / BLOCK..blocks
        }
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn put(image: &mut Image, at: usize, number: u32) {
    image.0[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_damaged_record_is_lost_alone(
        steps in vec(step(), if cfg!(miri) { 6 } else { 30 }),
        damages in vec(vec(damage(), 1..4), if cfg!(miri) { 4 } else { 60 }),
    ) {
        let mut pair = Pair::new(Journal::on(Memory::on_heap(FIRST_BLOCK + 15)));
        for step in &steps {
            let _ = pair.step(step);
        }
        let whole = pair.journal.memory().image();
        for damages in damages {
            let mut image = Image(whole.clone());
            let mut touched = BTreeSet::new();
            for damage in &damages {
                for block in inflict(damage, &mut image.0) {
                    let at = block * BLOCK;
                    touched.insert(if whole[at] == SLOT { block as u32 } else { number(&whole, at + OWNER) });
                }
            }
            let found = recover_from(&image).expect("its header is whole");
            let bytes = found.iter().filter_map(|found| found.record.as_ref().ok());
            let bytes: usize = bytes.map(|r| r.identity.len() + r.frames.len() + r.partial.len()).sum();
            prop_assert!(bytes <= image.0.len(), "{bytes} bytes in a file of {}", image.0.len());
            for session in pair.sessions.iter().filter(|session| !touched.contains(&session.slot)) {
                let is_it = |found: &&Recovered| found.serial == session.serial() && found.record.is_ok();
                let mut record = found.iter().find(is_it).expect("it is not touched").record.clone().expect("whole");
                prop_assert_eq!(record.unread.take().is_some(), pair.model.reader == Some(session.serial()));
                prop_assert_eq!(&record, &pair.model.records[&session.serial()]);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it takes long, and is nothing but slices")]
    fn any_bytes_behind_a_header_do_no_harm(
        blocks in vec((0..4_u8, FIRST_BLOCK..FIRST_BLOCK + 12, FIRST_BLOCK..FIRST_BLOCK + 12, any::<u8>()), 0..12),
        mark in any::<[u8; 24]>(),
    ) {
        let mut image = Image(Journal::on(Memory::on_heap(FIRST_BLOCK)).memory().image());
        image.0[24..48].copy_from_slice(&mark);
        for (kind, next, owner, fill) in blocks {
            let mut block = [fill; BLOCK];
            (block[KIND], block[SELECTOR]) = (kind, fill & 1);
            block[NEXT..NEXT + 4].copy_from_slice(&next.to_le_bytes());
            block[OWNER..OWNER + 4].copy_from_slice(&owner.to_le_bytes());
            image.0.extend(block);
        }
        for found in recover_from(&image).expect("its header is whole") {
            prop_assert!(found.record.is_err());
        }
    }
}

/// Two sessions with four blocks of frames each, in a file of its own.
struct Two {
    image: Image,
    slots: [u32; 2],
    states: [State; 2],
}

impl Two {
    fn new() -> Self {
        let mut journal = Journal::on(Memory::on_heap(FIRST_BLOCK + 15));
        let mut states = [State::default(); 2];
        let slots = [1, 2].map(|serial| {
            let mut record = journal.open(serial, b"a player", Progress::default()).expect("opened");
            let frames = vec![serial as u8; 3 * BLOCK_DATA + 1];
            journal.change(&mut record).append(1, &frames).commit().expect("changed");
            // The second copy counts.
            assert_eq!(record.selector, 1);
            states[serial as usize - 1] = record.state(record.progress, record.base, record.identity);
            record.slot
        });
        Self { image: Image(journal.memory().image()), slots, states }
    }

    /// Replaces the state of the first one by another one, with its checksum.
    fn set_state(&mut self, state: State) {
        let at = self.slots[0] as usize * BLOCK + COPIES[1];
        self.image.0[at..at + STATE_LEN].copy_from_slice(&state.encode(self.slots[0], 1));
    }

    /// Asserts that the first one is torn there, and the second one is whole.
    fn assert_torn(&self, torn: Torn, how: &str) {
        let found = recover_from(&self.image).expect("its header is whole");
        assert_eq!(found.len(), 2, "{how}");
        assert_eq!((found[0].serial, &found[0].record), (1, &Err(torn)), "{how}");
        let frames = &found[1].record.as_ref().expect("whole").frames;
        assert!(frames.iter().eq(&vec![2; 3 * BLOCK_DATA + 1]), "{how}");
    }
}

#[test]
fn a_chain_that_leads_elsewhere_is_torn() {
    let two = Two::new();
    let [slot, other] = two.slots;
    let (head, other_head) = (two.states[0].frames.head, two.states[1].frames.head);
    let last = head + 3;
    let elsewhere = [
        (head, "itself"),
        (slot, "its own block"),
        (other, "another's own block"),
        (other_head, "another's frames"),
        (0, "the header"),
        (FIRST_BLOCK - 1, "the read buffer"),
        (FIRST_BLOCK + 14, "a free block"),
        (FIRST_BLOCK + 15, "the end of the file"),
        (u32::MAX, "far away"),
    ];
    for (to, how) in elsewhere {
        for from in [head, head + 1] {
            let mut two = Two::new();
            if to == FIRST_BLOCK - 1 {
                // A game server may send bytes that look like a block of this record.
                two.image.0[to as usize * BLOCK + KIND] = DATA;
                put(&mut two.image, to as usize * BLOCK + OWNER, slot);
                put(&mut two.image, to as usize * BLOCK + NEXT, from + 2);
            }
            put(&mut two.image, from as usize * BLOCK + NEXT, to);
            two.assert_torn(Torn::Frames, how);
        }
        let mut two = Two::new();
        let mut state = two.states[0];
        state.partial = crate::layout::Span { head: to, skip: 0, len: 1 };
        two.set_state(state);
        two.assert_torn(Torn::Partial, how);
        state = two.states[0];
        if to > 1 {
            state.identity.at = to;
            two.set_state(state);
            two.assert_torn(Torn::Identity, how);
        }
    }
    let mut two = Two::new();
    put(&mut two.image, last as usize * BLOCK + NEXT, head);
    let found = recover_from(&two.image).expect("its header is whole");
    assert!(found[0].record.is_ok(), "nothing looks behind the last block");
}

#[test]
fn a_state_that_claims_too_much_is_torn() {
    let claims = |change: &dyn Fn(&mut State), torn: Torn, how: &str| {
        let mut two = Two::new();
        let mut state = two.states[0];
        change(&mut state);
        two.set_state(state);
        two.assert_torn(torn, how);
    };
    claims(&|state| state.frames.len = u32::MAX, Torn::Frames, "more than the file has");
    claims(&|state| state.frames.len += BLOCK_DATA as u32, Torn::Frames, "a block more");
    claims(&|state| state.frames.skip = BLOCK_DATA as u16 + 1, Torn::Frames, "bytes behind the block");
    claims(&|state| state.partial = state.frames, Torn::Partial, "the same blocks twice");
    claims(&|state| state.identity.len = u16::MAX, Torn::Identity, "a long identity");
    claims(&|state| state.identity.len += 1, Torn::Identity, "another identity");
    for (kind, how) in [(SLOT, "a record's own block"), (0, "a free block"), (DATA + 2, "a block of no known kind")] {
        let mut two = Two::new();
        two.image.0[two.states[0].frames.head as usize * BLOCK + KIND] = kind;
        let found = recover_from(&two.image).expect("its header is whole");
        assert_eq!(found[0].record, Err(Torn::Frames), "{how}");
        assert!(found.last().expect("two").record.is_ok(), "{how}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "it takes long, and is nothing but slices")]
fn each_bit_of_a_state_counts() {
    let mut two = Two::new();
    for at in (COPIES[1]..COPIES[1] + STATE_LEN).chain([SELECTOR]) {
        for bit in 0..8 {
            let at = two.slots[0] as usize * BLOCK + at;
            two.image.0[at] ^= 1 << bit;
            let torn = recover_from(&two.image).expect("its header is whole").swap_remove(0).record;
            two.image.0[at] ^= 1 << bit;
            // The byte that selects may name the other copy, which is whole too.
            if at % BLOCK != SELECTOR || bit > 0 {
                assert_eq!(torn, Err(Torn::State), "bit {bit} of byte {at}");
            }
        }
    }
    let at = two.states[0].frames.head as usize * BLOCK + BLOCK_HEADER;
    two.image.0[at] ^= 1;
    assert!(
        recover_from(&two.image).expect("its header is whole")[0].record.is_ok(),
        "bytes of frames are the owner's"
    );
}

#[test]
fn a_header_of_another_program_is_no_journal() {
    let mut two = Two::new();
    for at in 0..16 {
        two.image.0[at] ^= 32;
        assert!(matches!(recover_from(&two.image), Err(RecoverError::NotAJournal)), "byte {at}");
        two.image.0[at] ^= 32;
    }
    for at in 16..20 {
        two.image.0[at] ^= 32;
        assert!(matches!(recover_from(&two.image), Err(RecoverError::Format(_))), "byte {at}");
        two.image.0[at] ^= 32;
    }
    for selector in 2..=u8::MAX {
        two.image.0[24] = selector;
        assert_eq!(recover_from(&two.image).expect("a journal").len(), 2, "a mark that is none");
    }
}
