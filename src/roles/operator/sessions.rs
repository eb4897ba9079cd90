//! The sessions of a core, as its operator sees them.

use std::cmp::Reverse;
use std::time::Instant;

use crate::admin::api::{SessionLinkView, SessionState, SessionView, SessionsQuestion, SessionsView};
use crate::relay::{LinkSnapshot, SessionSnapshot};
use otproxy_protocol::core::SessionPhase;

/// Merges the sessions of all workers, newest first.
pub(super) fn sessions(mut views: Vec<SessionSnapshot>, asked: &SessionsQuestion, now: Instant) -> SessionsView {
    let total = views.len() as u64;
    views.sort_unstable_by_key(|view| (Reverse(view.started), view.client, view.session));
    views.truncate(asked.limit.get());
    SessionsView { total, sessions: views.into_iter().map(|view| session(view, now)).collect() }
}

fn session(view: SessionSnapshot, now: Instant) -> SessionView {
    let state = match view.phase {
        SessionPhase::Ending => SessionState::Ending,
        _ if view.connecting => SessionState::Connecting,
        SessionPhase::Carried => SessionState::Carried,
        SessionPhase::Grace => SessionState::Grace,
        SessionPhase::Lingering => SessionState::Lingering,
    };
    SessionView {
        client: view.client.0,
        session: view.session.0,
        port: view.port,
        player: view.player,
        state,
        age_seconds: now.saturating_duration_since(view.started).as_secs_f64(),
        game_server: view.game_server,
        links: view.links.iter().map(|link| session_link(link, now)).collect(),
        unacked_bytes: view.unacked as u64,
        reorder_bytes: view.reorder as u64,
        pending_bytes: view.pending as u64,
        packets_in: view.packets_in.into(),
        packets_out: view.packets_out.into(),
        bytes_in: view.bytes_in,
        bytes_out: view.bytes_out,
    }
}

fn session_link(link: &LinkSnapshot, now: Instant) -> SessionLinkView {
    let handle = &link.handle;
    SessionLinkView {
        connection: handle.id(),
        edge: handle.edge().map(ToString::to_string),
        player: handle.player_or_peer(),
        age_seconds: now.saturating_duration_since(handle.began()).as_secs_f64(),
        round_trip_seconds: link.round_trip.map(|round_trip| round_trip.as_secs_f64()),
        bytes_in: handle.bytes_in(),
        bytes_out: handle.bytes_out(),
    }
}
