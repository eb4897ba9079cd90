//! The otproxy that runs here, if any, and what it reports.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use serde::de::DeserializeOwned;

use super::{ANSWER, CheckStatus, DoctorCheck, unit_name};
use crate::admin::api::{
    EdgeView, EdgesView, ListenerState, ListenersView, StatusView, TargetState, TargetView, TargetsView,
};
use crate::admin::{AdminClient, TokenPurpose, read_token};
use otproxy_config as config;
use otproxy_config::{ADMIN_SOCKET, RoleKind};

/// A running otproxy that has been queried.
#[derive(Debug, Default)]
pub(super) struct RunningProcess {
    /// `/metrics`
    pub metrics: String,
    /// Its targets; none if it did not tell.
    pub targets: Vec<TargetView>,
    /// The edges that it knows; none if it did not tell.
    pub edges: Vec<EdgeView>,
}

impl RunningProcess {
    /// Returns the sum of a metric's series that have a label of this value; 0 if there are none.
    pub fn sum(&self, name: &str, label: Option<(&str, &str)>) -> f64 {
        let label = label.map(|(key, value)| format!("{key}=\"{value}\""));
        let series = self.metrics.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (family, labels) = series.split_once('{').unwrap_or((series, ""));
            (family == name && label.as_ref().is_none_or(|label| labels.contains(label))).then_some(value)
        });
        series.filter_map(|value| value.parse::<f64>().ok()).sum()
    }

    /// Judges its targets: those that its checks count as down, and those that the operator has taken out. Without checks the
    /// last connect decides, and a trial from here knows better.
    pub fn of_targets(&self) -> Vec<DoctorCheck> {
        let mut checks = Vec::new();
        for target in &self.targets {
            let TargetView { listener, name, address, check, .. } = target;
            let mut others = self.targets.iter().filter(|other| other.listener == *listener && other.name != *name);
            let carried = others.any(|other| other.up && other.state == TargetState::Ready);
            let status = if carried { CheckStatus::Warn } else { CheckStatus::Fail };
            let what = ("target", listener.as_str());
            if target.state != TargetState::Ready {
                let message = format!("`{name}` ({address}) is `{}`: it has no new connections", target.state);
                checks.push(DoctorCheck::bad(status, what, message, format!("otproxy target {listener} {name} ready")));
            } else if let (false, Some(check)) = (target.up, check) {
                let age = humantime::format_duration(Duration::from_secs(check.age_seconds as u64));
                let result = check.result.as_str();
                let message =
                    format!("otproxy counts `{name}` ({address}) as down; the last check, {age} ago: {result}");
                let remedy = if result == "no_pong" {
                    "see that the core trusts this host (`edges` in core.yaml), and that a relay listens there"
                } else {
                    "see that it runs, and that its firewall lets this host in; `otproxy targets` shows its checks"
                };
                checks.push(DoctorCheck::bad(status, what, message, remedy));
            }
        }
        checks
    }
}

/// The way to the admin API of a configuration.
fn client(role: RoleKind, admin: &config::AdminConfig) -> Result<AdminClient, &'static str> {
    // If the file names no socket, systemd has told the process its directory, but not us.
    let unit = Path::new("/run").join(unit_name(role)).join(ADMIN_SOCKET);
    let socket: Option<PathBuf> = admin.socket.clone().or_else(|| unit.exists().then_some(unit));
    let client = match (socket, admin.listen) {
        (Some(socket), _) => return Ok(AdminClient::socket(&socket).within(ANSWER)),
        (None, None) => return Err("`admin.listen` is `off`"),
        (None, Some(_)) if admin.tls.is_some() => return Err("`admin.listen` speaks TLS"),
        (None, Some(address)) if address.port() == 0 => return Err("`admin.listen` has port 0"),
        (None, Some(address)) => AdminClient::tcp(address).within(ANSWER),
    };
    let token = admin.read_token_file.as_ref().or(admin.token_file.as_ref());
    let token =
        token.and_then(|file| Some((read_token(file, TokenPurpose::Admin).ok()?, fs::metadata(file).ok()?.uid())));
    Ok(match token {
        Some((token, owner)) => client.with_token(token, vec![owner, geteuid().as_raw()]),
        None => client,
    })
}

