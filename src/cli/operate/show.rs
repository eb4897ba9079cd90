//! Answers in the form for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::human::{age, bytes, count, milliseconds, time};
use crate::admin::api::{
    AddressesView, Banned, BansView, ConnectionsView, Count, Disconnected, Drained, EdgeAnswer, EdgeErrorView,
    EdgeOrder, EdgeState, EdgeTrafficView, EdgeView, EdgesView, ListenersView, Reloaded, Revoked, RevokedBy,
    SessionsView, StatusView, TargetView, TargetsView, Time, Unbanned,
};
use crate::cli::text_table::{NO_BREAK, TextTable};
use otproxy_protocol::printable::Printable;

/// An answer that can be shown to people, on a terminal of a given width.
pub(super) trait Show {
    fn show(&self, width: Option<usize>) -> String;
}

impl Show for String {
    fn show(&self, _: Option<usize>) -> String {
        self.clone()
    }
}

impl Show for StatusView {
    fn show(&self, _: Option<usize>) -> String {
        let state = match (self.draining, self.ready) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "not ready",
        };
        let mut lines = vec![
            ("", format!("{} {:?}, otproxy {}, {state}", self.role, self.name, self.version)),
            ("up", format!("{}, since {}, pid {}", time(self.uptime_seconds), self.started, self.pid)),
            ("connections", of(self.connections)),
        ];
        if let Some(sessions) = self.sessions {
            lines.push(("sessions", of(sessions)));
        }
        match self.trunks {
            Some(0) => lines.push(("tunnel", "no trunk".to_owned())),
            Some(trunks) => lines.push(("tunnel", format!("{} trunks", count(trunks)))),
            None => {}
        }
        lines.push(("listeners", format!("{}, {} workers", self.listeners, self.workers)));
        lines.push(("bans", count(self.bans)));
        lines.push(("files", of(self.files)));
        lines.push((
            "reload",
            match &self.last_reload {
                None => "none since the start".to_owned(),
                Some(reload) if reload.ok => format!("{}, ok", reload.time),
                Some(reload) => format!("{}, refused: the file is wrong, and all went on as before", reload.time),
            },
        ));
        let mut text = String::new();
        for (name, value) in lines {
            let value = Printable(value);
            let _ = if name.is_empty() { writeln!(text, "{value}") } else { writeln!(text, "{name:<12} {value}") };
        }
        for error in self.last_reload.iter().flat_map(|reload| &reload.errors) {
            let _ = writeln!(text, "{:<12} {}", "", Printable(error));
        }
        text
    }
}

/// Formats a count: `7 of 1 000`, or `7`.
fn of(Count { open, limit }: Count) -> String {
    match limit {
        Some(limit) => format!("{} of {}", count(open), count(limit)),
        None => count(open),
    }
}

/// Returns a text that a table does not break.
fn whole(text: &str) -> String {
    text.replace(' ', NO_BREAK.encode_utf8(&mut [0; 2]))
}

/// Formats a time so that a table can break it behind the date.
fn moment(time: Time) -> String {
    time.to_string().replacen('T', " ", 1)
}

/// Formats counts by reason, the highest first: `limit 3, rate 1 000 000`.
fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<_> =
        counts.into_iter().map(|(reason, number)| format!("{reason} {}", whole(&count(*number)))).collect();
    words.join(", ")
}

impl Show for ListenersView {
    fn show(&self, width: Option<usize>) -> String {
        let headings =
            ["LISTENER", "KIND", "STATE", ">OPEN", ">ACCEPTED", ">IN", ">OUT", "~ADDRESSES", "~REJECTED", "~CLOSED"];
        let mut table = TextTable::new(headings).leaving_out(["KIND", "OUT", "IN", "ACCEPTED"]);
        for listener in &self.listeners {
            let addresses: Vec<_> = listener.addresses.iter().map(ToString::to_string).collect();
            table.row([
                listener.name.clone(),
                listener.kind.to_string(),
                listener.state.to_string(),
                of(listener.connections),
                count(listener.accepted),
                bytes(listener.bytes_in),
                bytes(listener.bytes_out),
                if addresses.is_empty() { "the tunnel".to_owned() } else { addresses.join(", ") },
                reasons(&listener.rejected),
                reasons(&listener.closed),
            ]);
        }
        table.text(width)
    }
}

