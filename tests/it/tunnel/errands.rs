//! Acts of the core at its edges through the tunnel: metrics, bans, drains.

use serde_json::{Value, json};

use crate::common::admin::{act, ask, see};
use crate::common::anybody::*;
use crate::common::metrics::scrape;
use crate::common::tunnel::*;
use crate::common::{eventually, run};
use otproxy_protocol::trunk::{FrameKind, Hello};

const LISTENERS: &str = "[{ name: links, listen: \"127.0.0.1:0\", forward_to: core/links }]";
const RELAY: &str = "[{ name: links, kind: relay }]";
const NETWORK: &str = "198.51.100.0/24";

struct World {
    certificates: Certificates,
    core: Role,
    /// One that connects to the core, and one that the core connects to.
    edges: [Role; 2],
}

impl World {
    fn start() -> Self {
        let certificates = Certificates::new();
        let tunnel = free_address();
        let fra1 = Role::start(&edge_dialled(&certificates, "fra1", &tunnel.to_string(), LISTENERS));
        let edges = format!("[{{ name: waw1 }}, {{ name: fra1, dial: \"{tunnel}\" }}]");
        let more = "game_servers: [{ port: 7172, address: \"127.0.0.1:1\" }]";
        let core = Role::start(&core(&certificates, &edges, RELAY, more));
        let waw1 = Role::start(&edge(&certificates, "waw1", core.addr("tunnel"), LISTENERS));
        Self { certificates, core, edges: [waw1, fra1] }
    }

    /// Does something until both edges have done it as well.
    async fn at_both(&self, path: &str, body: Value) -> Value {
        let both = json!([{ "edge": "fra1", "error": null }, { "edge": "waw1", "error": null }]);
        eventually(path, async || {
            let done = act(&self.core, path, body.clone()).await;
            (done["edges"] == both).then_some(done)
        })
        .await
    }
}

