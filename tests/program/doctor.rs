//! `otproxy doctor`, run as users run it, against what listens on loopback: all that is well, and each thing that is not.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use otproxy::certs::authority::{Authority, IssueTerms, YEARS};
use otproxy::certs::identity::{Identity, IdentityKind};
use otproxy::tunnel::DAYS_LEFT;
use otproxy_config::TlsFiles;
use otproxy_config::name::Name;
use otproxy_net::tls::FORMER_ALPN;
use otproxy_protocol::proxy_header::LOCAL;
use otproxy_protocol::trunk::Hello;
use rustix::process::Signal;
use rustls::{ServerConfig, ServerConnection};
use socket2::{Domain, Socket, Type};

use crate::common::HANG;
use crate::common::anybody::{core_hello, edge_hello};
use crate::common::folder::Folder;
use crate::common::process::{Running, otproxy, text, through};

/// Where the system's tool for the clock answers so; `None`: there is no such tool. The tools are files of the repository: one
/// that a test has just written may be held open by another test's child, and cannot be run then.
fn path_with_clock(answer: Option<&str>) -> PathBuf {
    let folder = answer.map_or("without-a-clock".to_owned(), |answer| format!("clock-{answer}"));
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor").join(folder)
}

pub struct Said {
    code: Option<i32>,
    pub text: String,
}

impl Said {
    /// The one line that begins so.
    #[track_caller]
    fn line(&self, beginning: &str) -> &str {
        let lines: Vec<_> = self.text.lines().filter(|line| line.starts_with(beginning)).collect();
        let [line] = lines[..] else { panic!("not one line with {beginning:?} in:\n{}", self.text) };
        line
    }

    #[track_caller]
    pub fn says(&self, beginning: &str, words: &[&str]) {
        let line = self.line(beginning);
        for word in words {
            assert!(line.contains(word), "no {word:?} in {line}");
        }
        // What is wrong has a remedy, and what is well needs none.
        assert_eq!(line.contains("; remedy: "), !line.starts_with("ok "), "{line}");
        if beginning.starts_with("fail") {
            assert_eq!(self.code, Some(1), "{}", self.text);
        }
    }
}

/// Runs the doctor on a file with this text, in `folder`.
fn doctor_in(folder: &Path, yaml: &str, clock: Option<&str>) -> Said {
    doctor_with(&path_with_clock(clock), folder, yaml)
}

/// The same, with the system's tools in that directory.
fn doctor_with(tools: &Path, folder: &Path, yaml: &str) -> Said {
    run(tools, folder, yaml, &[])
}

fn run(tools: &Path, folder: &Path, yaml: &str, flags: &[&str]) -> Said {
    let file = folder.join("file.yaml");
    fs::write(&file, yaml).expect("writable");
    let mut command = otproxy(&["doctor", "-c", file.to_str().expect("UTF-8")]);
    command.args(flags);
    let output = command.env("PATH", tools).output().expect("the program starts");
    assert_eq!(text(&output.stderr), "");
    Said { code: output.status.code(), text: text(&output.stdout) }
}

pub fn doctor(yaml: &str) -> Said {
    doctor_in(&Folder::new(), yaml, Some("yes"))
}

/// The same with flags.
pub fn doctor_and(flags: &[&str], yaml: &str) -> Said {
    run(&path_with_clock(Some("yes")), &Folder::new(), yaml, flags)
}

fn edge(more: &str, listen: &str, forward_to: &str) -> String {
    format!(
        "role: edge\nname: here\n{more}listeners:\n- {{ name: login, listen: '{listen}', forward_to: '{forward_to}' }}\n"
    )
}

pub const NO_ADMIN: &str = "admin: { listen: off }\n";

/// A port that answers.
fn open() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// A port that refuses, for as long as the socket lives.
fn closed() -> (socket2::Socket, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("an address").to_string();
    (socket, address)
}

/// A loopback address that nobody else uses.
fn own_address() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id() % (100 * 250);
    format!("127.{}.{}.{}", 100 + process / 250, 1 + process % 250, 1 + number)
}

/// A port that nothing has.
pub fn free() -> String {
    own_address() + ":7171"
}

#[test]
fn an_edge_before_its_start() {
    let (_core, core) = open();
    let said = doctor(&edge(NO_ADMIN, &free(), &core));
    said.says("ok    file: edge \"here\", 1 listener (login forward 127.", &[]);
    said.says("ok    files: ", &[" open files are allowed here, ", " can be needed"]);
    said.says("warn  admin: otproxy does not run here", &["`admin.listen` is `off`", "give `admin.socket`"]);
    said.says("ok    listener login: 127.", &[" is free"]);
    said.says(&format!("ok    target login: {core} answers, in "), &[" ms"]);
    said.says("ok    clock: is kept right by this host", &[]);
    assert_eq!(said.text.lines().last(), Some("5 ok, 1 warnings, 0 failed"), "{}", said.text);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(!said.text.contains('\x1b'), "colours in a pipe: {}", said.text);
}

