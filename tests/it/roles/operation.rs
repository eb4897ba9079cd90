//! Health, metrics, and how a role stops.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::sandbox::*;

async fn edge(shutdown_timeout: &str) -> Role {
    let game = echo_target().await;
    Role::start(&format!(
        "role: edge\nshutdown_timeout: {shutdown_timeout}\n\
         listeners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{game}\", send_proxy: none }}]"
    ))
}

/// Waits until nothing listens any more: connections are refused, rather than left to wait.
async fn refuses(addr: SocketAddr) {
    eventually("new connections are refused", async || {
        let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        TcpStream::connect(addr).await.is_err_and(refused).then_some(())
    })
    .await;
}

#[test]
fn health_and_metrics_are_served() {
    run(async {
        let edge = edge("10s").await;
        for path in ["/live", "/ready"] {
            assert_eq!(get(edge.admin(), path).await.unwrap().0, 200, "{path}");
        }
        assert_eq!(get(edge.admin(), "/nothing").await.unwrap().0, 404);
        let metrics = edge.all_series().await;
        let build = format!("otproxy_build_info{{role=edge,version={}}}", env!("CARGO_PKG_VERSION"));
        assert_eq!(metrics[&build], 1.0);
        assert!(metrics["process_open_fds"] > 0.0 && metrics["process_resident_memory_bytes"] > 0.0);
        // All series are there before the first event.
        for series in [
            "otproxy_connections_accepted_total{listener=a}",
            "otproxy_connections_active{listener=a}",
            "otproxy_connections_rejected_total{listener=a,reason=untrusted}",
            "otproxy_connections_closed_total{listener=a,reason=idle}",
            "otproxy_bytes_total{direction=in,listener=a}",
            "otproxy_bytes_total{direction=out,listener=a}",
            "otproxy_target_connects_total{listener=a,result=timeout}",
            "otproxy_panics_total",
        ] {
            assert_eq!(metrics.get(series), Some(&0.0), "{series}");
        }
        edge.stop().await;
    });
}

#[test]
fn the_cores_series_are_there_from_the_first_scrape() {
    run(async {
        let core = Role::core(
            "edges: [{ name: waw1, address: 127.0.0.1 }]\n\
             listeners: [{ name: links, kind: relay, listen: \"127.0.0.1:0\" }]\n\
             game_servers: [{ port: 7172, address: \"127.0.0.1:7172\" }]",
        );
        let metrics = core.all_series().await;
        for series in [
            "otproxy_connections_active{listener=links}",
            "otproxy_relay_links_active{edge=waw1}",
            "otproxy_relay_links_active{edge=other}",
            "otproxy_relay_sessions_active{port=7172}",
            "otproxy_relay_sessions_opened_total{port=7172}",
            "otproxy_relay_sessions_ended_total{port=7172,reason=game_unreachable}",
            "otproxy_relay_frames_total{direction=in,edge=waw1,outcome=duplicate}",
            "otproxy_relay_packets_total{direction=out,port=7172}",
            "otproxy_relay_refused_total{reason=identity}",
            "otproxy_relay_link_rtt_seconds_count{edge=waw1}",
            "otproxy_relay_unacked_bytes",
        ] {
            assert_eq!(metrics.get(series), Some(&0.0), "{series}");
        }
        core.stop().await;
    });
}

#[test]
fn both_workers_serve_and_are_counted_as_one() {
    run(async {
        let edge = edge("10s").await;
        // The kernel spreads connections over the workers' sockets: with this many both have some.
        let mut clients = Vec::new();
        for _ in 0..64 {
            let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
            echoes(&mut client, b"hello").await;
            clients.push(client);
        }
        let metrics = edge.all_series().await;
        assert_eq!(metrics["otproxy_connections_accepted_total{listener=a}"], 64.0);
        assert_eq!(metrics["otproxy_connections_active{listener=a}"], 64.0);
        assert_eq!(metrics["otproxy_bytes_total{direction=in,listener=a}"], 320.0);
        edge.stop_after(clients).await;
    });
}

