//! Open files: the limit of the process, and the number that its configured limits can lead to.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use otproxy_config::{Config, ListenerConfig};
use otproxy_net::descriptors::HELD_BACK;

/// Descriptors for everything that is no connection, listeners, runtimes, scrapes and logs, and those that are held back.
const SPARE: u64 = 64 + HELD_BACK;

/// Raises the soft limit of open files to the hard one. Returns the resulting limit, in files; `u64::MAX` for none.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.unwrap_or(u64::MAX)
}

/// Returns the number of open files with all limits of a configuration reached. Unlimited things are not counted.
pub fn files_needed(config: &Config) -> u64 {
    let sessions = match config {
        Config::Edge(_) => 0,
        Config::Core(core) => count(Some(core.sessions.max)),
    };
    // For each listener, the files of one connection and the limit of its connections. A forwarded one has two ends.
    let of = |listener: &ListenerConfig| {
        let files = if listener.leading().is_some() { 2 } else { 1 };
        (files, listener.inbound().limits.connections)
    };
    let listeners: Vec<_> = config.listeners().iter().map(of).collect();
    at_most(config.process().limits.connections, &listeners).saturating_add(sessions).saturating_add(SPARE)
}

/// Returns the files of all connections to `listeners`, of which the process may have `process`.
fn at_most(process: Option<usize>, listeners: &[(u64, Option<usize>)]) -> u64 {
    let of_each = listeners.iter().map(|(files, limit)| files.saturating_mul(count(*limit)));
    let of_each = of_each.fold(0, u64::saturating_add);
    let Some(process) = process else { return of_each };
    let most = listeners.iter().map(|(files, _)| *files).max().unwrap_or(0);
    let of_all = count(Some(process)).saturating_mul(most);
    if listeners.iter().all(|(_, limit)| limit.is_some()) { of_each.min(of_all) } else { of_all }
}

fn count(limit: Option<usize>) -> u64 {
    limit.map_or(0, |limit| u64::try_from(limit).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use otproxy_config::parse;

    fn needed(text: &str) -> u64 {
        files_needed(&parse("test.yaml", text).unwrap_or_else(|errors| panic!("{errors}")))
    }

    #[test]
    fn an_edge_needs_two_for_each_connection() {
        let text = "role: edge\nlisteners:\n\
            - { name: a, listen: '127.0.0.1:1', forward_to: '127.0.0.1:2', limits: { connections: 100 } }\n\
            - { name: b, listen: '127.0.0.1:3', forward_to: '127.0.0.1:2', limits: { connections: 10 } }\n\
            - { name: c, listen: '127.0.0.1:4', forward_to: '127.0.0.1:2' }\n";
        assert_eq!(needed(&format!("{text}limits: {{ connections: none }}\n")), 2 * 110 + SPARE);
        // The third listener may have all of them.
        assert_eq!(needed(&format!("{text}limits: {{ connections: 50 }}\n")), 2 * 50 + SPARE);
        assert_eq!(needed(&format!("{text}limits: {{ connections: 500 }}\n")), 2 * 500 + SPARE);
    }

    #[test]
    fn an_edge_may_have_no_more_than_it_has_files_for() {
        let text = "role: edge\nlisteners: [{ name: a, listen: '127.0.0.1:1', forward_to: '127.0.0.1:2' }]\n";
        let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert!((SPARE + 1..=allowed).contains(&needed(text)), "{} of {allowed}", needed(text));
    }

    #[test]
    fn a_core_needs_one_for_each_link_and_session_and_two_for_each_forward() {
        let text = "role: core\nsessions: { max: 50 }\nedges:\n- { name: e, address: 127.0.0.1 }\nlisteners:\n\
            - { name: a, kind: relay, listen: '127.0.0.1:1', limits: { connections: 1000 } }\n\
            - { name: b, listen: '127.0.0.1:3', forward_to: '127.0.0.1:2', limits: { connections: 10 } }\n\
            game_servers:\n- { port: 7172, address: '127.0.0.1:7172' }\n";
        assert_eq!(needed(text), 1000 + 2 * 10 + 50 + SPARE);
        assert_eq!(needed(&format!("{text}limits: {{ connections: 5000 }}\n")), 1000 + 2 * 10 + 50 + SPARE);
        assert_eq!(needed(&format!("{text}limits: {{ connections: 7 }}\n")), 2 * 7 + 50 + SPARE);
    }

    #[test]
    fn raising_twice_changes_nothing() {
        let limit = raise_file_limit();
        assert!(limit > 0);
        assert_eq!(raise_file_limit(), limit);
    }
}
