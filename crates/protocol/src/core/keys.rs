//! Keys of links and sessions within a client machine.

/// A link, from [`Client::add_link`](super::Client::add_link) to [`Client::lost`](super::Client::lost).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkKey(pub(super) u32);

/// A session, from [`Effect::Connect`](super::Effect::Connect) to [`Client::remove`](super::Client::remove). Unlike a
/// [`SessionId`](crate::frame::SessionId) it is never that of two sessions at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionKey(pub(super) u32);
