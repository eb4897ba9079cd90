use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use jiff::tz::TimeZone;

use super::*;
use crate::connection::{AdmissionError, CloseReason};
use otproxy_config::AccessLogFile;
use otproxy_net::ConnectResult;
use otproxy_protocol::core::EndReason;
use otproxy_protocol::frame::{ClientId, SessionId};

/// 2026-07-23T15:04:05.678Z
const ENDED: Duration = Duration::from_millis(1_784_819_045_678);

/// A folder of this test alone, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("otproxy-access-log-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn entry(what: Ended) -> AccessLogEntry {
    AccessLogEntry {
        ended: std::time::SystemTime::UNIX_EPOCH + ENDED,
        lasted: Duration::from_millis(61_002),
        listener: "login".to_owned(),
        player: "198.51.100.20:40001".parse().unwrap(),
        edge: None,
        bytes_in: 149,
        bytes_out: 7310,
        open: OpenCounts { process: 12, listener: 7, carried: 5 },
        what,
    }
}

fn forwarded(target: Option<&str>, connected: Option<u64>, reason: CloseReason) -> Ended {
    let (target, connected) = (target.map(str::to_owned), connected.map(Duration::from_millis));
    let connect = if connected.is_some() { ConnectResult::Ok } else { ConnectResult::Refused };
    Ended::Forwarded(Forwarded { target, connected, retries: 0, connect, reason })
}

/// Returns an entry of each kind, with every field that a line can have.
fn entries() -> Vec<AccessLogEntry> {
    let session = SessionEnd {
        client: ClientId(1000),
        session: SessionId(7),
        port: 7172,
        target: "127.0.0.1:7172".to_owned(),
        packets_in: 5,
        packets_out: 21,
        reason: EndReason::ClientLeft,
    };
    let mut redispatched = forwarded(Some("[2001:db8::9]:7171"), Some(3), CloseReason::Target);
    if let Ended::Forwarded(forwarded) = &mut redispatched {
        forwarded.retries = 1;
    }
    vec![
        entry(forwarded(Some("203.0.113.9:7170"), Some(12), CloseReason::Client)),
        AccessLogEntry { player: "[2001:db8::20]:40001".parse().unwrap(), ..entry(redispatched) },
        entry(forwarded(Some("core/links"), Some(0), CloseReason::Idle)),
        AccessLogEntry { bytes_out: 0, ..entry(forwarded(Some("203.0.113.9:7170"), None, CloseReason::ConnectFailed)) },
        AccessLogEntry {
            bytes_in: 0,
            bytes_out: 0,
            lasted: Duration::ZERO,
            ..entry(Ended::Rejected(AdmissionError::Limit))
        },
        AccessLogEntry {
            edge: Some("waw1".to_owned()),
            listener: "links".to_owned(),
            ..entry(Ended::Link(LinkEnd { client: ClientId(1000), reason: CloseReason::ClientError }))
        },
        AccessLogEntry { listener: "links".to_owned(), ..entry(Ended::Session(session)) },
    ]
}

fn lines(format: &Format) -> String {
    let mut lines = String::new();
    entries().iter().for_each(|entry| format.line(entry, &mut lines));
    lines
}

