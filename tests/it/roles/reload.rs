//! What changes while a role runs, and that nothing which is open is touched by it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use otproxy::roles::ReloadResult;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::common::sandbox::*;

const RELOADED: &str = "otproxy_config_last_reload_successful";

/// An edge's YAML with these listeners.
fn edge(listeners: &str) -> String {
    format!("role: edge\nlisteners: [{listeners}]\n")
}

/// A listener's YAML that leads to `target`.
fn listener(name: &str, listen: impl std::fmt::Display, target: SocketAddr, more: &str) -> String {
    format!("{{ name: {name}, listen: \"{listen}\", forward_to: \"{target}\", send_proxy: none, {more} }}")
}

/// The same on a port of the kernel's choice.
fn anywhere(name: &str, target: SocketAddr, more: &str) -> String {
    listener(name, "127.0.0.1:0", target, more)
}

/// An address that nobody has, on any address of this host. The kernel gives out none below 32768, and another process that
/// looks for one begins elsewhere.
fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let number = (std::process::id() as u16).wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 12_000 + number % 20_000;
        let socket = TcpSocket::new_v4().unwrap();
        if socket.bind(SocketAddr::from(([0, 0, 0, 0], port))).is_ok() {
            return SocketAddr::from(([127, 0, 0, 1], port));
        }
    }
}

async fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

async fn served(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(is_served(&mut stream).await);
    stream
}

async fn not_served(address: SocketAddr) {
    assert!(!is_served(&mut TcpStream::connect(address).await.unwrap()).await);
}

