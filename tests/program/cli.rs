//! The program as users run it: commands, exit codes, what goes to stdout and what to stderr.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Instant;

use otproxy::access_log;
use otproxy::admission::ENDED_LINES;
use otproxy_net::LOG_WINDOW;
use otproxy_protocol::frame::{self, ClientId, SessionId};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::process::{Running, failed, file, otproxy, text, through};

/// Seconds after which `timeout` ends a program that hangs.
const HANG: &str = "60";

fn run(arguments: &[&str]) -> Output {
    otproxy(arguments).output().expect("the program starts")
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    text(&output.stdout)
}

/// What it says on stderr; stdout must be empty.
#[track_caller]
fn fails(arguments: &[&str], code: i32) -> String {
    failed(&run(arguments), code)
}

pub(super) fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

pub(super) fn edge(listen: &str, more: &str) -> String {
    format!(
        "role: edge\nname: here\nadmin: {{ listen: off }}\n{more}\
         listeners:\n- {{ name: login, listen: '{listen}', forward_to: '127.0.0.1:9' }}\n"
    )
}

const CORE: &str = "role: core\nname: here\nadmin: { listen: '127.0.0.1:0' }\n\
    edges:\n- { name: e, address: 127.0.0.1 }\n\
    listeners:\n- { name: links, kind: relay, listen: '127.0.0.1:0' }\n\
    game_servers:\n- { port: 7172, address: '127.0.0.1:7172' }\n";

#[test]
fn version_and_help() {
    assert_eq!(succeeds(&["--version"]), format!("otproxy {}\n", env!("CARGO_PKG_VERSION")));
    let help = succeeds(&["--help"]);
    for word in [
        "edge",
        "core",
        "check",
        "demo",
        "bench",
        "init",
        "doctor",
        "status",
        "listeners",
        "targets",
        "connections",
        "sessions",
        "addresses",
        "bans",
        "ban",
        "unban",
        "revoke",
        "disconnect",
        "drain",
        "undrain",
        "target",
        "reload",
        "cert",
        "completions",
        "man",
        "--log-format",
        "--log-level",
        "OTPROXY_LOG_LEVEL",
    ] {
        assert!(help.contains(word), "no {word} in:\n{help}");
    }
    assert!(succeeds(&["demo", "--help"]).contains("--players <N>"));
}

#[test]
fn flags_that_do_not_exist_are_exit_code_2() {
    assert!(fails(&["edge", "--confg", "x"], 2).contains("--config"));
    assert!(fails(&["edge"], 2).contains("--config <FILE>"));
    assert!(fails(&["demo", "--players", "0"], 2).contains("1..=2000"));
    assert!(fails(&["check", "-c", "x", "--log-level", "loud"], 2).contains("info"));
    assert!(fails(&[], 2).contains("Usage: otproxy"));
}

#[test]
fn completions_and_the_manual_page() {
    for shell in ["bash", "zsh", "fish"] {
        let script = succeeds(&["completions", shell]);
        assert!(script.contains("log-format") && script.contains("maint"), "{shell}");
    }
    assert!(succeeds(&["target", "--help"]).contains("maint: "));
    let page = succeeds(&["man"]);
    assert!(page.contains(".TH otproxy 1") && page.contains("demo"), "{page}");
    let page = succeeds(&["man", "cert", "edge"]);
    assert!(page.contains(".TH otproxy-cert-edge 1"), "{page}");
    assert!(fails(&["man", "cert", "edg"], 1).contains("otproxy has no command `cert edg`"));
}

/// Returns the variables that the sources of a folder read.
fn variables(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(variables(&path));
        } else if !path.ends_with("tests.rs") && path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            for before in ["env::var(\"", "env::var_os(\"", "env = \"", "variable(\""] {
                let names = text.split(before).skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn the_manual_has_each_variable_of_the_environment() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = variables(&root.join("src")).into_iter().chain(variables(&root.join("crates/config/src")));
    let found: Vec<_> = found.filter(|name| !name.starts_with("CARGO")).collect();
    assert!(found.len() >= 8, "{found:?}");
    let page = succeeds(&["man"]);
    for name in found {
        assert!(page.contains(&format!("\n\\fB{name}\\fR\n")), "{name} is missing");
    }
}

#[test]
fn check_says_what_would_run() {
    let file = file("ok.yaml", &edge("127.0.0.1:7171", ""));
    let expected = format!("{}: ok: edge \"here\", 1 listener (login forward 127.0.0.1:7171)\n", file.display());
    assert_eq!(succeeds(&["check", "-c", path(&file)]), expected);
    assert_eq!(succeeds(&["check", "--config", path(&file)]), expected);
}

