//! Lists that differ by player: a core has those for all players, with the datacenters of their edges, for edges to keep; and each player
//! gets the one in its own order.

use std::net::IpAddr;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::LIST_FRESH;
use super::answer::WebAnswer;
use otproxy_protocol::edge_list::EdgeList;

/// The header that tells an edge the datacenters of a list's edges.
const DATACENTERS: HeaderName = HeaderName::from_static("otproxy-datacenters");

/// Returns a core's answer: the list for a player, or `for_all`.
pub(super) fn list(list: &EdgeList, web: Option<&RawValue>, for_all: bool, player: IpAddr) -> WebAnswer {
    if !list.is_by_player() {
        return WebAnswer::public(list.to_json(web), LIST_FRESH);
    }
    if !for_all {
        return WebAnswer::private(list.for_player(player).to_json(web), LIST_FRESH);
    }
    let mut answer = WebAnswer::public(list.to_json(web), LIST_FRESH);
    // Names of datacenters are letters, digits and a few marks.
    if let Ok(datacenters) = HeaderValue::from_str(&list.datacenters()) {
        answer.headers.insert(DATACENTERS, datacenters);
    }
    answer
}

/// Returns what a player gets of an answer at an edge: of a list for all players, that in its own order. All else passes as it is.
pub(super) fn in_order(mut answer: WebAnswer, player: IpAddr) -> WebAnswer {
    let Some(datacenters) = answer.headers.remove(DATACENTERS) else { return answer };
    let read = datacenters.to_str().ok().and_then(|datacenters| EdgeList::from_json(&answer.body, datacenters));
    let ordered = read.map(|(list, web)| list.for_player(player).to_json(web));
    match ordered {
        Some(body) => WebAnswer::private(body, LIST_FRESH),
        None => answer,
    }
}