#[test]
fn a_core_that_runs() {
    let folder = Folder::new();
    let (_game, game) = open();
    let yaml = |admin: &str, links: &str| {
        format!(
            "role: core\nname: here\nworkers: 2\nadmin: {{ listen: '{admin}' }}\nedges:\n- {{ name: waw1, address: 127.0.0.1 }}\n\
             - {{ name: fra1, address: 127.0.0.2, revoked: true }}\nlisteners:\n- {{ name: links, kind: relay, listen: '{links}' }}\n\
             game_servers:\n- {{ port: 7172, address: '{game}' }}\n"
        )
    };
    let file = folder.join("core.yaml");
    fs::write(&file, yaml("127.0.0.1:0", "127.0.0.1:0")).expect("writable");
    let (running, ready) =
        Running::start(otproxy(&["core", "-c", file.to_str().expect("UTF-8"), "--log-format", "text"]));
    let after =
        |word: &str| ready.split_once(word).and_then(|(_, rest)| rest.split(['"', ' ', '\n']).next()).expect(word);
    let (admin, links) = (after("admin=\"").to_owned(), after("links ").to_owned());

    let said = doctor_in(&folder, &yaml(&admin, &links), Some("yes"));
    said.says("ok    admin: otproxy ", &[env!("CARGO_PKG_VERSION"), " runs here, and is ready"]);
    said.says("ok    listener links: ", &[&links, &format!("is held by otproxy (process {})", running.id())]);
    said.says(&format!("ok    game_server 7172: {game} answers"), &[]);
    said.says("ok    edges: 1 known: waw1; revoked: fra1", &[]);
    said.says("ok    links links: ", &[&format!("a ping over {links} is answered, in ")]);
    assert_eq!(said.code, Some(0), "{}", said.text);

    // The same with a port that the running one does not have, or with another's file.
    let said = doctor_in(&folder, &yaml(&admin, &free()), Some("yes"));
    said.says("warn  listener links: ", &[" is free, though otproxy runs here"]);
    assert_eq!(said.code, Some(0), "a warning is no failure: {}", said.text);
    let said = doctor_in(&folder, &edge(&format!("admin: {{ listen: '{admin}' }}\n"), &free(), &game), None);
    said.says("fail  admin: a core answers at ", &["this is the file of the edge"]);
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_file_that_is_wrong() {
    let said = doctor("role: edge\nworker: 1\nlisteners: []\n");
    assert_eq!(said.code, Some(1));
    assert_eq!(said.text.lines().count(), 3, "{}", said.text);
    let words = [":2:1: worker: unknown key; remedy: did you mean `workers`?", "listeners: "];
    for (line, word) in said.text.lines().zip(words) {
        assert!(line.starts_with("fail  file: ") && line.contains(word) && line.contains("; remedy: "), "{line}");
    }
    assert!(said.text.ends_with("0 ok, 0 warnings, 2 failed\n"));
}

#[test]
fn too_few_files() {
    let folder = Folder::new();
    let (_core, core) = open();
    let file = folder.join("file.yaml");
    let limits = "limits: { connections: 1000 }\n";
    fs::write(&file, edge(NO_ADMIN, &free(), &core) + "\n" + limits).expect("writable");
    let command = otproxy(&["doctor", "-c", file.to_str().expect("UTF-8")]);
    let output = through(command, "sh", &["-c", "ulimit -n 500; exec \"$@\"", "sh"]).output().expect("a shell");
    let said = Said { code: output.status.code(), text: text(&output.stdout) };
    said.says("warn  files: 500 open files are allowed here", &["can need 2128", "raise LimitNOFILE"]);
}

#[test]
fn listeners_that_cannot_be_had() {
    let (_core, core) = open();
    let (_other, taken) = open();
    let said = doctor(&edge(NO_ADMIN, &taken, &core));
    let own = fs::read_to_string("/proc/self/comm").expect("the name of this process");
    said.says(
        &format!("fail  listener login: {taken} is held by `{}` (process {})", own.trim_end(), std::process::id()),
        &[],
    );
    // 192.0.2.0/24 is nobody's.
    let said = doctor(&edge(NO_ADMIN, "192.0.2.1:7171", &core));
    said.says("fail  listener login: this host has no address 192.0.2.1", &["see `ip address`"]);
}

#[test]
fn targets_that_cannot_be_reached() {
    let (_closed, refusing) = closed();
    let said = doctor(&edge(NO_ADMIN, &free(), &refusing));
    said.says(&format!("fail  target login: {refusing} refuses connections"), &["see that the core runs"]);
    let said = doctor(&edge(NO_ADMIN, &free(), "nowhere.invalid:7171"));
    said.says("fail  target login: `nowhere.invalid` does not resolve", &["correct the name"]);
    let core = format!(
        "role: core\n{NO_ADMIN}listeners:\n- {{ name: links, kind: relay, listen: '{}', trusted_peers: 127.0.0.1 }}\n\
         - {{ name: login, listen: '{}', trusted_peers: 127.0.0.1, forward_to: '{refusing}' }}\n\
         - {{ name: web, kind: web, listen: '{}', accept_proxy: none, forward_to: '{refusing}', routes: {{ login: [/login] }} }}\n\
         game_servers:\n- {{ port: 7172, address: '{refusing}' }}\n",
        free(),
        free(),
        free()
    );
    let said = doctor(&core);
    said.says("fail  game_server 7172: ", &["refuses connections", "see that the game server runs"]);
    said.says("fail  target login: ", &["see that the server runs"]);
    said.says("fail  target web: ", &["see that the server runs"]);
    said.says("warn  edges: none is known", &[]);
}

#[test]
fn an_edge_that_its_core_does_not_trust() {
    let core = |edges: &str| {
        let yaml = format!(
            "role: core\nname: here\nworkers: 1\nshutdown_timeout: 0s\n{NO_ADMIN}edges: [{{ name: waw1, address: {edges} }}]\nlisteners:\n\
             - {{ name: links, kind: relay, listen: '127.0.0.1:0' }}\n\
             - {{ name: login, listen: '127.0.0.1:0', forward_to: '127.0.0.1:9' }}\n\
             game_servers: [{{ port: 7172, address: '127.0.0.1:9' }}]\n"
        );
        let folder = Folder::new();
        let file = folder.join("core.yaml");
        fs::write(&file, yaml).expect("writable");
        let path = file.to_str().expect("UTF-8");
        let (running, ready) = Running::start(otproxy(&["core", "-c", path, "--log-format", "text"]));
        let after = |word: &str| ready.split_once(word).and_then(|(_, rest)| rest.split(['"', ' ', ',']).next());
        let [links, login] = ["links ", "login "].map(|word| after(word).expect(word).to_owned());
        (running, links, login)
    };
    let edge = |links: &str, login: &str| {
        format!(
            "role: edge\nname: here\n{NO_ADMIN}listeners:\n- {{ name: links, listen: '{}', forward_to: '{links}', expect: links }}\n\
             - {{ name: login, listen: '{}', forward_to: '{login}' }}\n",
            free(),
            free()
        )
    };
    let (running, links, login) = core("192.0.2.1");
    let said = doctor(&edge(&links, &login));
    let trusts = "`edges` in core.yaml needs `address: 127.0.0.1` for it";
    said.says(&format!("fail  target links: {links} closes the connection in place of a pong"), &[trusts]);
    said.says(
        &format!("fail  target login: {login} takes connections of this host, and closes them at once"),
        &[trusts],
    );
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));

    let (running, links, login) = core("127.0.0.1");
    let said = doctor(&edge(&links, &login));
    said.says(&format!("ok    target links: {links} answers a ping over a link, in "), &[]);
    said.says(&format!("ok    target login: {login} answers, in "), &[]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn an_edge_that_runs_and_cannot_be_asked() {
    let folder = Folder::new();
    let (_core, core) = open();
    let yaml = edge(NO_ADMIN, &free(), &core);
    let file = folder.join("edge.yaml");
    fs::write(&file, &yaml).expect("writable");
    let (running, _) = Running::start(otproxy(&["edge", "-c", file.to_str().expect("UTF-8")]));
    let said = doctor_in(&folder, &yaml, Some("yes"));
    said.says(
        "warn  admin: otproxy runs here, and cannot be asked",
        &["give `admin.socket`, as in `/run/otproxy-edge/"],
    );
    // It has its ports, and another address for admin than the file says now.
    let (_closed, nobody) = closed();
    let said = doctor_in(&folder, &yaml.replace("listen: off", &format!("listen: '{nobody}'")), Some("yes"));
    said.says(
        "fail  admin: otproxy has ports of this file, and nothing answers at ",
        &["systemctl restart otproxy-edge"],
    );
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_unit_that_does_not_stay_up_and_may_not_ban_in_the_kernel() {
    let (_core, core) = open();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor/unit-fails");
    let yaml = edge(&format!("{NO_ADMIN}bans: {{ after: 600/60s, nftables: inet otproxy }}\n"), &free(), &core);
    let said = doctor_with(&tools, &Folder::new(), &yaml);
    said.says(
        "fail  unit: otproxy-edge does not stay up: it ended with exit code 1, and started again 12 times",
        &["journalctl -u otproxy-edge"],
    );
    said.says(
        "fail  bans inet otproxy: otproxy-edge.service may not change nftables",
        &[
            "`systemctl edit otproxy-edge`",
            "`AmbientCapabilities=CAP_NET_ADMIN`",
            "`RestrictAddressFamilies=AF_NETLINK`",
        ],
    );
    // Neither systemd nor nft.
    let said = doctor(&yaml);
    said.says("fail  bans inet otproxy: nft cannot be run here", &["apt install nftables"]);
    assert!(!said.text.contains("  unit"), "{}", said.text);
}

#[test]
fn sessions_of_one_address_and_edges_of_both_families() {
    let core = |bind: &str, second: &str| {
        doctor(&format!(
            "role: core\n{NO_ADMIN}sessions: {{ bind_sessions: {bind} }}\nedges:\n- {{ name: waw1, address: 192.0.2.1 }}\n\
             - {{ name: fra1, address: '{second}' }}\nlisteners: [{{ name: links, kind: relay, listen: '{}' }}]\n\
             game_servers: [{{ port: 7172, address: '127.0.0.1:9' }}]\n",
            free()
        ))
    };
    core("address", "2001:db8::1")
        .says("fail  edges: some have IPv4 addresses and some IPv6", &["bind_sessions: client"]);
    for said in [core("client", "2001:db8::1"), core("address", "192.0.2.2")] {
        said.says("ok    edges: 2 known: waw1, fra1", &[]);
        assert!(!said.text.contains("some IPv6"), "{}", said.text);
    }
}

#[test]
fn servers_to_which_all_players_are_one() {
    let (_game, game) = open();
    let core = format!(
        "role: core\n{NO_ADMIN}listeners:\n- {{ name: links, kind: relay, listen: '{}', trusted_peers: 127.0.0.1 }}\n\
         - {{ name: login, listen: '{}', trusted_peers: 127.0.0.1, forward_to: '{game}', send_proxy: none, source: default }}\n\
         game_servers:\n- {{ port: 7172, address: '{game}', player_address: none, source: default }}\n",
        free(),
        free()
    );
    let said = doctor(&core);
    said.says("warn  game_server 7172: `none` tells", &["blocks it", "leave out `source`", "connects: 1/600ms"]);
    said.says("warn  target login: `none` tells", &["nobody gets in"]);
    assert_eq!(said.code, Some(0));
    let said = doctor(&core.replace(", source: default }", " }"));
    assert!(!said.text.contains("`none` tells"), "{}", said.text);
}

#[test]
fn what_runs_at_the_address_of_the_admin() {
    let (_core, core) = open();
    let (_closed, nobody) = closed();
    let said = doctor(&edge(&format!("admin: {{ listen: '{nobody}' }}\n"), &free(), &core));
    said.says("warn  admin: nothing answers at ", &["systemctl start otproxy-edge"]);

    let (web, address) = open();
    let serving = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = web.accept().expect("a connection");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).expect("a request");
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello\n").expect("writable");
        }
    });
    let said = doctor(&edge(&format!("admin: {{ listen: '{address}' }}\n"), &free(), &core));
    said.says("fail  admin: what answers at ", &["is not otproxy"]);
    serving.join().expect("no panic");
}