#[test]
fn json_has_the_same_keys_in_each_line_of_a_kind() {
    let lines = lines(&Format::Json);
    assert_eq!(
        lines,
        r#"{"time":"2026-07-23T15:04:05.678Z","kind":"connection","event":"closed","listener":"login","player":"198.51.100.20:40001","edge":null,"target":"203.0.113.9:7170","connect_seconds":0.012,"seconds":61.002,"bytes_in":149,"bytes_out":7310,"reason":"client"}
{"time":"2026-07-23T15:04:05.678Z","kind":"connection","event":"closed","listener":"login","player":"[2001:db8::20]:40001","edge":null,"target":"[2001:db8::9]:7171","connect_seconds":0.003,"seconds":61.002,"bytes_in":149,"bytes_out":7310,"reason":"target"}
{"time":"2026-07-23T15:04:05.678Z","kind":"connection","event":"closed","listener":"login","player":"198.51.100.20:40001","edge":null,"target":"core/links","connect_seconds":0.000,"seconds":61.002,"bytes_in":149,"bytes_out":7310,"reason":"idle"}
{"time":"2026-07-23T15:04:05.678Z","kind":"connection","event":"closed","listener":"login","player":"198.51.100.20:40001","edge":null,"target":"203.0.113.9:7170","connect_seconds":null,"seconds":61.002,"bytes_in":149,"bytes_out":0,"reason":"connect_failed"}
{"time":"2026-07-23T15:04:05.678Z","kind":"connection","event":"rejected","listener":"login","player":"198.51.100.20:40001","edge":null,"target":null,"connect_seconds":null,"seconds":0.000,"bytes_in":0,"bytes_out":0,"reason":"limit"}
{"time":"2026-07-23T15:04:05.678Z","kind":"link","event":"closed","listener":"links","player":"198.51.100.20:40001","edge":"waw1","client":1000,"seconds":61.002,"bytes_in":149,"bytes_out":7310,"reason":"client_error"}
{"time":"2026-07-23T15:04:05.678Z","kind":"session","event":"ended","listener":"links","player":"198.51.100.20:40001","edge":null,"client":1000,"session":7,"port":7172,"target":"127.0.0.1:7172","packets_in":5,"packets_out":21,"seconds":61.002,"bytes_in":149,"bytes_out":7310,"reason":"client_left"}
"#
    );
    let documented = include_str!("../../docs/access-log.md");
    for line in lines.lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in parsed.as_object().unwrap().keys() {
            assert!(documented.contains(&format!("| `{key}` |")), "{key}");
        }
    }
    assert!(documented.contains(lines.lines().next().unwrap()));
}

#[test]
fn names_are_quoted_in_json() {
    let odd = forwarded(Some("a\"b\\c\n"), None, CloseReason::ConnectFailed);
    let mut line = String::new();
    Format::Json.line(&entry(odd), &mut line);
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["target"], "a\"b\\c\n");
    assert_eq!(line.matches('\n').count(), 1, "{line}");
}

#[test]
fn text_leaves_out_what_is_not_known() {
    let lines = lines(&Format::Text);
    assert_eq!(
        lines,
        "\
2026-07-23T15:04:05.678Z connection closed listener=login player=198.51.100.20:40001 target=203.0.113.9:7170 connect_seconds=0.012 seconds=61.002 bytes_in=149 bytes_out=7310 reason=client
2026-07-23T15:04:05.678Z connection closed listener=login player=[2001:db8::20]:40001 target=[2001:db8::9]:7171 connect_seconds=0.003 seconds=61.002 bytes_in=149 bytes_out=7310 reason=target
2026-07-23T15:04:05.678Z connection closed listener=login player=198.51.100.20:40001 target=core/links connect_seconds=0.000 seconds=61.002 bytes_in=149 bytes_out=7310 reason=idle
2026-07-23T15:04:05.678Z connection closed listener=login player=198.51.100.20:40001 target=203.0.113.9:7170 seconds=61.002 bytes_in=149 bytes_out=0 reason=connect_failed
2026-07-23T15:04:05.678Z connection rejected listener=login player=198.51.100.20:40001 seconds=0.000 bytes_in=0 bytes_out=0 reason=limit
2026-07-23T15:04:05.678Z link closed listener=links player=198.51.100.20:40001 edge=waw1 client=1000 seconds=61.002 bytes_in=149 bytes_out=7310 reason=client_error
2026-07-23T15:04:05.678Z session ended listener=links player=198.51.100.20:40001 client=1000 session=7 port=7172 target=127.0.0.1:7172 packets_in=5 packets_out=21 seconds=61.002 bytes_in=149 bytes_out=7310 reason=client_left
"
    );
    assert!(include_str!("../../docs/access-log.md").contains(lines.lines().next().unwrap()));
}

