//! The addresses that a report does not show.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// The addresses that are remembered at most from one report to the next: more than a set-up has servers.
pub const MAX_REMEMBERED: usize = 4096;

/// The addresses that a report writes as `BACKEND_IP`, in whichever form they are written.
#[derive(Debug, Clone, Default)]
pub struct Hidden {
    addresses: HashSet<IpAddr>,
    networks: Vec<IpNet>,
}

impl Hidden {
    /// Makes the set of these networks.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
        Self { addresses: HashSet::new(), networks: networks.to_vec() }
    }

    /// Hides an address. One that stands for all addresses of a host says nothing of it, and stays.
    pub fn add(&mut self, address: IpAddr) {
        let address = address.to_canonical();
        if !address.is_unspecified() {
            self.addresses.insert(address);
        }
    }

    /// Forgets all addresses if they are more than are remembered. To be called before those of the next report are added.
    pub fn make_room(&mut self) {
        if self.addresses.len() > MAX_REMEMBERED {
            self.addresses.clear();
        }
    }

    /// Changes the networks. Addresses stay.
    pub fn set_networks(&mut self, networks: &[IpNet]) {
        self.networks = networks.to_vec();
    }

    /// Returns whether an address is hidden.
    #[must_use]
    pub fn hides(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.contains(&address) || self.networks.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_address_are_hidden() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut hidden = Hidden::new(&["203.0.113.0/24".parse().unwrap()]);
        hidden.add(ip("::ffff:192.0.2.1"));
        hidden.add(ip("0.0.0.0"));
        for shown in ["192.0.2.11", "0.0.0.0", "203.0.114.1", "::"] {
            assert!(!hidden.hides(ip(shown)), "{shown}");
        }
        for secret in ["192.0.2.1", "::ffff:192.0.2.1", "203.0.113.9", "::ffff:203.0.113.9"] {
            assert!(hidden.hides(ip(secret)), "{secret}");
        }
        hidden.set_networks(&[]);
        assert!(!hidden.hides(ip("203.0.113.9")) && hidden.hides(ip("192.0.2.1")));
    }
}
