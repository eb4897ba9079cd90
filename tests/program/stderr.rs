//! The log on stderr, as a process writes it: nobody reads it, the journal does; and the signals that it answers.

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::cli::{edge, get, path};
use crate::common::process::{Running, file, otproxy};

/// Connections that may be needed to fill the pipe and the queue behind it: some 250 bytes each, into 1 MiB.
const MOST: usize = 20_000;
/// The time after which something hangs.
const HANG: Duration = Duration::from_secs(60);

fn value(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
    line.parse().expect("a number")
}

#[test]
fn a_reader_that_stops_reading_holds_up_nobody() {
    let more = "deny: 127.0.0.0/8\naccess_log: { format: json, file: stderr }\n";
    let text = edge("127.0.0.1:0", more).replace("listen: off", "listen: '127.0.0.1:0'");
    let file = file("unread.yaml", &text);
    let (mut running, ready) = Running::start(otproxy(&["edge", "-c", path(&file)]));
    let ready: serde_yaml::Value = serde_yaml::from_str(&ready).expect("JSON");
    let admin: SocketAddr = ready["admin"].as_str().expect("an address").parse().expect("an address");
    let listener = ready["listeners"].as_str().expect("listeners").strip_prefix("login ").expect("an address");
    let listener: SocketAddr = listener.parse().expect("an address");
    let dropped = || value(&get(admin, "/metrics"), "otproxy_log_dropped_total");
    let mut served = 0;
    // Nobody reads its stderr from here on.
    while dropped() == 0 {
        for _ in 0..500 {
            let mut player = TcpStream::connect(listener).expect("it listens");
            player.set_read_timeout(Some(HANG)).expect("a time");
            // Its end or a reset: it was answered.
            if let Err(error) = player.read(&mut [0]) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "after {served} connections");
            }
            served += 1;
        }
        assert!(served < MOST, "no line was lost");
    }
    let (mut lines, mut lost) = (0, 0);
    while lost == 0 {
        let line = running.line_with("\"");
        let line: serde_yaml::Value = serde_yaml::from_str(&line).expect("JSON, whole");
        lines += 1;
        lost = line["lost"].as_u64().unwrap_or_default();
    }
    assert!(lines > 1_000 && dropped() >= lost, "{lines} lines, {lost} lost");
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_signal_ends_it_though_nobody_reads_its_log() {
    // Each line waits from the first one on: the pipe is full before it starts.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe");
    while rustix::io::write(&writer, &[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe");
    let socket = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("unread-{}", std::process::id()));
    let _ = fs::remove_file(&socket);
    let systemd = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    let file = file("full-pipe.yaml", &edge("127.0.0.1:0", ""));
    let mut command = otproxy(&["edge", "-c", path(&file)]);
    let mut child = command.env("NOTIFY_SOCKET", &socket).stderr(writer).spawn().expect("the program starts");
    systemd.recv(&mut [0; 256]).expect("it is ready");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    drop(reader);
    fs::remove_file(&socket).expect("removable");
}

#[test]
fn lines_for_the_journal_begin_with_their_level() {
    let log = file("journal.log", "");
    let stream = fs::metadata(&log).expect("a file");
    let file = file("journal.yaml", &edge("127.0.0.1:0", "deny: 127.0.0.0/8\nlog: { level: trace }\n"));
    let run = |stream: String| {
        let mut command = otproxy(&["edge", "-c", path(&file), "--log-format", "text"]);
        command.env("JOURNAL_STREAM", stream).stderr(File::create(&log).expect("writable"));
        let mut child = command.spawn().expect("the program starts");
        while !fs::read_to_string(&log).expect("readable").contains("ready") {}
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
        child.wait().expect("it ends");
        fs::read_to_string(&log).expect("readable")
    };
    let said = run(format!("{}:{}", stream.dev(), stream.ino()));
    assert!(said.lines().all(|line| line.starts_with("<6>") || line.starts_with("<7>")), "{said}");
    assert!(said.lines().any(|line| line.starts_with("<6>") && line.contains("ready")), "{said}");
    let said = run(format!("{}:{}", stream.dev(), stream.ino() + 1));
    assert!(!said.contains("<6>"), "stderr is not the journal's here: {said}");
}

#[test]
fn users_signals_of_other_proxies_end_nothing() {
    let file = file("user-signals.yaml", &edge("127.0.0.1:0", ""));
    let (mut running, _) = Running::start(otproxy(&["edge", "-c", path(&file), "--log-format", "text"]));
    running.signal(Signal::USR1);
    running.line_with("SIGUSR1 changes nothing");
    running.signal(Signal::USR2);
    running.line_with("configuration reloaded");
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let file = file("empty-variable.yaml", &edge("127.0.0.1:0", "log: { format: json }\n"));
    let mut command = otproxy(&["edge", "-c", path(&file)]);
    command.env("OTPROXY_LOG_LEVEL", "").env("OTPROXY_LOG_FORMAT", "");
    let (running, ready) = Running::start(command);
    assert!(ready.starts_with('{'), "the file says so: {ready}");
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}