#[test]
fn haproxys_line() {
    // The rule of central Europe: two hours ahead of UTC in July.
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let lines = lines(&Format::Haproxy(Tcplog::in_zone(zone, None)));
    assert_eq!(
        lines,
        "\
198.51.100.20:40001 [23/Jul/2026:17:03:04.676] login login/203.0.113.9:7170 0/12/61002 7310 -- 12/7/5/5/0 0/0
2001:db8::20:40001 [23/Jul/2026:17:03:04.676] login login/[2001:db8::9]:7171 0/3/61002 7310 -- 12/7/5/5/+1 0/0
198.51.100.20:40001 [23/Jul/2026:17:03:04.676] login core/links 0/0/61002 7310 cD 12/7/5/5/0 0/0
198.51.100.20:40001 [23/Jul/2026:17:03:04.676] login login/203.0.113.9:7170 0/-1/61002 0 SC 12/7/5/5/0 0/0
198.51.100.20:40001 [23/Jul/2026:17:04:05.678] login login/<NOSRV> -1/-1/0 0 PR 12/7/5/0/0 0/0
198.51.100.20:40001 [23/Jul/2026:17:03:04.676] links links/<RELAY> 0/0/61002 7310 CD 12/7/5/5/0 0/0
198.51.100.20:40001 [23/Jul/2026:17:03:04.676] links 7172/127.0.0.1:7172 0/0/61002 7310 -- 12/7/5/5/0 0/0
"
    );
    assert!(include_str!("../../docs/access-log.md").contains(lines.lines().next().unwrap()));
}

/// Checks the line as syslog writes it into files: days of one digit follow a blank, and the host is one word.
#[test]
fn in_a_file_haproxys_line_has_syslogs_in_front() {
    let mut line = String::new();
    let tcplog = Tcplog::in_zone(TimeZone::UTC, Some(" edge-1 otproxy[9]: "));
    let early = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_783_000_000);
    tcplog.line(&AccessLogEntry { ended: early, ..entries().remove(4) }, &mut line);
    assert_eq!(
        line,
        "Jul  2 13:46:40 edge-1 otproxy[9]: 198.51.100.20:40001 [02/Jul/2026:13:46:40.000] login login/<NOSRV> \
         -1/-1/0 0 PR 12/7/5/0/0 0/0"
    );
    let prefix = |file| {
        let mut line = String::new();
        Tcplog::new(&file, "edge of\tthe world").line(&entries()[0], &mut line);
        line.split("198.51.100.20:").next().unwrap().to_owned()
    };
    assert_eq!(prefix(AccessLogFile::Stderr), "", "the journal has that already");
    let host = format!(" edge_of_the_world otproxy[{}]: ", std::process::id());
    assert!(prefix(AccessLogFile::Path("a".into())).ends_with(&host));
}

fn to(path: &Path) -> LogOutput {
    LogOutput::new(AccessLogFile::Path(path.to_owned()))
}

#[test]
fn a_file_that_is_renamed_or_removed_is_made_anew() {
    let folder = Folder::new();
    let (log, old) = (folder.file("access.log"), folder.file("access.log.1"));
    fs::write(&log, "before\n").unwrap();
    let mut output = to(&log);
    assert_eq!(output.write(b"one\n"), 0);
    assert_eq!(fs::read_to_string(&log).unwrap(), "before\none\n");
    fs::rename(&log, &old).unwrap();
    assert_eq!(output.write(b"two\n"), 0);
    assert_eq!(
        (fs::read_to_string(&old).unwrap().as_str(), fs::read_to_string(&log).unwrap().as_str()),
        ("before\none\n", "two\n")
    );
    // As with `create` of logrotate: another file has the name already.
    fs::rename(&log, &old).unwrap();
    fs::write(&log, "").unwrap();
    output.write(b"three\n");
    assert_eq!(fs::read_to_string(&log).unwrap(), "three\n");
    fs::remove_file(&log).unwrap();
    output.write(b"four\n");
    assert_eq!(fs::read_to_string(&log).unwrap(), "four\n");
    // As with `copytruncate`: the next line is at the start.
    fs::write(&log, "").unwrap();
    output.write(b"five\n");
    assert_eq!(fs::read_to_string(&log).unwrap(), "five\n");
}

