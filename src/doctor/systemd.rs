//! The systemd unit of the role: whether it runs, stays up, and comes back after a restart of the host.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::{DoctorCheck, tool};
use crate::admission::bans::NFT_UNIT_LINES;

/// The properties that are asked for.
const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,UnitFileState,NRestarts,Result,ExecMainStatus,\
    ActiveEnterTimestampMonotonic,MainPID,AmbientCapabilities,CapabilityBoundingSet,PrivateUsers,RestrictAddressFamilies";
/// The lines that the shipped units lack for a process that connects from players' addresses.
const PLAYER_SOURCE_LINES: [&str; 3] =
    ["AmbientCapabilities=CAP_NET_RAW", "CapabilityBoundingSet=CAP_NET_RAW", "PrivateUsers=no"];
/// Restarts by systemd, one soon after the other, from which on a unit does not stay up.
const RESTARTS: u32 = 3;
/// The time up after which a unit that was restarted counts as staying up.
const STAYS: Duration = Duration::from_secs(10 * 60);
/// The time up after which its restarts are history.
const HISTORY: Duration = Duration::from_secs(60 * 60);

/// A unit, as systemd tells of it.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// Its name, without `.service`.
    name: String,
    properties: BTreeMap<String, String>,
    /// The time since it became active.
    up: Duration,
    /// True if another program has taken the place of the one that it runs.
    is_outdated: bool,
}

impl Unit {
    /// Asks systemd; `None` if it does not run this host.
    pub async fn ask(name: &str) -> Option<Self> {
        let said = tool::ask("systemctl", &["show", PROPERTIES, &format!("{name}.service")]).await?;
        if !said.success {
            return None;
        }
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
        let mut unit = Self::parse(name, &said.stdout, Duration::try_from_secs_f64(uptime).unwrap_or_default());
        // None but root and its own user may read it.
        let program = fs::read_link(format!("/proc/{}/exe", unit.get("MainPID")));
        unit.is_outdated = program.is_ok_and(|path| path.as_os_str().as_encoded_bytes().ends_with(b" (deleted)"));
        Some(unit)
    }