#[test]
fn the_clock() {
    let (_core, core) = open();
    let yaml = edge(NO_ADMIN, &free(), &core);
    let clock = |answer| doctor_in(&Folder::new(), &yaml, answer);
    clock(Some("no")).says("warn  clock: nothing on this host keeps it right", &["apt install systemd-timesyncd"]);
    clock(None).says("warn  clock: cannot be told to be right", &["date -u"]);
    clock(Some("what")).says("warn  clock: cannot be told to be right", &[]);
}

#[test]
fn for_programs() {
    let folder = Folder::new();
    let (_core, core) = open();
    let (_closed, refusing) = closed();
    for (target, passed) in [(core, true), (refusing, false)] {
        let file = folder.join("file.yaml");
        fs::write(&file, edge(NO_ADMIN, &free(), &target)).expect("writable");
        let mut command = otproxy(&["doctor", "--json", "-c", file.to_str().expect("UTF-8")]);
        let output = command.env("PATH", path_with_clock(Some("yes"))).output().expect("starts");
        assert_eq!(output.status.code(), Some(i32::from(!passed)));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(json["ok"], passed);
        let checks = json["checks"].as_array().expect("a list");
        let target = checks.iter().find(|check| check["check"] == "target").expect("a target");
        assert_eq!((target["subject"].as_str(), target["status"] == "ok"), (Some("login"), passed));
        assert_eq!(target["remedy"].is_string(), !passed);
        assert!(checks.iter().all(|check| check["message"].as_str().is_some_and(|message| !message.is_empty())));
    }
}