/// Queries the socket of the configuration, or else its address. `held`: an otproxy has one of its ports; `None` if it has none
/// to have.
pub(super) async fn examine(
    role: RoleKind,
    admin: &config::AdminConfig,
    held: Option<bool>,
) -> (Option<RunningProcess>, Vec<DoctorCheck>) {
    let what = ("admin", "");
    let unit = unit_name(role);
    let client = match client(role, admin) {
        Ok(client) => client,
        Err(why) => {
            let runs = match held {
                Some(true) => "otproxy runs here, and cannot be asked how it is",
                Some(false) => "otproxy does not run here: it has none of the ports below",
                None => "whether otproxy runs here cannot be seen",
            };
            let remedy =
                format!("give `admin.socket`, as in `/run/{unit}/{ADMIN_SOCKET}`, for `otproxy status` and this");
            return (None, vec![DoctorCheck::warn(what, format!("{runs}: {why}, and there is no socket"), remedy)]);
        }
    };
    let place = client.place();
    let Some((ready, _)) = get(&client, "/ready").await else {
        return (None, vec![unanswered(&place, &unit, held)]);
    };
    let metrics = get(&client, "/metrics").await.map(|(_, body)| body).unwrap_or_default();
    let info = metrics.lines().find(|line| line.starts_with("otproxy_build_info{"));
    let label = |key: &str| {
        let rest = info?.split_once(&format!("{key}=\""))?.1;
        rest.split_once('"').map(|(value, _)| value)
    };
    let (Some(version), Some(running)) = (label("version"), label("role")) else {
        let remedy = "choose another address for `admin.listen`, or stop what listens there: see `ss -ltnp`";
        return (None, vec![DoctorCheck::fail(what, format!("what answers at {place} is not otproxy"), remedy)]);
    };
    if running != role.to_string() {
        let remedy = "give the two roles different addresses in `admin.listen`, where both run on one host";
        let message = format!("a {running} answers at {place}, and this is the file of the {role}");
        return (None, vec![DoctorCheck::fail(what, message, remedy)]);
    }
    let own = env!("CARGO_PKG_VERSION");
    let status: Option<StatusView> = see(&client, "status").await;
    let check = if version != own {
        let message = format!("otproxy {version} runs here, and this is {own}");
        DoctorCheck::warn(what, message, format!("take up the new one: `systemctl restart {unit}`"))
    } else if status.as_ref().is_some_and(|status| status.draining) {
        DoctorCheck::warn(what, "otproxy runs here, and is drained: it takes no new connections", "otproxy undrain")
    } else if ready != 200 {
        DoctorCheck::warn(what, "otproxy runs here, and is not ready", "it starts or shuts down: try again in a moment")
    } else {
        DoctorCheck::ok("admin", "", format!("otproxy {version} runs here, and is ready"))
    };
    let mut checks = vec![check];
    if let Some(reload) = status.and_then(|status| status.last_reload).filter(|reload| !reload.ok) {
        let error = reload.errors.first().map_or("the file was wrong", String::as_str);
        let message = format!("the last reload changed nothing, so it runs with an older file: {error}");
        checks.push(DoctorCheck::warn(what, message, format!("correct the file, then `systemctl reload {unit}`")));
    }
    let listeners = see::<ListenersView>(&client, "listeners").await.map(|view| view.listeners).unwrap_or_default();
    let drained =
        listeners.iter().filter(|listener| matches!(listener.state, ListenerState::Draining | ListenerState::Drained));
    for listener in drained {
        let message = format!("listener `{}` is drained: it takes no new connections", listener.name);
        checks.push(DoctorCheck::warn(what, message, format!("otproxy undrain {}", listener.name)));
    }
    let targets = see::<TargetsView>(&client, "targets").await.map(|view| view.targets).unwrap_or_default();
    let edges = see::<EdgesView>(&client, "edges").await.map(|view| view.edges).unwrap_or_default();
    (Some(RunningProcess { metrics, targets, edges }), checks)
}

