//! The same on real files, and what holds of the crate's own files.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};

use super::model::{Pair, state_of, step};
use crate::{
    BLOCK_DATA, INLINE_IDENTITY, Journal, MAX_IDENTITY, Progress, READ_BUFFER, RecordError, RecoverError, SEGMENT,
    recover,
};

fn file_of(bytes: &[u8]) -> File {
    let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).expect("a file"));
    file.write_all(bytes).expect("written");
    file
}

fn read_u64(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, at).expect("read");
    u64::from_le_bytes(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no memory")]
    fn a_file_has_what_the_model_has(steps in vec(step(), 60)) {
        let journal = Journal::create().expect("a journal");
        let kept = journal.file().expect("a descriptor");
        let mut pair = Pair::new(journal);
        for step in &steps {
            let _ = pair.step(step);
            let buffer = pair.journal.read(READ_BUFFER).to_vec();
            prop_assert_eq!(&state_of(recover(&kept).expect("a journal"), &buffer), &pair.model);
        }
        let buffer = pair.journal.read(READ_BUFFER).to_vec();
        let model = std::mem::take(&mut pair.model);
        drop(pair);
        prop_assert_eq!(state_of(recover(&kept).expect("a journal"), &buffer), model);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no memory")]
fn a_journal_grows_by_segments_and_uses_them_again() {
    let mut journal = Journal::create().expect("a journal");
    let kept = journal.file().expect("a descriptor");
    assert_eq!(journal.allocated(), SEGMENT);
    for _ in 0..3 {
        let mut records: Vec<_> =
            (0..1000).map(|serial| journal.open(serial, b"a player", Progress::default()).expect("opened")).collect();
        for (n, record) in records.iter_mut().enumerate() {
            journal.change(record).append(1, &vec![n as u8; BLOCK_DATA + 1]).commit().expect("changed");
        }
        // Each has its own block and two of frames.
        assert_eq!((journal.used(), journal.allocated()), (1000 * 3 * 2048, 6 * SEGMENT));
        assert_eq!(kept.metadata().expect("its length").len(), 6 * SEGMENT as u64);
        let found = recover(&kept).expect("a journal");
        let mut serials: Vec<_> = found.iter().map(|found| found.serial).collect();
        serials.sort_unstable();
        assert!(serials.into_iter().eq(0..1000));
        for found in found {
            assert_eq!(found.record.expect("whole").frames, vec![found.serial as u8; BLOCK_DATA + 1]);
        }
        records.drain(..).for_each(|record| journal.close(record));
        assert_eq!(journal.used(), 0);
        assert!(recover(&kept).expect("a journal").is_empty());
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no memory")]
fn nobody_can_make_the_file_shorter() {
    let mut journal = Journal::create().expect("a journal");
    let kept = journal.file().expect("a descriptor");
    assert_eq!(kept.set_len(0).expect_err("sealed").kind(), ErrorKind::PermissionDenied);
    let record = journal.open(1, b"a player", Progress::default()).expect("opened");
    assert_eq!(recover(&kept).expect("a journal").len(), 1);
    journal.close(record);
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no memory")]
fn a_failure_to_get_memory_leaves_each_record_as_it_was() {
    let mut journal = Journal::create().expect("a journal");
    journal.memory().limit(1);
    let kept = journal.file().expect("a descriptor");
    let mut record = journal.open(1, b"a player", Progress::default()).expect("opened");
    let error = journal.change(&mut record).append(1, &vec![7; SEGMENT]).commit().expect_err("no memory");
    assert!(matches!(error, RecordError::NoMemory(_)), "{error}");
    assert_eq!((journal.used(), record.frames_len()), (2048, 0));
    journal.change(&mut record).append(1, b"a frame").commit().expect("there is room for this");
    let found = recover(&kept).expect("a journal");
    assert_eq!(found[0].record.as_ref().expect("whole").frames, b"a frame");

    let mut others = Vec::new();
    let error = loop {
        match journal.open(2, b"another", Progress::default()) {
            Ok(record) => others.push(record),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, RecordError::NoMemory(_)), "{error}");
    assert_eq!(journal.allocated(), SEGMENT);
    journal.close(others.pop().expect("one"));
    others.push(journal.open(3, b"a third", Progress::default()).expect("there is room again"));
    assert_eq!(recover(&kept).expect("a journal").len(), others.len() + 1);
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no memory")]
fn an_identity_has_a_limit_and_a_record_has_what_it_was_told() {
    let mut journal = Journal::create().expect("a journal");
    let kept = journal.file().expect("a descriptor");
    let error = journal.open(1, &[1; MAX_IDENTITY + 1], Progress::default()).expect_err("too long");
    assert_eq!(error.to_string(), "an identity of 1501 bytes is too long for a record, which takes up to 1500");
    let mut record = journal.open(1, &[1; MAX_IDENTITY], Progress::default()).expect("opened");
    assert_eq!(journal.used(), 2 * 2048);
    journal.identify(&mut record, &[2; MAX_IDENTITY + 1]).expect_err("too long");
    let error = journal.change(&mut record).append(1, b"four").acked(2, 5).commit().expect_err("too many");
    assert_eq!(error.to_string(), "5 bytes of frames were acknowledged, and the record has 4");
    assert_eq!((record.base(), record.frames_len(), record.partial_len()), (0, 0, 0));
    assert_eq!(recover(&kept).expect("a journal")[0].record.as_ref().expect("whole").identity, [1; MAX_IDENTITY]);
    journal.identify(&mut record, &[3; INLINE_IDENTITY]).expect("it fits");
    assert_eq!(journal.used(), 2048, "an identity of up to {INLINE_IDENTITY} bytes takes no block");
}

#[test]
#[cfg_attr(miri, ignore = "Miri makes no such files")]
fn what_is_no_journal_is_not_read_as_one() {
    let journal = Journal::create().expect("a journal");
    let kept = journal.file().expect("a descriptor");
    let mut bytes = vec![0; SEGMENT];
    std::os::unix::fs::FileExt::read_exact_at(&kept, &mut bytes, 0).expect("read");
    assert!(recover(&file_of(&bytes)).expect("a journal").is_empty());

    for (bytes, why) in [(&[][..], "empty"), (&bytes[..100], "short"), (&vec![0; SEGMENT][..], "zeros")] {
        let error = recover(&file_of(bytes)).expect_err(why);
        assert!(matches!(error, RecoverError::NotAJournal), "{why}: {error}");
    }
    // The number stands behind the magic in each format, whatever else is there.
    bytes[16] = 9;
    let error = recover(&file_of(&bytes)).expect_err("another format");
    assert_eq!(error.to_string(), "the journal is of format 9, and this program reads format 1");
    let error = recover(&file_of(&bytes[..64])).expect_err("another format");
    assert!(matches!(error, RecoverError::Format(9)), "{error}");
    let folder = File::open("/").expect("a folder");
    assert!(matches!(recover(&folder), Err(RecoverError::Io(_) | RecoverError::NotAJournal)));
}

/// Its bytes are read by programs of other versions: whoever changes them changes [`crate::FORMAT`], and these.
#[test]
#[cfg_attr(miri, ignore = "Miri maps no memory")]
fn the_bytes_of_this_format_stay() {
    let mut journal = Journal::create().expect("a journal");
    let kept = journal.file().expect("a descriptor");
    let progress = Progress { received: 1, written: 2, read: 3, bytes_in: 4, bytes_out: 5, stage: 6 };
    let mut record = journal.open(7, b"a player", progress).expect("opened");
    journal.change(&mut record).append(9, b"frames").partial(b"part").commit().expect("changed");
    journal.buffer_for(&record);
    let words = |from: u64, count: u64| (0..count).map(|n| read_u64(&kept, from + 8 * n)).collect::<Vec<_>>();
    assert_eq!(words(16, 4), [1, 1, 0, 33], "format, mark's selector, marks");
    let slot = 33 * 2048;
    assert_eq!(words(slot, 4), [2, 0, 7, 1], "kind, serial, selector");
    let copy = [1 | 9 << 32, 2, 3, 4, 5, 34 | 6 << 32, 35 | 4 << 32, 1 << 32, 0xc53a_48a8_0006_0008];
    assert_eq!(words(slot + 64 + 80, 9), copy, "{:#x?}", words(slot + 64 + 80, 9));
    assert_eq!(
        words(slot + 64 + 80 + 72, 1),
        [0xbe06_0e6f_bf60_5329],
        "the checksum: {:#x?}",
        words(slot + 64 + 80 + 72, 1)
    );
    assert_eq!(words(slot + 256 + 896, 1), [u64::from_le_bytes(*b"a player")]);
    assert_eq!(words(34 * 2048, 3), [1, 33, u64::from_le_bytes(*b"frames\0\0")]);
}

#[test]
fn figures_of_memory_are_those_of_the_documentation() {
    assert_eq!(crate::MAX_SEGMENTS * SEGMENT, 4 << 30);
    // A chain's least allocation beside it is four numbers of four bytes.
    let heap = size_of::<crate::Record>() + 2 * 16;
    assert!((200..=300).contains(&heap), "{heap} bytes on the heap for a session");
}

/// Cargo lets a crate have the lints of the workspace, or its own, and no mix of them.
#[test]
#[cfg_attr(miri, ignore = "Miri opens no such files")]
fn the_lints_are_those_of_the_workspace_but_for_three_lines() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).expect("readable");
    let lints = |text: &str, from: &str| {
        let lines = text.lines().skip_while(|line| *line != from).take_while(|line| !line.starts_with("[lib]"));
        let lines = lines.take_while(|line| *line != "[package]" && !line.starts_with('#'));
        lines.filter(|line| !line.starts_with('[') && !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let rust = |text: &str, table: &str| lints(text, &format!("[{table}.rust]"));
    let clippy = |text: &str, table: &str| lints(text, &format!("[{table}.clippy]"));
    let (own, all) = (read(&folder.join("Cargo.toml")), read(&folder.join("../../Cargo.toml")));
    assert_eq!(clippy(&own, "lints"), clippy(&all, "workspace.lints"));
    let forbidden: Vec<_> = rust(&own, "lints")
        .iter()
        .map(|line| line.replace("unsafe_code = \"deny\"", "unsafe_code = \"forbid\""))
        .collect();
    let all: Vec<_> = rust(&all, "workspace.lints");
    assert!(
        forbidden.starts_with(&all) && all.iter().any(|line| line.starts_with("unsafe_code")),
        "{forbidden:?} {all:?}"
    );

    let mut exceptions = Vec::new();
    for entry in std::fs::read_dir(folder.join("src")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let text = read(&path);
            exceptions.extend(text.matches("unsafe {").map(|_| path.file_name().expect("a name").to_owned()));
        }
    }
    exceptions.sort();
    assert_eq!(exceptions, ["memory.rs", "position.rs", "position.rs"]);
}
