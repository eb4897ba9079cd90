//! `source: player`: an unpatched server on loopback sees players' own addresses, by a process with one privilege.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use otproxy_protocol::frame::{ClientId, SessionId};
use otproxy_protocol::proxy_header::write_v2;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common;
use crate::common::link::{EDGE_A, Link, S, Seen};
use crate::common::metrics::Metered;
use crate::common::process::{otproxy, text};
use crate::common::role_process::{RoleProcess, may_open};
use crate::host::{self, Host};

/// The lines of the unit.
const DROP_IN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/source-player.conf"));
/// The unit's privilege and no other, and none at all.
const NET_RAW: [&str; 2] = ["--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw"];
const NOTHING: [&str; 2] = ["--bounding-set=-all", "--inh-caps=-all"];
/// An address of the host itself.
const OWN: &str = "10.9.9.1";
const CONNECTS: &str = "otproxy_target_connects_total";

/// Runs the commands of the unit for this key on a host, as systemd does: what fails changes nothing.
fn run_lines(host: &Host, key: &str) {
    let prefix = format!("{key}=+-");
    let lines: Vec<_> = DROP_IN.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
    assert_eq!(lines.len(), 4, "{key}");
    host.inside(|| lines.iter().for_each(|line| drop(shell(line))));
}

fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    text(&output.stdout)
}

/// A host whose own address is [`OWN`], with the routes of the unit.
fn routed_host(name: &str) -> Host {
    let host = Host::make(name);
    host.ip(&format!("addr add {OWN}/32 dev lo\n"));
    run_lines(&host, "ExecStartPre");
    host
}

/// An unpatched server: it sees who connects, and sends back what it gets.
struct Server(TcpListener);