/// An authority with a core and an edge, in a folder.
struct Keys {
    folder: Folder,
    authority: Authority,
}

impl Keys {
    fn new() -> Self {
        let folder = Folder::new();
        let authority = Authority::create(&folder, YEARS).expect("an authority");
        let keys = Self { folder, authority };
        keys.issue(&Name::core(), 700);
        keys.issue(&Name::edge("waw1").expect("a name"), 700);
        keys
    }

    fn issue(&self, name: &Name, days: u32) {
        self.authority.issue(name, &self.folder, IssueTerms { days, ..IssueTerms::default() }).expect("issued");
    }

    fn identity(&self, name: &str) -> Identity {
        let [ca, cert, key] = ["ca.pem".to_owned(), format!("{name}.pem"), format!("{name}.key")];
        let files = TlsFiles { ca: self.folder.join(ca), cert: self.folder.join(cert), key: self.folder.join(key) };
        Identity::load(&files, if name == "core" { IdentityKind::Core } else { IdentityKind::Edge })
            .expect("an identity")
    }

    /// The doctor of the edge, which connects to a core.
    fn edge(&self, core: &str) -> Said {
        let tls = "tls: { ca: ca.pem, cert: waw1.pem, key: waw1.key }";
        let tunnel = format!("{NO_ADMIN}core: {{ dial: '{core}', {tls} }}\n");
        doctor_in(&self.folder, &edge(&tunnel, &free(), "core/login"), Some("yes"))
    }

