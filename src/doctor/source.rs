//! Connects from players' own addresses: the privilege of the service, and what leads the servers' answers back.
//!
//! Proof is a connect of the doctor's own as a player, to a listener of its own on loopback: the game server hears nothing of it.

use std::net::IpAddr;

use super::systemd::Unit;
use super::{DoctorCheck, tool};
use otproxy_net::{ConnectResult, remedy_as_player, try_as_player};

/// The check of connects from players' addresses.
const CHECK: &str = "source";

/// The rule and the route of the drop-in that `otproxy init` writes, for one family.
struct Way {
    family: &'static str,
    rule: &'static str,
    route: &'static str,
}

const WAYS: [Way; 2] = [
    Way { family: "-4", rule: "from 127.0.0.0/8 iif lo lookup 7162", route: "local 0.0.0.0/0 dev lo table 7162" },
    Way { family: "-6", rule: "from ::1 iif lo lookup 7162", route: "local ::/0 dev lo table 7162" },
];

/// Checks that servers at `loopback` can be connected to from players' addresses. `runs`: otproxy runs here now.
pub(super) async fn examine(loopback: IpAddr, unit: Option<&Unit>, runs: bool) -> Vec<DoctorCheck> {
    let subject = loopback.to_string();
    let what = (CHECK, subject.as_str());
    let unit = unit.filter(|unit| unit.is_there());
    if let Some(unit) = unit {
        let lacks = unit.lacks_for_player_sources();
        if !lacks.is_empty() {
            let name = unit.name();
            let lines: Vec<_> = lacks.iter().map(|line| format!("`{line}`")).collect();
            return vec![DoctorCheck::fail(
                what,
                format!("{name}.service may not connect from players' addresses, so nobody gets in"),
                format!(
                    "install what `otproxy init` writes; or `systemctl edit {name}`, with these lines below `[Service]`: {}; then \
                     `systemctl restart {name}`",
                    lines.join(", ")
                ),
            )];
        }
    }
    vec![match try_as_player(loopback).await {
        Ok(()) => DoctorCheck::ok(CHECK, subject, "a connect from a player's address arrives as such, and is answered"),
        Err(ConnectResult::NoPrivilege) => {
            DoctorCheck::warn(what, "only root can try to connect from players' addresses", "run this as root")
        }
        Err(ConnectResult::BadSource) => DoctorCheck::fail(
            what,
            "the kernel takes all addresses for this host's own, so nobody gets in",
            "sysctl -w net.ipv4.ip_nonlocal_bind=0",
        ),
        // The unit makes both as it starts.
        Err(ConnectResult::Timeout | ConnectResult::Unreachable) if !runs && unit.is_some() => DoctorCheck::warn(
            what,
            "nothing leads answers to players' addresses back, while otproxy does not run",
            "start it, and run this again",
        ),
        Err(ConnectResult::Timeout | ConnectResult::Unreachable) => {
            let missing = missing(loopback).await;
            DoctorCheck::fail(
                what,
                "what servers on this host answer to players' addresses does not come back, so nobody gets in",
                missing
                    .unwrap_or_else(|| "see the firewall, `nft list ruleset`: it must accept all over `lo`".to_owned()),
            )
        }
        Err(result) => {
            let message = format!("a connect from a player's address fails ({result})");
            DoctorCheck::fail(what, message, remedy_as_player(result))
        }
    }]
}

/// Returns the commands for what is missing of the rule and the route; `None` if both are there.
async fn missing(loopback: IpAddr) -> Option<String> {
    let [ipv4, ipv6] = &WAYS;
    let way = if loopback.is_ipv4() { ipv4 } else { ipv6 };
    let said = |arguments: &'static [&'static str]| async move {
        let all = [&[way.family], arguments].concat();
        tool::ask("ip", &all).await.map(|said| said.stdout).unwrap_or_default()
    };
    let mut commands = Vec::new();
    if !said(&["rule", "list"]).await.lines().any(|line| line.trim_end().ends_with(way.rule)) {
        commands.push(format!("`ip {} rule add pref 716 {}`", way.family, way.rule));
    }
    if !said(&["route", "show", "table", "7162"]).await.lines().any(|line| line.starts_with("local default dev lo")) {
        commands.push(format!("`ip {} route replace {}`", way.family, way.route));
    }
    let run = || format!("run {}; the unit that `otproxy init` writes does so when it starts", commands.join(" and "));
    (!commands.is_empty()).then(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_those_of_the_drop_in() {
        let drop_in = include_str!("../../systemd/source-player.conf");
        for Way { family, rule, route } in WAYS {
            let family = if family == "-6" { "-6 " } else { "" };
            for line in
                [format!("ip {family}rule add pref 716 {rule}\n"), format!("ip {family}route replace {route}\n")]
            {
                assert!(drop_in.contains(&line), "{line}");
            }
            assert!(drop_in.contains(&format!("ip {family}rule del pref 716 {rule}\n")));
        }
    }
}