#[test]
fn check_warns_of_a_server_to_which_all_players_are_one() {
    let core = CORE.replace("'127.0.0.1:7172'", "'203.0.113.9:7172', player_address: none");
    let file = file("stock.yaml", &core);
    let output = run(&["check", "-c", path(&file)]);
    assert_eq!(output.status.code(), Some(0), "it may be wanted");
    let warning = text(&output.stderr);
    for says in ["stock.yaml: warning: game_servers[0].player_address: ", "203.0.113.9:7172", "connects: 1/600ms"] {
        assert!(warning.contains(says), "{warning}");
    }
    assert!(text(&output.stdout).contains(": ok: core"));
}

#[test]
fn check_says_all_that_is_wrong() {
    let file = file("wrong.yaml", "role: edge\nworker: 2\nlisteners: []\n");
    let errors = fails(&["check", "-c", path(&file)], 78);
    let first = format!("{}:2:1: worker: unknown key; did you mean `workers`?", file.display());
    assert_eq!(errors.lines().next(), Some(first.as_str()), "{errors}");
    assert_eq!(errors.lines().count(), 2, "{errors}");
}

#[test]
fn a_role_refuses_the_file_of_the_other() {
    let (edge, core) = (file("an-edge.yaml", &edge("127.0.0.1:0", "")), file("a-core.yaml", CORE));
    let refused = fails(&["edge", "-c", path(&core)], 78);
    assert!(refused.contains("a-core.yaml:1:7: role: `core` is not what `otproxy edge` runs"), "{refused}");
    let refused = fails(&["core", "-c", path(&edge)], 78);
    assert!(refused.contains("an-edge.yaml:1:7: role: `edge` is not what `otproxy core` runs"), "{refused}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_wrong_configuration() {
    for command in ["edge", "core", "check"] {
        let error = fails(&[command, "-c", "no/such/file.yaml"], 78);
        assert!(error.starts_with("no/such/file.yaml: cannot be read: No such file"), "{error}");
    }
}

#[test]
fn an_edge_says_ready_and_ends_at_a_signal() {
    let file = file("signals.yaml", &edge("127.0.0.1:0", ""));
    for signal in [Signal::TERM, Signal::INT] {
        let (running, ready) = Running::start(otproxy(&["edge", "-c", path(&file), "--log-format", "text"]));
        assert!(ready.contains("role=edge name=\"here\" listeners=\"login 127.0.0.1:"), "{ready}");
        assert!(!ready.contains('\x1b'), "colours in a pipe: {ready:?}");
        running.signal(signal);
        let (code, rest) = running.end();
        assert_eq!(code, Some(0), "{rest}");
        assert!(rest.contains("shutting down") && rest.contains("stopped"), "{rest}");
    }
}

#[test]
fn a_core_is_ready_with_its_admin() {
    let file = file("ready-core.yaml", CORE);
    let (running, ready) = Running::start(otproxy(&["core", "-c", path(&file)]));
    // JSON, as stderr is no terminal.
    let ready: serde_yaml::Value = serde_yaml::from_str(&ready).expect("JSON");
    assert_eq!((ready["message"].as_str(), ready["role"].as_str()), (Some("ready"), Some("core")));
    let admin = ready["admin"].as_str().expect("an address").parse().expect("an address");
    assert!(get(admin, "/ready").starts_with("HTTP/1.1 200 "));
    assert!(get(admin, "/metrics").contains("\notproxy_build_info{role=\"core\",version=\""));
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = target.local_addr().expect("an address").to_string();
    let file = file("second.yaml", &edge("127.0.0.1:0", "shutdown_timeout: 1h\n").replace("127.0.0.1:9", &address));
    let (mut running, ready) = Running::start(otproxy(&["edge", "-c", path(&file)]));
    let port = ready.split_once("login 127.0.0.1:").expect("an address").1;
    let port: u16 = port.split_once('"').expect("an end").0.parse().expect("a port");
    let player = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let _connection = target.accept().expect("it forwards");
    running.signal(Signal::TERM);
    running.line_with("shutting down");
    running.signal(Signal::TERM);
    let (code, rest) = running.end();
    assert_eq!(code, Some(128 + 15), "{rest}");
    drop(player);
}

#[test]
fn systemd_is_told() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let socket = folder.join(format!("notify-{}", std::process::id()));
    let _ = fs::remove_file(&socket);
    let systemd = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    let file = file("notify.yaml", &edge("127.0.0.1:0", ""));
    let mut command = otproxy(&["edge", "-c", path(&file)]);
    command.env("NOTIFY_SOCKET", &socket);
    let (running, _) = Running::start(command);
    let mut message = [0; 256];
    let length = systemd.recv(&mut message).expect("a message");
    assert_eq!(text(&message[..length]).trim_end(), "READY=1");
    running.signal(Signal::TERM);
    let length = systemd.recv(&mut message).expect("a message");
    assert_eq!(text(&message[..length]).trim_end(), "STOPPING=1");
    assert_eq!(running.end().0, Some(0));
    fs::remove_file(&socket).expect("removable");
}