async fn bans(edge: &Role) -> Vec<String> {
    let bans = see(edge, "bans").await;
    bans["bans"].as_array().unwrap().iter().map(|ban| ban["network"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_ban_at_the_core_holds_at_its_edges_also_when_they_come_back() {
    run(async {
        let World { core, certificates, edges: [waw1, fra1] } = {
            let world = World::start();
            world.at_both("ban", json!({ "network": NETWORK, "for_seconds": 5000 })).await;
            world
        };
        for edge in [&waw1, &fra1] {
            assert_eq!(bans(edge).await, [NETWORK]);
        }
        // It has not what the core's rules or its own say of others, and forgets all with its process.
        let yaml = waw1.stop().await;
        let waw1 = Role::start(&yaml);
        eventually("banned again", async || (bans(&waw1).await == [NETWORK]).then_some(())).await;
        let left = see(&waw1, "bans").await["bans"][0]["seconds_left"].as_u64().unwrap();
        assert!((1..=5000).contains(&left), "{left}");
        let world = World { certificates, core, edges: [waw1, fra1] };
        let both = json!([{ "edge": "fra1", "error": null }, { "edge": "waw1", "error": null }]);
        let unbanned = act(&world.core, "unban", json!({ "network": NETWORK })).await;
        assert_eq!(unbanned, json!({ "networks": [NETWORK], "edges": both }));
        for edge in &world.edges {
            assert_eq!(bans(edge).await, [""; 0]);
        }
        let (status, answer) = ask(&world.core, "unban", Some(&json!({ "network": NETWORK }).to_string())).await;
        assert_eq!((status, &answer["error"]), (404, &json!(format!("{NETWORK} is not banned"))));
        // What one edge alone has banned can be ended from here as well.
        act(&world.edges[0], "ban", json!({ "network": NETWORK })).await;
        let unbanned = act(&world.core, "unban", json!({ "network": NETWORK })).await;
        assert_eq!(unbanned, json!({ "networks": [], "edges": [{ "edge": "waw1", "error": null }] }));
        drop(world.certificates);
    });
}

#[test]
fn an_edge_is_drained_from_the_core() {
    run(async {
        let world = World::start();
        let [waw1, fra1] = &world.edges;
        let drain = json!({ "edge": "waw1" });
        let drained = eventually("drained", async || {
            let (status, answer) = ask(&world.core, "drain", Some(&drain.to_string())).await;
            (status == 200).then_some(answer)
        })
        .await;
        let state = |state: &str| json!({ "listeners": [{ "name": "links", "state": state, "connections": 0 }] });
        assert_eq!(drained, state("drained"));
        assert_eq!(see(waw1, "status").await["ready"], false);
        for role in [&world.core, fra1] {
            assert_eq!(see(role, "listeners").await["listeners"][0]["state"], "open");
        }
        assert_eq!(act(&world.core, "undrain", drain).await, state("open"));
        let refused = async |role: &Role, body: Value| {
            let (status, answer) = ask(role, "drain", Some(&body.to_string())).await;
            (status, answer["error"].as_str().unwrap().to_owned())
        };
        let wrong = refused(&world.core, json!({ "edge": "waw1", "listener": "login" })).await;
        assert_eq!(wrong, (404, "there is no listener `login`".to_owned()));
        assert_eq!(refused(&world.core, json!({ "edge": "ams1" })).await, (404, "there is no edge `ams1`".to_owned()));
        assert_eq!(refused(fra1, json!({ "edge": "waw1" })).await.0, 404);
    });
}

#[test]
fn the_core_shows_the_metrics_of_its_edges_where_they_are_wanted() {
    run(async {
        let world = World::start();
        let of_edges = async || {
            let text = scrape(world.core.admin()).await;
            let mut lines = text.lines().filter(|line| line.contains("role=\"edge\""));
            let mut found: Vec<_> = lines.by_ref().filter(|line| line.starts_with("otproxy_build_info")).collect();
            found.sort_unstable();
            found.iter().map(|line| line.split("edge=\"").nth(1).unwrap()[..4].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of_edges().await, [""; 0]);
        let servers = "\ngame_servers:";
        world.core.replace(servers, &format!("\nadmin: {{ edges_metrics: true }}{servers}")).await;
        eventually("both", async || (of_edges().await == ["fra1", "waw1"]).then_some(())).await;
        let text = scrape(world.core.admin()).await;
        // Those of the core are what they were.
        assert!(text.lines().any(|line| line == "otproxy_tunnel_trunks{edge=\"waw1\"} 4"), "{text}");
        assert!(text.lines().any(|line| line == "otproxy_tunnel_trunks{edge=\"waw1\",role=\"edge\"} 4"), "{text}");
        assert_eq!(text.matches("# TYPE otproxy_tunnel_trunks gauge").count(), 1);
        // No stream of a player.
        assert!(text.lines().any(|line| line == "otproxy_tunnel_streams{edge=\"waw1\"} 0"), "{text}");
        assert_eq!(see(&world.core, "edges").await["edges"][0]["trunks"][0]["streams"], 0);
        let [waw1, fra1] = world.edges;
        waw1.stop().await;
        eventually("one of them", async || (of_edges().await == ["fra1"]).then_some(())).await;
        drop(fra1);
    });
}

#[test]
fn an_edge_that_answers_nonsense_or_nothing_costs_a_moment() {
    run(async {
        let (_certificates, core, mut edge) = core_and_edge().await;
        core.replace("\ngame_servers:", "\nadmin: { edges_metrics: true }\ngame_servers:").await;
        let answers: [&[u8]; 4] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n# TYPE a_total counter\na_total\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xff\xff",
            b"nonsense",
            b"",
        ];
        for (stream, answer) in (1u32..).zip(answers) {
            edge.send(&open(stream)).await.unwrap();
            let asking = scrape(core.admin());
            let answering = async {
                while edge.next().await.unwrap().is_none_or(|got| got.stream != stream || !got.is(FrameKind::Data)) {}
                edge.send(&frame(FrameKind::Data, stream, answer)).await.unwrap();
                edge.send(&frame(FrameKind::End, stream, b"")).await.unwrap();
            };
            let (text, ()) = tokio::join!(asking, answering);
            assert!(text.contains("otproxy_build_info") && !text.contains("role=\"edge\""), "{text}");
        }
        // More than can wait: those that waited the longest are closed. And one that says something unasked is.
        let first = 100;
        for stream in first..first + 10 {
            edge.send(&open(stream)).await.unwrap();
        }
        edge.send(&frame(FrameKind::Data, first + 9, b"?")).await.unwrap();
        let mut closed = Vec::new();
        while closed.len() < 7 {
            let got = edge.next().await.unwrap().unwrap();
            if got.is(FrameKind::Reset) {
                closed.push(got.stream);
            }
        }
        closed.sort_unstable();
        assert_eq!(closed, [100, 101, 102, 103, 104, 105, 109]);
    });
}

/// Starts a core, and connects to it as its only edge.
async fn core_and_edge() -> (Certificates, Role, AnyTrunk) {
    let certificates = Certificates::new();
    let more = "game_servers: [{ port: 7172, address: \"127.0.0.1:1\" }]";
    let core = Role::start(&core(&certificates, "[{ name: waw1 }]", RELAY, more));
    let config = client(Some(papers(&certificates, &["waw1"], Time::Now)), None);
    let mut peer = Peer::connect(core.addr("tunnel"), config, &certificates.asked("core")).await;
    peer.shake().await.unwrap();
    let edge = AnyTrunk::as_edge(peer, &Hello { wish: Some(0), ..edge_hello() }, b"").await.unwrap();
    core.wait_until("otproxy_tunnel_trunks", &["edge=\"waw1\""], |now| now == 1.0).await;
    (certificates, core, edge)
}

/// Reads what the core asks on a stream.
async fn asked(edge: &mut AnyTrunk, stream: u32) -> String {
    loop {
        let got = edge.next().await.unwrap().expect("the trunk goes on");
        if got.stream == stream && got.is(FrameKind::Data) {
            return String::from_utf8(got.payload).unwrap();
        }
    }
}

#[test]
fn an_edge_that_misses_a_ban_is_told_when_it_listens_again() {
    run(async {
        let (_certificates, core, mut edge) = core_and_edge().await;
        edge.send(&open(1)).await.unwrap();
        let away = async {
            assert!(asked(&mut edge, 1).await.contains("POST /api/v1/ban"));
            edge.send(&frame(FrameKind::Reset, 1, &[0])).await.unwrap();
        };
        let (banned, ()) = tokio::join!(act(&core, "ban", json!({ "network": NETWORK })), away);
        assert_eq!(banned["edges"], json!([{ "edge": "waw1", "error": "waw1 does not answer through the tunnel" }]));
        edge.send(&open(2)).await.unwrap();
        let told = asked(&mut edge, 2).await;
        assert!(told.contains("POST /api/v1/ban") && told.contains(NETWORK), "{told}");
    });
}

fn open(stream: u32) -> Vec<u8> {
    let mut header = Vec::new();
    let nobody = ([0, 0, 0, 0], 0).into();
    otproxy_protocol::proxy_header::write_v2_to(&mut header, nobody, nobody, Some(otproxy::tunnel::ERRANDS));
    frame(FrameKind::Open, stream, &header)
}
