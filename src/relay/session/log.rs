//! The account of a session: its counts, its line in the access log and in the log.

use std::time::Instant;

use tracing::info;

use super::SessionTask;
use crate::access_log::{AccessLogEntry, Ended, SessionEnd};
use crate::relay::places::Spare;
use otproxy_protocol::core::{EndReason, LinkKey};
use otproxy_protocol::frame::PacketId;

/// The account of one session: when it is dropped, the end is counted and logged, however it came.
pub(super) struct SessionLogGuard<'a>(&'a SessionTask);

/// The last figures of a session, and the reason of its end.
struct Account {
    reason: EndReason,
    packets_in: PacketId,
    packets_out: PacketId,
    bytes_in: u64,
    bytes_out: u64,
}

impl<'a> SessionLogGuard<'a> {
    /// Counts a session that begins.
    pub fn new(task: &'a SessionTask) -> Self {
        task.session.port.opened.inc();
        Self::again(task)
    }

    /// Counts a session that goes on, and began in the process before.
    pub fn again(task: &'a SessionTask) -> Self {
        task.session.port.sessions_active.inc();
        Self(task)
    }
}

impl Drop for SessionLogGuard<'_> {
    fn drop(&mut self) {
        let unfinished = if std::thread::panicking() { EndReason::Panic } else { EndReason::Shutdown };
        let account = self.0.close(unfinished);
        let port = &self.0.session.port;
        port.sessions_active.dec();
        port.ended(account.reason);
        let Account { reason, bytes_out, .. } = account;
        self.0.relay.shared.game_servers.ended(self.0.session.server.port, reason, bytes_out);
        self.0.log(&account);
    }
}

impl SessionTask {
    /// Closes the account of the session, whose end is `unfinished` if it has not ended before.
    fn close(&self, unfinished: EndReason) -> Account {
        let mut account = Account {
            reason: unfinished,
            packets_in: PacketId::NONE,
            packets_out: PacketId::NONE,
            bytes_in: 0,
            bytes_out: 0,
        };
        // Tried, for a second panic while one unwinds would end the process.
        let Ok(mut machine) = self.client.machine.try_borrow_mut() else { return account };
        let links: Vec<LinkKey> = (0..).map_while(|number| machine.links_of(self.key, number)).collect();
        if let Some(figures) = machine.close(self.key, unfinished, Instant::now()) {
            self.session.place.set_spare(Some(Spare::Ended));
            self.relay.serve_links(&mut machine);
            account = Account {
                reason: figures.ended.unwrap_or(unfinished),
                packets_in: figures.packets_in,
                packets_out: figures.packets_out,
                bytes_in: figures.bytes_in,
                bytes_out: figures.bytes_out,
            };
        }
        // If the client was not told yet, the links do so in their own tasks: the write that failed here could fail
        // again.
        links.into_iter().filter_map(|link| machine.link(link)).for_each(|link| link.block());
        account
    }

    fn log(&self, account: &Account) {
        let (session, client) = (&self.session, self.client.id);
        let (inbound, server) = (&session.inbound, &session.server);
        let Account { reason, packets_in, packets_out, bytes_in, bytes_out } = *account;
        inbound.access_log(|| {
            let what = Ended::Session(SessionEnd {
                client,
                session: session.id,
                port: server.port,
                target: server.address.to_string(),
                packets_in: packets_in.0,
                packets_out: packets_out.0,
                reason,
            });
            let open = inbound.open_counts();
            AccessLogEntry {
                bytes_in,
                bytes_out,
                open,
                ..AccessLogEntry::new(&inbound.config().name, session.player, session.started, what)
            }
        });
        let Some(suppressed) = self.relay.shared.ended_log.allow(Instant::now()) else { return };
        info!(
            port = server.port,
            player = %session.player,
            %client,
            session = %session.id,
            seconds = session.started.elapsed().as_secs_f64(),
            packets_in = packets_in.0,
            packets_out = packets_out.0,
            bytes_in,
            bytes_out,
            %reason,
            suppressed = (suppressed > 0).then_some(suppressed),
            "session ended",
        );
    }
}