impl Show for TargetsView {
    fn show(&self, width: Option<usize>) -> String {
        let headings = ["LISTENER", "TARGET", "ADDRESS", "~UP", "STATE", ">OPEN", "~CHECK", ">AGO", ">ROUND TRIP"];
        let mut table = TextTable::new(headings).leaving_out(["ROUND TRIP", "AGO", "OPEN"]);
        for target in &self.targets {
            let TargetView { listener, name, address, up, state, backup, connections, check } = target;
            let up = match (up, backup) {
                (true, true) => "up, backup",
                (true, false) => "up",
                (false, true) => "down, backup",
                (false, false) => "down",
            };
            let check = check.as_ref();
            table.row([
                listener.clone(),
                name.clone(),
                address.clone(),
                up.to_owned(),
                state.to_string(),
                count(*connections),
                check.map_or_else(|| "-".to_owned(), |check| check.result.clone()),
                check.map(|check| age(check.age_seconds)).unwrap_or_default(),
                check.and_then(|check| check.round_trip_seconds).map(milliseconds).unwrap_or_default(),
            ]);
        }
        table.text(width)
    }
}

/// Returns the line below a list that is incomplete.
fn more(shown: usize, total: u64, what: &str) -> String {
    let shown = shown as u64;
    if shown < total {
        format!("{} of {} {what}; --limit shows more\n", count(shown), count(total))
    } else {
        String::new()
    }
}

/// Formats a value, or a dash if it is unknown.
fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

impl Show for ConnectionsView {
    fn show(&self, width: Option<usize>) -> String {
        let headings = ["ID", "LISTENER", "PLAYER", "PEER", "EDGE", "STATE", "~LEADS TO", ">AGE", ">IN", ">OUT"];
        // The peer goes last: behind an edge it is that edge's address, and elsewhere mostly the player's.
        let mut table = TextTable::new(headings).leaving_out(["OUT", "IN", "STATE", "AGE", "PEER"]);
        for connection in &self.connections {
            let client = connection.client.map(|client| format!("client {client}"));
            table.row([
                connection.id.to_string(),
                connection.listener.clone(),
                or_dash(connection.player),
                connection.peer.to_string(),
                or_dash(connection.edge.as_ref()),
                connection.state.to_string(),
                or_dash(client.as_ref().or(connection.target.as_ref())),
                age(connection.age_seconds),
                bytes(connection.bytes_in),
                bytes(connection.bytes_out),
            ]);
        }
        table.text(width) + &more(self.connections.len(), self.total, "connections")
    }
}

impl Show for SessionsView {
    fn show(&self, width: Option<usize>) -> String {
        let headings = [
            "CLIENT",
            "SESSION",
            "PLAYER",
            "PORT",
            "GAME SERVER",
            "STATE",
            ">AGE",
            ">UNACKED",
            ">PENDING",
            ">IN",
            ">OUT",
            "~LINKS",
        ];
        let least = ["OUT", "IN", "PENDING", "PORT", "AGE", "UNACKED", "GAME SERVER", "STATE"];
        let mut table = TextTable::new(headings).leaving_out(least);
        for session in &self.sessions {
            let links = session.links.iter().map(|link| {
                let edge = link.edge.as_deref().unwrap_or("other");
                link.round_trip_seconds
                    .map_or_else(|| edge.to_owned(), |trip| format!("{edge} {}", whole(&milliseconds(trip))))
            });
            table.row([
                session.client.to_string(),
                session.session.to_string(),
                session.player.to_string(),
                session.port.to_string(),
                session.game_server.clone(),
                session.state.to_string(),
                age(session.age_seconds),
                bytes(session.unacked_bytes),
                bytes(session.pending_bytes + session.reorder_bytes),
                bytes(session.bytes_in),
                bytes(session.bytes_out),
                links.collect::<Vec<_>>().join(", "),
            ]);
        }
        table.text(width) + &more(self.sessions.len(), self.total, "sessions")
    }
}

