//! The meaning of what was seen: does a player get in, and over which edges? No I/O.
//!
//! An edge that fails beside one that works is a warning, as players get in over the other. If all fail, that is a failure.

use std::net::IpAddr;
use std::time::Duration;

use super::{GameError, Outside, SeenEdge, SeenGame};
use crate::doctor::{CheckStatus, DoctorCheck};
use otproxy_protocol::status::ServerStatus;

/// Edges that a client plays over at once.
const WAYS: usize = 2;

/// Returns the indices of the edges that a client would play over: those with the least ping, their priorities added.
pub(super) fn chosen(edges: &[SeenEdge]) -> Vec<usize> {
    let mut up: Vec<_> = edges.iter().enumerate().filter_map(|(index, edge)| Some((weight(edge)?, index))).collect();
    up.sort();
    up.into_iter().take(WAYS).map(|(_, index)| index).collect()
}

fn weight(edge: &SeenEdge) -> Option<Duration> {
    Some(ping(edge)?.saturating_add(Duration::from_millis(edge.listed.priority.into())))
}

fn ping(edge: &SeenEdge) -> Option<Duration> {
    edge.links.round_trips().map(|[_, average, _]| average)
}

/// Returns the checks of all that was seen.
pub(super) fn of(outside: &Outside, edges: &[SeenEdge], chosen: &[usize]) -> Vec<DoctorCheck> {
    let mut checks = Vec::new();
    let left_out = &outside.list.left_out;
    if !left_out.is_empty() {
        checks.push(DoctorCheck::warn(
            ("list", ""),
            format!("clients leave out {}", left_out.join(", ")),
            "write each once, as p1.example:7162; an edge with an IPv6 address needs a name",
        ));
    }
    let unless = |any: bool| if any { CheckStatus::Warn } else { CheckStatus::Fail };
    let linked = unless(edges.iter().any(|edge| ping(edge).is_some()));
    let logs_in = unless(edges.iter().any(|edge| edge.login.is_ok()));
    let tells = unless(edges.iter().any(|edge| edge.status.is_ok()));
    for edge in edges {
        checks.push(of_links(edge, linked));
        checks.extend(of_name(edge));
        // A name without an address has been told.
        if !edge.addresses.is_empty() {
            checks.push(of_login(edge, outside.ports.login, logs_in));
            checks.push(of_status(edge, outside.ports.status, edges, tells));
            checks.extend(edge.games.iter().map(|game| of_game(edge, game, unless(is_played(edges, game.port)))));
        }
    }
    let chosen: Vec<_> = chosen.iter().filter_map(|index| edges.get(*index)).collect();
    checks.push(of_choice(&chosen));
    checks
}

fn of_links(edge: &SeenEdge, otherwise: CheckStatus) -> DoctorCheck {
    let (subject, links) = (edge.listed.at.to_string(), &edge.links);
    let last = links.errors.values().next();
    let Some([least, average, most]) = links.round_trips() else {
        let Some((error, _)) = last else {
            return DoctorCheck::bad(
                otherwise,
                ("link", &subject),
                "was not through in time",
                "see whether this host is overloaded",
            );
        };
        let status = if links.untried() { CheckStatus::Warn } else { otherwise };
        return DoctorCheck::bad(status, ("link", &subject), error.finding(), error.remedy("the edge"));
    };
    let message = format!(
        "{} of {} pings answered through to the core, in {} (from {} to {})",
        links.pongs,
        links.pings,
        millis(average),
        millis(least),
        millis(most)
    );
    match last {
        None => DoctorCheck::ok("link", subject, message),
        Some((error, _)) => DoctorCheck::warn(
            ("link", &subject),
            format!("{message}; then it {}", error.finding()),
            error.remedy("the edge"),
        ),
    }
}

/// Returns a warning if clients would use one of several addresses.
fn of_name(edge: &SeenEdge) -> Option<DoctorCheck> {
    let list: Vec<_> = edge.addresses.iter().map(IpAddr::to_string).collect();
    (list.len() > 1).then(|| {
        DoctorCheck::warn(
            ("link", &edge.listed.at.to_string()),
            format!(
                "its name has the addresses {}: clients try the first that they are told, and no other",
                list.join(", ")
            ),
            "give the name one address, and each host a name of its own",
        )
    })
}