    /// The doctor of the core, which connects to the edge.
    fn core(&self, edges: &str) -> Said {
        let (_login, login) = open();
        let yaml = format!(
            "role: core\n{NO_ADMIN}tunnel: {{ accept: '{}', tls: {{ ca: ca.pem, cert: core.pem, key: core.key }} }}\nedges:\n{edges}\
             listeners:\n- {{ name: login, forward_to: '{}' }}\n",
            free(),
            login
        );
        doctor_in(&self.folder, &yaml, Some("yes"))
    }
}

/// What the other side does after the handshake.
#[derive(Clone, Copy)]
enum Then {
    /// As an edge or a core does.
    Greet,
    /// Lets go.
    Close,
    /// Sends something else.
    Nonsense,
}

/// The other side of one connection of the tunnel. `first`: it is an edge, and says its hello first.
fn peer(config: Arc<ServerConfig>, first: bool, then: Then) -> String {
    let (listener, address) = open();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut tls = ServerConnection::new(config).expect("a configuration");
        let mut work = || -> std::io::Result<()> {
            while tls.is_handshaking() {
                tls.complete_io(&mut stream)?;
            }
            let mut tls = rustls::Stream::new(&mut tls, &mut stream);
            let mut heard = Vec::new();
            match then {
                Then::Close => return Ok(()),
                Then::Nonsense => tls.write_all(b"this is no hello")?,
                Then::Greet if first => tls.write_all(&edge_hello().to_frame())?,
                Then::Greet => {
                    while Hello::parse(&heard).expect("a hello").is_none() {
                        let mut part = [0; 100];
                        let count = tls.read(&mut part)?;
                        heard.extend_from_slice(&part[..count]);
                    }
                    tls.write_all(&core_hello().to_frame())?;
                }
            }
            let _ = tls.read(&mut [0; 16]);
            Ok(())
        };
        // Whatever the doctor makes of it: it may have gone.
        let _ = work();
        end(&mut tls, &mut stream);
    });
    address
}

/// Sends what is left, an alert for one.
fn end(tls: &mut ServerConnection, stream: &mut TcpStream) {
    while tls.wants_write() && tls.write_tls(stream).is_ok_and(|sent| sent > 0) {}
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0; 1024]);
}

#[test]
fn a_tunnel_that_works() {
    let keys = Keys::new();
    let core = peer(keys.identity("core").server_config(), false, Then::Greet);
    let said = keys.edge(&core);
    said.says("ok    certificate ", &["waw1.pem: for `waw1`, valid for 699 more days"]);
    said.says(&format!("ok    tunnel core: {core} answers, in "), &["is `core`, and accepts our certificate"]);
    assert_eq!(said.code, Some(0), "{}", said.text);

    let edge = peer(keys.identity("waw1").server_config(), true, Then::Greet);
    let said = keys.core(&format!(
        "- {{ name: waw1, dial: '{edge}' }}\n- {{ name: fra1, dial: 'nowhere.invalid:1', revoked: true }}\n"
    ));
    said.says("ok    tunnel waw1: ", &["is `waw1`, and accepts our certificate"]);
    said.says("ok    listener tunnel.accept: ", &["is free"]);
    // A revoked edge is not tried.
    assert!(!said.text.contains("nowhere"), "{}", said.text);
    assert_eq!(said.code, Some(0), "{}", said.text);
}

