//! The least that is a correct core: one client's sessions, no limits, nothing forgotten. Pure.

use std::collections::{BTreeMap, HashMap};

use otproxy_protocol::frame::{self, ClientId, Frame, FromClient, PacketId, SessionId};

/// One connection to the core; a reconnect is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn(pub usize);

#[derive(Debug, Default)]
struct Link {
    input: Vec<u8>,
    output: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Session {
    /// What the client sent, in order.
    pub received: Vec<Vec<u8>>,
    /// What it gets, all of it.
    pub sent: Vec<Vec<u8>>,
    acked: u32,
    /// For each link that carries it, the number of the next packet to write.
    links: BTreeMap<Conn, u32>,
    pub ports: Vec<u32>,
    pub leaves: usize,
    ended: bool,
}

#[derive(Debug, Default)]
pub struct ModelCore {
    links: HashMap<Conn, Link>,
    pub sessions: HashMap<SessionId, Session>,
    /// Send back each packet that arrives.
    pub echo: bool,
    /// Answer pings.
    pub pongs: bool,
    /// What each ping said, in order.
    pub pings: Vec<(ClientId, u32)>,
}

impl ModelCore {
    pub fn new(echo: bool) -> Self {
        Self { echo, pongs: true, ..Self::default() }
    }

    pub fn connected(&mut self, conn: Conn) {
        self.links.insert(conn, Link::default());
    }

    pub fn lost(&mut self, conn: Conn) {
        self.links.remove(&conn);
        for session in self.sessions.values_mut() {
            session.links.remove(&conn);
        }
    }

    pub fn connections(&self) -> usize {
        self.links.len()
    }

    pub fn take_output(&mut self, conn: Conn) -> Vec<u8> {
        self.links.get_mut(&conn).map(|link| std::mem::take(&mut link.output)).unwrap_or_default()
    }

    pub fn bytes(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let mut input = std::mem::take(&mut link.input);
        input.extend_from_slice(bytes);
        let mut rest = &input[..];
        while let Some((frame, next)) = Frame::split(rest).expect("a client's frame") {
            self.frame(conn, frame);
            rest = next;
        }
        let rest = rest.to_vec();
        self.links.get_mut(&conn).unwrap().input = rest;
    }

    fn frame(&mut self, conn: Conn, frame: Frame<'_>) {
        let link = self.links.get_mut(&conn).unwrap();
        match frame.from_client() {
            FromClient::Ping { client, .. } => {
                let report = frame.payload.first_chunk().map(|ms| u32::from_le_bytes(*ms));
                self.pings.push((client, report.expect("a report in each ping")));
                if self.pongs {
                    link.output.extend_from_slice(&frame::PONG);
                }
            }
            FromClient::Open { session: id, port } => {
                let session = self.sessions.entry(id).or_default();
                if session.ended {
                    link.output.extend_from_slice(&frame::end(id));
                    return;
                }
                session.ports.push(port);
                session.links.entry(conn).or_insert(session.acked + 1);
                self.flush(id);
            }
            FromClient::Data { session: id, packet, ack, payload } => {
                let Some(session) = self.sessions.get_mut(&id) else { return };
                // A link that the client wrongly counts as joined: see `PlayerCore`.
                if !session.links.contains_key(&conn) {
                    return;
                }
                session.acked = session.acked.max(ack.0);
                assert!(packet.0 as usize <= session.received.len() + 1, "the client left a gap");
                if packet.0 as usize == session.received.len() + 1 {
                    session.received.push(payload.to_vec());
                    if self.echo {
                        self.push(id, payload);
                    }
                }
            }
            FromClient::Leave { session: id } => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.links.remove(&conn);
                    session.leaves += 1;
                }
            }
        }
    }

    /// A packet of the game server's own.
    pub fn push(&mut self, id: SessionId, packet: &[u8]) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.sent.push(packet.to_vec());
            self.flush(id);
        }
    }

    pub fn end(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.ended = true;
            for conn in std::mem::take(&mut session.links).into_keys() {
                self.links.get_mut(&conn).unwrap().output.extend_from_slice(&frame::end(id));
            }
        }
    }

    fn flush(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let ack = PacketId(session.received.len() as u32);
        for (conn, next) in &mut session.links {
            let output = &mut self.links.get_mut(conn).unwrap().output;
            *next = (*next).max(session.acked + 1);
            while let Some(packet) = session.sent.get(*next as usize - 1) {
                output.extend_from_slice(&frame::data_header(id, PacketId(*next), ack, packet.len()));
                output.extend_from_slice(packet);
                *next += 1;
            }
        }
    }
}
