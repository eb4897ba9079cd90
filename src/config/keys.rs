//! Every key of a role's file: who has it, its default, what it takes and what it means.
//!
//! This table is the only place where a default is written. The reader takes defaults from it,
//! finds unknown keys with it, and the reference in `docs/configuration.md` is generated from it.

use std::fmt;

use self::WhenAbsent::{ByKind, ByRole, Computed, Required, Text};

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Forwards connections to the core.
    Edge,
    /// Relays sessions to the game servers.
    Core,
}

/// `listeners[].kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP to TCP.
    Forward,
    /// Links of the multi-path protocol.
    Relay,
}

impl Role {
    /// The word of `role`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Core => "core",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Relay => "relay",
        })
    }
}

/// What holds where a key is absent. Values are YAML, as a user would write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAbsent {
    /// Its absence is an error.
    Required,
    /// This value.
    Text(&'static str),
    /// This value, by role.
    ByRole {
        /// For an edge.
        edge: &'static str,
        /// For the core.
        core: &'static str,
    },
    /// This value, by kind of listener.
    ByKind {
        /// For `kind: forward`.
        forward: &'static str,
        /// For `kind: relay`.
        relay: &'static str,
    },
    /// Found out at start; the text says how.
    Computed(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The path, with `[]` for the items of a list: `listeners[].limits.connections`.
    pub path: &'static str,
    /// The one role that has it; `None` for both.
    pub role: Option<Role>,
    /// The one kind of listener that has it; `None` for both.
    pub kind: Option<Kind>,
    /// What holds without it.
    pub default: WhenAbsent,
    /// What it takes.
    pub form: &'static str,
    /// A value, for errors and examples.
    pub example: &'static str,
    /// One sentence.
    pub meaning: &'static str,
}

impl Key {
    /// The default as YAML, for this role and kind. `None` where there is none to write.
    #[must_use]
    pub fn default_for(&self, role: Role, kind: Option<Kind>) -> Option<&'static str> {
        match (self.default, role, kind) {
            (Text(text), ..) => Some(text),
            (ByRole { edge, .. }, Role::Edge, _) => Some(edge),
            (ByRole { core, .. }, Role::Core, _) => Some(core),
            (ByKind { relay, .. }, _, Some(Kind::Relay)) => Some(relay),
            (ByKind { forward, .. }, ..) => Some(forward),
            (Required | Computed(_), ..) => None,
        }
    }

    const fn edge(self) -> Self {
        Self { role: Some(Role::Edge), ..self }
    }

    const fn core(self) -> Self {
        Self { role: Some(Role::Core), ..self }
    }

    const fn forward(self) -> Self {
        Self { kind: Some(Kind::Forward), ..self }
    }

    pub(super) const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }
}

pub(super) const fn key(path: &'static str, form: &'static str, default: WhenAbsent, meaning: &'static str) -> Key {
    let example = if let Text(text) = default { text } else { "" };
    Key { path, role: None, kind: None, default, form, example, meaning }
}