#[test]
fn a_tunnel_that_the_other_side_opens() {
    let keys = Keys::new();
    let yaml = edge(
        &format!("{NO_ADMIN}core: {{ accept: '{}', tls: {{ ca: ca.pem, cert: waw1.pem, key: waw1.key }} }}\n", free()),
        &free(),
        "core/login",
    );
    let said = doctor_in(&keys.folder, &yaml, Some("yes"));
    said.says("warn  tunnel core: the core connects to here", &["run `otproxy doctor` on its host"]);
    said.says("ok    listener core.accept: ", &["is free"]);
    keys.core("- name: waw1\n").says("warn  tunnel waw1: the edge waw1 connects to here", &[]);
}

#[test]
fn tunnels_that_fail() {
    let (keys, others) = (Keys::new(), Keys::new());
    let core = |then| peer(keys.identity("core").server_config(), false, then);

    let (_closed, refusing) = closed();
    keys.edge(&refusing).says("fail  tunnel core: ", &["refuses connections", "see that the core runs"]);
    // What the core does with an edge that it does not know, or no longer.
    keys.edge(&core(Then::Close)).says(
        "fail  tunnel core: ",
        &["closed the connection after the handshake", "this edge must be in its `edges`"],
    );
    keys.edge(&core(Then::Nonsense)).says("fail  tunnel core: ", &["not otproxy's protocol"]);

    // A core from before trunks.
    let mut former = ServerConfig::clone(&keys.identity("core").server_config());
    former.alpn_protocols = vec![FORMER_ALPN.to_vec()];
    keys.edge(&peer(former.into(), false, Then::Nonsense))
        .says("fail  tunnel core: ", &["speaks the tunnel of an older otproxy", "update otproxy on the core's host"]);

    // Each side finds that the other one is another authority's.
    let stranger = peer(others.identity("core").server_config(), false, Then::Greet);
    keys.edge(&stranger)
        .says("fail  tunnel core: ", &["fails the handshake: ", "received fatal alert", "files of another authority"]);
    // The ca.pem of both, so that it is only the other side that refuses.
    let both = |keys: &Keys| fs::read_to_string(keys.folder.join("ca.pem")).expect("there");
    let lenient = Keys::new();
    fs::write(lenient.folder.join("ca.pem"), both(&lenient) + &both(&others)).expect("own file");
    let stranger = peer(others.identity("core").server_config(), false, Then::Greet);
    lenient
        .edge(&stranger)
        .says("fail  tunnel core: ", &["fails the handshake: received fatal alert", "files of another authority"]);

    // An edge where the core should be: it shows its certificate to nobody who asks for another.
    let edge = peer(keys.identity("waw1").server_config(), true, Then::Greet);
    keys.edge(&edge).says("fail  tunnel core: ", &["fails the handshake: received fatal alert"]);
    let core = peer(keys.identity("core").server_config(), false, Then::Greet);
    let said = keys.core(&format!("- {{ name: waw1, dial: '{core}' }}\n"));
    said.says(
        "fail  tunnel waw1: ",
        &["received fatal alert", "another host of yours answers there", "certificate is for `waw1`"],
    );

    // Another program.
    let (listener, ssh) = open();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n").expect("writable");
        let _ = stream.read(&mut [0; 1024]);
    });
    keys.edge(&ssh).says("fail  tunnel core: ", &["fails the handshake: ", "another program listens there"]);
    serving.join().expect("no panic");
    // It listens, and says nothing.
    let (_silent, address) = open();
    keys.edge(&address).says("fail  tunnel core: ", &["did not answer within 5 s"]);
}

