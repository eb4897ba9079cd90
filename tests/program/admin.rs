//! The admin socket and the commands of a process that runs.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::process::{Running, failed, otproxy, text, through};

/// A directory of a test, which is removed with it. Short, as the paths of sockets are.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("otproxy-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes the file of an edge, whose `admin` has these keys too.
    fn edge(&self, admin: &str) -> String {
        let text = format!(
            "role: edge\nname: here\nadmin: {{ listen: '127.0.0.1:0', {admin} }}\nlog: {{ format: json }}\n\
             listeners: [{{ name: login, listen: '127.0.0.1:0', forward_to: [{{ address: '127.0.0.1:9', name: first }}] }}]\n"
        );
        fs::write(self.path("edge.yaml"), text).expect("writable file");
        self.path("edge.yaml")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the socket answers to a GET.
fn get(socket: &str, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn the_socket_is_there_for_its_user_and_group_and_goes_with_the_process() {
    let directory = Directory::new("socket");
    let file = directory.edge("socket: admin.sock");
    let socket = directory.path("admin.sock");
    // In a shell in which everybody may use new files.
    let command = through(otproxy(&["edge", "-c", &file]), "sh", &["-c", "umask 0; exec \"$@\"", "sh"]);
    let (running, ready) = Running::start(command);
    assert!(ready.contains(&format!("\"admin_socket\":\"{socket}\"")), "{ready}");
    let made = fs::symlink_metadata(&socket).expect("a socket");
    assert!(made.file_type().is_socket());
    assert_eq!(made.mode() & 0o7777, 0o660);
    assert!(get(&socket, "/ready").starts_with("HTTP/1.1 200 "));

    // One that lives keeps its place.
    let second = otproxy(&["edge", "-c", &file]).output().expect("the program starts");
    let error = failed(&second, 1);
    assert!(
        error.contains(&format!("admin.socket: cannot use {socket}: a process that runs answers there")),
        "{error}"
    );
    assert!(get(&socket, "/live").ends_with("live\n"));

    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
    assert!(!Path::new(&socket).exists());
}

#[test]
fn the_socket_of_a_dead_process_gives_way() {
    let directory = Directory::new("dead");
    let file = directory.edge("socket: admin.sock");
    let socket = directory.path("admin.sock");
    let (running, _) = Running::start(otproxy(&["edge", "-c", &file]));
    running.signal(Signal::KILL);
    running.end();
    assert!(Path::new(&socket).exists());
    let (running, _) = Running::start(otproxy(&["edge", "-c", &file]));
    assert!(get(&socket, "/live").ends_with("live\n"));
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn under_systemd_it_is_in_the_directory_of_the_unit() {
    let directory = Directory::new("unit");
    let file = directory.edge("");
    let mut command = otproxy(&["edge", "-c", &file]);
    command.env("RUNTIME_DIRECTORY", &directory.0);
    let (running, ready) = Running::start(command);
    let socket = directory.path("admin.sock");
    assert!(ready.contains(&format!("\"admin_socket\":\"{socket}\"")), "{ready}");
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
    // Elsewhere there is none.
    let mut command = otproxy(&["edge", "-c", &file]);
    command.env_remove("RUNTIME_DIRECTORY");
    let (_running, ready) = Running::start(command);
    assert!(ready.contains("\"admin_socket\":\"off\""), "{ready}");
}

#[test]
fn check_reads_the_tokens_and_each_remedy_remedies() {
    let directory = Directory::new("tokens");
    let file = directory.edge("token_file: token");
    let check = || otproxy(&["check", "-c", &file]).output().expect("the program starts");
    let remedied = |says: &str| {
        let error = failed(&check(), 78);
        assert!(error.starts_with(&format!("{file}: admin: {}: {says}", directory.path("token"))), "{error}");
        let remedy = error.split('`').nth(1).expect("a command");
        assert!(Command::new("sh").args(["-c", remedy]).status().expect("a shell").success(), "{remedy}");
    };
    let well = || {
        let output = check();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    };
    remedied("cannot be read: No such file or directory (os error 2); make one: `install -m 600 -o ");
    well();
    fs::set_permissions(directory.path("token"), fs::Permissions::from_mode(0o644)).expect("own file");
    remedied("can be read or written by everybody; run `chown ");
    well();
    fs::write(directory.path("token"), "short").expect("writable file");
    remedied("must hold a token of 16 to 1024 characters; make one: `");
    well();
}

#[test]
fn a_credential_of_systemd_is_read_in_place_of_the_file() {
    let directory = Directory::new("credential");
    let file = directory.edge("token_file: admin.token");
    fs::create_dir(directory.path("credentials")).expect("a folder");
    let credential = directory.path("credentials/admin.token");
    fs::write(&credential, "0123456789abcdef-credential").expect("writable file");
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o440)).expect("own file");
    let mut command = otproxy(&["edge", "-c", &file]);
    command.env("CREDENTIALS_DIRECTORY", directory.path("credentials"));
    let (_running, ready) = Running::start(command);
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    let url = format!("http://{}", ready["admin"].as_str().expect("an address"));
    let status = |token: &str| {
        let output = otproxy(&["status", "--url", &url, "--token-file", token]).output().expect("the program starts");
        output.status.code()
    };
    assert_eq!(status(&credential), Some(0));
    // What runs has it from nowhere else.
    assert!(
        failed(&otproxy(&["check", "-c", &file]).output().expect("it starts"), 78).contains("admin.token: cannot be")
    );
}

/// Runs `otproxy cert` in a directory, and expects that it succeeds.
fn cert(directory: &Directory, arguments: &str) {
    let place = format!("{}{}", directory.0.display(), if arguments.starts_with("edge ") { "/operators" } else { "" });
    let arguments: Vec<_> = ["cert"].into_iter().chain(arguments.split(' ')).chain(["--dir", &place]).collect();
    let output = otproxy(&arguments).output().expect("the program starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

const OPERATORS: &str = "cert: operators/localhost.pem, key: operators/localhost.key, client_ca: operators/ca.pem";

#[test]
fn operators_act_by_certificates_of_their_own_until_they_are_revoked() {
    let directory = Directory::new("operators");
    for made in ["operator anna", "operator bert", "edge localhost"] {
        cert(&directory, made);
    }
    let file = directory.edge(&format!("socket: admin.sock, tls: {{ {OPERATORS} }}"));
    let (mut running, ready) = Running::start(otproxy(&["edge", "-c", &file]));
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    let address: SocketAddr = ready["admin"].as_str().expect("an address").parse().expect("one");
    let url = format!("https://localhost:{}", address.port());
    let drains = |own: Option<&str>| {
        let ca = directory.path("operators/ca.pem");
        let own = own.map(|name| ["pem", "key"].map(|end| directory.path(&format!("operators/{name}.{end}"))));
        let mut arguments = vec!["drain", "--url", &url, "--ca", &ca];
        arguments.extend(own.iter().flat_map(|[cert, key]| ["--cert", cert, "--key", key]));
        otproxy(&arguments).output().expect("the program starts").status.code()
    };
    // The host's certificate comes from the same authority, and is none of an operator.
    assert_eq!([Some("anna"), Some("bert"), Some("localhost"), None].map(drains), [Some(0), Some(0), Some(1), Some(1)]);
    running.line_with("admin.listen refused the certificate of an operator: ");

    directory.edge(&format!("socket: admin.sock, tls: {{ {OPERATORS}, revoked: [anna] }}"));
    let reload = otproxy(&["reload", "--socket", &directory.path("admin.sock")]).output().expect("it starts");
    assert!(reload.status.success() && !text(&reload.stdout).contains("restart"), "{}", text(&reload.stdout));
    assert_eq!([Some("anna"), Some("bert")].map(drains), [Some(1), Some(0)]);
    let line = running.line_with("admin.listen refused the certificate of an operator: ");
    assert!(line.contains("\"operator\":\"anna\"") && line.contains("Revoked"), "{line}");
}

#[test]
fn the_end_of_the_admin_s_certificate_is_said_before_and_after() {
    let directory = Directory::new("ends");
    cert(&directory, "operator anna");
    cert(&directory, "edge localhost --days 5");
    let file = directory.edge(&format!("tls: {{ {OPERATORS} }}"));
    let run = |command: &str| otproxy(&[command, "-c", &file]).output().expect("the program starts");
    let soon = run("check");
    let warning = format!("{file}: warning: {}: ends in 4 days; renew it", directory.path("operators/localhost.pem"));
    assert!(soon.status.success() && text(&soon.stderr).starts_with(&warning), "{}", text(&soon.stderr));
    assert!(
        text(&run("doctor").stdout).contains("localhost.pem: of admin.tls, valid for 4 more days; remedy: renew it")
    );
    let (mut running, _) = Running::start(otproxy(&["edge", "-c", &file]));
    running.line_with("a certificate of admin.listen expires");

    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    let key = rcgen::KeyPair::generate().expect("a key");
    let ended = params.self_signed(&key).expect("a certificate");
    fs::write(directory.path("operators/localhost.pem"), ended.pem()).expect("writable");
    fs::write(directory.path("operators/localhost.key"), key.serialize_pem()).expect("writable");
    let error = failed(&run("check"), 78);
    let says = format!("{file}: admin.tls: {}: was valid until 2002-01-01T", directory.path("operators/localhost.pem"));
    assert!(error.starts_with(&says) && error.contains("; renew it where it was made"), "{error}");
    let doctor = run("doctor");
    assert_eq!(doctor.status.code(), Some(1));
    assert!(text(&doctor.stdout).contains("operators/localhost.pem: was valid until 2002-01-01T"));
    // Players need no operator: it starts, and says so.
    let (mut running, _) = Running::start(otproxy(&["edge", "-c", &file]));
    running.line_with("nobody gets in at admin.listen by its certificates");
}

#[test]
fn the_tunnel_s_authority_lets_nobody_act() {
    let directory = Directory::new("tunnel-ca");
    for made in ["init", "edge waw1", "operator anna"] {
        let place = directory.path("ca");
        let arguments: Vec<_> = ["cert"].into_iter().chain(made.split(' ')).chain(["--dir", &place]).collect();
        assert!(otproxy(&arguments).output().expect("it starts").status.success());
    }
    let file = directory.path("edge.yaml");
    let check = |client_ca: &str| {
        let text = format!(
            "role: edge\nadmin: {{ listen: '127.0.0.1:0', tls: {{ cert: ca/waw1.pem, key: ca/waw1.key, client_ca: {client_ca} }} }}\n\
             core: {{ dial: 'localhost:1', tls: {{ ca: ca/ca.pem, cert: ca/waw1.pem, key: ca/waw1.key }} }}\n\
             listeners: [{{ name: login, listen: '127.0.0.1:0', forward_to: 'core/login' }}]\n"
        );
        fs::write(&file, text).expect("writable");
        otproxy(&["check", "-c", &file]).output().expect("the program starts")
    };
    let error = failed(&check("ca/ca.pem"), 78);
    assert!(error.contains("ca/ca.pem: is an authority of the tunnel, as in "), "{error}");
    let start = failed(&otproxy(&["edge", "-c", &file]).output().expect("the program starts"), 1);
    assert!(start.contains("is an authority of the tunnel"), "{start}");
    assert_eq!(check("ca/operators/ca.pem").status.code(), Some(0));
}

/// An edge that runs, with the target that it leads to.
struct Edge {
    directory: Directory,
    target: TcpListener,
    login: SocketAddr,
    file: String,
    running: Running,
}

impl Edge {
    fn start(name: &str) -> Self {
        let directory = Directory::new(name);
        let target = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let file = directory.edge("socket: admin.sock");
        let text = fs::read_to_string(&file).expect("the file");
        let address = target.local_addr().expect("an address").to_string();
        fs::write(&file, text.replace("127.0.0.1:9", &address)).expect("writable file");
        let (mut running, ready) = Running::start(otproxy(&["edge", "-c", &file]));
        // Somebody has to read what it logs.
        let mut log = running.take_stderr();
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let ready: Value = serde_json::from_str(&ready).expect("JSON");
        let login = ready["listeners"].as_str().and_then(|text| text.split(' ').nth(1)).expect("an address");
        let login = login.parse().expect("an address");
        Self { directory, target, login, file, running }
    }

    /// A player whose connection has reached the target.
    fn player(&self) -> TcpStream {
        let player = TcpStream::connect(self.login).expect("it listens");
        let (mut arrived, _) = self.target.accept().expect("it forwards");
        // Its PROXY header: the connection is carried from here on.
        arrived.read_exact(&mut [0; 28]).expect("a header");
        thread::spawn(move || std::io::copy(&mut arrived, &mut std::io::sink()));
        player
    }

    fn command(&self, command: &str) -> Output {
        let arguments: Vec<_> = command.split(' ').chain(["-c", &self.file]).collect();
        otproxy(&arguments).output().expect("the program starts")
    }

    /// What a command says as JSON.
    #[track_caller]
    fn json(&self, command: &str) -> Value {
        let output = self.command(&format!("{command} --json"));
        assert_eq!(output.status.code(), Some(0), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// Whether the connection ends, or is refused to begin with.
fn is_closed(mut player: TcpStream) -> bool {
    matches!(player.read(&mut [0]), Ok(0) | Err(_))
}

#[test]
fn an_edge_is_seen_by_commands() {
    let edge = Edge::start("seen");
    let player = edge.player();
    let address = player.local_addr().expect("an address").to_string();
    let status = edge.json("status");
    assert_eq!((&status["role"], &status["name"], &status["ready"]), (&json!("edge"), &json!("here"), &json!(true)));
    assert_eq!(status["pid"], edge.running.id());
    assert_eq!((&status["connections"]["open"], &status["sessions"]), (&json!(1), &Value::Null));
    let connections = edge.json("connections --listener login --address 127.0.0.1");
    assert_eq!(connections["total"], 1);
    let connection = &connections["connections"][0];
    assert_eq!((&connection["player"], &connection["state"]), (&json!(address), &json!("forwarding")));
    assert_eq!(edge.json("connections --address 192.0.2.0/24")["total"], 0);
    assert_eq!(edge.json("addresses")["addresses"][0]["address"], "127.0.0.1");
    assert_eq!(edge.json("listeners")["listeners"][0]["connections"]["open"], 1);
    assert_eq!(edge.json("targets")["targets"][0]["name"], "first");
    assert_eq!(edge.json("bans")["total"], 0);
    let refused = edge.command("sessions");
    assert!(failed(&refused, 1).contains("core"));
    // And for people.
    for (command, says) in
        [("status", "edge \"here\""), ("connections", &*address), ("targets", "first"), ("bans", "NETWORK")]
    {
        let output = edge.command(command);
        assert!(text(&output.stdout).contains(says), "{command}: {}", text(&output.stdout));
    }
}

#[test]
fn an_edge_is_steered_by_commands() {
    let mut edge = Edge::start("steered");
    let player = edge.player();
    let id = edge.json("connections")["connections"][0]["id"].as_u64().expect("a number");
    assert_eq!(edge.json(&format!("disconnect --connection {id}"))["connections"], 1);
    assert!(is_closed(player));

    let player = edge.player();
    edge.json("ban 127.0.0.0/8 --for 1h --disconnect");
    assert!(is_closed(player));
    assert!(is_closed(TcpStream::connect(edge.login).expect("the kernel accepts")));
    assert_eq!(edge.json("bans")["bans"][0]["network"], "127.0.0.0/8");
    assert_eq!(edge.json("unban 127.0.0.0/8")["networks"], json!(["127.0.0.0/8"]));

    edge.json("target login first maint");
    assert!(is_closed(TcpStream::connect(edge.login).expect("it listens")));
    assert_eq!(edge.json("targets")["targets"][0]["state"], "maint");
    edge.json("target login first ready");

    let player = edge.player();
    edge.json("drain login");
    let left = edge.json("listeners");
    assert_eq!(left["listeners"][0]["state"], "draining");
    drop(player);
    let output = edge.command("drain login --wait");
    assert!(text(&output.stdout).contains("drained"), "{}", text(&output.stderr));
    assert!(TcpStream::connect(edge.login).is_err());
    edge.json("undrain login");
    // Port 0 is another one each time.
    let address = &edge.json("listeners")["listeners"][0]["addresses"][0];
    edge.login = address.as_str().and_then(|address| address.parse().ok()).expect("an address");
    drop(edge.player());
    assert!(failed(&edge.command("drain logn"), 1).contains("the listeners are: login"));
}

#[test]
fn a_reload_by_command_says_what_is_wrong() {
    let edge = Edge::start("reload");
    let before = fs::read_to_string(&edge.file).expect("the file");
    assert_eq!(edge.json("reload")["needs_restart"], json!([]));
    fs::write(&edge.file, before.replace("name: here", "name: there")).expect("writable file");
    assert_eq!(edge.json("reload")["needs_restart"], json!(["name"]));
    // The commands find the socket by the flag: the file says nothing that can be read.
    fs::write(&edge.file, before.replace("name: here", "nam: here\nworker: 2")).expect("writable file");
    let socket = edge.directory.path("admin.sock");
    let output = otproxy(&["reload", "--socket", &socket]).output().expect("the program starts");
    let error = failed(&output, 78);
    assert!(
        error.contains("edge.yaml:2:1: nam: unknown key") && error.contains("edge.yaml:3:1: worker: unknown key"),
        "{error}"
    );
    let output = otproxy(&["status", "--socket", &socket, "--json"]).output().expect("the program starts");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(status["last_reload"]["ok"], false);
    // By the file that is wrong they say so, and ask nobody.
    assert!(failed(&edge.command("status"), 78).contains("unknown key"));
}

#[test]
fn the_units_way_to_reload_fails_where_the_file_is_wrong() {
    let edge = Edge::start("unit-reload");
    let unit = fs::read_to_string("systemd/otproxy-edge.service").expect("the unit");
    let reload = unit.lines().find_map(|line| line.strip_prefix("ExecReload=otproxy ")).expect("a line");
    let reload: Vec<_> = reload.split(' ').map(|word| word.replace("/etc/otproxy/edge.yaml", &edge.file)).collect();
    let reload: Vec<_> = reload.iter().map(String::as_str).collect();
    assert!(otproxy(&reload).output().expect("the program starts").status.success());
    let before = fs::read_to_string(&edge.file).expect("the file");
    fs::write(&edge.file, before.replace("name: here", "nam: here")).expect("writable file");
    assert!(failed(&otproxy(&reload).output().expect("the program starts"), 78).contains("nam: unknown key"));
    let core = fs::read_to_string("systemd/otproxy-core.service").expect("the unit");
    assert!(core.contains("\nExecReload=otproxy reload -c /etc/otproxy/core.yaml\n"));
}

#[test]
fn tokens_are_for_the_address() {
    let directory = Directory::new("bearer");
    let make =
        format!("umask 077; cd {}; openssl rand -hex 32 > act; openssl rand -hex 32 > read", directory.0.display());
    assert!(Command::new("sh").args(["-c", &make]).status().expect("a shell").success());
    let file = directory.edge("socket: off, token_file: act, read_token_file: read");
    let (_running, ready) = Running::start(otproxy(&["edge", "-c", &file]));
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    let url = format!("http://{}", ready["admin"].as_str().expect("an address"));
    let code = |command: &str, token: Option<&str>| {
        let token = token.map(|token| ["--token-file".to_owned(), directory.path(token)]);
        let arguments = command.split(' ').map(str::to_owned).chain(["--url".to_owned(), url.clone()]);
        let arguments: Vec<_> = arguments.chain(token.into_iter().flatten()).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let output = otproxy(&arguments).output().expect("the program starts");
        (output.status.code(), text(&output.stderr))
    };
    for (command, token, expected, says) in [
        ("status", None, 1, "a token is needed here"),
        ("status", Some("read"), 0, ""),
        ("status", Some("act"), 0, ""),
        ("drain", Some("read"), 1, "this token may read, and not act"),
        ("drain", Some("act"), 0, ""),
        ("status", Some("edge.yaml"), 1, "can be read or written by everybody"),
    ] {
        let (code, err) = code(command, token);
        assert!(code == Some(expected) && err.contains(says), "{command} {token:?}: {code:?}: {err}");
    }
}

/// The user and the group `nobody` of each Linux.
const NOBODY: u32 = 65534;

#[test]
fn a_token_is_not_sent_to_another_user() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can start a process of another user");
        return;
    }
    let directory = Directory::new("stranger");
    let make = format!("umask 077; openssl rand -hex 32 > {0}/act; chown {NOBODY} {0}", directory.0.display());
    assert!(Command::new("sh").args(["-c", &make]).status().expect("a shell").success());
    let file = directory.edge("socket: off");
    let mut command = otproxy(&["edge", "-c", &file]);
    command.uid(NOBODY).gid(NOBODY);
    let (_running, ready) = Running::start(command);
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    let url = format!("http://{}", ready["admin"].as_str().expect("an address"));
    let ask = |arguments: &[&str]| otproxy(arguments).output().expect("the program starts");
    let token = directory.path("act");
    let error = failed(&ask(&["status", "--url", &url, "--token-file", &token]), 1);
    assert!(error.contains("the token would be sent to user id 65534") && error.contains("unix socket"), "{error}");
    assert_eq!(ask(&["status", "--url", &url]).status.code(), Some(0), "without a token anybody is asked");
    // The owner of the file knows the token anyway.
    assert!(Command::new("chown").args([NOBODY.to_string(), token.clone()]).status().expect("chown").success());
    assert_eq!(ask(&["status", "--url", &url, "--token-file", &token]).status.code(), Some(0));
}

#[test]
fn an_address_without_a_token_is_read_and_nothing_else() {
    let directory = Directory::new("reads");
    let file = directory.edge("socket: admin.sock");
    let (_running, ready) = Running::start(otproxy(&["edge", "-c", &file]));
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    let url = format!("http://{}", ready["admin"].as_str().expect("an address"));
    let ask = |command: &str, place: [&str; 2]| {
        let arguments: Vec<_> = command.split(' ').chain(place).collect();
        otproxy(&arguments).output().expect("the program starts")
    };
    assert_eq!(ask("status", ["--url", &url]).status.code(), Some(0));
    let error = failed(&ask("drain login", ["--url", &url]), 1);
    assert!(error.contains("without a token this address may be read") && error.contains("`admin.socket`"), "{error}");
    assert_eq!(ask("drain login", ["--socket", &directory.path("admin.sock")]).status.code(), Some(0));
}
