//! The findings as JSON; as text they are those of the doctor.

use std::time::Duration;

use serde_json::{Value, json as value};

use super::{OutsideReport, SeenEdge};
use crate::doctor::{passed, report};
use otproxy_protocol::printable::printable_json;

/// Formats one object: `ok`, `edges` and `checks`.
#[must_use]
pub fn json(OutsideReport { edges, chosen, checks }: &OutsideReport) -> String {
    let edges: Vec<_> = edges.iter().enumerate().map(|(index, edge)| of_edge(edge, chosen.contains(&index))).collect();
    let mut text = value!({ "ok": passed(checks), "edges": edges, "checks": report::list(checks) }).to_string();
    text.push('\n');
    printable_json(&text).into_owned()
}

fn of_edge(edge: &SeenEdge, is_chosen: bool) -> Value {
    let seconds = |time: Duration| time.as_secs_f64();
    value!({
        "edge": edge.listed.at.to_string(),
        "priority": edge.listed.priority,
        "addresses": edge.addresses,
        "pings": edge.links.pings,
        "pongs": edge.links.pongs,
        "round_trip_seconds": edge.links.round_trips().map(|[min, avg, max]| {
            value!({ "min": seconds(min), "avg": seconds(avg), "max": seconds(max) })
        }),
        "chosen": is_chosen,
        "login": edge.login.is_ok(),
        "games": edge.games.iter().map(|game| {
            value!({ "port": game.port, "seconds": game.first.as_ref().ok().copied().map(seconds) })
        }).collect::<Vec<_>>(),
        "status": edge.status.as_ref().ok().map(|view| {
            value!({
                "name": view.name, "address": view.address, "port": view.port, "online": view.online, "max": view.max,
            })
        }),
    })
}