#[test]
fn a_file_that_is_made_is_for_owner_and_group() {
    let folder = Folder::new();
    let (log, theirs) = (folder.file("access.log"), folder.file("theirs.log"));
    // Modes looser and stricter than any umask gives: both are corrected.
    to(&log).write(b"one\n");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o7777, FILE_MODE);
    fs::write(&theirs, "").unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o604)).unwrap();
    to(&theirs).write(b"one\n");
    let mode = fs::metadata(&theirs).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o604, "that of a file that is there is its owner's business");
}

#[test]
fn what_cannot_be_written_is_lost_and_counted_until_it_can() {
    let full = &mut LogOutput::new(AccessLogFile::Path("/dev/full".into()));
    assert_eq!(full.write(b"one\ntwo\nthree\n"), 3);
    assert!(full.outage.worked(Instant::now()).is_some());
    let folder = Folder::new();
    let log = folder.file("not-there-yet/access.log");
    let mut output = to(&log);
    assert_eq!(output.write(b"one\ntwo\n"), 2);
    fs::create_dir(log.parent().unwrap()).unwrap();
    assert_eq!(output.write(b"three\n"), 0);
    assert!(output.outage.worked(Instant::now()).is_none(), "that is told already");
    assert_eq!(fs::read_to_string(&log).unwrap(), "three\n");
}

/// A disk with room for a few more bytes.
struct Almost(usize);

impl io::Write for Almost {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.min(bytes.len()) {
            0 => Err(io::ErrorKind::StorageFull.into()),
            count => {
                self.0 -= count;
                Ok(count)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_was_cut_off_does_not_run_into_the_next() {
    let mut rest = &b"one\ntwo\nthree\n"[..];
    assert!(crate::stderr::write_rest(&mut Almost(6), &mut rest).is_err());
    assert_eq!(rest, b"o\nthree\n", "two lines are lost, one of them half");
    let folder = Folder::new();
    let log = folder.file("access.log");
    let mut output = to(&log);
    output.write(b"one\ntw");
    assert_eq!(output.write(b"three\n"), 0);
    assert_eq!(output.write(b"four\n"), 0);
    assert_eq!(fs::read_to_string(&log).unwrap(), "one\ntw\nthree\nfour\n");
}

/// Makes a FIFO. Nobody reads it, so a writer waits when it opens it.
fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn a_disk_that_stands_still_costs_lines_and_no_memory_and_no_time() {
    let folder = Folder::new();
    let path = folder.file("fifo");
    fifo(&path);
    let dropped = IntCounter::new("dropped", "dropped").unwrap();
    let file = AccessLogFile::Path(path.clone());
    let (log, written) = AccessLog::start(AccessLogFormat::Text, file, "test", dropped.clone()).unwrap();
    // As many entries as fit into the queue, as the thread takes before it writes, and some more.
    let all = (QUEUE + BATCH / 100 + 1000) as u64;
    let one = entries().remove(0);
    for _ in 0..all {
        log.write(one.clone());
    }
    let lost = dropped.get();
    assert!(lost >= 1000 - 1, "only {lost} of {all} lines were dropped");
    assert!(all - lost >= QUEUE as u64, "{lost} of {all} lines were dropped");
    drop(log);
    // Now there is a reader: every entry that was not dropped arrives whole.
    let mut lines = String::new();
    fs::File::open(&path).unwrap().read_to_string(&mut lines).unwrap();
    assert_eq!(lines.lines().count() as u64, all - lost);
    assert!(lines.lines().all(|line| line.ends_with(" reason=client")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(written.wait());
    assert_eq!(dropped.get(), lost, "what was read was not lost");
}
