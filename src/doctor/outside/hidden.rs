//! The core, which nobody but its edges is to reach.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{DoctorCheck, STEP};

/// Addresses of its name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The core's host, and the ports that are to be closed.
#[derive(Debug, Clone)]
pub struct HiddenCore {
    /// A name or an address.
    pub host: String,
    /// The ports.
    pub ports: Vec<u16>,
}

impl HiddenCore {
    /// Tries to connect to each port.
    pub(super) async fn examine(self) -> DoctorCheck {
        let Self { host, mut ports } = self;
        ports.sort_unstable();
        ports.dedup();
        let mut addresses = otproxy_net::resolve((&host, 0), STEP).await.unwrap_or_default();
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return DoctorCheck::ok("core", &host, "does not resolve from here");
        }
        let mut trying = JoinSet::new();
        for ip in addresses.iter().map(SocketAddr::ip) {
            for port in &ports {
                let address = SocketAddr::new(ip, *port);
                trying.spawn(async move { (address, timeout(STEP, TcpStream::connect(address)).await) });
            }
        }
        let mut open = Vec::new();
        while let Some(tried) = trying.join_next().await {
            if let Ok((address, Ok(Ok(_)))) = tried {
                open.push(address);
            }
        }
        open.sort_unstable();
        let list = |of: Vec<String>| of.join(", ");
        if open.is_empty() {
            let ports = list(ports.iter().map(u16::to_string).collect());
            return DoctorCheck::ok("core", &host, format!("takes no connection from here, at ports {ports}"));
        }
        DoctorCheck::fail(
            ("core", &host),
            format!("can be reached from here, at {}", list(open.iter().map(SocketAddr::to_string).collect())),
            "close these ports in the firewall of its host to all but the edges, as `nftables.conf` of `otproxy init` does, and in that of \
             its provider. This host may not be one of yours: an edge may reach the tunnel's port",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckStatus;

    #[tokio::test]
    async fn an_open_port_is_a_failure() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let closed_port = closed.local_addr().unwrap().as_socket().unwrap().port();
        let core = |ports: &[u16]| HiddenCore { host: "127.0.0.1".to_owned(), ports: ports.to_vec() };

        let check = core(&[closed_port, port, port]).examine().await;
        assert_eq!(check.status, CheckStatus::Fail);
        assert_eq!(check.message, format!("can be reached from here, at 127.0.0.1:{port}"));
        assert!(check.remedy.unwrap().contains("firewall"));

        let check = core(&[closed_port]).examine().await;
        assert_eq!(check.status, CheckStatus::Ok, "{check:?}");
        let nowhere = HiddenCore { host: "nowhere.invalid".to_owned(), ports: vec![1] };
        assert_eq!(nowhere.examine().await.status, CheckStatus::Ok);
    }
}