/// A stand-in target that says `word` to each connection, and then sends back what it gets.
async fn echo_that_says(word: &'static [u8]) -> SocketAddr {
    let (listener, address) = target().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                use tokio::io::AsyncWriteExt;
                let (mut read, mut write) = stream.split();
                let _ = write.write_all(word).await;
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

#[test]
fn limits_and_lists_are_others_for_who_comes_and_count_who_is_there() {
    run(async {
        let to = echo_target().await;
        let role = Role::start(&edge(&anywhere("a", to, "")));
        let mut old = [served(role.addr("a")).await, served(role.addr("a")).await];
        role.reload(&edge(&anywhere("a", to, "limits: { connections: 2 }"))).await.unwrap();
        not_served(role.addr("a")).await;
        assert_eq!(role.series("otproxy_connections_rejected_total{listener=a,reason=limit}").await, 1.0);
        role.reload(&edge(&anywhere("a", to, "limits: { connections_per_address: 3 }"))).await.unwrap();
        let third = served(role.addr("a")).await;
        not_served(role.addr("a")).await;
        assert_eq!(role.series("otproxy_connections_rejected_total{listener=a,reason=address_limit}").await, 1.0);
        // Below what is there: nobody is closed for it.
        role.reload(&edge(&anywhere("a", to, "limits: { connections: 1 }"))).await.unwrap();
        not_served(role.addr("a")).await;
        let all = |more: &str| format!("{}{more}", edge(&anywhere("a", to, "")));
        role.reload(&all("limits: { connections: 3 }\n")).await.unwrap();
        not_served(role.addr("a")).await;
        assert_eq!(role.series("otproxy_connections_rejected_total{listener=a,reason=process_limit}").await, 1.0);
        role.reload(&all("deny: [127.0.0.0/8]\n")).await.unwrap();
        not_served(role.addr("a")).await;
        role.reload(&edge(&anywhere("a", to, "allow: [192.0.2.1]"))).await.unwrap();
        not_served(role.addr("a")).await;
        assert_eq!(role.series("otproxy_connections_rejected_total{listener=a,reason=denied}").await, 1.0);
        assert_eq!(role.series("otproxy_connections_rejected_total{listener=a,reason=not_allowed}").await, 1.0);
        // Used up is used up, at whatever rate.
        role.reload(&edge(&anywhere("a", to, "limits: { rate_per_address: 1/1h }"))).await.unwrap();
        drop(served(role.addr("a")).await);
        role.reload(&edge(&anywhere("a", to, "limits: { rate_per_address: 1/2h }"))).await.unwrap();
        not_served(role.addr("a")).await;
        role.reload(&edge(&anywhere("a", to, ""))).await.unwrap();
        drop(served(role.addr("a")).await);
        for stream in &mut old {
            echoes(stream, b"still there").await;
        }
        drop(third);
        role.wait_for("otproxy_connections_active{listener=a}", 2).await;
        role.stop_after(old).await;
    });
}

#[test]
fn targets_are_others_for_new_connections() {
    run(async {
        let (one, two) = (echo_that_says(b"1").await, echo_that_says(b"2").await);
        let role = Role::start(&edge(&anywhere("a", one, "")));
        let mut old = TcpStream::connect(role.addr("a")).await.unwrap();
        assert_eq!(read(&mut old, 1).await, b"1");
        role.reload(&edge(&anywhere("a", two, ""))).await.unwrap();
        let mut new = TcpStream::connect(role.addr("a")).await.unwrap();
        assert_eq!(read(&mut new, 1).await, b"2");
        echoes(&mut old, b"goes on").await;
        role.stop_after((old, new)).await;
    });
}

#[test]
fn what_is_known_of_a_target_is_known_by_its_destination() {
    run(async {
        let (_nobody, down) = refusing();
        let (up, other) = (echo_target().await, echo_target().await);
        let yaml = |targets: &[SocketAddr]| {
            let targets: Vec<_> = targets.iter().map(|target| format!("\"{target}\"")).collect();
            edge(&format!(
                "{{ name: a, listen: \"127.0.0.1:0\", send_proxy: none, forward_to: [{}] }}",
                targets.join(", ")
            ))
        };
        let role = Role::start(&yaml(&[down, up]));
        drop(served(role.addr("a")).await);
        let is_up = async |target: &str| {
            role.all_series().await.get(&format!("otproxy_target_up{{listener=a,target={target}}}")).copied()
        };
        assert_eq!((is_up("1").await, is_up("2").await), (Some(0.0), Some(1.0)));
        role.reload(&yaml(&[other, down, up])).await.unwrap();
        assert_eq!((is_up("1").await, is_up("2").await, is_up("3").await), (Some(1.0), Some(0.0), Some(1.0)));
        role.reload(&yaml(&[up])).await.unwrap();
        assert_eq!((is_up("1").await, is_up("2").await), (Some(1.0), None), "what is gone is not down");
        role.stop().await;
    });
}

#[test]
fn listeners_come_go_move_and_change_their_names() {
    run(async {
        let to = echo_target().await;
        let role = Role::start(&edge(&anywhere("a", to, "")));
        let first = role.addr("a");
        let mut old = served(first).await;

        // One more.
        let second = free();
        let two = [listener("a", "127.0.0.1:0", to, ""), listener("b", second, to, "")];
        role.reload(&edge(&two.join(", "))).await.unwrap();
        assert_eq!((role.addrs_now("a"), role.addrs_now("b")), (vec![first], vec![second]));
        let mut of_b = served(second).await;
        assert_eq!(role.series("otproxy_connections_accepted_total{listener=b}").await, 1.0);

        // The sockets of an address are those that they were, under another name.
        role.reload(&edge(&listener("c", second, to, ""))).await.unwrap();
        assert_eq!((role.addrs_now("b"), role.addrs_now("c")), (vec![], vec![second]));
        drop(served(second).await);
        role.wait_for("otproxy_connections_closed_total{listener=c,reason=client}", 1).await;
        assert!(is_refused(first).await);

        // From one address of this host to all of them, and back.
        let everywhere = format!("0.0.0.0:{}", second.port());
        role.reload(&edge(&listener("c", &everywhere, to, ""))).await.unwrap();
        drop(served(SocketAddr::from(([127, 0, 0, 2], second.port()))).await);
        role.reload(&edge(&listener("c", second, to, ""))).await.unwrap();
        drop(served(second).await);
        assert!(is_refused(SocketAddr::from(([127, 0, 0, 2], second.port()))).await);

        // Two that take each other's place.
        let third = free();
        let named =
            |c: SocketAddr, d: SocketAddr| edge(&[listener("c", c, to, ""), listener("d", d, to, "")].join(", "));
        role.reload(&named(second, third)).await.unwrap();
        role.reload(&named(third, second)).await.unwrap();
        let before = role.series("otproxy_connections_accepted_total{listener=d}").await;
        drop(served(second).await);
        assert_eq!(role.series("otproxy_connections_accepted_total{listener=d}").await, before + 1.0);

        echoes(&mut old, b"its listener is long gone").await;
        echoes(&mut of_b, b"so is this one's").await;
        assert_eq!(role.series("otproxy_connections_active{listener=a}").await, 1.0);
        role.stop_after((old, of_b)).await;
    });
}

#[test]
fn what_cannot_be_had_changes_nothing() {
    run(async {
        let (one, two) = (echo_that_says(b"1").await, echo_that_says(b"2").await);
        let role = Role::start(&edge(&anywhere("a", one, "")));
        let started = role.series("otproxy_config_last_reload_success_timestamp_seconds").await;
        assert!(started > 1.7e9 && role.series(RELOADED).await == 1.0);
        let mut old = TcpStream::connect(role.addr("a")).await.unwrap();
        assert_eq!(read(&mut old, 1).await, b"1");
        let new = free();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
        let wanted = [
            anywhere("a", two, "deny: [127.0.0.1]"),
            listener("b", new, two, ""),
            listener("c", taken.local_addr().unwrap(), two, ""),
        ];
        let error = role.reload(&edge(&wanted.join(", "))).await.unwrap_err().to_string();
        assert!(error.starts_with("listener `c`: cannot listen on ") && error.contains("ss -ltnp"), "{error}");
        assert_eq!(role.series(RELOADED).await, 0.0);
        assert!(is_refused(new).await, "what could be had is given back");
        let mut same = TcpStream::connect(role.addr("a")).await.unwrap();
        assert_eq!(read(&mut same, 1).await, b"1");
        drop(taken);
        role.reload(&edge(&wanted.join(", "))).await.unwrap();
        assert_eq!(role.series(RELOADED).await, 1.0);
        drop(served(new).await);
        not_served(role.addr("a")).await;
        echoes(&mut old, b"goes on").await;
        role.stop_after((old, same)).await;
    });
}

#[test]
fn what_takes_a_restart_is_named_and_all_else_is_done() {
    run(async {
        let (one, two) = (echo_that_says(b"1").await, echo_that_says(b"2").await);
        let role = Role::start(&edge(&anywhere("a", one, "")));
        let yaml = format!("{}access_log: {{ file: stderr }}\n", edge(&anywhere("a", two, "")));
        for _ in 0..2 {
            let reloaded = role.reload(&yaml).await.unwrap();
            assert_eq!(reloaded, ReloadResult { restart: vec!["access_log".to_owned()] });
        }
        let mut new = TcpStream::connect(role.addr("a")).await.unwrap();
        assert_eq!(read(&mut new, 1).await, b"2");
        let through = edge("{ name: a, listen: \"127.0.0.1:0\", forward_to: core/login }");
        let tunnel = "core: { dial: \"127.0.0.1:9\", tls: { ca: a.pem, cert: b.pem, key: c.pem } }\n";
        let error = role.reload(&format!("{through}{tunnel}")).await.unwrap_err().to_string();
        assert!(error.contains("`a` leads through the tunnel"), "{error}");
        assert_eq!(role.reload(&edge(&anywhere("a", two, ""))).await.unwrap(), ReloadResult { restart: vec![] });
        role.stop_after(new).await;
    });
}

#[test]
fn a_closed_listener_takes_nobody_new_until_it_is_opened_again() {
    run(async {
        let to = echo_target().await;
        let yaml = edge(&[anywhere("a", to, ""), anywhere("b", to, "")].join(", "));
        let role = Role::start(&yaml);
        let (mut old, address) = (served(role.addr("a")).await, role.addr("a"));
        role.control().close_listener("a").await.unwrap();
        assert!(is_refused(address).await);
        drop(served(role.addr("b")).await);
        role.reload(&yaml).await.unwrap();
        assert!(is_refused(address).await && role.addrs_now("a").is_empty());
        assert!(role.control().close_listener("c").await.unwrap_err().to_string().contains("`c`"));
        role.control().open_listener("a").await.unwrap();
        drop(served(role.addrs_now("a")[0]).await);
        assert_eq!(role.addrs_now("b"), [role.addr("b")]);
        echoes(&mut old, b"goes on").await;
        role.stop_after(old).await;
    });
}

#[test]
fn the_time_that_a_shutdown_leaves_is_that_of_now() {
    run(async {
        let to = echo_target().await;
        let yaml = |timeout: &str| format!("{}shutdown_timeout: {timeout}\n", edge(&anywhere("a", to, "")));
        let role = Role::start(&yaml("24h"));
        let mut old = served(role.addr("a")).await;
        role.reload(&yaml("0s")).await.unwrap();
        role.shut_down();
        assert_eq!(read_to_close(&mut old).await, b"");
        role.ended().await.unwrap();
    });
}

/// Nobody may be refused at an address that stays, whatever else changes at it meanwhile.
#[test]
fn in_a_storm_of_reloads_nobody_is_lost() {
    run(async {
        let (one, two) = (echo_that_says(b"1").await, echo_that_says(b"2").await);
        let address = free();
        let role = Role::start(&edge(&listener("a", address, one, "")));
        let mut old = TcpStream::connect(address).await.unwrap();
        read(&mut old, 1).await;
        let storm = async {
            for round in 0..100 {
                let (name, to) = if round % 2 == 0 { ("b", two) } else { ("a", one) };
                let more =
                    if round % 3 == 0 { "limits: { connections: 1000 }, check: tcp" } else { "timeouts: { idle: 1h }" };
                let all = [listener(name, address, to, more), anywhere("c", to, "")];
                role.reload(&edge(&all[..1 + round % 2].join(", "))).await.unwrap();
            }
        };
        let players = async {
            for number in 0u32..300 {
                let mut new = TcpStream::connect(address).await.unwrap();
                assert!(matches!(&*read(&mut new, 1).await, b"1" | b"2"));
                echoes(&mut new, &number.to_be_bytes()).await;
                echoes(&mut old, &number.to_be_bytes()).await;
            }
        };
        tokio::join!(storm, players);
        role.stop_after(old).await;
    });
}

/// What is made for a reload is gone with the next one.
#[test]
fn a_thousand_reloads_leave_nothing_behind() {
    run(async {
        let to = echo_target().await;
        let yaml = |round: usize| {
            let (name, kept) = (["b", "c", "d"][round % 3], format!("limits: {{ connections: {} }}", 1000 + round));
            edge(&[anywhere("a", to, &kept), anywhere(name, to, "check: tcp, inter: 1h")].join(", "))
        };
        let role = Role::start(&yaml(0));
        let mut old = served(role.addr("a")).await;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        for round in 0..6 {
            role.reload(&yaml(round)).await.unwrap();
        }
        let (series, before) = (role.all_series().await.len(), tasks());
        for round in 6..1002 {
            role.reload(&yaml(round)).await.unwrap();
        }
        assert_eq!(role.all_series().await.len(), series);
        // Those of checks come and go.
        eventually("as many tasks as before", async || (tasks() < before + 20).then_some(())).await;
        echoes(&mut old, b"goes on").await;
        role.stop_after(old).await;
    });
}
