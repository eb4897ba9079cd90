//! `listeners[].report`: the process's own report, over HTTP.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::address::NETWORK;
use super::declare::{Read, section};
use super::formats::SECRET;
use super::listener::ListenerConfig;
use super::mapping::elsewhere;
use super::report::ReportConfig;
use super::scope::Scope;
use super::takes::{some, value};

/// The beginning of the paths of a report's files; the name of one follows.
pub const REPORT_PATH: &str = "/report/";

section! {
    /// `listeners[].report`
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct WebReport from WebReportKeys {
        /// with `report` the files of this process's own `report` are at `/report/`: the addresses that may read them
        allow: Vec<IpNet> = some(NETWORK).or_else("all addresses", Vec::new).example("[198.51.100.0/24]"),
        /// the file of a token that whoever reads them must send, as `Authorization: Bearer TOKEN`; beside `allow` both must be right
        token_file: Option<PathBuf> = value(SECRET).optional("no token").example("report.token"),
        /// The folder of the files: `report.dir`.
        dir: PathBuf = elsewhere(),
    }
}

impl Read for WebReport {
    fn read(scope: &Scope<'_>) -> Option<Self> {
        let mut keys = WebReportKeys::read(scope);
        if !scope.has("allow") && !scope.has("token_file") {
            scope.wrong_here("is for nobody; give `allow`, the addresses that may read it, or `token_file`, or both");
        }
        keys.dir = Some(PathBuf::new());
        keys.complete()
    }
}

impl WebReport {
    /// Returns whether this address is one that may read it, with the token where there is one.
    #[must_use]
    pub fn allows(&self, player: IpAddr) -> bool {
        let player = player.to_canonical();
        self.allow.is_empty() || self.allow.iter().any(|network| network.contains(&player))
    }

    /// Tells the listeners that have one where the files are.
    pub(super) fn place(report: Option<&ReportConfig>, listeners: &mut [ListenerConfig]) {
        for listener in listeners {
            if let (ListenerConfig::Web(web), Some(report)) = (listener, report)
                && let Some(own) = &mut web.report
            {
                own.dir.clone_from(&report.dir);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn read(listener: &str, more: &str) -> Result<WebReport, String> {
        let text = format!(
            "role: edge\nlisteners:\n- {{ name: w, kind: web, listen: '127.0.0.1:0', forward_to: 'b:1', {listener} }}\n{more}\n"
        );
        let config = parse("edge.yaml", &text).map_err(|errors| errors.to_string())?;
        match config.listeners() {
            [ListenerConfig::Web(web)] => Ok(web.report.clone().expect("it has one")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_and_token_say_who_may() {
        const REPORT: &str = "report: { dir: /tmp/report }";
        let both = read("report: { allow: [192.0.2.0/24, '2001:db8::7'], token_file: t }", REPORT).unwrap();
        assert_eq!((both.dir.as_path(), both.token_file.is_some()), ("/tmp/report".as_ref(), true));
        for (address, allowed) in
            [("192.0.2.7", true), ("::ffff:192.0.2.7", true), ("2001:db8::7", true), ("192.0.3.7", false)]
        {
            assert_eq!(both.allows(address.parse().unwrap()), allowed, "{address}");
        }
        let token = read("report: { token_file: t }", REPORT).unwrap();
        assert!(token.allows("203.0.113.9".parse().unwrap()), "the token decides");
        assert_eq!(read("report: { allow: 192.0.2.7 }", REPORT).unwrap().token_file, None);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        const REPORT: &str = "report: { dir: /tmp/report }";
        for (listener, more, says) in [
            ("report: { allow: 192.0.2.7 }", "", "report: leads to the files of `report`, and this file has none"),
            ("report: {}", REPORT, "is for nobody; give `allow`"),
            ("report: { allow: [] }", REPORT, "is an empty list"),
            ("report: { allow: a }", REPORT, "allow: "),
        ] {
            let error = read(listener, more).map(|report| format!("{report:?}")).expect_err(says);
            assert!(error.contains(says), "{listener}: {error}");
        }
        let core = "role: core\nreport: { dir: x }\nedges: [{ name: a, address: 192.0.2.1 }]\nlisteners: [{ name: w, kind: web, \
             listen: '127.0.0.1:0', forward_to: 'b:1', routes: { login: [/report/login] }, report: { allow: 192.0.2.7 } }]\n";
        let error = parse("core.yaml", core).unwrap_err().to_string();
        assert!(error.contains("`/report/login` in `login` is below `/report/`, which `report` takes"), "{error}");
        parse("core.yaml", &core.replace(", report: { allow: 192.0.2.7 }", "")).unwrap();
    }
}