impl Show for AddressesView {
    fn show(&self, width: Option<usize>) -> String {
        let mut table = TextTable::new(["ADDRESS", ">OPEN", ">IN", ">OUT", "BANNED"]);
        for talker in &self.addresses {
            table.row([
                talker.address.to_string(),
                count(talker.connections),
                bytes(talker.bytes_in),
                bytes(talker.bytes_out),
                if talker.banned { "banned" } else { "-" }.to_owned(),
            ]);
        }
        table.text(width) + &more(self.addresses.len(), self.total, "addresses")
    }
}

impl Show for EdgesView {
    fn show(&self, width: Option<usize>) -> String {
        let headings = [
            "~EDGE",
            "~STATE",
            ">PRIORITY",
            "~ADDRESS",
            ">IN USE",
            ">PLAYERS' TRIP",
            ">TRUNKS",
            ">ROUND TRIP",
            "~UP SINCE",
            "VERSION",
            "~LAST ERROR",
        ];
        let last = ["VERSION", "ROUND TRIP", "TRUNKS", "UP SINCE", "PLAYERS' TRIP"];
        let mut table = TextTable::new(headings).leaving_out(last);
        for edge in &self.edges {
            let addresses: Vec<_> = edge.addresses.iter().map(ToString::to_string).collect();
            let trunks = edge.trunks.as_deref().unwrap_or_default();
            // The slowest: over it goes what a player notices.
            let slowest = trunks.iter().filter_map(|trunk| trunk.round_trip_seconds).reduce(f64::max);
            let mut versions: Vec<_> = trunks.iter().map(|trunk| trunk.version.as_str()).collect();
            versions.dedup();
            table.row([
                match (edge.revoked, edge.revoked_by) {
                    (false, _) => edge.name.clone(),
                    (true, Some(RevokedBy::Operator)) => format!("{} (revoked by operator)", edge.name),
                    (true, _) => format!("{} (revoked)", edge.name),
                },
                edge_state(edge),
                told(edge),
                or_dash(Some(addresses.join(", ")).filter(|addresses| !addresses.is_empty())),
                count(edge.in_use),
                or_dash(edge.round_trip_seconds.map(milliseconds)),
                or_dash(edge.trunks.as_ref().map(|trunks| count(trunks.len() as u64))),
                or_dash(slowest.map(milliseconds)),
                or_dash(edge.since.map(moment)),
                or_dash(Some(versions.join(", ")).filter(|versions| !versions.is_empty())),
                or_dash(edge.last_error.as_ref().map(edge_error)),
            ]);
        }
        table.text(width)
    }
}

/// Returns the state of an edge, and its reason where it is not as it should be.
fn edge_state(edge: &EdgeView) -> String {
    let state = if edge.state == EdgeState::Up { "up".to_owned() } else { format!("{}: {}", edge.state, edge.cause) };
    match edge.order.as_ref().map(|given| given.order) {
        Some(order @ (EdgeOrder::In | EdgeOrder::Out)) => format!("{state}, told {order}"),
        Some(EdgeOrder::Auto) | None => state,
    }
}

/// Returns what clients are told to add to round trips over an edge, if they are told of it.
fn told(edge: &EdgeView) -> String {
    match (&edge.public, edge.listed) {
        (None, _) => "-".to_owned(),
        (Some(_), false) => "not listed".to_owned(),
        (Some(_), true) => format!("{} ms", edge.priority),
    }
}

fn edge_error(error: &EdgeErrorView) -> String {
    match error.address {
        Some(address) => format!("{} from {address}, {}", error.reason, moment(error.time)),
        None => format!("{}, {}", error.reason, moment(error.time)),
    }
}