#[test]
fn certificates_that_cannot_be_used_or_not_for_long() {
    let keys = Keys::new();
    let (_answering, answering) = open();
    // The tunnel itself is of no matter here.
    let (_closed, core) = closed();
    let replace = |file: &str, text: &str| fs::write(keys.folder.join(file), text).expect("own file");
    let read = |file: &str| fs::read_to_string(keys.folder.join(file)).expect("there");
    let (certificate, ca) = (read("waw1.pem"), read("ca.pem"));

    fs::remove_file(keys.folder.join("waw1.pem")).expect("there");
    let said = keys.edge(&answering);
    said.says("fail  certificate ", &["waw1.pem: cannot be read: No such file"]);
    said.says("warn  tunnel core: ", &["no handshake is tried without a certificate"]);
    replace("waw1.pem", &read("core.pem"));
    keys.edge(&core).says("fail  certificate ", &["is the certificate of `core`"]);
    replace("waw1.pem", &certificate);
    replace("ca.pem", &fs::read_to_string(Keys::new().folder.join("ca.pem")).expect("there"));
    keys.edge(&core).says("fail  certificate ", &["comes from `CA "]);
    replace("ca.pem", &ca);
    let key = read("waw1.key");
    replace("waw1.key", &read("core.key"));
    keys.edge(&core).says("fail  certificate ", &["waw1.key: is not the key of the certificate in "]);
    replace("waw1.key", &key);

    let days = u32::try_from(DAYS_LEFT).expect("few");
    keys.issue(&Name::edge("waw1").expect("a name"), days + 1);
    keys.edge(&core).says("ok    certificate ", &["valid for 30 more days"]);
    keys.issue(&Name::edge("waw1").expect("a name"), days);
    keys.edge(&core).says("warn  certificate ", &["valid for 29 more days", "otproxy init"]);

    let mode = |mode| fs::set_permissions(keys.folder.join("waw1.key"), fs::Permissions::from_mode(mode)).expect("own");
    mode(0o644);
    keys.edge(&core).says("warn  key ", &["every user of this host can read it", "chmod 600 "]);
    mode(0o640);
    keys.edge(&core).says("ok    key ", &["belongs to the certificate"]);
    mode(0o600);
    if rustix::process::geteuid().is_root() {
        keys.edge(&core).says(
            "warn  key ",
            &["only root can read it, and otproxy-edge.service does not run as root", "chown otproxy "],
        );
    }
}

/// What `otproxy init` makes, run as it is but for the addresses: all hosts are this one.
struct SetUp {
    folder: Folder,
    login: TcpListener,
    _game: TcpListener,
}

impl SetUp {
    fn new(core: Option<&str>, edges: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let (login, login_address) = open();
        let (game, game_address) = open();
        let edges: Vec<_> = edges.iter().map(|(name, address)| format!("{name}={address}")).collect();
        let game_flag = format!("7172={game_address}");
        let mut flags =
            vec!["init", "--out", folder.to_str().expect("UTF-8"), "--login", &login_address, "--game", &game_flag];
        flags.extend(edges.iter().flat_map(|edge| ["--edge", edge]));
        flags.extend(core.iter().flat_map(|core| ["--core", core, "--core-mode", "accept"]));
        let output = otproxy(&flags).output().expect("starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        Self { folder, login, _game: game }
    }

    /// A player logs in over this edge; the login server is told so, and answers.
    fn carries_a_login(&self, edge: &str) {
        // Not from 127.0.0.1, which a server on loopback sees without being told.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 9], 0)).into()).expect("free");
        let edge = SocketAddr::new(edge.parse().expect("an address"), 7171);
        socket.connect(&edge.into()).expect("it listens");
        let mut player = TcpStream::from(socket);
        // As a client begins: the length, and a packet of the login protocol.
        let hello: Vec<u8> = [20, 0, 1].into_iter().chain(10..29).collect();
        player.write_all(&hello).expect("writable");
        // The doctor has been there before, and said nothing.
        for stream in self.login.incoming() {
            let mut stream = stream.expect("a connection");
            let mut got = vec![0; 28 + hello.len()];
            if stream.read_exact(&mut got).is_err() {
                continue;
            }
            assert!(got.starts_with(&LOCAL[..12]) && got.ends_with(&hello), "{got:?}");
            stream.write_all(b"welcome").expect("writable");
            break;
        }
        let mut answer = [0; 7];
        player.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"welcome");
    }

    /// Has a host's file listen on an address of its own.
    fn on(&self, file: &str, address: &str) -> PathBuf {
        let path = self.folder.join(file);
        // Each is [all of IPv4, all of IPv6].
        let made = fs::read_to_string(&path).expect("there");
        let own = |part: &str| part.split_once("\"]").map(|(_, rest)| rest.to_owned()).unwrap_or(part.to_owned());
        let mut parts = made.split(", \"[::]:");
        let first = parts.next().unwrap_or_default().to_owned();
        let made = parts.fold(first, |text, part| text + "]" + &own(part)).replace("0.0.0.0:", &format!("{address}:"));
        // The core's file has that key already.
        let (made, more) = match made.split_once("admin: {") {
            Some((before, after)) => (format!("{before}admin: {{ listen: '{address}:9162',{after}"), String::new()),
            None => (made, format!("admin: {{ listen: '{address}:9162' }}\n")),
        };
        fs::write(&path, made + &more).expect("own file");
        path
    }
}

fn start(role: &str, file: &Path) -> Running {
    Running::start(otproxy(&[role, "-c", file.to_str().expect("UTF-8")])).0
}