#[test]
fn a_hangup_has_the_file_and_its_lists_read_again_and_systemd_is_told() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let socket = folder.join(format!("notify-reload-{}", std::process::id()));
    let _ = fs::remove_file(&socket);
    let systemd = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    let said = || {
        let mut message = [0; 256];
        let length = systemd.recv(&mut message).expect("a message");
        text(&message[..length]).trim_end().to_owned()
    };
    let list = file("denied.txt", "192.0.2.0/24\n");
    let name = list.file_name().expect("a file").to_str().expect("UTF-8");
    let before = edge("127.0.0.1:0", &format!("deny: {{ file: {name} }}\nlog: {{ level: error }}\n"));
    let config = file("reload.yaml", &before);
    let mut command = otproxy(&["edge", "-c", path(&config), "--log-format", "text", "--log-level", "info"]);
    command.env("NOTIFY_SOCKET", &socket);
    let (mut running, ready) = Running::start(command);
    let address = ready.split_once("listeners=\"login ").expect("listeners").1.split_once('"').expect("an end").0;
    assert_eq!(said(), "READY=1");
    let reload = |running: &mut Running, line: &str| {
        running.signal(Signal::HUP);
        assert!(said().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(said(), "READY=1");
        running.line_with(line)
    };
    // The flag holds, whatever the file says of the level.
    reload(&mut running, "configuration reloaded");
    fs::write(&list, "127.0.0.0/8\n").expect("writable file");
    reload(&mut running, "configuration reloaded");
    let _ = TcpStream::connect(address).expect("it listens").read(&mut [0]);
    assert!(running.line_with("connection refused").contains("reason=denied"));
    fs::write(&list, "127.0.0.0/40\n").expect("writable file");
    let error = reload(&mut running, "configuration not reloaded");
    assert!(error.contains("ERROR") && error.contains("denied.txt:1"), "{error}");
    fs::write(&config, before.replace("name: here", "name: there")).expect("writable file");
    fs::write(&list, "").expect("writable file");
    let named = reload(&mut running, "need a restart");
    assert!(named.contains("WARN") && named.contains("keys=\"name\""), "{named}");
    running.signal(Signal::TERM);
    assert_eq!(said(), "STOPPING=1");
    let (code, _) = running.end();
    assert_eq!(code, Some(0));
    fs::remove_file(&socket).expect("removable");
}

#[test]
fn an_address_in_use_is_exit_code_1_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let file = file("taken.yaml", &edge(&address, ""));
    let error = fails(&["edge", "-c", path(&file)], 1);
    assert!(error.contains(&format!("listener `login`: cannot listen on {address}: ")), "{error}");
    assert!(error.contains("another process listens there"), "{error}");
}

#[test]
fn a_flag_is_over_the_environment_and_that_over_the_file() {
    let file = file("format.yaml", &edge("127.0.0.1:0", "log: { format: json }\n"));
    let is_json = |environment: Option<&str>, flag: Option<&str>| {
        let mut arguments = vec!["edge", "-c", path(&file)];
        arguments.extend(flag.iter().flat_map(|format| ["--log-format", *format]));
        let mut command = otproxy(&arguments);
        if let Some(format) = environment {
            command.env("OTPROXY_LOG_FORMAT", format);
        }
        let (running, ready) = Running::start(command);
        running.signal(Signal::TERM);
        assert_eq!(running.end().0, Some(0));
        ready.starts_with('{')
    };
    assert!(is_json(None, None), "the file");
    assert!(!is_json(Some("text"), None), "the environment over the file");
    assert!(is_json(Some("text"), Some("json")), "the flag over the environment");
    assert!(!is_json(Some("json"), Some("text")), "the flag over both");
}

