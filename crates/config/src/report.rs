//! `report`.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::address::NETWORK;
use super::declare::section;
use super::formats::{LABEL, PATH, ROUND};
use super::listener::ListenerConfig;
use super::scope::Scope;
use super::takes::{list, some, value};

section! {
    /// `report`: the sockets of listeners, for lists of servers that count players by them.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ReportConfig {
        /// the folder of the report's files, which is made where it is not there
        dir: PathBuf = value(PATH).required("/var/lib/otproxy-edge/report"),
        /// the time from one report to the next
        every: Duration = value(ROUND).or("1m"),
        /// the listeners that are in it
        listeners: Vec<String> = some(LABEL)
            .or_else("all of kind `relay` and `forward`", Vec::new)
            .example("[links]"),
        /// addresses that are written as `BACKEND_IP` too, beside those of targets, the core and game servers
        redact: Vec<IpNet> = list(NETWORK).or("[]").example("[203.0.113.9]"),
    }
}

impl ReportConfig {
    /// Returns whether a listener is in it.
    #[must_use]
    pub fn has(&self, listener: &ListenerConfig) -> bool {
        match self.listeners.as_slice() {
            [] => !matches!(listener, ListenerConfig::Web(_)),
            names => names.contains(&listener.inbound().name),
        }
    }

    /// Reports names that are no listener's.
    pub(super) fn check_listeners(&self, root: &Scope<'_>, listeners: &[ListenerConfig]) {
        for name in &self.listeners {
            if !listeners.iter().any(|listener| listener.inbound().name == *name) {
                root.wrong("report", format!("`listeners`: `{name}` is no listener; give the `name` of one"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::parse;

    fn read(report: &str) -> Result<super::ReportConfig, String> {
        let text = format!(
            "role: edge\nlisteners:\n- {{ name: a, listen: '127.0.0.1:0', forward_to: 'b:1' }}\n\
             - {{ name: w, kind: web, listen: '127.0.0.1:0', forward_to: 'b:1' }}\n{report}\n"
        );
        let config = parse("edge.yaml", &text).map_err(|errors| errors.to_string())?;
        let report = config.process().report.clone().expect("it has one");
        let named: Vec<_> = config.listeners().iter().filter(|one| report.has(one)).collect();
        assert_eq!(named.len(), 1, "{named:?}");
        Ok(report)
    }

    #[test]
    fn a_report_has_the_listeners_of_players() {
        let report = read("report: { dir: /tmp/report, redact: ['::ffff:203.0.113.9', 2001:db8::/32] }").unwrap();
        assert_eq!((report.every, report.redact.len()), (Duration::from_secs(60), 2));
        assert_eq!(read("report: { dir: /tmp/report, listeners: [w], every: 10s }").unwrap().listeners, ["w"]);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (report, says) in [
            ("report: { dir: x, listeners: [b] }", "`b` is no listener"),
            ("report: { every: 1m }", "dir"),
            ("report: { dir: x, every: 1ms }", "give at least `1s`"),
            ("report: { dir: x, listeners: [] }", "is an empty list"),
        ] {
            let error = read(report).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
