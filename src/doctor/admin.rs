//! The otproxy that runs here, if any, and what it reports.

use super::{ANSWER, DoctorCheck, unit_name};
use crate::admin::AdminClient;
use otproxy_config as config;
use otproxy_config::RoleKind;

/// A running otproxy that has been queried.
#[derive(Debug)]
pub(super) struct RunningProcess {
    /// `/metrics`
    pub metrics: String,
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
}

/// Queries the socket of the configuration, or else its address.
pub(super) async fn examine(role: RoleKind, admin: &config::AdminConfig) -> (Option<RunningProcess>, DoctorCheck) {
    let what = ("admin", "");
    let client = match (&admin.socket, admin.listen) {
        (Some(socket), _) => AdminClient::socket(socket),
        (None, Some(address)) if address.port() != 0 && admin.tls.is_none() => AdminClient::tcp(address),
        _ => {
            let message = "has no fixed address without TLS, and no socket: whether otproxy runs here is not looked at";
            return (None, DoctorCheck::ok("admin", "", message));
        }
    };
    let client = client.within(ANSWER);
    let (place, unit) = (client.place(), unit_name(role));
    let Some((ready, _)) = get(&client, "/ready").await else {
        let message = format!("nothing answers at {place}: otproxy does not run here");
        return (
            None,
            DoctorCheck::warn(
                what,
                message,
                format!("start it: `systemctl start {unit}`; or see `journalctl -u {unit}`"),
            ),
        );
    };
    let metrics = get(&client, "/metrics").await.map(|(_, body)| body).unwrap_or_default();
    let info = metrics.lines().find(|line| line.starts_with("otproxy_build_info{"));
    let label = |key: &str| {
        let rest = info?.split_once(&format!("{key}=\""))?.1;
        rest.split_once('"').map(|(value, _)| value)
    };
    let (Some(version), Some(running)) = (label("version"), label("role")) else {
        let remedy = "choose another address for `admin.listen`, or stop what listens there: see `ss -ltnp`";
        return (None, DoctorCheck::fail(what, format!("what answers at {place} is not otproxy"), remedy));
    };
    if running != role.to_string() {
        let remedy = "give the two roles different addresses in `admin.listen`, where both run on one host";
        return (
            None,
            DoctorCheck::fail(
                what,
                format!("a {running} answers at {place}, and this is the file of the {role}"),
                remedy,
            ),
        );
    }
    let own = env!("CARGO_PKG_VERSION");
    let check = if version != own {
        let message = format!("otproxy {version} runs here, and this is {own}");
        DoctorCheck::warn(what, message, format!("take up the new one: `systemctl restart {unit}`"))
    } else if ready != 200 {
        DoctorCheck::warn(what, "otproxy runs here, and is not ready", "it starts or shuts down: try again in a moment")
    } else {
        DoctorCheck::ok("admin", "", format!("otproxy {version} runs here, and is ready"))
    };
    (Some(RunningProcess { metrics }), check)
}

/// Returns the status and the body of an answer.
async fn get(client: &AdminClient, path: &str) -> Option<(u16, String)> {
    let answer = client.get(path).await.ok()?;
    Some((answer.status, String::from_utf8(answer.body.to_vec()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_added_up() {
        let metrics = "# HELP a x\n# TYPE a gauge\na{edge=\"waw1\",state=\"parked\"} 3\na{edge=\"waw1\",state=\"used\"} 2\n\
            a{edge=\"waw10\",state=\"used\"} 1\nab{edge=\"waw1\"} 9\n# TYPE b counter\nb 4\n";
        let running = RunningProcess { metrics: metrics.to_owned() };
        assert_eq!(running.sum("a", Some(("edge", "waw1"))), 5.0);
        assert_eq!(running.sum("a", None), 6.0);
        assert_eq!(running.sum("a", Some(("edge", "fra1"))), 0.0);
        assert_eq!(running.sum("b", None), 4.0);
        assert_eq!(running.sum("c", None), 0.0);
    }
}
