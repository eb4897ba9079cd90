//! Sockets and the threads that carry them: listeners, streams with and without TLS, connects, a pump between two streams,
//! workers. This crate has no policy and counts nothing: its callers hand in both.

mod backoff;
mod close_queue;
mod connect;
pub mod descriptors;
mod host_key;
mod inherited;
mod listener;
mod options;
mod outage_log;
pub mod pump;
mod rate_limited_log;
mod socket;
mod source;
mod stream;
mod stream_io;
mod task_waker;
pub mod tls;
pub mod trunk;
mod unix;
pub mod worker;

pub use backoff::{Backoff, random_part};
pub use close_queue::{CLOSES_PER_TURN, CloseQueue, CloseTurn};
pub use connect::{ConnectResult, connect, connect_any, connect_forward, lookup, resolve};
pub use host_key::{host_key, random_key};
pub use inherited::Inherited;
pub use listener::{BindError, BoundListener, accept_until, bind, bind_beside, is_left_out, warn_of_accept};
pub use options::UNSENT;
pub use outage_log::{OUTAGE_AGAIN, OUTAGES, OutageLog};
pub use rate_limited_log::{LOG_WINDOW, RateLimitedLog};
pub use source::{PlayerSource, Source, remedy_as_player, try_as_player};
pub use stream::{DetachedStream, Stream};
pub use stream_io::StreamIo;
pub use task_waker::TaskWaker;
pub use tls::TlsError;
pub use trunk::{Trunk, TrunkEnd, TrunkOwner, TrunkStats, TrunkStream};
pub use unix::{UNIX_BACKLOG, listen_unix};
