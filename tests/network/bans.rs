//! Bans in the kernel: an edge behind the firewall that `otproxy init` makes, and two players on another host.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use otproxy::admission::LONGEST_BAN;
use socket2::{Domain, Socket, Type};

use crate::common;
use crate::common::metrics::{Metered, scrape};
use crate::common::role::Role;
use crate::host::{self, Host};
use crate::traffic::eventually;

const HOUR: Duration = Duration::from_secs(3600);
const EDGE: &str = "10.0.0.1";
const OFFENDER: &str = "10.0.0.2";
const OTHER: &str = "10.0.0.3";
const LOGIN: &str = "10.0.0.1:7171";
const FIREWALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/init/golden/accept/edge-waw1/nftables.conf");

/// An edge that runs, as threads of this process on its host.
struct Edge<'h> {
    host: &'h Host,
    role: Role,
}

impl<'h> Edge<'h> {
    fn start(host: &'h Host) -> Self {
        let yaml = "role: edge\nname: waw1\nworkers: 1\nbans: { after: 1/1h, for: 1h, nftables: inet otproxy }\n\
                    listeners:\n  - { name: login, listen: \"0.0.0.0:7171\", forward_to: \"127.0.0.1:7000\", \
                    send_proxy: none, expect: login }\n";
        Self { host, role: host.inside(|| Role::start(yaml)) }
    }

    fn metric(&self, line_begins: &str) -> f64 {
        let text = self.host.inside(|| common::run(scrape(self.role.admin())));
        let line =
            text.lines().find_map(|line| line.strip_prefix(line_begins)).unwrap_or_else(|| panic!("{line_begins}"));
        line.trim().parse().unwrap()
    }

    fn rejected(&self, reason: &str) -> f64 {
        self.metric(&format!("otproxy_connections_rejected_total{{listener=\"login\",reason=\"{reason}\"}}"))
    }

    fn nft(&self, arguments: &[&str]) -> Output {
        self.host.inside(|| Command::new("nft").args(arguments).stdin(Stdio::null()).output().unwrap())
    }

    /// What nft says that a set has.
    fn set(&self, name: &str) -> String {
        let output = self.nft(&["list", "set", "inet", "otproxy", name]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Packets of banned addresses that the kernel has met.
    fn dropped(&self) -> u64 {
        let output = self.nft(&["list", "chain", "inet", "otproxy", "input"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (_, behind) = text.split_once("counter packets ").unwrap_or_else(|| panic!("{text}"));
        behind.split(' ').next().unwrap().parse().unwrap()
    }
}

/// Sends what is no login, and sees the end.
fn break_a_rule(player: &Host) {
    player.inside(|| {
        let mut stream = connect(OFFENDER, true);
        // It may be closed before that.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    });
}

/// Connects from one of the players' addresses, to the end or not.
fn connect(from: &str, to_the_end: bool) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
    socket.set_nonblocking(!to_the_end).unwrap();
    let connected = socket.connect(&LOGIN.parse::<SocketAddr>().unwrap().into());
    assert!(to_the_end && connected.is_ok() || !to_the_end && connected.is_err(), "{connected:?}");
    socket.into()
}

/// Whether a login gets through to the target, which says something first.
fn is_served(player: &Host, from: &str) -> bool {
    player.inside(|| {
        let mut stream = connect(from, true);
        let login = [&[149, 0, 0, 0, 0, 0, 1][..], &[7; 144]].concat();
        stream.write_all(&login).is_ok() && stream.read(&mut [0]).is_ok_and(|read| read == 1)
    })
}

#[test]
fn the_commands_in_the_document_make_the_sets() {
    if !host::can_be_made() || !host::nft_is_here() {
        return;
    }
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md")).unwrap();
    let commands = text.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(commands.starts_with("nft add table inet otproxy\n"), "{commands}");
    let host = Host::make("bans-document");
    let run = |command: &str| host.inside(|| Command::new("sh").args(["-ec", command]).output().unwrap());
    let made = run(commands);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let list = String::from_utf8(run("nft list ruleset").stdout).unwrap();
    for line in ["set banned4 {", "set banned6 {", "ip saddr @banned4 ", "ip6 saddr @banned6 "] {
        assert!(list.contains(line), "{line} in {list}");
    }
}

#[test]
fn the_kernel_drops_what_banned_addresses_send_until_the_ban_is_lifted() {
    if !host::can_be_made() {
        return;
    }
    let (edge, player) = (Host::make("bans-edge"), Host::make("bans-player"));
    if !host::nft_is_here() {
        return;
    }
    edge.join("edge", &player, "player");
    edge.ip(&format!("addr add {EDGE}/24 dev to-player\n"));
    player.ip(&format!("addr add {OFFENDER}/24 dev to-edge\naddr add {OTHER}/24 dev to-edge\n"));
    let target = edge.inside(|| TcpListener::bind("127.0.0.1:7000").unwrap());
    thread::spawn(move || {
        target.incoming().for_each(|stream| drop(stream.and_then(|mut stream| stream.write_all(b"!"))))
    });

    // Without the sets it goes on, and says so.
    let edge = Edge::start(&edge);
    eventually("a call of nft fails", || edge.metric("otproxy_bans_nftables_errors_total") > 0.0);
    edge.role.bans().ban("2001:db8::/32".parse().unwrap(), LONGEST_BAN, Instant::now());
    assert!(edge.nft(&["-f", FIREWALL]).status.success());
    let counter = ["insert", "rule", "inet", "otproxy", "input", "ip", "saddr", "@banned4", "counter"];
    assert!(edge.nft(&counter).status.success());
    eventually("it is tried again", || edge.set("banned6").contains("2001:db8::/32"));

    assert!(is_served(&player, OFFENDER) && is_served(&player, OTHER));
    (0..2).for_each(|_| break_a_rule(&player));
    eventually("the kernel has the ban", || edge.set("banned4").contains(OFFENDER));
    let banned = edge.rejected("banned");
    let (mut pending, before) = (player.inside(|| connect(OFFENDER, false)), edge.dropped());
    eventually("what the banned one sends is dropped", || edge.dropped() > before);
    assert_eq!(pending.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "it is connected, or refused");
    assert_eq!(edge.rejected("banned"), banned, "the process heard of it");
    assert!(is_served(&player, OTHER));
    drop(pending);

    // Others may not be in the way: a wider ban takes the place of one that lies in it.
    edge.role.bans().ban("10.0.0.2/31".parse().unwrap(), HOUR, Instant::now());
    eventually("the kernel has the wider one", || edge.set("banned4").contains("10.0.0.2/31"));
    assert_eq!(edge.role.bans().unban("10.0.0.0/24".parse().unwrap()).len(), 2);
    eventually("the kernel has nothing", || !edge.set("banned4").contains("elements"));
    assert!(is_served(&player, OFFENDER));
    assert!(edge.set("banned6").contains("2001:db8::/32"));
}
