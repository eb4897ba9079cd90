//! Access lists: the addresses that may connect at all.

use std::net::IpAddr;
use std::sync::Arc;

use crate::connection::AdmissionError;
use otproxy_config::{AddressSet, ProcessConfig};

/// `deny` and `allow`, of a listener or of the whole process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessList {
    /// Addresses that are refused, whatever `allow` says.
    pub deny: Arc<AddressSet>,
    /// The only addresses that may connect; `None` for all.
    pub allow: Option<Arc<AddressSet>>,
}

impl From<&ProcessConfig> for AccessList {
    fn from(process: &ProcessConfig) -> Self {
        Self { deny: Arc::clone(&process.deny), allow: process.allow.clone() }
    }
}

impl AccessList {
    /// Checks that a player may connect.
    ///
    /// # Errors
    /// Returns the list that refuses it.
    pub fn check(&self, player: IpAddr) -> Result<(), AdmissionError> {
        self.check_peer(player)?;
        match &self.allow {
            Some(allow) if !allow.contains(player) => Err(AdmissionError::NotAllowed),
            _ => Ok(()),
        }
    }

    /// Checks that a peer may connect, which is perhaps a proxy and no player itself. `allow` says nothing about
    /// proxies.
    ///
    /// # Errors
    /// Returns the list that refuses it.
    pub fn check_peer(&self, peer: IpAddr) -> Result<(), AdmissionError> {
        if self.deny.contains(peer) { Err(AdmissionError::Denied) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    fn set(network: &str) -> Arc<AddressSet> {
        Arc::new(std::iter::once(network.parse::<IpNet>().unwrap()).collect())
    }

    #[test]
    fn deny_comes_before_allow() {
        let access = AccessList { deny: set("10.0.0.0/24"), allow: Some(set("10.0.0.0/8")) };
        for (address, player, peer) in [
            ("10.0.0.7", Err(AdmissionError::Denied), Err(AdmissionError::Denied)),
            ("10.0.1.7", Ok(()), Ok(())),
            ("192.0.2.1", Err(AdmissionError::NotAllowed), Ok(())),
        ] {
            let address = address.parse().unwrap();
            assert_eq!((access.check(address), access.check_peer(address)), (player, peer), "{address}");
        }
        let none = AccessList::default();
        assert_eq!(none.check("192.0.2.1".parse().unwrap()), Ok(()));
    }
}
