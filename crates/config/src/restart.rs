//! The keys that a running process cannot change.

use std::sync::LazyLock;

use super::declare::Section as _;
use super::file::{Config, CoreConfig, EdgeConfig};
use super::process::ProcessConfig;

/// The keys that take a restart, as they stand in the file.
pub static NEEDS_RESTART: LazyLock<Vec<String>> = LazyLock::new(|| {
    let sections = [ProcessConfig::restart_keys(), EdgeConfig::restart_keys(), CoreConfig::restart_keys()];
    std::iter::once(ROLE.to_owned()).chain(sections.into_iter().flatten()).collect()
});

/// With another role, all the rest is another's.
const ROLE: &str = "role";

impl Config {
    /// Returns the keys in which `new` differs and which are among [`NEEDS_RESTART`]. All else can change while the process runs.
    #[must_use]
    pub fn needs_restart_for(&self, new: &Self) -> Vec<String> {
        let mut keys = self.process().changed(new.process());
        match (self, new) {
            (Self::Edge(before), Self::Edge(after)) => keys.extend(before.changed(after)),
            (Self::Core(before), Self::Core(after)) => keys.extend(before.changed(after)),
            _ => return vec![ROLE.to_owned()],
        }
        keys
    }

    /// Returns the same with what takes a restart as in `started`: what a process then goes by.
    #[must_use]
    pub fn as_far_as(mut self, started: &Self) -> Self {
        match (&mut self, started) {
            (Self::Edge(edge), Self::Edge(started)) => {
                edge.process.keep(&started.process);
                edge.keep(started);
            }
            (Self::Core(core), Self::Core(started)) => {
                core.process.keep(&started.process);
                core.keep(started);
            }
            _ => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::NEEDS_RESTART;

    fn needs_restart_for(before: &str, after: &str) -> Vec<String> {
        let parsed = |text: &str| parse("test.yaml", text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let (before, after) = (parsed(before), parsed(after));
        let keys = before.needs_restart_for(&after);
        if before.role() == after.role() {
            let used = after.clone().as_far_as(&before);
            assert_eq!((before.needs_restart_for(&used), used == after), (Vec::new(), keys.is_empty()), "{keys:?}");
        }
        assert!(keys.iter().all(|key| NEEDS_RESTART.contains(key)), "{keys:?}");
        keys
    }

    #[test]
    fn the_documented_keys_are_these() {
        let documented = include_str!("../../../docs/configuration.md");
        let all: Vec<_> = NEEDS_RESTART.iter().map(|key| format!("`{key}`")).collect();
        assert!(documented.contains(&format!("\n| {} |", all.join(", "))), "{}", all.join(", "));
    }

    #[test]
    fn each_key_that_takes_a_restart_is_named_and_no_other() {
        const TLS: &str = "tls: { ca: ca.pem, cert: a.pem, key: a.key }";
        let edge = |keys: &str, core: &str, listener: &str| {
            format!("role: edge\n{keys}\ncore: {{ {TLS}, {core} }}\nlisteners: [{{ {listener} }}]\n")
        };
        let login = "name: login, listen: '127.0.0.1:1', forward_to: '127.0.0.1:2'";
        let plain = edge("name: a", "dial: 'a:1'", login);
        for (keys, core, listener, expected) in [
            ("name: b", "dial: 'a:1'", login, &["name"][..]),
            ("name: a\nworkers: 9", "dial: 'a:1'", login, &["workers"]),
            ("name: a\nadmin: { listen: '127.0.0.1:9' }", "dial: 'a:1'", login, &["admin.listen"]),
            (
                "name: a\nadmin: { socket: a.sock, token_file: t, read_token_file: r, tls: { cert: c, key: k } }",
                "dial: 'a:1'",
                login,
                &["admin.socket", "admin.token_file", "admin.read_token_file", "admin.tls"],
            ),
            ("name: a\nbans: { nftables: inet otproxy }", "dial: 'a:1'", login, &["bans.nftables"]),
            ("name: a\nbans: { after: 9/60s }", "dial: 'a:1'", login, &[]),
            ("name: a\nadmin: { socket: /run/a.sock }", "dial: 'a:1'", login, &["admin.socket"]),
            ("name: a\nlog: { format: json }", "dial: 'a:1'", login, &["log.format"]),
            ("name: a\naccess_log: { file: stderr }", "dial: 'a:1'", login, &["access_log"]),
            ("name: a\nlog_core_address: true", "dial: 'a:1'", login, &["log_core_address"]),
            ("name: a", "dial: 'a:2'", login, &["core.dial"]),
            ("name: a", "accept: '127.0.0.1:3'", login, &["core.dial", "core.accept"]),
            ("name: a\nlog: { level: debug }\nshutdown_timeout: 1s\ndeny: [192.0.2.1]", "dial: 'a:1'", login, &[]),
            (
                "name: a\nlimits: { connections: 9 }",
                "dial: 'a:1'",
                "name: b, listen: '127.0.0.1:3', forward_to: core/b",
                &[],
            ),
        ] {
            assert_eq!(needs_restart_for(&plain, &edge(keys, core, listener)), expected, "{keys} {core}");
        }
        let without = format!("role: edge\nname: a\nlisteners: [{{ {login} }}]\n");
        assert_eq!(needs_restart_for(&plain, &without), ["core"]);
        assert_eq!(needs_restart_for(&without, &without), [""; 0]);

        let core = |tunnel: &str, more: &str| {
            format!(
                "role: core\nname: a\nedges: [{{ name: waw1 }}]\ntunnel: {{ {TLS}, {tunnel} }}\nlisteners: [{{ name: login, forward_to: '127.0.0.1:2' }}]\n{more}\n"
            )
        };
        let plain = core("accept: '127.0.0.1:3'", "");
        assert_eq!(needs_restart_for(&plain, &core("accept: '127.0.0.1:4'", "")), ["tunnel.accept"]);
        let more = "sessions: { max: 9 }\ngame_servers: [{ port: 7172, address: '127.0.0.1:9' }]";
        assert_eq!(needs_restart_for(&plain, &core("accept: '127.0.0.1:3'", more)), [""; 0]);
        assert_eq!(needs_restart_for(&plain, &without), ["role"]);
    }
}