impl Server {
    async fn at(address: &str) -> Self {
        Self(TcpListener::bind(address).await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Accepts a connection, and returns the address that it comes from.
    async fn sees(&self) -> (TcpStream, IpAddr) {
        let (stream, peer) = self.0.accept().await.unwrap();
        (stream, peer.ip())
    }

    /// Returns whether nobody has connected.
    fn sees_nobody(self) -> bool {
        let listener = self.0.into_std().unwrap();
        listener.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// A core that forwards logins to `ipv4` and leads sessions to both.
fn core(ipv4: &Server, ipv6: &Server, source: &str, privileges: [&str; 2]) -> RoleProcess {
    let (ipv4, ipv6) = (ipv4.address(), ipv6.address());
    let yaml = format!(
        "limits: {{ connections_per_address: none, rate_per_address: none }}\n\
         listeners:\n\
         - {{ name: links, kind: relay, listen: '127.0.0.1:0' }}\n\
         - {{ name: login, listen: '127.0.0.1:0', forward_to: '{ipv4}', send_proxy: none, {source} }}\n\
         game_servers:\n\
         - {{ port: 1, address: '{ipv4}', player_address: none, {source} }}\n\
         - {{ port: 2, address: '{ipv6}', player_address: none, {source} }}\n"
    );
    RoleProcess::core_through(&yaml, "setpriv", &privileges)
}

/// Connects over the forward as a player.
async fn login(core: &RoleProcess, player: SocketAddr) -> TcpStream {
    let address = core.addr("login");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut header = Vec::new();
    let destination = if player.is_ipv4() { "198.51.100.1:7171" } else { "[2001:db8::1]:7171" };
    write_v2(&mut header, player, destination.parse().unwrap());
    stream.write_all(&header).await.unwrap();
    stream
}

/// Opens a session as a player to this port of a game server.
async fn session(core: &RoleProcess, player: &str, port: u16) -> Link {
    static CLIENTS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let client = ClientId(CLIENTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let player = SocketAddr::new(player.parse().unwrap(), 40_000);
    let mut link = Link::connect(core.addr("links"), EDGE_A, player, client).await;
    link.open(S, port).await;
    link
}

#[test]
fn an_unpatched_server_sees_players_by_their_own_addresses() {
    if !host::can_be_made() {
        return;
    }
    routed_host("source-seen").inside(|| {
        common::run(async {
            let (ipv4, ipv6) = (Server::at("127.0.0.1:0").await, Server::at("[::1]:0").await);
            let core = core(&ipv4, &ipv6, "source: player", NET_RAW);

            let mut link = session(&core, "203.0.113.77", 1).await;
            let (mut game, peer) = ipv4.sees().await;
            assert_eq!(peer.to_string(), "203.0.113.77");
            let packet = [2, 0, b'h', b'i'];
            link.data(S, 1, 0, &packet).await;
            let mut read = [0; 4];
            game.read_exact(&mut read).await.unwrap();
            assert_eq!(read, packet);
            game.write_all(&packet).await.unwrap();
            let seen = link.next().await;
            assert!(matches!(&seen, Some(Seen::Data { payload, .. }) if *payload == packet), "{seen:?}");

            let mut stream = login(&core, "203.0.113.77:40000".parse().unwrap()).await;
            let (mut target, peer) = ipv4.sees().await;
            assert_eq!(peer.to_string(), "203.0.113.77", "login and game come from one address");
            target.write_all(b"!").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'!');

            // Each family at a server of each.
            let _links = [session(&core, "2001:db8::77", 1).await, session(&core, "2001:db8:7::1", 2).await];
            let IpAddr::V4(pseudo) = ipv4.sees().await.1 else { panic!("an IPv4 server") };
            assert!(pseudo.octets()[0] >= 240, "{pseudo}");
            assert_eq!(ipv6.sees().await.1.to_string(), "2001:db8:7::1");
            let _link = session(&core, "203.0.113.78", 2).await;
            assert_eq!(ipv6.sees().await.1, "64:ff9b::203.0.113.78".parse::<IpAddr>().unwrap());

            // Addresses that no player has.
            for (n, nobody) in (1..).zip([OWN, "127.0.0.1", "127.0.0.9", "224.0.0.1", "255.255.255.255", "0.0.0.0"]) {
                let mut link = session(&core, nobody, 1).await;
                assert_eq!(link.next().await, Some(Seen::End(S)), "{nobody}");
                core.wait(CONNECTS, &["listener=\"links\"", "result=\"bad_source\""], f64::from(n)).await;
            }
            let mut refused = login(&core, format!("{OWN}:40000").parse().unwrap()).await;
            assert_eq!(refused.read(&mut [0]).await.unwrap_or(0), 0);
            // An edge asks for the status like this.
            let _status = login(&core, "127.0.0.1:40000".parse().unwrap()).await;
            assert_eq!(ipv4.sees().await.1.to_string(), "127.0.0.1");
            assert!(!core.log().contains("no player reaches"), "{}", core.log());
            assert!(ipv4.sees_nobody() && ipv6.sees_nobody());
            core.stop().await;
        });
    });
}

#[test]
fn thousands_come_from_one_address() {
    const COUNT: usize = 3000;
    if !host::can_be_made() || !may_open(3 * COUNT as u64) {
        return;
    }
    routed_host("source-thousands").inside(|| {
        common::run(async {
            let (ipv4, ipv6) = (Server::at("127.0.0.1:0").await, Server::at("[::1]:0").await);
            let core = core(&ipv4, &ipv6, "source: player", NET_RAW);
            let mut open = Vec::new();
            let mut ports = HashSet::new();
            for n in 0..COUNT {
                open.push(login(&core, SocketAddr::from(([203, 0, 113, 77], 1024 + n as u16))).await);
                let (stream, peer) = ipv4.0.accept().await.unwrap();
                assert_eq!(peer.ip().to_string(), "203.0.113.77");
                assert!(ports.insert(peer.port()), "{peer}");
                open.push(stream);
            }
            // Another player has all ports too.
            let _other = login(&core, "203.0.113.78:1".parse().unwrap()).await;
            assert_eq!(ipv4.sees().await.1.to_string(), "203.0.113.78");
            drop(open);
            core.stop().await;
        });
    });
}

#[test]
fn without_the_privilege_nobody_goes_out_under_another_address() {
    if !host::can_be_made() {
        return;
    }
    routed_host("source-privilege").inside(|| {
        common::run(async {
            let (ipv4, ipv6) = (Server::at("127.0.0.1:0").await, Server::at("[::1]:0").await);
            let refusing = core(&ipv4, &ipv6, "source: player", NOTHING);
            refusing.wait_for_lines("no player reaches the servers at 127.0.0.1 ", 1).await;
            refusing.wait_for_lines("no player reaches the servers at ::1 ", 1).await;
            for port in [1, 2] {
                let mut link = session(&refusing, "203.0.113.77", port).await;
                assert_eq!(link.next().await, Some(Seen::End(S)));
            }
            assert_eq!(refusing.metric(CONNECTS, &["result=\"no_privilege\""]).await, 2.0);
            assert_eq!(refusing.log().matches("CAP_NET_RAW").count(), 3, "{}", refusing.log());
            refusing.stop().await;

            // A reload to it would keep out those who get in.
            let admitting = core(&ipv4, &ipv6, "source: default", NOTHING);
            admitting.reload("source: default", "source: player");
            admitting.wait_for_line("CAP_NET_RAW").await;
            let _link = session(&admitting, "203.0.113.77", 1).await;
            assert_eq!(ipv4.sees().await.1.to_string(), "127.0.0.1");
            assert!(ipv4.sees_nobody() && ipv6.sees_nobody());
            admitting.stop().await;
        });
    });
}

#[test]
fn a_reload_changes_it_for_new_connections() {
    if !host::can_be_made() {
        return;
    }
    routed_host("source-reload").inside(|| {
        common::run(async {
            let (ipv4, ipv6) = (Server::at("127.0.0.1:0").await, Server::at("[::1]:0").await);
            let core = core(&ipv4, &ipv6, "source: default", NET_RAW);
            let mut link = session(&core, "203.0.113.77", 1).await;
            let (_before, peer) = ipv4.sees().await;
            assert_eq!(peer.to_string(), "127.0.0.1");
            core.reload("source: default", "source: player");
            core.wait_for_line("configuration reloaded").await;
            link.open(SessionId(8), 1).await;
            assert_eq!(ipv4.sees().await.1.to_string(), "203.0.113.77");
            core.stop().await;
        });
    });
}

#[test]
fn the_lines_of_the_unit_can_be_run_again_and_leave_nothing() {
    if !host::can_be_made() {
        return;
    }
    let host = Host::make("source-lines");
    let state = || {
        host.inside(|| {
            shell("for f in -4 -6; do ip $f rule list; ip $f route show table main; ip $f route show table 7162; done")
        })
    };
    // A rule of somebody else, with the same priority.
    host.ip("rule add pref 716 from 10.0.0.0/8 lookup 100\n");
    let before = state();
    run_lines(&host, "ExecStartPre");
    let with = state();
    assert_eq!(with.matches("lookup 7162").count(), 2, "{with}");
    assert_eq!(with.matches("local default dev lo").count(), 2, "{with}");
    run_lines(&host, "ExecStartPre");
    assert_eq!(state(), with, "after a crash they are there already");
    run_lines(&host, "ExecStopPost");
    assert_eq!(state(), before);
    run_lines(&host, "ExecStopPost");
    assert_eq!(state(), before);
}

#[test]
fn the_doctor_names_what_is_missing() {
    if !host::can_be_made() {
        return;
    }
    let host = Host::make("source-doctor");
    host.inside(|| {
        common::run(async {
            let (ipv4, ipv6) = (Server::at("127.0.0.1:0").await, Server::at("[::1]:0").await);
            let core = core(&ipv4, &ipv6, "source: player", NET_RAW);
            // It is not about them, and the doctor takes its time with servers that are there.
            drop((ipv4, ipv6));
            let doctor = |of: &str| {
                let output = otproxy(&["doctor", "-c", &core.file()]).output().unwrap();
                let said = text(&output.stdout);
                let found = said.lines().find(|line| line.contains(&format!(" source {of}: ")));
                found.unwrap_or_else(|| panic!("{said}")).to_owned()
            };
            let commands =
                |said: &str| said.split('`').filter(|part| part.starts_with("ip ")).map(str::to_owned).collect();
            for loopback in ["127.0.0.1", "::1"] {
                let said = doctor(loopback);
                assert!(said.starts_with("fail"), "{said}");
                let commands: Vec<String> = commands(&said);
                assert_eq!(commands.len(), 2, "{said}");
                shell(&commands[0]);
                let said = doctor(loopback);
                assert!(said.contains(&commands[1]) && !said.contains(&commands[0]), "{said}");
                shell(&commands[1]);
                let said = doctor(loopback);
                assert!(said.starts_with("ok"), "{said}");
            }
            std::fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1").unwrap();
            let said = doctor("127.0.0.1");
            assert!(said.starts_with("fail") && said.contains("ip_nonlocal_bind=0"), "{said}");
            core.stop().await;
        });
    });
}