fn of_choice(chosen: &[&SeenEdge]) -> DoctorCheck {
    let shown = |edge: &SeenEdge| {
        let priority = match edge.listed.priority {
            0 => String::new(),
            priority => format!(" and priority {priority}"),
        };
        format!("{} ({}{priority})", edge.listed.at, ping(edge).map(millis).unwrap_or_default())
    };
    match chosen {
        [] => DoctorCheck::fail(
            ("choice", ""),
            "a client here has no link, so nobody gets into the game",
            "see what is said of each edge; and `otproxy doctor` on the edges' hosts and on the core's",
        ),
        [one] => DoctorCheck::warn(
            ("choice", ""),
            format!("a client here plays over {} alone: if it fails, the game stands still", shown(one)),
            "have a second edge at another provider, and see what is said of those that failed",
        ),
        [first, second, ..] => {
            let message = format!("a client here plays over {} and {}", shown(first), shown(second));
            match first.addresses.first().filter(|address| second.addresses.first() == Some(address)) {
                None => DoctorCheck::ok("choice", "", message),
                Some(address) => DoctorCheck::warn(
                    ("choice", ""),
                    format!("{message}, and both are {address}: if that host fails, the game stands still"),
                    "list each host once",
                ),
            }
        }
    }
}

fn of_login(edge: &SeenEdge, port: u16, otherwise: CheckStatus) -> DoctorCheck {
    let subject = edge.listed.at.host.as_str();
    match &edge.login {
        Ok(took) => DoctorCheck::ok("login", subject, format!("port {port} takes connections, in {}", millis(*took))),
        Err(error) => {
            let message = format!("port {port} {}", error.finding());
            DoctorCheck::bad(otherwise, ("login", subject), message, error.remedy("the edge"))
        }
    }
}

fn of_status(edge: &SeenEdge, port: u16, edges: &[SeenEdge], otherwise: CheckStatus) -> DoctorCheck {
    let subject = edge.listed.at.host.as_str();
    let view = match &edge.status {
        Ok(view) => view,
        Err(error) => {
            let message = format!("port {port} {}", error.finding());
            return DoctorCheck::bad(otherwise, ("status", subject), message, error.remedy());
        }
    };
    let message = told(view);
    match shown_address(edge, view, edges) {
        None => DoctorCheck::ok("status", subject, message),
        Some(problem) => DoctorCheck::warn(
            ("status", subject),
            format!("{message}, and {problem}"),
            "give the edge's listener `status: { address: NAME }` with its public name, as the files of `otproxy init` have it",
        ),
    }
}

/// Returns whether the game server behind a port speaks at any edge.
fn is_played(edges: &[SeenEdge], port: u16) -> bool {
    edges.iter().flat_map(|edge| &edge.games).any(|game| game.port == port && game.first.is_ok())
}

fn of_game(edge: &SeenEdge, SeenGame { port, first }: &SeenGame, otherwise: CheckStatus) -> DoctorCheck {
    let subject = edge.listed.at.host.as_str();
    let error = match first {
        Ok(took) => {
            let message = format!("port {port} leads to a game server, which speaks first, in {}", millis(*took));
            return DoctorCheck::ok("game", subject, message);
        }
        Err(error) => error,
    };
    // Old game servers are silent, and a port that was not tried may be right.
    let untold = matches!(error, GameError::Silent(_) | GameError::Untried);
    let status = if untold { CheckStatus::Warn } else { otherwise };
    DoctorCheck::bad(status, ("game", subject), format!("port {port} {}", error.finding()), error.remedy())
}

/// Characters of a name or an address in a status that are shown.
const SHOWN: usize = 64;

/// Returns what a status says, as `Antica: 12 of 100 players online, at p1.example:7171`.
fn told(view: &ServerStatus) -> String {
    let shown = |text: &str| text.chars().take(SHOWN).collect::<String>();
    let name = if view.name.is_empty() { "a server without a name".to_owned() } else { shown(&view.name) };
    let players = match (view.online, view.max) {
        (Some(online), Some(max)) => format!("{online} of {max} players online"),
        (Some(online), None) => format!("{online} players online"),
        (None, _) => "it does not say how many players are online".to_owned(),
    };
    let port = if view.port.is_empty() { String::new() } else { format!(":{}", shown(&view.port)) };
    let at = if view.address.is_empty() { "no address".to_owned() } else { format!("{}{port}", shown(&view.address)) };
    format!("{name}: {players}, at {at}")
}

/// Returns what is wrong with the address that a status shows, as the end of a sentence.
fn shown_address(edge: &SeenEdge, view: &ServerStatus, edges: &[SeenEdge]) -> Option<String> {
    let is_edges = |shown: &str| edges.iter().any(|edge| edge.listed.at.host.eq_ignore_ascii_case(shown));
    let of_edges = |ip: &IpAddr| edges.iter().any(|edge| edge.addresses.contains(ip));
    if view.address.is_empty() || is_edges(&view.address) || edge.shown.iter().any(of_edges) {
        return None;
    }
    Some(match edge.shown.first() {
        None => "that name does not resolve".to_owned(),
        Some(ip) if is_private(*ip) => "nobody elsewhere reaches that address: server lists show a server that is down".to_owned(),
        Some(_) => "that is no edge of this list: if it is the core's or the game server's host, everybody can read its address here".to_owned(),
    })
}

/// Returns whether an address has a meaning in its own network alone.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests;
