//! Sessions that are brought to where the kernel says that they stand, or are not.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use otproxy_journal::{Journal, Progress, RecoveredRecord};

use super::recover::bring;
use super::{ENDED, RecoveredSessions};
use crate::handover::Survivors;
use otproxy_protocol::core::{EndReason, RecordedSession};
use otproxy_protocol::frame::{PacketId, SessionId};
use otproxy_protocol::game_packet::Framing;

/// A connection over which 10 bytes were written and 7 of 9 read.
fn connection() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut theirs, _) = listener.accept().unwrap();
    ours.write_all(&[1; 10]).unwrap();
    theirs.read_exact(&mut [0; 10]).unwrap();
    theirs.write_all(&[2; 9]).unwrap();
    let mut all = [0; 9];
    while ours.peek(&mut all).unwrap() < 9 {
        std::thread::yield_now();
    }
    ours.read_exact(&mut [0; 7]).unwrap();
    (ours.into(), theirs)
}

fn record(written: u64, read: u64, unread: Option<&[u8]>) -> RecoveredRecord {
    RecoveredRecord {
        identity: Vec::new(),
        progress: Progress { received: 4, written, read, bytes_in: 6, bytes_out: 2, stage: 2 },
        base: 3,
        frames: b"frames".to_vec(),
        partial: b"pa".to_vec(),
        unread: unread.map(<[u8]>::to_vec),
    }
}

fn brought(record: RecoveredRecord, socket: Option<OwnedFd>) -> (RecordedSession, Option<OwnedFd>) {
    bring(SessionId(1), record, Bytes::from_static(b"header"), socket)
}

#[test]
fn what_the_kernel_agrees_with_goes_on() {
    for (read, unread, partial) in
        [(7, None, &b"pa"[..]), (7, Some(&b"of before"[..]), b"pa"), (4, Some(&b"new, and of before"[..]), b"panew")]
    {
        let (socket, _theirs) = connection();
        let (session, socket) = brought(record(6, read, unread), Some(socket));
        assert!(socket.is_some() && session.connected && session.ended.is_none());
        assert_eq!((session.taken, session.written, session.received), (10, 6, PacketId(4)));
        assert_eq!((&session.partial[..], &session.frames[..], session.base), (partial, &b"frames"[..], PacketId(3)));
        assert_eq!((session.bytes_in, session.bytes_out, session.framing), (6, 2, Framing::Blocks));
    }
}

#[test]
fn what_it_does_not_agree_with_ends_and_its_client_gets_what_there_is() {
    for (written, read, unread, socket) in [
        (6, 7, None, false),
        // More than was ever written, or read.
        (11, 7, None, true),
        (6, 8, None, true),
        // Bytes were read that are nowhere: another session read last, or the buffer cannot hold so many.
        (6, 4, None, true),
        (6, 4, Some(&b"2b"[..]), true),
    ] {
        let (connection, mut theirs) = connection();
        let (session, kept) = brought(record(written, read, unread), socket.then_some(connection));
        assert!(kept.is_none() && !session.connected);
        assert_eq!(session.ended, Some(EndReason::Restart));
        assert_eq!((&session.frames[..], session.base), (&b"frames"[..], PacketId(3)));
        assert!(matches!(theirs.read(&mut [0]), Ok(0) | Err(_)), "the connection is closed");
    }
    let (connection, _theirs) = connection();
    let mut over = record(6, 7, None);
    over.progress.stage |= ENDED;
    let (session, kept) = brought(over, Some(connection));
    assert!(kept.is_none() && session.ended.is_some());
    assert_eq!(session.framing, Framing::Blocks);
}

#[test]
fn records_of_strangers_are_lost_alone() {
    let mut journal = Journal::create().unwrap();
    let _record = journal.open(1, b"no identity", Progress::default()).unwrap();
    let stranger = tempfile();
    let survivors = Survivors {
        files: vec![journal.file().unwrap(), stranger],
        sockets: [(1, connection().0)].into_iter().collect(),
        tail: None,
    };
    let (sessions, tail) = RecoveredSessions::of(survivors);
    assert!(tail.is_none() && sessions.state.clients.is_empty() && sessions.sockets.is_empty());
    assert_eq!(sessions.lost, 1);
}

/// A file that is no journal.
fn tempfile() -> std::fs::File {
    let file = rustix::fs::memfd_create("stranger", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(file);
    file.write_all(&[7; 5000]).unwrap();
    file
}
