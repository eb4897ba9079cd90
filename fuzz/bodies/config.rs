//! The configuration's reader: any text is a configuration, or errors with places in the text.

use otproxy_config::{Config, ListenerConfig, ListenerType, MAX_FILE_LEN, parse};

/// Characters of one error's message: a line to be read by a person.
const LONGEST_MESSAGE: usize = 2000;
/// Errors that are kept of one file.
const MOST_ERRORS: usize = 100;

/// Parses a file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match parse("file.yaml", text) {
        Ok(config) => check_config(&config),
        Err(errors) => {
            let lines: Vec<_> = errors.iter().collect();
            assert!((1..=MOST_ERRORS).contains(&lines.len()), "{} errors", lines.len());
            assert!(lines.is_sorted_by_key(|error| error.location), "{errors}");
            for error in lines {
                assert!(error.message.chars().count() <= LONGEST_MESSAGE, "{error:?}");
                assert!(!error.message.is_empty());
                let Some(at) = error.location else {
                    assert!(text.len() as u64 > MAX_FILE_LEN, "an error without a place: {errors}");
                    continue;
                };
                assert!(is_in(text, at.line, at.column), "{}:{} is not in the file: {errors}", at.line, at.column);
            }
            assert!(errors.to_string().lines().all(|line| line.starts_with("file.yaml:")), "{errors}");
        }
    }
}

/// Returns whether there is such a place, which may be just after the last character of a line.
fn is_in(text: &str, line: usize, column: usize) -> bool {
    // As YAML has it: all of these end a line.
    let text = text.replace("\r\n", "\n");
    let mut lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
    let Some(line) = line.checked_sub(1).and_then(|index| lines.nth(index)) else { return false };
    (1..=line.chars().count() + 1).contains(&column)
}

/// Checks the promises of a checked configuration.
fn check_config(config: &Config) {
    assert!(!config.summary().is_empty());
    let process = match config {
        Config::Edge(edge) => {
            assert!(!edge.listeners.is_empty());
            &edge.process
        }
        Config::Core(core) => {
            assert!(!core.listeners.is_empty());
            let relay = core.listeners.iter().any(|listener| listener.inbound().kind == ListenerType::Relay);
            assert!(!relay || !core.game_servers.is_empty());
            assert!(core.game_servers.iter().all(|server| server.port != 0 && server.address.port != 0));
            &core.process
        }
    };
    assert!(!process.name.is_empty());
    let inbounds: Vec<_> = config.listeners().iter().map(ListenerConfig::inbound).collect();
    for (index, inbound) in inbounds.iter().enumerate() {
        let through_tunnel = matches!(config, Config::Core(core) if core.tunnel.is_some());
        assert!(through_tunnel || !inbound.listen.is_empty());
        assert!(!inbound.name.is_empty());
        assert!(!inbound.timeouts.idle.is_zero() && !inbound.timeouts.header.is_zero());
        assert!(!inbound.timeouts.first_bytes.is_zero());
        assert!(inbounds[..index].iter().all(|other| other.name != inbound.name), "two of {}", inbound.name);
    }
}