#[test]
fn the_level_of_the_log_is_kept() {
    let file = file("level.yaml", &edge("127.0.0.1:0", "log: { level: error }\n"));
    // Without `ready`, systemd's socket tells when it is.
    let socket = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("level-{}", std::process::id()));
    let _ = fs::remove_file(&socket);
    let systemd = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    let mut command = otproxy(&["edge", "-c", path(&file)]);
    let child = command.env("NOTIFY_SOCKET", &socket).spawn().expect("the program starts");
    systemd.recv(&mut [0; 256]).expect("a message");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    fs::remove_file(&socket).expect("removable");
    let (running, _) = Running::start(otproxy(&["edge", "-c", path(&file), "--log-level", "info"]));
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_target_that_falls_and_rises_is_a_line_each() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = target.local_addr().expect("an address");
    let more = format!("forward_to: [{{ address: '{address}', name: waw }}], check: tcp, inter: 5ms }}");
    let yaml = edge("127.0.0.1:0", "").replace("forward_to: '127.0.0.1:9' }", &more);
    let (mut running, _) =
        Running::start(otproxy(&["edge", "-c", path(&file("targets.yaml", &yaml)), "--log-format", "text"]));
    let checked = |target: &TcpListener| (0..20).for_each(|_| drop(target.accept().expect("a check")));
    checked(&target);
    drop(target);
    let down = running.line_with("the target is");
    assert!(down.contains("WARN") && down.contains("is down") && down.contains("target=\"waw\""), "{down}");
    assert!(down.contains("listener=\"login\"") && down.contains("reason=\"refused\""), "{down}");
    let target = TcpListener::bind(address).expect("still free");
    checked(&target);
    let up = running.line_with("the target is");
    assert!(up.contains("INFO") && up.contains("is up") && up.contains("target=\"waw\""), "{up}");
    checked(&target);
    running.signal(Signal::TERM);
    let (code, rest) = running.end();
    assert_eq!((code, rest.matches("the target is").count()), (Some(0), 0), "{rest}");
}

/// Lets `strangers` do so much at the address of the program's listener that it cannot log all of it,
/// and then looks at what it logged: `ended` for each that ended, `failed` for their outage.
fn strangers_cannot_fill_the_disk(
    (role, yaml): (&str, &str),
    strangers: fn(SocketAddr),
    (ended, failed): (&str, &str),
) {
    // Nothing listens there, and nothing can while the socket lives.
    let refusing = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    refusing.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let target = refusing.local_addr().ok().and_then(|a| a.as_socket()).expect("an address").to_string();
    let file = file(&format!("{role}-lines.yaml"), &yaml.replace("TARGET", &target));
    let (running, ready) = Running::start(otproxy(&[role, "-c", path(&file), "--log-format", "text"]));
    let listeners = ready.split_once("listeners=\"").expect("listeners").1.split_once('"').expect("an end").0;
    let address = listeners.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("an address");
    let (pid, start) = (running.pid(), Instant::now());
    let thread = thread::spawn(move || {
        strangers(address);
        kill_process(pid, Signal::TERM).expect("the program runs");
    });
    let (code, log) = running.end();
    thread.join().expect("no panic");
    assert_eq!(code, Some(0), "{log}");
    let windows = start.elapsed().as_secs() / LOG_WINDOW.as_secs() + 1;
    let lines = |what| log.lines().filter(|line| line.contains(what)).count();
    assert!(lines(ended) >= usize::from(ENDED_LINES), "{} lines of {ended:?}", lines(ended));
    assert!(lines(ended) as u64 <= u64::from(ENDED_LINES) * windows, "{} lines in {windows} windows", lines(ended));
    // All of them failed for one reason, within the time that has one line of it.
    assert_eq!(lines(failed), 1, "{log}");
}

const TIMES: u32 = 3000;

#[test]
fn strangers_at_an_edge_cannot_fill_the_disk() {
    let yaml = edge("127.0.0.1:0", "").replace("127.0.0.1:9", "TARGET");
    let connect = |address| {
        for _ in 0..TIMES {
            let mut stream = TcpStream::connect(address).expect("it listens");
            let _ = stream.read(&mut [0]);
        }
    };
    strangers_cannot_fill_the_disk(("edge", &yaml), connect, ("connection ended", "no target can be reached"));
}

