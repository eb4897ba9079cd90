//! The core's errands at an edge: requests that come through the tunnel.

use std::future::pending;
use std::io;

use axum::serve::Listener;
use tokio::io::DuplexStream;

use super::caller::{Caller, HasCaller};
use crate::tunnel::ErrandsTaken;

/// The paths that change something and may be used by the core: what it may decide for its edges.
pub(super) const OF_THE_CORE: [&str; 5] = ["/ban", "/unban", "/drain", "/undrain", "/probe"];

/// The paths for the user of the process alone, over the unix socket: what it may hand over is worth all that it has.
pub(super) const OF_ITS_USER: [&str; 1] = ["/upgrade"];

/// Paths that are asked for so often that each time would fill the log.
pub(super) const UNSAID: [&str; 1] = ["/probe"];

/// A listener whose connections are errands of the core.
pub(super) struct ErrandListener(pub ErrandsTaken);

impl Listener for ErrandListener {
    type Io = DuplexStream;
    type Addr = &'static str;

    async fn accept(&mut self) -> (DuplexStream, &'static str) {
        match self.0.recv().await {
            Some(errand) => (errand, "core"),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<&'static str> {
        Ok("tunnel")
    }
}

impl HasCaller for DuplexStream {
    fn caller(&self) -> Caller {
        Caller::default()
    }
}
