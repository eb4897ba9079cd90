//! The events and figures of a role that runs, by the admin API.

use serde_json::{Value, json};

use crate::common::admin::{act, ask, see};
use crate::common::sandbox::*;

async fn texts(role: &Role) -> Vec<String> {
    let events = see(role, "events").await;
    events["events"].as_array().unwrap().iter().map(|event| event["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn acts_reloads_and_targets_that_fail_are_events_and_traffic_has_figures() {
    run(async {
        let target = echo_target().await;
        let listener = format!(
            "role: edge\nlisteners: [{{ name: a, listen: \"127.0.0.1:0\", forward_to: \"{target}\", send_proxy: none }}]\n"
        );
        let edge = Role::start(&listener);
        act(&edge, "ban", json!({ "network": "203.0.113.0/24", "for_seconds": 3600 })).await;
        act(&edge, "unban", json!({ "network": "203.0.113.0/24" })).await;
        act(&edge, "drain", json!({ "listener": "a" })).await;
        act(&edge, "undrain", json!({})).await;
        edge.reload(&format!("{listener}shutdown_timeout: 7s\n")).await.unwrap();
        // It was not started from a file.
        assert_eq!(ask(&edge, "reload", Some("{}")).await.0, 409);
        assert_eq!(
            texts(&edge).await,
            [
                "an operator bans 203.0.113.0/24 for 60 min",
                "an operator bans 203.0.113.0/24 no more",
                "listener a is drained",
                "all listeners are open again",
                "the file was read again",
                "the file was not taken, it goes on as it was: there is no file to read",
            ]
        );
        let mut open = connect_from("127.0.0.1", edge.addrs_now("a")[0]).await;
        echoes(&mut open, b"hello").await;
        // Rows come once a second, each with what came in it.
        eventually("figures", async || {
            let history =
                see(&edge, "history?figures=bytes_in,bytes_out,connections,worker_delay_seconds,sessions").await;
            let sum = |name: &str| -> Option<f64> {
                Some(history["figures"][name].as_array()?.iter().filter_map(Value::as_f64).sum())
            };
            let last = history["figures"]["connections"].as_array()?.last()?;
            let is_there = sum("bytes_in")? == 5.0 && sum("bytes_out")? == 5.0 && *last == 1;
            let none = history["figures"]["sessions"].as_array()?.iter().all(Value::is_null);
            (is_there && none && history["edges"] == json!({})).then_some(())
        })
        .await;
        edge.stop().await;
    });
}