    /// Parses lines of `KEY=VALUE`. `uptime` is the host's.
    fn parse(name: &str, text: &str, uptime: Duration) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let properties: BTreeMap<_, _> = lines.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect();
        let since = properties.get("ActiveEnterTimestampMonotonic").and_then(|micros| micros.parse().ok());
        let up = uptime.saturating_sub(Duration::from_micros(since.unwrap_or_default()));
        Self { name: name.to_owned(), properties, up, is_outdated: false }
    }

    /// Returns a property; empty if systemd did not tell it.
    fn get(&self, key: &str) -> &str {
        self.properties.get(key).map_or("", String::as_str)
    }

    /// Returns its name, without `.service`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether systemd has read such a unit.
    pub fn is_there(&self) -> bool {
        self.get("LoadState") == "loaded"
    }

    /// Returns the lines that its `[Service]` lacks for a process that runs nft.
    pub fn lacks_for_nft(&self) -> Vec<&'static str> {
        let families = self.get("RestrictAddressFamilies");
        let netlink = if families.starts_with('~') || families.is_empty() {
            !families.contains("AF_NETLINK")
        } else {
            families.contains("AF_NETLINK")
        };
        // In the order of the lines.
        let there = [
            self.has("AmbientCapabilities", "cap_net_admin"),
            self.has("CapabilityBoundingSet", "cap_net_admin"),
            self.get("PrivateUsers") != "yes",
            netlink,
        ];
        NFT_UNIT_LINES.into_iter().zip(there).filter(|(_, there)| !there).map(|(line, _)| line).collect()
    }

    /// Returns the lines that its `[Service]` lacks for a process that connects from players' addresses.
    pub fn lacks_for_player_sources(&self) -> Vec<&'static str> {
        let there = [
            self.has("AmbientCapabilities", "cap_net_raw"),
            self.has("CapabilityBoundingSet", "cap_net_raw"),
            self.get("PrivateUsers") != "yes",
        ];
        PLAYER_SOURCE_LINES.into_iter().zip(there).filter(|(_, there)| !there).map(|(line, _)| line).collect()
    }

    /// Returns whether a property is a list with this word.
    fn has(&self, key: &str, word: &str) -> bool {
        self.get(key).split_whitespace().any(|has| has.eq_ignore_ascii_case(word))
    }

    /// Judges it. `answers`: the role's otproxy runs here, whatever started it.
    pub fn examine(&self, answers: bool) -> DoctorCheck {
        let name = &self.name;
        let what = ("unit", "");
        let restarts: u32 = self.get("NRestarts").parse().unwrap_or_default();
        match (self.get("LoadState"), self.get("ActiveState"), self.get("SubState")) {
            ("not-found", ..) if answers => {
                DoctorCheck::ok("unit", "", format!("there is no {name}.service here: something else started otproxy"))
            }
            ("not-found", ..) => DoctorCheck::warn(
                what,
                format!("there is no {name}.service here, so nothing starts otproxy with this host"),
                "`otproxy init` makes it, and install.sh puts it in its place; without systemd, see that otproxy is started",
            ),
            ("masked", ..) => DoctorCheck::fail(
                what,
                format!("{name}.service is masked: it cannot start"),
                format!("systemctl unmask {name}; systemctl enable --now {name}"),
            ),
            (load, ..) if load != "loaded" => DoctorCheck::fail(
                what,
                format!("systemd cannot use {name}.service ({load})"),
                format!("see `systemctl status {name}`, and correct the unit"),
            ),
            (_, "failed", _) => {
                DoctorCheck::fail(what, format!("{name} has failed: {}", self.end()), self.end_remedy())
            }
            (_, "activating", sub) if sub.starts_with("auto-restart") || restarts >= RESTARTS => DoctorCheck::fail(
                what,
                format!("{name} does not stay up: {}, and started again {restarts} times", self.end()),
                self.end_remedy(),
            ),
            (_, "active" | "reloading" | "refreshing", _) => self.active(restarts),
            (_, "inactive", _) if self.is_enabled() => DoctorCheck::fail(
                what,
                format!("{name} is enabled, and does not run"),
                format!("systemctl start {name}; and see `journalctl -u {name}` for why it was stopped"),
            ),
            (_, "inactive", _) if answers => {
                DoctorCheck::ok("unit", "", format!("{name}.service is not what runs here"))
            }
            (_, "inactive", _) => DoctorCheck::warn(
                what,
                format!("{name} neither runs nor starts with this host"),
                format!("systemctl enable --now {name}"),
            ),
            (_, state, _) => DoctorCheck::warn(
                what,
                format!("{name} is {state}"),
                format!("try again in a moment; or see `systemctl status {name}`"),
            ),
        }
    }

    fn active(&self, restarts: u32) -> DoctorCheck {
        let (name, what) = (&self.name, ("unit", ""));
        let up = humantime::format_duration(Duration::from_secs(self.up.as_secs()));
        let times = if restarts == 1 { "once".to_owned() } else { format!("{restarts} times") };
        let log = format!("see why in `journalctl -u {name} -p warning`");
        if restarts >= RESTARTS && self.up < STAYS {
            let message = format!("{name} does not stay up: systemd has restarted it {times}, the last time {up} ago");
            return DoctorCheck::fail(what, message, log);
        }
        if restarts > 0 && self.up < HISTORY {
            let message = format!("systemd has restarted {name} {times}, the last time {up} ago");
            return DoctorCheck::warn(what, message, log);
        }
        if !self.is_enabled() {
            let message = format!("{name} runs, and does not start with this host");
            return DoctorCheck::warn(what, message, format!("systemctl enable {name}"));
        }
        if self.is_outdated {
            let when = if name.ends_with("core") {
                "at a server save, as it ends every game"
            } else {
                "when your other edges are up"
            };
            let message = format!("{name} still runs the program from before an upgrade");
            return DoctorCheck::warn(what, message, format!("systemctl restart {name}, {when}"));
        }
        DoctorCheck::ok("unit", "", format!("{name} has been up for {up}, and starts with this host"))
    }

    fn is_enabled(&self) -> bool {
        self.get("UnitFileState").starts_with("enabled")
    }

    /// Returns the way in which its process ended the last time.
    fn end(&self) -> String {
        match (self.get("Result"), self.get("ExecMainStatus")) {
            ("oom-kill", _) => "the kernel ended it for want of memory".to_owned(),
            ("exit-code", status) => format!("it ended with exit code {status}"),
            (result, _) => format!("it ended ({result})"),
        }
    }

    fn end_remedy(&self) -> String {
        let name = &self.name;
        let role = name.strip_prefix("otproxy-").unwrap_or(name);
        match (self.get("Result"), self.get("ExecMainStatus")) {
            ("oom-kill", _) => {
                "give this host or unit more memory, or lower `limits.connections` and `sessions.memory`".to_owned()
            }
            ("exit-code", "78") => format!("the file is wrong: otproxy check -c /etc/otproxy/{role}.yaml"),
            ("exit-code", "2") => {
                format!("its command line or environment is wrong: see `systemctl cat {name}` and `journalctl -u {name}`")
            }
            ("exit-code", "203") => {
                "the program cannot be run: otproxy must be in /usr/local/bin or /usr/bin, for this machine, with mode 755".to_owned()
            }
            ("exit-code", "217") => {
                "its user is not there: useradd --system --user-group --no-create-home --shell /usr/sbin/nologin otproxy"
                    .to_owned()
            }
            _ => format!("its log says why: journalctl -u {name} -n 50"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckStatus;

    fn unit(changes: &[(&str, &str)]) -> Unit {
        let text = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNRestarts=0\nResult=success\n\
            ExecMainStatus=0\nActiveEnterTimestampMonotonic=1000000000\n";
        let mut unit = Unit::parse("otproxy-edge", text, Duration::from_secs(100_000));
        for (key, value) in changes {
            unit.properties.insert((*key).to_owned(), (*value).to_owned());
        }
        unit
    }

    #[track_caller]
    fn says(unit: &Unit, answers: bool, status: CheckStatus, words: &str) {
        let check = unit.examine(answers);
        let said = format!("{}; {}", check.message, check.remedy.as_deref().unwrap_or_default());
        assert!(check.status == status && said.contains(words), "{check:?}");
        assert_eq!(check.remedy.is_some(), status != CheckStatus::Ok);
    }

    #[test]
    fn a_unit_that_runs_and_stays_up_is_well() {
        use CheckStatus::{Fail, Ok, Warn};
        says(&unit(&[]), true, Ok, "has been up for 1day 3h 30m, and starts with this host");
        says(&unit(&[("UnitFileState", "disabled")]), true, Warn, "systemctl enable otproxy-edge");
        says(&unit(&[("NRestarts", "7")]), true, Ok, "has been up");
        let mut old = unit(&[]);
        old.is_outdated = true;
        says(&old, true, Warn, "systemctl restart otproxy-edge, when your other edges are up");
        let mut young = unit(&[("NRestarts", "2")]);
        young.up = Duration::from_secs(50);
        says(&young, true, Warn, "restarted otproxy-edge 2 times, the last time 50s ago");
        young.properties.insert("NRestarts".to_owned(), "3".to_owned());
        says(&young, true, Fail, "does not stay up");
    }

    #[test]
    fn a_unit_that_is_dead_or_does_not_stay_up_fails() {
        use CheckStatus::{Fail, Ok, Warn};
        let looping = |status| {
            unit(&[
                ("ActiveState", "activating"),
                ("SubState", "auto-restart"),
                ("NRestarts", "41"),
                ("Result", "exit-code"),
                ("ExecMainStatus", status),
            ])
        };
        says(&looping("1"), false, Fail, "does not stay up: it ended with exit code 1, and started again 41 times");
        says(&looping("203"), false, Fail, "mode 755");
        let failed =
            |result, status| unit(&[("ActiveState", "failed"), ("Result", result), ("ExecMainStatus", status)]);
        says(&failed("exit-code", "78"), false, Fail, "otproxy check -c /etc/otproxy/edge.yaml");
        says(&failed("exit-code", "217"), false, Fail, "useradd ");
        says(&failed("oom-kill", "9"), false, Fail, "sessions.memory");
        says(&failed("signal", "9"), false, Fail, "journalctl -u otproxy-edge");
        let inactive = [("ActiveState", "inactive"), ("SubState", "dead")];
        says(&unit(&inactive), false, Fail, "systemctl start otproxy-edge");
        let disabled = unit(&[&inactive[..], &[("UnitFileState", "disabled")]].concat());
        says(&disabled, false, Warn, "systemctl enable --now otproxy-edge");
        says(&disabled, true, Ok, "is not what runs here");
        says(&unit(&[("LoadState", "masked"), ("ActiveState", "inactive")]), false, Fail, "systemctl unmask");
        says(&unit(&[("LoadState", "bad-setting")]), false, Fail, "correct the unit");
        says(
            &unit(&[("LoadState", "not-found"), ("ActiveState", "inactive")]),
            true,
            Ok,
            "there is no otproxy-edge.service",
        );
        says(&unit(&[("LoadState", "not-found"), ("ActiveState", "inactive")]), false, Warn, "install.sh");
    }

    #[test]
    fn the_lines_that_nft_takes_are_named_one_by_one() {
        let hardened = unit(&[
            ("AmbientCapabilities", ""),
            ("CapabilityBoundingSet", ""),
            ("PrivateUsers", "yes"),
            ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ]);
        assert_eq!(hardened.lacks_for_nft().len(), 4);
        let with = unit(&[
            ("AmbientCapabilities", "cap_net_admin"),
            ("CapabilityBoundingSet", "cap_net_admin"),
            ("PrivateUsers", "no"),
            ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_NETLINK AF_UNIX"),
        ]);
        assert_eq!(with.lacks_for_nft(), [""; 0]);
        let without_netlink = unit(&[
            ("AmbientCapabilities", "cap_net_admin"),
            ("CapabilityBoundingSet", "cap_net_admin"),
            ("RestrictAddressFamilies", "AF_INET"),
        ]);
        assert_eq!(without_netlink.lacks_for_nft(), ["RestrictAddressFamilies=AF_NETLINK"]);
    }

    #[test]
    fn the_lines_that_players_addresses_take_are_named_and_are_those_of_the_drop_in() {
        let drop_in = include_str!("../../systemd/source-player.conf");
        assert!(PLAYER_SOURCE_LINES.iter().all(|line| drop_in.lines().any(|there| there == *line)), "{drop_in}");
        let hardened = [("AmbientCapabilities", ""), ("CapabilityBoundingSet", ""), ("PrivateUsers", "yes")];
        assert_eq!(unit(&hardened).lacks_for_player_sources(), PLAYER_SOURCE_LINES);
        let with = [
            ("AmbientCapabilities", "cap_net_raw"),
            ("CapabilityBoundingSet", "cap_net_admin cap_net_raw"),
            ("PrivateUsers", "no"),
        ];
        assert_eq!(unit(&with).lacks_for_player_sources(), [""; 0]);
        assert_eq!(unit(&[with[0], with[1], ("PrivateUsers", "yes")]).lacks_for_player_sources(), ["PrivateUsers=no"]);
    }
}
