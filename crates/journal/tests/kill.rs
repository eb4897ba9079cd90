//! A process that writes records, killed at any instant: the order of stores is then the one that the compiler and the
//! processor made of the program.
#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use otproxy_journal::{BLOCK_DATA, Contents, Journal, Progress, Record, RecoveredRecord, recover};

/// The variable by which this program knows that it is the process to be killed.
const WRITER: &str = "OTPROXY_JOURNAL_WRITER";
/// The sessions of that process.
const SESSIONS: u64 = 5;
/// Processes that are killed.
const ROUNDS: usize = 24;

/// Returns the record that a session has after so many changes: all of it follows from these two numbers.
fn expected(session: u64, changes: u32) -> RecoveredRecord {
    let seed = session.wrapping_mul(31).wrapping_add(u64::from(changes));
    let fill = |len: u64, salt: u64| vec![(seed + salt) as u8; len as usize];
    let long = u64::from(changes);
    RecoveredRecord {
        identity: fill(1 + seed * 7 % 1500, 1),
        progress: Progress {
            received: changes,
            written: long + session,
            read: long * 2,
            bytes_in: long * 3,
            bytes_out: long * 5,
            stage: changes as u8,
        },
        base: changes,
        frames: fill(seed * 13 % (2 * BLOCK_DATA as u64), 2),
        partial: fill(seed * 11 % 300, 3),
        unread: None,
    }
}

/// Changes a record to what it is to be next, or closes it and opens another one.
fn advance(journal: &mut Journal, mut record: Record) -> Record {
    let session = record.serial();
    let changes = record.progress().received + 1;
    let next = expected(session, changes);
    if changes.is_multiple_of(7) {
        journal.close(record);
        let frames = [&next.frames[..]];
        let RecoveredRecord { identity, progress, base, partial, .. } = &next;
        let contents = Contents { identity, progress: *progress, base: *base, frames: &frames, partial };
        return journal.open_with(session, &contents).expect("memory");
    }
    if changes.is_multiple_of(3) {
        journal.buffer_for(&record)[..8].copy_from_slice(&session.to_le_bytes());
    }
    let before = record.frames_len();
    let mut change = journal.change(&mut record);
    change.progress(&next.progress).append(next.base, &next.frames).acked(next.base, before);
    change.partial(&next.partial).identity(&next.identity).commit().expect("memory");
    drop(change);
    record
}

/// Writes until it is killed, or until nobody reads what it says.
fn write_records() {
    let mut journal = Journal::create().expect("memory");
    let file = journal.file().expect("a descriptor");
    let open = |session| journal.open(session, &expected(session, 0).identity, expected(session, 0).progress);
    let mut records: Vec<_> = (1..=SESSIONS).map(open).map(|record| record.expect("memory")).collect();
    let mut out = std::io::stdout();
    writeln!(out, "\ndescriptor {}", file.as_raw_fd()).expect("a reader");
    loop {
        // A call of the kernel for each change would be where nearly all of them are killed.
        for _ in 0..50 {
            let record = records.remove(0);
            records.push(advance(&mut journal, record));
        }
        if out.write_all(b".").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn a_process_that_is_killed_leaves_each_record_whole() {
    if std::env::var_os(WRITER).is_some() {
        return write_records();
    }
    let mut changes_seen = 0;
    for round in 0..ROUNDS {
        let name = "a_process_that_is_killed_leaves_each_record_whole";
        let mut writer = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture"])
            .env(WRITER, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut out = BufReader::new(writer.stdout.take().expect("its output"));
        let descriptor = loop {
            let mut line = String::new();
            assert!(out.read_line(&mut line).expect("a line") > 0, "it ended");
            if let Some(number) = line.strip_prefix("descriptor ") {
                break number.trim().to_owned();
            }
        };
        let kept = File::open(format!("/proc/{}/fd/{descriptor}", writer.id())).expect("its file");
        // It goes on while this reads, and is anywhere in the changes that follow.
        let mut dots = vec![0; 1 + round * 7];
        out.read_exact(&mut dots).expect("it writes");
        writer.kill().expect("killed");
        writer.wait().expect("gone");

        let found = recover(&kept).expect("a journal");
        // One may have been between its end and its next beginning.
        assert!(found.len() as u64 >= SESSIONS - 1, "{} records", found.len());
        let (mut readers, mut serials) = (0, Vec::new());
        for found in found {
            let mut record = found.record.expect("whole");
            if let Some(unread) = record.unread.take() {
                readers += 1;
                // Its reader may have changed, and not its bytes yet.
                assert!(
                    (1..=SESSIONS).contains(&u64::from_le_bytes(unread[..8].try_into().expect("eight")))
                        || unread[..8] == [0; 8]
                );
            }
            let mut expected = expected(found.serial, record.progress.received);
            if record.progress.received == 0 {
                (expected.frames, expected.partial) = Default::default();
            }
            assert_eq!(record, expected);
            changes_seen += record.progress.received;
            serials.push(found.serial);
        }
        serials.sort_unstable();
        serials.dedup();
        assert!(serials.len() as u64 >= SESSIONS - 1 && readers <= 1);
    }
    assert!(changes_seen > 0);
}