#[test]
fn sessions_that_come_to_nothing_cannot_fill_the_disk() {
    let yaml = CORE.replace("127.0.0.1:7172", "TARGET").replace("kind: relay,", "kind: relay, accept_proxy: none,")
        + "sessions: { opens_per_address: none }\n";
    let open = |address| {
        let mut link = TcpStream::connect(address).expect("it listens");
        let mut frame = [0; frame::HEADER_LEN];
        link.write_all(&frame::ping(ClientId(1), 0)).expect("a link");
        link.read_exact(&mut frame).expect("a pong");
        for id in 1..=TIMES {
            link.write_all(&frame::open(SessionId(id), 7172)).expect("a link");
            link.read_exact(&mut frame).expect("an end");
        }
    };
    strangers_cannot_fill_the_disk(("core", &yaml), open, ("session ended", "cannot be reached"));
}

#[test]
fn the_demo_proves_that_nothing_is_lost() {
    let mut command = Command::new("timeout");
    command.arg(HANG).arg(env!("CARGO_BIN_EXE_otproxy"));
    command.args(["demo", "--players", "3", "--edges", "2", "--seconds", "2"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("`timeout` of coreutils");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut shown = String::new();
    while !shown.contains("/ready") {
        assert_ne!(stdout.read_line(&mut shown).expect("readable stdout"), 0, "{shown}");
    }
    let url = shown.split_once("http://").expect("a URL").1;
    let admin = url.split_once('/').expect("a path").0.parse().expect("an address");
    // The players' links come to stand about now; once the demo is over nobody answers.
    while !get(admin, "/metrics").contains("\notproxy_relay_links_active{edge=\"edges\"} ") {}
    stdout.read_to_string(&mut shown).expect("readable stdout");
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "{shown}");
    for words in ["edge 1 ", "edge 2 ", "PROVED: 3 players", " arrived: 0 lost, 0 duplicated, 0 reordered."] {
        assert!(shown.contains(words), "no {words:?} in:\n{shown}");
    }
    assert!(!shown.contains("cut 0 times"), "{shown}");
    assert!(TcpStream::connect(admin).is_err(), "nothing is left behind");
}

#[test]
fn the_demo_ends_early_at_a_signal() {
    let mut child = otproxy(&["demo", "--players", "1", "--edges", "1", "--seconds", "3600"]).spawn().expect("starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut shown = String::new();
    stdout.read_line(&mut shown).expect("readable stdout");
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    stdout.read_to_string(&mut shown).expect("readable stdout");
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "{shown}");
    assert!(shown.contains("Ended early; this is the verdict so far."), "{shown}");
}

pub(super) fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("writable");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn the_access_log_goes_to_stderr_as_haproxys_would_go_to_syslog() {
    let more = "access_log: { format: haproxy, file: stderr }\n";
    let file = file("access-log.yaml", &edge("127.0.0.1:0", more));
    let (mut running, ready) = Running::start(otproxy(&["edge", "-c", path(&file), "--log-format", "text"]));
    let listeners = ready.split_once("listeners=\"login ").expect("listeners").1;
    let address: SocketAddr = listeners.split_once('"').expect("an end").0.parse().expect("an address");
    let mut player = TcpStream::connect(address).expect("it listens");
    // Nobody is at port 9: it is closed at once, in order or not.
    let _ = player.read(&mut [0]);
    let line = running.line_with(" login login/127.0.0.1:9 ");
    let from = player.local_addr().expect("connected");
    assert!(line.starts_with(&format!("{from} [")) && line.contains(" 0 SC 1/1/0/0/0 0/0"), "{line}");
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn the_access_log_is_beside_the_configuration_and_for_owner_and_group() {
    let log = file("access.log", "");
    fs::remove_file(&log).expect("removable file");
    let name = log.file_name().expect("a file").to_str().expect("UTF-8");
    let file = file("access-log-file.yaml", &edge("127.0.0.1:0", &format!("access_log: {{ file: {name} }}\n")));
    // As under the units of systemd: what is made is the owner's alone.
    let alone = ["-c", "umask 077 && exec \"$@\"", "sh"];
    let (running, ready) = Running::start(through(otproxy(&["edge", "-c", path(&file)]), "sh", &alone));
    let listeners = ready.split_once("login ").expect("listeners").1;
    let address: SocketAddr = listeners.split_once('"').expect("an end").0.parse().expect("an address");
    let _ = TcpStream::connect(address).expect("it listens").read(&mut [0]);
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
    let lines = fs::read_to_string(&log).expect("a log");
    assert!(lines.ends_with("\"reason\":\"connect_failed\"}\n") && lines.lines().count() == 1, "{lines}");
    assert_eq!(fs::metadata(&log).expect("a log").permissions().mode() & 0o7777, access_log::FILE_MODE);
}
