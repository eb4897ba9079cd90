//! Reloads of both ends: the listeners that streams lead to, and the certificates.

use std::fs;

use otproxy::certs::authority::Terms;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::role_process::Process;
use crate::common::run;
use crate::tunnel::harness::{Certificates, Process as Harness, core, edge, in_vain};

/// A player at a listener of an edge, and what is behind him.
async fn stream(edge: &Harness, listener: &str, target: &TcpListener) -> (TcpStream, TcpStream) {
    let mut player = TcpStream::connect(edge.addr(listener)).await.unwrap();
    player.write_all(b"0").await.unwrap();
    let mut behind = target.accept().await.unwrap().0;
    assert_eq!(behind.read_u8().await.unwrap(), b'0');
    (player, behind)
}

async fn goes_on((player, behind): &mut (TcpStream, TcpStream)) {
    player.write_all(b"1").await.unwrap();
    assert_eq!(behind.read_u8().await.unwrap(), b'1');
    behind.write_all(b"2").await.unwrap();
    assert_eq!(player.read_u8().await.unwrap(), b'2');
}

#[test]
fn streams_lead_to_the_listeners_of_now() {
    run(async {
        let certificates = Certificates::new();
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forward = |name: &str| {
            format!("{{ name: {name}, forward_to: '{}', send_proxy: none }}", target.local_addr().unwrap())
        };
        let (one, two) = (format!("[{}]", forward("login")), format!("[{}, {}]", forward("login"), forward("other")));
        let core = Harness::start(&core(&certificates, "[{ name: waw1 }]", &one, ""));
        let listeners = "[{ name: a, listen: '127.0.0.1:0', forward_to: core/login }, \
                         { name: b, listen: '127.0.0.1:0', forward_to: core/other }]";
        let edge = Harness::start(&edge(&certificates, "waw1", core.addr("tunnel"), listeners));
        let mut old = stream(&edge, "a", &target).await;
        in_vain(edge.addr("b")).await;
        let refused = ["reason=\"unknown_listener\""];
        core.wait("otproxy_tunnel_streams_refused_total", &refused, |now| now == 1.0).await;
        core.reload(&one, &two).await;
        let mut new = stream(&edge, "b", &target).await;
        core.reload(&one, &format!("[{}]", forward("other"))).await;
        in_vain(edge.addr("a")).await;
        core.wait("otproxy_tunnel_streams_refused_total", &refused, |now| now == 2.0).await;
        goes_on(&mut old).await;
        goes_on(&mut new).await;
        // The edge's listener leads elsewhere from now on, through the tunnel that there is.
        edge.reload("core/login", "core/other").await;
        goes_on(&mut stream(&edge, "a", &target).await).await;
        goes_on(&mut old).await;
    });
}

#[test]
fn certificates_are_checked_with_the_file_and_used_at_once() {
    run(async {
        let certificates = Certificates::new();
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let core = Process::with(
            "core",
            &format!(
                "tunnel: {{ accept: '127.0.0.1:0', tls: {} }}\nedges: [{{ name: waw1 }}]\n\
                 listeners: [{{ name: login, forward_to: '{}', send_proxy: none }}]\n",
                certificates.tls("core"),
                target.local_addr().unwrap()
            ),
        );
        let login = "[{ name: login, listen: '127.0.0.1:0', forward_to: core/login }]";
        let edge = Harness::start(&edge(&certificates, "waw1", core.addr("tunnel"), login));
        let mut old = stream(&edge, "login", &target).await;

        // What is right beside certificates that cannot be used is not used either.
        core.reload("/core.pem", "/waw1.pem");
        core.wait_for_lines("not reloaded", 1).await;
        assert!(core.log().contains("waw1.pem"), "{}", core.log());
        core.wait("otproxy_config_last_reload_successful", &[], 0.0).await;
        core.reload("[{ name: waw1 }]", "[{ name: fra1 }]");
        core.wait_for_lines("not reloaded", 2).await;
        goes_on(&mut old).await;
        goes_on(&mut stream(&edge, "login", &target).await).await;

        // Another one, under another name.
        let expiry = "otproxy_certificate_expiry_timestamp_seconds";
        let before = core.metric(expiry, &["certificate=\"own\""]).await;
        let folder = &certificates.folder;
        certificates.issue("core", Terms { days: 50, new_key: false });
        fs::copy(folder.join("core.pem"), folder.join("new.pem")).unwrap();
        core.reload("/waw1.pem", "/new.pem");
        // The edge that was taken out in vain is out now.
        core.wait_for_line("\"configuration reloaded\"").await;
        core.wait("otproxy_config_last_reload_successful", &[], 1.0).await;
        core.wait_until(expiry, &["certificate=\"own\""], |now| now < before).await;
        assert_eq!(old.0.read(&mut [0]).await.unwrap_or(0), 0);
        core.stop().await;
    });
}

#[test]
fn reloads_leave_no_descriptor_behind() {
    run(async {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = target.local_addr().unwrap();
        let b = format!("- {{ name: b, listen: '127.0.0.1:0', forward_to: '{to}', check: tcp, inter: 1h }}\n");
        let edge =
            Process::with("edge", &format!("listeners:\n- {{ name: a, listen: '127.0.0.1:0', forward_to: '{to}' }}\n"));
        let mut before = 0;
        for round in 0..50 {
            let (from, into) =
                if round % 2 == 0 { ("listeners:\n", format!("listeners:\n{b}")) } else { (&*b, String::new()) };
            edge.reload(from, &into);
            edge.wait_for_lines("\"configuration reloaded\"", round + 1).await;
            // Not all of it was there when it said that it is ready.
            if round == 1 {
                before = edge.descriptors();
            }
        }
        // Those of a check come and go.
        edge.wait_for_descriptors(|now| now < before + 10).await;
        edge.stop().await;
    });
}