#[test]
fn a_connection_may_finish_after_the_shutdown_has_begun() {
    run(async {
        let edge = edge("60s").await;
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        echoes(&mut client, b"before").await;
        edge.shut_down();
        refuses(edge.addr("a")).await;
        echoes(&mut client, b"after").await;
        assert_eq!(get(edge.admin(), "/live").await.unwrap().0, 200);
        assert_eq!(get(edge.admin(), "/ready").await.unwrap().0, 503);
        assert_eq!(edge.series("otproxy_connections_active{listener=a}").await, 1.0);
        client.shutdown().await.unwrap();
        assert_eq!(read_to_close(&mut client).await, b"");
        edge.ended().await.expect("a clean end");
    });
}

#[test]
fn a_connection_that_does_not_finish_is_cut() {
    run(async {
        let edge = edge("300ms").await;
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        echoes(&mut client, b"before").await;
        edge.shut_down();
        assert_eq!(read_to_close(&mut client).await, b"");
        edge.ended().await.expect("a clean end");
    });
}

#[test]
fn a_role_that_is_dropped_leaves_nothing_behind() {
    run(async {
        let edge = edge("10m").await;
        let mut client = TcpStream::connect(edge.addr("a")).await.unwrap();
        echoes(&mut client, b"before").await;
        edge.abort();
        assert_eq!(read_to_close(&mut client).await, b"");
        refuses(edge.addr("a")).await;
        refuses(edge.admin()).await;
    });
}

#[test]
fn with_no_connection_a_shutdown_does_not_wait() {
    run(async {
        // Longer than this test may take.
        let edge = edge("10m").await;
        edge.shut_down();
        edge.ended().await.expect("a clean end");
    });
}

#[test]
fn a_core_stops_as_an_edge_does() {
    run(async {
        let game = echo_target().await;
        let core = Role::core(&format!(
            "shutdown_timeout: 300ms\n\
             listeners:\n\
             - {{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{game}\", send_proxy: none, accept_proxy: none }}\n\
             - {{ name: links, kind: relay, listen: \"127.0.0.1:0\", accept_proxy: none }}\n\
             game_servers: [{{ port: 7172, address: \"{game}\" }}]"
        ));
        assert_eq!(core.series("otproxy_relay_sessions_active{port=7172}").await, 0.0);
        let mut client = TcpStream::connect(core.addr("a")).await.unwrap();
        echoes(&mut client, b"before").await;
        // A link, with its first ping answered.
        let mut link = TcpStream::connect(core.addr("links")).await.unwrap();
        let ping = [&[16, 0][..], &[0; 8], &9u32.to_le_bytes(), &0u32.to_le_bytes()].concat();
        link.write_all(&ping).await.unwrap();
        assert_eq!(read(&mut link, 14).await, [&[12, 0][..], &[0; 12]].concat());
        core.shut_down();
        assert_eq!(read_to_close(&mut client).await, b"");
        assert_eq!(read_to_close(&mut link).await, b"");
        core.ended().await.expect("a clean end");
    });
}

#[test]
fn the_ports_of_a_role_that_has_ended_are_free() {
    run(async {
        let game = echo_target().await;
        let listeners =
            |addr: &str| format!("[{{ name: a, listen: \"{addr}\", forward_to: \"{game}\", send_proxy: none }}]");
        // An address that no other test takes ports of.
        let edge = Role::edge(&listeners("127.0.0.77:0"));
        let addr = edge.addr("a");
        let mut client = TcpStream::connect(addr).await.unwrap();
        echoes(&mut client, b"hello").await;
        edge.stop_after(client).await;
        let again = Role::edge(&listeners(&addr.to_string()));
        echoes(&mut TcpStream::connect(addr).await.unwrap(), b"hello").await;
        again.stop().await;
    });
}