impl Show for EdgeView {
    fn show(&self, _: Option<usize>) -> String {
        let mut text = format!("edge {:?}, {}\n", self.name, Printable(edge_state(self)));
        let mut line = |name: &str, said: String| {
            let _ = writeln!(text, "{name:<12} {}", Printable(said));
        };
        line("since", moment(self.state_since));
        if let Some(given) = &self.order {
            let until = given
                .until
                .map_or_else(|| "until there is another word".to_owned(), |until| format!("until {}", moment(until)));
            let why = given.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            line("operator", format!("{}, since {}, {until}{why}", given.order, moment(given.since)));
        }
        line(
            "clients",
            match (&self.public, self.listed) {
                (None, _) => "are not told of it: it has no `public` in the file".to_owned(),
                (Some(public), false) => format!("are not told of {public}"),
                (Some(public), true) => format!("are told of {public}, priority {} ms", self.priority),
            },
        );
        line("in use", format!("{} connections, {} of them links of players", count(self.in_use), count(self.links)));
        line("round trips", or_dash(self.round_trip_seconds.map(milliseconds)) + " told by players");
        for probe in &self.probes {
            let said = probe.round_trip_seconds.map_or_else(|| "no answer".to_owned(), milliseconds);
            line("", format!("{said} by a visit of {}", probe.from));
        }
        if let Some(trunks) = &self.trunks {
            line("trunks", count(trunks.len() as u64));
            for trunk in trunks {
                let trip = or_dash(trunk.round_trip_seconds.map(milliseconds));
                let (address, since, streams) = (trunk.address, moment(trunk.since), count(trunk.streams));
                line("", format!("{address}, {trip}, {streams} streams, since {since}, otproxy {}", trunk.version));
            }
        }
        if let Some(EdgeTrafficView { bytes: used, month_bytes }) = self.traffic {
            let share = used as f64 / month_bytes.max(1) as f64 * 100.0;
            line("traffic", format!("{} of {} this month, {share:.0} %", bytes(used), bytes(month_bytes)));
        }
        if let Some(certificate) = &self.certificate {
            line("certificate", format!("{}, valid until {}", certificate.serial, moment(certificate.until)));
        }
        if let Some(error) = &self.last_error {
            line("last error", edge_error(error));
        }
        text
    }
}

impl Show for BansView {
    fn show(&self, width: Option<usize>) -> String {
        let mut table = TextTable::new(["NETWORK", ">LEFT", "~UNTIL", "BY", "THROUGH"]);
        for ban in &self.bans {
            let through = ban.edge.clone().unwrap_or_else(|| "any".to_owned());
            let (left, until, by) = (time(ban.seconds_left), moment(ban.until), ban.by.to_string());
            table.row([ban.network.to_string(), left, until, by, through]);
        }
        table.text(width) + &more(self.bans.len(), self.total, "bans")
    }
}

impl Show for Banned {
    fn show(&self, width: Option<usize>) -> String {
        let mut text = format!("{} is banned until {}\n", self.network, self.until);
        if self.disconnected != Disconnected::default() {
            text.push_str(&self.disconnected.show(width));
        }
        text + &at_edges(&self.edges)
    }
}

