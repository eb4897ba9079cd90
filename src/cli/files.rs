//! Open files: how many the process may have, and how many its configured limits can lead to.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, Forward};

/// Descriptors for all that is not a connection: listeners, runtimes, scrapes, logs.
const SPARE: u64 = 64;

/// Raises the soft limit of open files to the hard one. Gives the limit that holds then, in files;
/// `u64::MAX` for none.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.unwrap_or(u64::MAX)
}

/// Open files where all limits of a configuration are reached. What has no limit is not counted.
pub fn files_needed(config: &Config) -> u64 {
    let connections = match config {
        Config::Edge(edge) => forwards(&edge.listeners),
        Config::Core(core) => {
            let links =
                core.relays.iter().map(|relay| count(relay.inbound.max_connections)).fold(0, u64::saturating_add);
            let sessions = count(Some(core.sessions.max));
            links.saturating_add(forwards(&core.forwards)).saturating_add(sessions)
        }
    };
    connections.saturating_add(SPARE)
}

/// A forwarded connection has two ends.
fn forwards(listeners: &[Forward]) -> u64 {
    let limits = listeners.iter().map(|forward| count(forward.inbound.max_connections));
    limits.fold(0, u64::saturating_add).saturating_mul(2)
}

fn count(limit: Option<usize>) -> u64 {
    limit.map_or(0, |limit| u64::try_from(limit).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn needed(text: &str) -> u64 {
        files_needed(&parse("test.yaml", text).unwrap_or_else(|errors| panic!("{errors}")))
    }

    #[test]
    fn an_edge_needs_two_for_each_connection() {
        let text = "role: edge\nlisteners:\n\
            - { name: a, listen: '127.0.0.1:1', forward_to: '127.0.0.1:2', limits: { connections: 100 } }\n\
            - { name: b, listen: '127.0.0.1:3', forward_to: '127.0.0.1:2', limits: { connections: 10 } }\n\
            - { name: c, listen: '127.0.0.1:4', forward_to: '127.0.0.1:2' }\n";
        assert_eq!(needed(text), 2 * 110 + 64);
    }

    #[test]
    fn a_core_needs_one_for_each_link_and_session_and_two_for_each_forward() {
        let text = "role: core\nsessions: { max: 50 }\nedges:\n- { name: e, address: 127.0.0.1 }\nlisteners:\n\
            - { name: a, kind: relay, listen: '127.0.0.1:1', limits: { connections: 1000 } }\n\
            - { name: b, listen: '127.0.0.1:3', forward_to: '127.0.0.1:2', limits: { connections: 10 } }\n\
            game_servers:\n- { port: 7172, address: '127.0.0.1:7172' }\n";
        assert_eq!(needed(text), 1000 + 2 * 10 + 50 + 64);
    }

    #[test]
    fn raising_twice_changes_nothing() {
        let limit = raise_file_limit();
        assert!(limit > 0);
        assert_eq!(raise_file_limit(), limit);
    }
}
