//! Whether otproxy runs here, and what it says of itself.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ANSWER, Check, unit};
use crate::config::Role;

/// Bytes of an answer that are read; the metrics of hundreds of edges are shorter.
const MAX_ANSWER: u64 = 4 << 20;

/// An otproxy that runs here and has been asked.
#[derive(Debug)]
pub(super) struct Running {
    /// `/metrics`
    pub metrics: String,
}

impl Running {
    /// The sum of a metric's series that have a label of this value; 0 where there is none.
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

/// Asks at the address of the configuration.
pub(super) async fn examine(role: Role, address: Option<SocketAddr>) -> (Option<Running>, Check) {
    let what = ("admin", "");
    let address = match address {
        Some(address) if address.port() != 0 => address,
        _ => return (None, Check::ok("admin", "", "has no fixed address: whether otproxy runs here is not looked at")),
    };
    let reach = SocketAddr::new(
        match address.ip() {
            // Where it listens on all addresses it can be reached at its own.
            ip if ip.is_unspecified() && ip.is_ipv4() => std::net::Ipv4Addr::LOCALHOST.into(),
            ip if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        },
        address.port(),
    );
    let unit = unit(role);
    let Ok((ready, _)) = get(reach, "/ready", ANSWER).await else {
        let message = format!("nothing answers at {address}: otproxy does not run here");
        return (
            None,
            Check::warn(what, message, format!("start it: `systemctl start {unit}`; or see `journalctl -u {unit}`")),
        );
    };
    let metrics = get(reach, "/metrics", ANSWER).await.map(|(_, body)| body).unwrap_or_default();
    let info = metrics.lines().find(|line| line.starts_with("otproxy_build_info{"));
    let label = |key: &str| {
        let rest = info?.split_once(&format!("{key}=\""))?.1;
        rest.split_once('"').map(|(value, _)| value)
    };
    let (Some(version), Some(running)) = (label("version"), label("role")) else {
        let remedy = "choose another address for `admin.listen`, or stop what listens there: see `ss -ltnp`";
        return (None, Check::fail(what, format!("what answers at {address} is not otproxy"), remedy));
    };
    if running != role.to_string() {
        let remedy = "give the two roles different addresses in `admin.listen`, where both run on one host";
        return (
            None,
            Check::fail(what, format!("a {running} answers at {address}, and this is the file of the {role}"), remedy),
        );
    }
    let own = env!("CARGO_PKG_VERSION");
    let check = if version != own {
        let message = format!("otproxy {version} runs here, and this is {own}");
        Check::warn(what, message, format!("take up the new one: `systemctl restart {unit}`"))
    } else if ready != 200 {
        Check::warn(what, "otproxy runs here, and is not ready", "it starts or shuts down: try again in a moment")
    } else {
        Check::ok("admin", "", format!("otproxy {version} runs here, and is ready"))
    };
    (Some(Running { metrics }), check)
}

/// The status and the body of an answer.
async fn get(address: SocketAddr, path: &str, within: Duration) -> Result<(u16, String), ()> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await.ok()?;
        let answer = String::from_utf8(answer).ok()?;
        let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some((status, body.to_owned()))
    };
    timeout(within, ask).await.ok().flatten().ok_or(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_added_up() {
        let metrics = "# HELP a x\n# TYPE a gauge\na{edge=\"waw1\",state=\"parked\"} 3\na{edge=\"waw1\",state=\"used\"} 2\n\
            a{edge=\"waw10\",state=\"used\"} 1\nab{edge=\"waw1\"} 9\n# TYPE b counter\nb 4\n";
        let running = Running { metrics: metrics.to_owned() };
        assert_eq!(running.sum("a", Some(("edge", "waw1"))), 5.0);
        assert_eq!(running.sum("a", None), 6.0);
        assert_eq!(running.sum("a", Some(("edge", "fra1"))), 0.0);
        assert_eq!(running.sum("b", None), 4.0);
        assert_eq!(running.sum("c", None), 0.0);
    }
}