fn doctor_on(file: &Path) -> Said {
    let mut command = otproxy(&["doctor", "-c", file.to_str().expect("UTF-8")]);
    let output = command.env("PATH", path_with_clock(Some("yes"))).output().expect("the program starts");
    Said { code: output.status.code(), text: text(&output.stdout) }
}

/// Asks the doctor until it says a line that begins so.
fn doctor_until(file: &Path, beginning: &str, has: &str) -> Said {
    let start = Instant::now();
    loop {
        let said = doctor_on(file);
        if said.text.lines().any(|line| line.starts_with(beginning) && line.contains(has)) {
            return said;
        }
        assert!(start.elapsed() < HANG, "no {beginning:?} with {has:?} in:\n{}", said.text);
    }
}

#[test]
fn what_init_makes_runs_where_the_core_connects() {
    let addresses = [own_address(), own_address(), own_address()];
    let [core, waw1, fra1] = addresses.each_ref().map(String::as_str);
    let made = SetUp::new(None, &[("waw1", waw1), ("fra1", fra1)]);
    let core = made.on("core/core.yaml", core);
    let edges = [made.on("edge-waw1/edge.yaml", waw1), made.on("edge-fra1/edge.yaml", fra1)];

    // Before anything runs: the core finds nobody, and the edge cannot know.
    let said = doctor_on(&core);
    said.says("fail  tunnel waw1: ", &["refuses connections", "see that the edge waw1 runs"]);
    doctor_on(&edges[0]).says("warn  tunnel core: ", &["can is only seen where otproxy runs here"]);

    let running: Vec<_> = edges.iter().map(|file| start("edge", file)).collect();
    let said = doctor_on(&core);
    said.says("ok    tunnel waw1: ", &["is `waw1`, and accepts our certificate"]);
    said.says("ok    tunnel fra1: ", &["is `fra1`, and accepts our certificate"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    let said = doctor_on(&edges[0]);
    said.says("fail  tunnel core: ", &["has no connection now"]);
    said.says("fail  links links: players get no pong: ", &["see `tunnel` and `target` here"]);

    let run_core = start("core", &core);
    let said = doctor_until(&edges[0], "ok    tunnel core: ", " trunks with the core");
    assert_eq!(said.text.lines().filter(|line| line.starts_with("ok    listener ")).count(), 4, "{}", said.text);
    said.says("ok    links links: ", &[waw1, "is answered, through the core, in "]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert_eq!(doctor_on(&core).code, Some(0));
    made.carries_a_login(waw1);
    made.carries_a_login(fra1);
    for running in running.into_iter().chain([run_core]) {
        running.signal(Signal::TERM);
        let (code, log) = running.end();
        assert_eq!(code, Some(0));
        // The doctor was at both edges, and is no failure there.
        assert!(!log.contains("handshake failed"), "{log}");
    }
}

#[test]
fn what_init_makes_runs_where_the_edges_connect() {
    let addresses = [own_address(), own_address(), own_address()];
    let [core_address, waw1, fra1] = addresses.each_ref().map(String::as_str);
    let made = SetUp::new(Some(core_address), &[("waw1", waw1), ("fra1", fra1)]);
    let core = made.on("core/core.yaml", core_address);
    let edge = made.on("edge-waw1/edge.yaml", waw1);

    doctor_on(&edge).says("fail  tunnel core: ", &["refuses connections"]);
    let run_core = start("core", &core);
    let said = doctor_on(&edge);
    said.says("ok    tunnel core: ", &["is `core`, and accepts our certificate"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    let run_edge = start("edge", &edge);
    let said = doctor_until(&core, "ok    tunnel waw1: ", " trunks with the edge waw1");
    said.says("warn  tunnel fra1: ", &["has no connection now"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    // The doctor of the edge was there before, and its end counts as no failure.
    let output = otproxy(&["edges", "--json", "-c", core.to_str().expect("UTF-8")]).output().expect("starts");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&json["edges"][0]["name"], &json["edges"][0]["last_error"]), (&"waw1".into(), &().into()), "{json}");
    made.carries_a_login(waw1);
    run_edge.signal(Signal::TERM);
    assert_eq!(run_edge.end().0, Some(0));

    // A core that knows the edge no longer.
    run_core.signal(Signal::TERM);
    assert_eq!(run_core.end().0, Some(0));
    let file = fs::read_to_string(&core).expect("there");
    fs::write(&core, file.replace("name: \"waw1\"", "name: \"waw1\", revoked: true")).expect("own file");
    let run_core = start("core", &core);
    doctor_on(&edge).says("fail  tunnel core: ", &["closed the connection", "this edge must be in its `edges`"]);
    run_core.signal(Signal::TERM);
    assert_eq!(run_core.end().0, Some(0));
}