/// Judges a place where nothing answers.
fn unanswered(place: &str, unit: &str, held: Option<bool>) -> DoctorCheck {
    let what = ("admin", "");
    if held == Some(true) {
        let message = format!("otproxy has ports of this file, and nothing answers at {place}");
        let remedy = format!(
            "run this as root; or it hangs, or runs with another `admin`: see `journalctl -u {unit}`, then `systemctl restart {unit}`"
        );
        return DoctorCheck::fail(what, message, remedy);
    }
    let message = format!("nothing answers at {place}: otproxy does not run here");
    DoctorCheck::warn(what, message, format!("start it: `systemctl start {unit}`; or see `journalctl -u {unit}`"))
}

/// Returns the status and the body of an answer.
async fn get(client: &AdminClient, path: &str) -> Option<(u16, String)> {
    let answer = client.get(path).await.ok()?;
    Some((answer.status, String::from_utf8(answer.body.to_vec()).ok()?))
}

/// Returns a view of the API; `None` if it is not shown to us, as without a token.
async fn see<V: DeserializeOwned>(client: &AdminClient, view: &str) -> Option<V> {
    let (status, body) = get(client, &format!("/api/v1/{view}")).await?;
    (status == 200).then(|| serde_json::from_str(&body).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::CheckView;

    #[test]
    fn metrics_are_added_up() {
        let metrics = "# HELP a x\n# TYPE a gauge\na{edge=\"waw1\",state=\"parked\"} 3\na{edge=\"waw1\",state=\"used\"} 2\n\
            a{edge=\"waw10\",state=\"used\"} 1\nab{edge=\"waw1\"} 9\n# TYPE b counter\nb 4\n";
        let running = RunningProcess { metrics: metrics.to_owned(), ..RunningProcess::default() };
        assert_eq!(running.sum("a", Some(("edge", "waw1"))), 5.0);
        assert_eq!(running.sum("a", None), 6.0);
        assert_eq!(running.sum("a", Some(("edge", "fra1"))), 0.0);
        assert_eq!(running.sum("b", None), 4.0);
        assert_eq!(running.sum("c", None), 0.0);
    }

    fn target(name: &str, up: bool, state: TargetState) -> TargetView {
        TargetView {
            listener: "login".to_owned(),
            name: name.to_owned(),
            address: "192.0.2.1:7171".to_owned(),
            up,
            state,
            backup: false,
            connections: 0,
            check: Some(CheckView { result: "no_pong".to_owned(), age_seconds: 3.2, round_trip_seconds: None }),
        }
    }

    #[test]
    fn a_target_that_is_down_fails_unless_another_is_up() {
        use TargetState::{Maint, Ready};
        let of = |targets: &[TargetView]| {
            RunningProcess { targets: targets.to_vec(), ..RunningProcess::default() }.of_targets()
        };
        assert!(of(&[target("1", true, Ready), target("2", true, Ready)]).is_empty());
        let [check] = &of(&[target("1", false, Ready)])[..] else { panic!() };
        assert_eq!(check.status, CheckStatus::Fail);
        assert_eq!(check.message, "otproxy counts `1` (192.0.2.1:7171) as down; the last check, 3s ago: no_pong");
        assert!(check.remedy.as_ref().unwrap().contains("`edges` in core.yaml"));
        let unchecked = TargetView { check: None, ..target("1", false, Ready) };
        assert!(of(&[unchecked]).is_empty());
        let [check] = &of(&[target("1", false, Ready), target("2", true, Ready)])[..] else { panic!() };
        assert_eq!(check.status, CheckStatus::Warn);
        // One that is up, and that the operator has taken out, carries nothing.
        let checks = of(&[target("1", false, Ready), target("2", true, Maint)]);
        assert_eq!(checks.iter().map(|check| check.status).collect::<Vec<_>>(), [CheckStatus::Fail; 2]);
        assert_eq!(checks[1].remedy.as_deref(), Some("otproxy target login 2 ready"));
    }
}
