//! The tunnel as a target: it is up while the core can be reached through it, and finding that out takes nothing from players.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::run;
use crate::common::tunnel::*;

const UP: &[&str] = &["listener=\"login\"", "target=\"core\""];

/// A target that says its name to each who connects.
async fn named(name: u8) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(&[name]).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

async fn player(edge: &Role) -> u8 {
    TcpStream::connect(edge.addr("login")).await.unwrap().read_u8().await.unwrap_or(0)
}

#[test]
fn the_tunnel_falls_with_its_trunks_and_rises_with_them() {
    run(async {
        let certificates = Certificates::new();
        let (through, backup) = (named(1).await, named(2).await);
        let accept = free_address();
        let listeners = format!("[{{ name: login, forward_to: \"{through}\" }}]");
        let yaml = core(&certificates, "[{ name: waw1 }]", &listeners, "");
        let yaml = yaml.replace("accept: \"127.0.0.1:0\"", &format!("accept: \"{accept}\""));
        let core = Role::start(&yaml);
        let targets = format!("[{{ address: core/login, name: core }}, {{ address: \"{backup}\", backup: true }}]");
        let login = format!(
            "[{{ name: login, listen: \"127.0.0.1:0\", forward_to: {targets}, check: ping, inter: 10ms, fall: 2 }}]"
        );
        let edge = Role::start(&edge(&certificates, "waw1", accept, &login));
        edge.trunks("waw1", 4).await;
        edge.wait_until("otproxy_target_up", UP, |up| up == 1.0).await;
        let dialled = edge.metric("otproxy_tunnel_dials_total", &["result=\"ok\""]).await;
        let ok = ["listener=\"login\"", "target=\"core\"", "result=\"ok\""];
        let checks = edge.metric("otproxy_target_checks_total", &ok).await;
        edge.wait_until("otproxy_target_checks_total", &ok, |now| now >= checks + 20.0).await;
        assert_eq!(
            edge.metric("otproxy_tunnel_dials_total", &["result=\"ok\""]).await,
            dialled,
            "none was made for it"
        );
        assert_eq!(core.metric("otproxy_connections_accepted_total", &["listener=\"login\""]).await, 0.0);
        assert_eq!(player(&edge).await, 1);

        let yaml = core.stop().await;
        edge.wait_until("otproxy_target_up", UP, |up| up == 0.0).await;
        assert_eq!(player(&edge).await, 2);
        let no_trunk = ["target=\"core\"", "result=\"no_trunk\""];
        assert!(edge.metric("otproxy_target_checks_total", &no_trunk).await >= 2.0);

        let core = Role::start(&yaml);
        edge.wait_until("otproxy_target_up", UP, |up| up == 1.0).await;
        assert_eq!(player(&edge).await, 1);
        edge.stop().await;
        core.stop().await;
    });
}
