//! The local address of a connection to a server, as the file has it.

use std::net::IpAddr;

use otproxy_config::SourceAddress;
use otproxy_net::Source;
use otproxy_protocol::player_address::PseudoIpv4;

/// Returns the local address of a connection to a server on behalf of a player.
#[must_use]
pub fn source_for(source: SourceAddress, player: IpAddr, pseudo: &PseudoIpv4) -> Source {
    match source {
        SourceAddress::Default => Source::Kernel,
        SourceAddress::LoopbackPerPlayer => Source::Own(pseudo.loopback(player).into()),
        SourceAddress::Player => Source::player(player, pseudo),
        SourceAddress::Address(own) => Source::Own(own),
    }
}
