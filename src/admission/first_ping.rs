//! The first frame of a link, which tells its client.

use thiserror::Error;

use crate::connection::AdmissionError;
use otproxy_net::Stream;
use otproxy_net::worker::Scratch;
use otproxy_protocol::frame::{ClientId, HEADER_LEN, MAX_FIRST_PAYLOAD, first_ping};

/// The reason why a connection has not told its client.
#[derive(Debug, Error)]
pub enum FirstPingError {
    /// It begins with something else than a ping.
    #[error("it does not begin with a ping")]
    NoPing,
    /// The peer has ended it.
    #[error("it was ended before")]
    Ended,
    /// It failed.
    #[error("it failed before")]
    Failed,
}

impl From<FirstPingError> for AdmissionError {
    fn from(error: FirstPingError) -> Self {
        match error {
            FirstPingError::NoPing => Self::NoPing,
            FirstPingError::Ended | FirstPingError::Failed => Self::Closed,
        }
    }
}

/// Reads until the first frame, a ping, is there, and returns whose link it begins. It stays in `early`.
///
/// # Errors
/// Returns why there will be none.
pub async fn read_first_ping(
    stream: &Stream,
    early: &mut Vec<u8>,
    scratch: &Scratch,
) -> Result<ClientId, FirstPingError> {
    loop {
        // An incomplete frame is short: one that claims to be longer than a ping is not read to its end.
        if let Some(client) = first_ping(early).map_err(|_| FirstPingError::NoPing)? {
            return Ok(client);
        }
        match stream.read_onto(early, HEADER_LEN + MAX_FIRST_PAYLOAD, scratch).await {
            Ok(0) => return Err(FirstPingError::Ended),
            Ok(_) => {}
            Err(_) => return Err(FirstPingError::Failed),
        }
    }
}