/// Returns what became of a ban at the edges.
fn at_edges(edges: &[EdgeAnswer]) -> String {
    let done: Vec<_> = edges.iter().filter(|edge| edge.error.is_none()).map(|edge| Printable(&edge.edge)).collect();
    let mut text = String::new();
    if !done.is_empty() {
        let _ = writeln!(text, "so at {}", done.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    }
    for EdgeAnswer { edge, error } in edges {
        if let Some(error) = error {
            let _ = writeln!(text, "not at {}: {}", Printable(edge), Printable(error));
        }
    }
    text
}

impl Show for Unbanned {
    fn show(&self, _: Option<usize>) -> String {
        let here: String = self.networks.iter().map(|network| format!("{network} is not banned any more\n")).collect();
        here + &at_edges(&self.edges)
    }
}

impl Show for Revoked {
    fn show(&self, _: Option<usize>) -> String {
        let Self { edge, revoked_by, connections, trusted_on } = self;
        let edge = Printable(edge);
        let mut text = match revoked_by {
            None => format!("{edge} is trusted\n"),
            Some(_) => format!("{edge} is revoked, closed {} connections\n", count(*connections)),
        };
        if *revoked_by == Some(RevokedBy::Operator) {
            let _ = writeln!(text, "a restart lets it in again: write `revoked: true` for it into `edges` of the file");
        }
        if !trusted_on.is_empty() {
            let listeners = Printable(trusted_on.join(", "));
            let _ = writeln!(text, "its address is still in `trusted_peers` of: {listeners}");
        }
        text
    }
}

impl Show for Disconnected {
    fn show(&self, _: Option<usize>) -> String {
        format!("closed {} connections, ended {} sessions\n", count(self.connections), count(self.sessions))
    }
}

impl Show for Drained {
    fn show(&self, width: Option<usize>) -> String {
        let mut table = TextTable::new(["LISTENER", "STATE", ">OPEN"]);
        for listener in &self.listeners {
            table.row([listener.name.clone(), listener.state.to_string(), count(listener.connections)]);
        }
        table.text(width)
    }
}

impl Show for TargetView {
    fn show(&self, width: Option<usize>) -> String {
        TargetsView { targets: vec![self.clone()] }.show(width)
    }
}

impl Show for Reloaded {
    fn show(&self, _: Option<usize>) -> String {
        let mut text = format!("reloaded at {}\n", self.time);
        if !self.needs_restart.is_empty() {
            let _ = writeln!(text, "used only after a restart: {}", Printable(self.needs_restart.join(", ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::{
        AddressesQuestion, BansQuestion, ConnectionsQuestion, Operator, PageSize, Role, SessionsQuestion,
    };
    use crate::admin::api::{DrainedListener, ListenerState};
    use crate::admin::fake::FakeOperator;

    fn core() -> FakeOperator {
        FakeOperator::new(Role::Core)
    }

    #[test]
    fn the_process() {
        assert_eq!(
            core().status().show(None),
            "core \"waw1\", otproxy 1.2.3, ready\n\
             up           1d 2h, since 2030-03-17T17:46:40Z, pid 4711\n\
             connections  7 of 1 000\n\
             sessions     3\n\
             tunnel       4 trunks\n\
             listeners    1, 2 workers\n\
             bans         1\n\
             files        40 of 1 024\n\
             reload       2030-03-17T17:46:40Z, refused: the file is wrong, and all went on as before\n\
             \x20            edge.yaml:1:1: bad\n"
        );
        assert!(!FakeOperator::new(Role::Edge).status().show(None).contains("sessions"));
        let mut hostile = core().status();
        hostile.name = "\x1b[2J".to_owned();
        hostile.version = "1\nup 7d".to_owned();
        hostile.last_reload.as_mut().unwrap().errors = vec!["a\nb\x07".to_owned()];
        let text = hostile.show(None);
        assert!(text.contains("otproxy 1\\nup 7d, ready\n") && text.ends_with(" a\\nb\\u{7}\n"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn listeners_and_targets() {
        assert_eq!(
            core().listeners().show(None),
            "LISTENER  KIND     STATE  OPEN   ACCEPTED        IN     OUT  ADDRESSES                REJECTED                  CLOSED\n\
             login     forward  open      7  1 234 567  4.66 GiB  1023 B  0.0.0.0:7171, [::]:7171  rate 1 000 000, silent 3  client 234 557\n"
        );
        assert_eq!(
            core().targets().show(None),
            "LISTENER  TARGET  ADDRESS            UP            STATE  OPEN  CHECK  AGO  ROUND TRIP\n\
             login     first   game.example:7171  up            ready     7  ok      1s     12.3 ms\n\
             login     second  game.example:7171  down, backup  ready     7  -\n"
        );
    }

    #[test]
    fn connections_and_sessions() {
        let asked = ConnectionsQuestion { limit: PageSize::new(1).unwrap(), ..ConnectionsQuestion::default() };
        assert_eq!(
            core().connections(&asked).unwrap().show(None),
            "ID  LISTENER  PLAYER              PEER                 EDGE  STATE  LEADS TO   AGE    IN   OUT\n\
             2   login     198.51.100.7:50000  [2001:db8::7]:50000  waw1  link   client 77   0s  10 B  20 B\n\
             1 of 2 connections; --limit shows more\n"
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sessions = runtime.block_on(core().sessions(&SessionsQuestion::default())).unwrap();
        assert_eq!(
            sessions.show(None),
            "CLIENT  SESSION  PLAYER              PORT  GAME SERVER     STATE      AGE  UNACKED  PENDING    IN    OUT  LINKS\n\
             77      1        198.51.100.7:50000  7172  127.0.0.1:7172  carried  1m 2s    300 B      0 B  90 B  180 B  waw1 31.0 ms, other\n"
        );
    }

    #[test]
    fn addresses_and_bans() {
        assert_eq!(
            core().addresses(&AddressesQuestion::default()).show(None),
            "ADDRESS            OPEN   IN  OUT  BANNED\n\
             198.51.100.7          9  1 B  2 B  -\n\
             2001:db8:0:1::/64     9  1 B  2 B  banned\n"
        );
        assert_eq!(
            core().bans(&BansQuestion::default()).show(None),
            "NETWORK              LEFT  UNTIL                 BY        THROUGH\n\
             198.51.100.0/24    9m 59s  2030-03-17 17:46:40Z  operator  any\n\
             2001:db8:0:1::/64  9m 59s  2030-03-17 17:46:40Z  rules     waw1\n"
        );
    }

    #[test]
    fn edges() {
        assert_eq!(
            core().edges().unwrap().show(None),
            "EDGE            STATE                       PRIORITY  ADDRESS                    IN USE  PLAYERS' TRIP  TRUNKS  ROUND TRIP  UP SINCE              VERSION  LAST ERROR\n\
             waw1            slow: round_trips, told in     40 ms  198.51.100.7, 2001:db8::7      12        42.0 ms       1     12.3 ms  2030-03-17 17:46:40Z  1.2.3    wrong_address from 203.0.113.66, 2030-03-17 17:46:40Z\n\
             fra1 (revoked)  out: revoked                       -  -                               0              -       -           -  -                     -        -\n"
        );
    }

    #[test]
    fn one_edge() {
        let [waw1, fra1] = &core().edges().unwrap().edges[..] else { panic!("two") };
        assert_eq!(
            waw1.show(None),
            "edge \"waw1\", slow: round_trips, told in\n\
             since        2030-03-17 17:46:40Z\n\
             operator     in, since 2030-03-17 17:46:40Z, until 2030-03-17 17:46:40Z: a trial\n\
             clients      are told of p1.example:7162, priority 40 ms\n\
             in use       12 connections, 11 of them links of players\n\
             round trips  42.0 ms told by players\n\
             \x20            31.1 ms by a visit of fra1\n\
             trunks       1\n\
             \x20            198.51.100.7, 12.3 ms, 12 streams, since 2030-03-17 17:46:40Z, otproxy 1.2.3\n\
             traffic      700 MiB of 931 GiB this month, 0 %\n\
             certificate  40:1f:99, valid until 2030-03-17 17:46:40Z\n\
             last error   wrong_address from 203.0.113.66, 2030-03-17 17:46:40Z\n"
        );
        assert_eq!(
            fra1.show(None),
            "edge \"fra1\", out: revoked\n\
             since        2030-03-17 17:46:40Z\n\
             clients      are not told of it: it has no `public` in the file\n\
             in use       0 connections, 0 of them links of players\n\
             round trips  - told by players\n"
        );
        let mut hostile = waw1.clone();
        hostile.order.as_mut().unwrap().why = Some("a\nb\x1b[2J".to_owned());
        hostile.cause = "\x1b".to_owned();
        let text = hostile.show(None);
        assert!(!text.contains('\x1b') && text.contains(": a\\nb\\u{1b}[2J\n"), "{text}");
    }

    #[test]
    fn on_80_columns_each_table_shows_what_it_is_for() {
        let core = core();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sessions = runtime.block_on(core.sessions(&SessionsQuestion::default())).unwrap();
        let tables: [(Box<dyn Show>, &[&str]); 7] = [
            (
                Box::new(core.listeners()),
                &["login", "open", "0.0.0.0:7171", "[::]:7171", "rate", "1 000 000", "silent", "client", "234 557"],
            ),
            (Box::new(core.targets()), &["login", "first", "game.example:7171", "down, backup", "ready", "ok"]),
            (
                Box::new(core.connections(&ConnectionsQuestion::default()).unwrap()),
                &["198.51.100.7:50000", "[2001:db8::7]:50000", "waw1", "client 77"],
            ),
            (Box::new(sessions), &["198.51.100.7:50000", "127.0.0.1:7172", "waw1", "31.0 ms", "other"]),
            (
                Box::new(core.edges().unwrap()),
                &["waw1", "198.51.100.7", "2001:db8::7", "wrong_address", "203.0.113.66"],
            ),
            (Box::new(core.addresses(&AddressesQuestion::default())), &["2001:db8:0:1::/64", "banned"]),
            (Box::new(core.bans(&BansQuestion::default())), &["2001:db8:0:1::/64", "rules", "waw1"]),
        ];
        for (table, says) in tables {
            let text = table.show(Some(80));
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            // Lists may be in several lines.
            for word in says.iter().flat_map(|says| says.split(", ")) {
                assert!(text.contains(word), "{word}: {text}");
            }
        }
    }

    #[test]
    fn acts() {
        let closed = Disconnected { connections: 3, sessions: 1 };
        let (time, network) = (crate::admin::fake::time(), "192.0.2.1".parse().unwrap());
        let banned = Banned { network, until: time, disconnected: closed, edges: Vec::new() };
        let text = "192.0.2.1 is banned until 2030-03-17T17:46:40Z\nclosed 3 connections, ended 1 sessions\n";
        assert_eq!(banned.show(None), text);
        let at =
            |edge: &str, error: Option<&str>| EdgeAnswer { edge: edge.to_owned(), error: error.map(str::to_owned) };
        let edges = vec![at("fra1", None), at("ams1", Some("it\u{1b}s away")), at("waw1", None)];
        let there = "so at fra1, waw1\nnot at ams1: it\\u{1b}s away\n";
        assert_eq!(Banned { edges, ..banned }.show(None), format!("{text}{there}"));
        assert_eq!(
            Unbanned { networks: vec![network], edges: Vec::new() }.show(None),
            "192.0.2.1 is not banned any more\n"
        );
        let by = |revoked_by, connections, trusted_on| {
            Revoked { edge: "waw1".to_owned(), revoked_by, connections, trusted_on }.show(None)
        };
        assert_eq!(by(Some(RevokedBy::File), 3, Vec::new()), "waw1 is revoked, closed 3 connections\n");
        assert_eq!(by(None, 0, Vec::new()), "waw1 is trusted\n");
        assert_eq!(
            by(Some(RevokedBy::Operator), 0, vec!["links".to_owned()]),
            "waw1 is revoked, closed 0 connections\n\
             a restart lets it in again: write `revoked: true` for it into `edges` of the file\n\
             its address is still in `trusted_peers` of: links\n"
        );
        let reloaded = Reloaded { time, needs_restart: vec!["workers".to_owned(), "admin.listen".to_owned()] };
        let text = "reloaded at 2030-03-17T17:46:40Z\nused only after a restart: workers, admin.listen\n";
        assert_eq!(reloaded.show(None), text);
        let drained = DrainedListener { name: "login".to_owned(), state: ListenerState::Draining, connections: 7 };
        let drained = Drained { listeners: vec![drained] };
        assert_eq!(drained.show(None), "LISTENER  STATE     OPEN\nlogin     draining     7\n");
    }
}
