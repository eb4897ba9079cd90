//! Edges that are refused beside those that the file refuses.

use ipnet::IpNet;

use super::file::CoreConfig;
use super::listener::ListenerConfig;

impl CoreConfig {
    /// Refuses the edges that `is_revoked` names, as `edges[].revoked` does. Their addresses are struck from everything that
    /// trusts them by name or by the same network, even where the file lists them itself: in doubt a stolen edge is out.
    pub fn revoke(&mut self, is_revoked: impl Fn(&str) -> bool) {
        let mut struck: Vec<IpNet> = Vec::new();
        for edge in self.edges.iter_mut().filter(|edge| is_revoked(&edge.name)) {
            edge.revoked = true;
            struck.extend(&edge.addresses);
        }
        // No network stands at two edges.
        self.process.bans.exempt.retain(|network| !struck.contains(network));
        for listener in &mut self.listeners {
            listener.inbound_mut().trusted_peers.retain(|network| !struck.contains(network));
        }
    }

    /// Returns the listeners whose `trusted_peers` share an address with this edge.
    pub fn listeners_trusting(&self, edge: &str) -> impl Iterator<Item = &str> {
        let edges = self.edges.iter().filter(move |peer| peer.name == edge);
        let addresses: Vec<&IpNet> = edges.flat_map(|edge| &edge.addresses).collect();
        let inbound = self.listeners.iter().map(ListenerConfig::inbound);
        let trusting = inbound.filter(move |inbound| {
            let meets = |own: &IpNet| addresses.iter().any(|address| own.contains(*address) || address.contains(own));
            inbound.trusted_peers.iter().any(meets)
        });
        trusting.map(|inbound| inbound.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::Config;
    use super::super::parse;
    use super::*;

    fn core(edges: &str, trusted: &str) -> CoreConfig {
        let text = format!(
            "role: core\nedges: [{edges}]\nlisteners:\n- {{ name: a, listen: \"0.0.0.0:1\", forward_to: \"a:1\" }}\n\
             - {{ name: b, listen: \"0.0.0.0:2\", forward_to: \"a:1\", trusted_peers: {trusted} }}\n"
        );
        match parse("core.yaml", &text).unwrap_or_else(|errors| panic!("{errors}")) {
            Config::Core(core) => core,
            Config::Edge(_) => panic!("an edge"),
        }
    }

    #[test]
    fn an_edge_is_refused_as_the_file_would_refuse_it() {
        let waw1 = "{ name: waw1, address: [192.0.2.7, 2001:db8::7] }";
        let fra1 = |more: &str| format!("{waw1}, {{ name: fra1, address: 192.0.2.8{more} }}");
        let mut revoked = core(&fra1(""), "203.0.113.1");
        revoked.revoke(|name| name == "fra1");
        assert_eq!(revoked, core(&fra1(", revoked: true"), "203.0.113.1"));
        let mut none = core(&fra1(""), "203.0.113.1");
        none.revoke(|_| false);
        assert_eq!(none, core(&fra1(""), "203.0.113.1"));
    }

    #[test]
    fn a_list_of_the_files_own_loses_its_address_too_and_a_wider_network_is_told() {
        let mut core = core("{ name: waw1, address: 10.0.0.7 }", "[10.0.0.7, 10.1.0.0/16]");
        assert_eq!(core.listeners_trusting("waw1").collect::<Vec<_>>(), ["a", "b"]);
        core.revoke(|name| name == "waw1");
        let left: Vec<_> = core.listeners.iter().map(|listener| listener.inbound().trusted_peers.len()).collect();
        assert_eq!((left, core.process.bans.exempt.len()), (vec![0, 1], 1));
        assert_eq!(core.listeners_trusting("waw1").count(), 0);
        let mut core = super::tests::core("{ name: waw1, address: 10.0.0.7 }", "10.0.0.0/8");
        core.revoke(|name| name == "waw1");
        assert_eq!(core.listeners_trusting("waw1").collect::<Vec<_>>(), ["b"]);
    }
}
