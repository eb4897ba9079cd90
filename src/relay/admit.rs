//! Admission of sessions, within the limits that all clients share: the answers to a client's machine.

use std::rc::Rc;
use std::time::Instant;

use super::link::RelayLink;
use super::places::SessionHolder;
use super::session::{RelaySession, SessionOrigin};
use super::{CONNECT_WAIT, Relay};
use crate::admission::AddressKey;
use otproxy_config::{BindSessions, Ipv6Players};
use otproxy_protocol::core::{AdmittedSession, ClientOwner, EndReason, OpenError, OpenRules};
use otproxy_protocol::frame::SessionId;

impl ClientOwner for Relay {
    type Link = Rc<RelayLink>;
    type Session = Rc<RelaySession>;
    type Player = AddressKey;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn rules(&self) -> OpenRules {
        let settings = self.shared.settings();
        OpenRules {
            max_per_link: settings.max_per_link,
            bind_to_player: settings.bind_sessions == BindSessions::Address,
        }
    }

    fn player(&self, link: &Rc<RelayLink>) -> AddressKey {
        link.player().ip().into()
    }

    fn admit(
        &self,
        link: &Rc<RelayLink>,
        id: SessionId,
        port: u32,
    ) -> Result<AdmittedSession<Rc<RelaySession>>, OpenError> {
        let settings = self.shared.settings();
        let server = settings.server(port).ok_or(OpenError::Port)?;
        if link.player().is_ipv6() && server.ipv6_players == Ipv6Players::Refuse {
            return Err(OpenError::Ipv6Player);
        }
        // Counted by the edge too: its word alone says who the player is.
        let (address, now) = (link.key(), Instant::now());
        let sessions = &self.shared.sessions;
        // First by what the player's own address may: only who is within it takes another one's place.
        sessions.check_address(address).map_err(|_| OpenError::SessionLimit)?;
        if settings.opens.as_ref().is_some_and(|opens| !opens.try_take(address, now)) {
            return Err(OpenError::OpenRate);
        }
        let in_vain = |error| {
            settings.open_was_in_vain(address, now);
            error
        };
        let queue = self.shared.connects.of(&server.address);
        let connect = queue.map(|queue| queue.join(address, now, now + CONNECT_WAIT)).transpose();
        let connect = connect.map_err(|_| in_vain(OpenError::ConnectQueue))?;
        let (worker, client) = (self.index, link.client());
        let holder = |place| SessionHolder { worker, client, session: id, place };
        let (place, evicted) = sessions.enter(address, holder).map_err(|_| in_vain(OpenError::SessionLimit))?;
        evicted.into_iter().for_each(|evicted| self.shared.end(evicted, EndReason::Evicted));
        let port = self.port(server.port);
        Ok(AdmittedSession {
            session: Rc::new(RelaySession::new(SessionOrigin::of(link, address), id, server, port, connect, place)),
            limits: settings.limits,
            framing: server.framing,
            max_packets_per_second: server.max_packets_per_second,
        })
    }
}