/// Every key, in the order of the reference.
pub const KEYS: &[Key] = &[
    key("role", "`edge` or `core`", Required, "what this process is").example("edge"),
    key("name", "text", Computed("the host name"), "how this process calls itself in logs, metrics and pages")
        .example("edge-1"),
    key("workers", "1 to 1024", Computed("the number of CPUs"), "threads that carry traffic").example("4"),
    key(
        "admin.listen",
        "address with port, or `off`",
        ByRole { edge: "127.0.0.1:9162", core: "127.0.0.1:9163" },
        "where `/metrics`, `/live`, `/ready` and the [admin API](admin.md) are served; beyond loopback it takes tokens or \
         certificates of clients",
    )
    .example("127.0.0.1:9162"),
    key(
        "admin.socket",
        "path, or `off`",
        Computed("`admin.sock` in systemd's RUNTIME_DIRECTORY, elsewhere `off`"),
        "the unix socket of the same, for who may write to it: root, and the user and group of the process",
    )
    .example("/run/otproxy-edge/admin.sock"),
    key(
        "admin.token_file",
        "path",
        Computed("no token"),
        "the file of the token with which the API of `admin.listen` may be read and used to act; reread when it changes",
    )
    .example("admin.token"),
    key(
        "admin.read_token_file",
        "path",
        Computed("no token"),
        "the file of the token with which it may only be read; reread when it changes",
    )
    .example("read.token"),
    key("admin.tls.cert", "path", Required, "with `admin.tls` it is served over TLS alone: the certificate, PEM; reread when it changes")
        .example("admin.pem"),
    key("admin.tls.key", "path", Required, "the certificate's private key, PEM").example("admin.key"),
    key(
        "admin.tls.client_ca",
        "path",
        Computed("clients need no certificate"),
        "the authority that every client's certificate must come from, PEM",
    )
    .example("clients.pem"),
    key("log.format", "`auto`, `text` or `json`", Text("auto"), "`auto` is text on a terminal and JSON elsewhere"),
    key(
        "log.level",
        "`error`, `warn`, `info`, `debug` or `trace`",
        Text("info"),
        "how much is logged; each level includes those before it",
    ),
    key(
        "access_log.format",
        "`json`, `text` or `haproxy`",
        Text("json"),
        "how a line of the access log looks; `haproxy` is the `tcplog` line of HAProxy",
    ),
    key(
        "access_log.file",
        "path, `stderr` or `off`",
        Text("off"),
        "where each connection and session that ended or was refused has its line; the file may be renamed at any time",
    )
    .example("access.log"),
    key(
        "deny",
        "address, CIDR or `{ file: path }`, or a list",
        Text("[]"),
        "who is refused by all listeners, whatever `allow` says; the peer, and the player that its PROXY header announces",
    )
    .example("[198.51.100.0/24, { file: deny.txt }]"),
    key(
        "allow",
        "address, CIDR or `{ file: path }`, or a list",
        Computed("everybody"),
        "which players alone are let in by all listeners",
    )
    .example("[192.0.2.0/24, { file: allow.txt }]"),
    key(
        "limits.connections",
        "count, `auto` or `none`",
        ByRole { edge: "auto", core: "none" },
        "connections at once, on all listeners together; `auto` is as many as there are files and memory for",
    )
    .example("50000"),
    key(
        "limits.connections_per_address",
        "count or `none`",
        Text("none"),
        "connections at once by player address, on all listeners together; IPv6 counts by /64",
    )
    .example("40"),
    key(
        "limits.rate_per_address",
        "rate or `none`",
        Text("none"),
        "new connections by player address, on all listeners together; IPv6 counts by /64",
    )
    .example("40/10s"),
    key(
        "limits.fair_share",
        "`true` or `false`",
        Text("true"),
        "whether, where `connections` is reached, the address with the most of them gives one up for a player who has fewer",
    ),
    key(
        "limits.pressure",
        "`true` or `false`",
        Text("true"),
        "whether strangers are given less time when three quarters of `connections` are taken",
    ),
    key(
        "bans.after",
        "rate or `none`",
        Text("none"),
        "how often a player's address may break the rules; who does it more often is banned",
    )
    .example("600/60s"),
    key("bans.for", "duration", Text("10m"), "how long who breaks the rules too often is refused by all listeners"),
    key(
        "bans.exempt",
        "address or CIDR, or a list",
        Text("[]"),
        "who is never refused for a ban, beside those whose PROXY header is believed",
    )
    .example("[192.0.2.7, 10.0.0.0/8]"),
    key(
        "bans.nftables",
        "family and table, or `off`",
        Text("off"),
        "the nftables table with the sets `banned4` and `banned6`, into which bans are put too, for the kernel to drop what they send",
    )
    .example("inet otproxy"),
    key("shutdown_timeout", "duration", Text("10s"), "how long connections may go on after SIGTERM; `0s` cuts them"),
    key("listeners", "list", Required, "where connections are accepted; at least one").example("[{ name: login, .. }]"),
    key("listeners[].name", "name", Required, "the label in metrics and logs; unique").example("login"),
    key(
        "listeners[].kind",
        "`forward` or `relay`",
        Text("forward"),
        "`forward` carries TCP to a target, `relay` (core only) takes links of the multi-path protocol",
    ),
    key("listeners[].listen", "address with port, or a list", Required, "where to listen; port 0 lets the system choose; a core with a `tunnel` may leave it out")
        .example("0.0.0.0:7171"),
    key(
        "listeners[].forward_to",
        "host with port or `core/NAME`, or a list",
        Required,
        "where connections lead; `core/NAME` (edge only) is the core's listener NAME, through the tunnel; a target with a name of its \
         own, or a backup, is a mapping with the keys below",
    )
    .example("203.0.113.9:7171")
    .forward(),
    key("listeners[].forward_to[].address", "host with port or `core/NAME`", Required, "the target")
        .example("203.0.113.9:7171")
        .forward(),
    key(
        "listeners[].forward_to[].name",
        "name",
        Computed("its place in the list: `1`, `2`, .."),
        "the `target` label in metrics and logs; unique in its listener",
    )
    .example("waw")
    .forward(),
    key(
        "listeners[].forward_to[].backup",
        "`true` or `false`",
        Text("false"),
        "whether it has connections only while no other is up",
    )
    .forward(),
    key(
        "listeners[].choice",
        "`first`, `least` or `source`",
        Text("first"),
        "which target of several: the first that is up, the one with the fewest connections now, or one and the same for a player's \
         address (IPv6 by /64)",
    )
    .forward(),
    key(
        "listeners[].check",
        "`off`, `tcp`, `proxy` or `ping`",
        Text("off"),
        "how the targets are checked: `tcp` connects, `proxy` also sends a PROXY v2 header that means a check, `ping` has a relay answer",
    )
    .forward(),
    key("listeners[].inter", "duration", Text("5s"), "with `check`, from one check of a target to the next").forward(),
    key("listeners[].fall", "count", Text("3"), "with `check`, failures one after the other until a target is down").forward(),
    key("listeners[].rise", "count", Text("2"), "with `check`, checks that it must pass one after the other to be up again").forward(),
    key(
        "listeners[].resolve",
        "duration",
        Text("30s"),
        "how often the names of targets are looked up, beside the connections; `0s` looks them up for each connection",
    )
    .forward(),
    key(
        "listeners[].send_proxy",
        "`v2`, `v1` or `none`",
        Text("v2"),
        "the PROXY header that tells the target the player's address",
    )
    .forward(),
    key(
        "listeners[].status.cache",
        "duration",
        Text("5s"),
        "how long an answer to a status request is given again before the target is asked anew",
    )
    .forward(),
    key(
        "listeners[].status.stale",
        "duration",
        Text("60s"),
        "how much longer it is given while the target has no answer",
    )
    .forward(),
    key(
        "listeners[].status.address",
        "host",
        Required,
        "where players connect to, for the answer to show in place of what the game server says; with `status` the listener \
         answers status requests by itself",
    )
    .example("play.example")
    .forward(),
    key("listeners[].status.port", "port", Computed("as the game server says"), "the port in the answer, likewise")
        .example("7171")
        .forward(),
    key(
        "listeners[].accept_proxy",
        "`required`, `optional` or `none`",
        ByRole { edge: "none", core: "required" },
        "whether the peer announces the player's address in a PROXY header",
    )
    .example("required"),
    key(
        "listeners[].trusted_peers",
        "address or CIDR, or a list",
        Computed("on an edge none, on the core the addresses of `edges`"),
        "whose PROXY header is believed; with `accept_proxy: required` nobody else may connect",
    )
    .example("10.0.0.0/8"),
    key(
        "listeners[].expect",
        "`any`, `links`, `login` or `status`",
        Text("any"),
        "how connections begin; nothing is connected to before they do",
    )
    .forward(),
    key(
        "listeners[].deny",
        "address, CIDR or `{ file: path }`, or a list",
        Text("[]"),
        "who is refused by this listener, whatever `allow` says; the peer, and the player that its PROXY header announces",
    )
    .example("[198.51.100.0/24, { file: deny.txt }]"),
    key(
        "listeners[].allow",
        "address, CIDR or `{ file: path }`, or a list",
        Computed("everybody"),
        "which players alone are let in by this listener",
    )
    .example("[192.0.2.0/24, { file: allow.txt }]"),
    key("listeners[].limits.connections", "count or `none`", Text("none"), "connections at once, on this listener")
        .example("10000"),
    key(
        "listeners[].limits.connections_per_address",
        "count or `none`",
        Text("none"),
        "connections at once by player address, as the PROXY header tells it; IPv6 counts by /64",
    )
    .example("20"),
    key(
        "listeners[].limits.rate_per_address",
        "rate or `none`",
        Text("none"),
        "new connections by player address, as the PROXY header tells it; IPv6 counts by /64",
    )
    .example("20/10s"),
    key(
        "listeners[].limits.fair_share",
        "`true` or `false`",
        Text("true"),
        "whether, where `connections` is reached, the address with the most of them gives one up for a player who has fewer",
    ),
    key(
        "listeners[].limits.pressure",
        "`true` or `false`",
        Text("true"),
        "whether strangers are given less time when three quarters of `connections` are taken",
    ),
    key(
        "listeners[].limits.reset",
        "`true` or `false`",
        Text("false"),
        "whether a connection that is refused here is reset (RST), rather than closed (FIN)",
    ),
    key(
        "listeners[].timeouts.connect",
        "duration",
        Text("4s"),
        "to reach a target or a game server; with `status` also for the target's answer",
    ),
    key(
        "listeners[].timeouts.header",
        "duration",
        Text("5s"),
        "for a PROXY header to arrive whole; with `status` also for the first packet, as far as it takes to know it",
    ),
    key("listeners[].timeouts.first_bytes", "duration", Text("5s"), "for what `expect` says to arrive whole").forward(),
    key(
        "listeners[].timeouts.idle",
        "duration",
        ByKind { forward: "50s", relay: "10s" },
        "without a byte in either direction (`forward`), or without a whole frame (`relay`)",
    )
    .example("50s"),
    key("core.dial", "host with port", Computed("no tunnel, or `core.accept`"), "the core's `tunnel.accept`, which the edge connects to")
        .example("core.example:7100")
        .edge(),
    key(
        "core.accept",
        "address with port, or a list",
        Computed("no tunnel, or `core.dial`"),
        "where the core connects to this edge, as its `edges[].dial` says; then no file here has the core's address",
    )
    .example("0.0.0.0:7100")
    .edge(),
    key("core.tls.ca", "path", Required, "the authority that the core's certificate comes from, PEM").example("ca.pem").edge(),
    key("core.tls.cert", "path", Required, "this edge's certificate, PEM; reread when it changes").example("waw1.pem").edge(),
    key("core.tls.key", "path", Required, "the certificate's private key, PEM").example("waw1.key").edge(),
    key("core.spare", "1 to 1024", Text("8"), "connections to the core kept ready for new players; only with `core.dial`").edge(),
    key(
        "log_core_address",
        "`true` or `false`",
        Text("false"),
        "whether logs of this edge may show the address of the core that it has a tunnel to",
    )
    .edge(),
    key("tunnel.accept", "address with port, or a list", Text("[]"), "where edges connect with certificates; none where the core dials all of them")
        .example("0.0.0.0:7100")
        .core(),
    key("tunnel.tls.ca", "path", Required, "the authority that the edges' certificates come from, PEM").example("ca.pem").core(),
    key("tunnel.tls.cert", "path", Required, "the core's certificate, PEM; reread when it changes").example("core.pem").core(),
    key("tunnel.tls.key", "path", Required, "the certificate's private key, PEM").example("core.key").core(),
    key("tunnel.spare", "1 to 1024", Text("8"), "connections kept ready at each edge that the core dials").core(),
    key("edges", "list", Text("[]"), "the edges that the core knows; links of other peers carry the label `other`").core(),
    key("edges[].name", "name", Required, "the `edge` label in metrics, and the name in the edge's certificate; unique")
        .example("waw1")
        .core(),
    key("edges[].address", "address or CIDR, or a list", Required, "where this edge connects from; may be left out with a `tunnel`")
        .example("198.51.100.7")
        .core(),
    key("edges[].dial", "host with port", Computed("the edge dials"), "the edge's `core.accept`, which the core connects to")
        .example("198.51.100.7:7100")
        .core(),
    key("edges[].revoked", "`true` or `false`", Text("false"), "refuses this edge: its address, and its certificate").core(),
    key("game_servers", "list", Text("[]"), "the ports that clients may ask for; required with a `relay` listener")
        .example("[{ port: 7172, address: \"127.0.0.1:7172\" }]")
        .core(),
    key("game_servers[].port", "port", Required, "the port that clients ask for; unique").example("7172").core(),
    key("game_servers[].address", "host with port", Required, "the game server it leads to")
        .example("127.0.0.1:7172")
        .core(),
    key(
        "game_servers[].player_address",
        "`otc`, `otc_reversed`, `proxy_v2`, `proxy_v1` or `none`",
        Text("otc"),
        "how the game server is told the player's address",
    )
    .core(),
    key(
        "game_servers[].framing",
        "`auto`, `bytes` or `blocks`",
        Text("auto"),
        "what the length of a game packet counts; `auto` sees it in the first packet",
    )
    .core(),
    key(
        "game_servers[].max_packets_per_second",
        "count or `none`",
        Text("none"),
        "packets of one player to the game server; more are held back, not dropped",
    )
    .example("25")
    .core(),
    key(
        "game_servers[].connects_per_second",
        "count or `none`",
        Text("none"),
        "connects to this game server, spread evenly; for servers that block an address which connects too often",
    )
    .example("10")
    .core(),
    key(
        "game_servers[].source",
        "`default` or `loopback_per_player`",
        Text("default"),
        "`loopback_per_player` connects from an address in 127.0.0.0/8 for each player, for servers on the same host that \
         count connections by address",
    )
    .core(),
    key(
        "game_servers[].ipv6_players",
        "`pseudo_ipv4` or `refuse`",
        Text("pseudo_ipv4"),
        "players without an IPv4 address get a stable one in 240.0.0.0/4, or are refused",
    )
    .core(),
    key(
        "sessions.bind_sessions",
        "`address` or `client`",
        Text("address"),
        "what a link must share with a session to join it: client id and player address, or the client id alone",
    )
    .core(),
    key("sessions.linger", "duration", Text("30s"), "how long a session without links lives on").core(),
    key("sessions.leave_grace", "duration", Text("2s"), "how long it lives on once its last link said that it leaves")
        .core(),
    key("sessions.max_per_address", "count", Text("20"), "sessions at once of one player address").core(),
    key("sessions.max", "count", Text("20000"), "sessions at once in all").core(),
    key("sessions.max_per_link", "count", Text("16"), "sessions at once on one link").core(),
    key(
        "sessions.opens_per_address",
        "rate or `none`",
        Text("60/10s"),
        "new sessions of one player address; a link that joins a session does not count",
    )
    .core(),
    key(
        "sessions.unacked",
        "size",
        Text("4MiB"),
        "bytes kept for replay in each session; beyond it the core stops reading from the game server",
    )
    .core(),
    key(
        "sessions.reorder",
        "size",
        Text("256KiB"),
        "bytes kept ahead of their turn in each session; beyond it the session ends",
    )
    .core(),
    key(
        "sessions.pending",
        "size",
        Text("1MiB"),
        "bytes that wait for the game server in each session; beyond it the session ends",
    )
    .core(),
];

/// The key of this path.
pub(super) fn find(table: &'static [Key], path: &str) -> Option<&'static Key> {
    table.iter().find(|key| key.path == path)
}

/// The key of this path and all keys below it.
pub(super) fn at_or_below(table: &'static [Key], path: &str) -> impl Iterator<Item = &'static Key> {
    table.iter().filter(move |key| {
        key.path
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('['))
    })
}

/// The words that may follow `path` directly.
pub(super) fn below(table: &'static [Key], path: &str) -> impl Iterator<Item = &'static str> {
    table.iter().filter_map(move |key| {
        let rest = if path.is_empty() { key.path } else { key.path.strip_prefix(path)?.strip_prefix('.')? };
        rest.split(['.', '[']).next()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_key_is_there_once() {
        let paths: HashSet<_> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
    }

    #[test]
    fn what_may_follow_a_path() {
        assert_eq!(at_or_below(KEYS, "listeners[].limits").count(), 6);
        assert_eq!(at_or_below(KEYS, "listeners[].limit").count(), 0);
        assert!(below(KEYS, "").any(|word| word == "sessions"));
        let words: Vec<_> = below(KEYS, "edges[]").collect();
        assert_eq!(words, ["name", "address", "dial", "revoked"]);
    }
}
