//! Visits of edges at each other's public addresses, and the traffic of their hosts.

use std::path::PathBuf;

use serde_json::json;

use crate::common::admin::{act, ask, see};
use crate::common::metrics::Metered;
use crate::common::tunnel::*;
use crate::common::{eventually, run};

const LISTENERS: &str = "[{ name: links, listen: \"127.0.0.1:0\", forward_to: core/links }]";
const RELAY: &str = "[{ name: links, kind: relay }]";

fn core_and_edges() -> (Certificates, Role, [Role; 2]) {
    let certificates = Certificates::new();
    let more = "game_servers: [{ port: 7172, address: \"127.0.0.1:1\" }]";
    let core = Role::start(&core(&certificates, "[{ name: waw1 }, { name: fra1 }]", RELAY, more));
    let edges = ["waw1", "fra1"].map(|name| Role::start(&edge(&certificates, name, core.addr("tunnel"), LISTENERS)));
    (certificates, core, edges)
}

#[test]
fn an_edge_visits_others_as_a_client_does() {
    run(async {
        let (_certificates, core, [waw1, fra1]) = core_and_edges();
        let (there, gone) = (fra1.addr("links"), free_address());
        let request = json!({ "within_ms": 5000, "edges": [
            { "host": there.ip(), "port": there.port() },
            { "host": gone.ip(), "port": gone.port() },
            { "host": "edge.invalid", "port": 7162 },
        ] });
        let probed = eventually("an answer through the other edge", async || {
            let probed = act(&waw1, "probe", request.clone()).await;
            probed["edges"][0]["round_trip_seconds"].is_number().then_some(probed)
        })
        .await;
        assert_eq!(probed["edges"][0]["error"], json!(null));
        assert_eq!(probed["edges"][1], json!({ "round_trip_seconds": null, "error": "refused" }));
        assert_eq!(probed["edges"][2], json!({ "round_trip_seconds": null, "error": "resolve" }));
        // No visit is left open, and none counts as a round trip of players.
        core.wait_until("otproxy_relay_links_active", &["edge=\"fra1\""], |now| now == 0.0).await;
        assert_eq!(core.metric("otproxy_relay_link_rtt_seconds_count", &["edge=\"fra1\""]).await, 0.0);
        assert_eq!(see(&fra1, "bans").await["total"], json!(0));
        // The core would show its own address.
        let (status, answer) = ask(&core, "probe", Some(&request.to_string())).await;
        assert_eq!((status, &answer["remedy"]), (404, &json!("ask an edge")));
    });
}

#[test]
fn visits_are_bounded() {
    run(async {
        let (_certificates, _core, [waw1, _fra1]) = core_and_edges();
        let edges = |count: usize| vec![json!({ "host": "127.0.0.1", "port": 1 }); count];
        for wrong in [
            json!({ "within_ms": 0, "edges": [] }),
            json!({ "within_ms": 5001, "edges": [] }),
            json!({ "within_ms": 1, "edges": edges(65) }),
        ] {
            assert_eq!(ask(&waw1, "probe", Some(&wrong.to_string())).await.0, 422, "{wrong}");
        }
        let most = act(&waw1, "probe", json!({ "within_ms": 5000, "edges": edges(64) })).await;
        assert_eq!(most["edges"].as_array().unwrap().len(), 64);
    });
}

#[test]
fn an_edge_tells_the_traffic_of_its_host_and_keeps_it() {
    run(async {
        let (certificates, core, _edges) = core_and_edges();
        let folder: PathBuf = std::env::temp_dir().join(format!("otproxy-traffic-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let state = format!("state_dir: {}\n", folder.display());
        let edge = Role::start(&(edge(&certificates, "waw1", core.addr("tunnel"), LISTENERS) + &state));
        let traffic = see(&edge, "traffic?since=2026-11-05").await;
        assert_eq!(traffic["since"], "2026-11-05");
        assert!(traffic["bytes_in"].is_u64() && traffic["bytes_out"].is_u64(), "{traffic}");
        assert_eq!(ask(&edge, "traffic?since=yesterday", None).await.0, 422);
        assert_eq!(ask(&core, "traffic", None).await.0, 404);
        edge.stop().await;
        let kept = std::fs::read_to_string(folder.join("edge-traffic.json")).unwrap();
        assert!(kept.contains("\"days\""), "{kept}");
        std::fs::remove_dir_all(&folder).unwrap();
    });
}
