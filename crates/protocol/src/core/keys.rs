//! Keys of links and sessions within a client machine.

/// A link, from [`ClientMachine::add_link`](super::ClientMachine::add_link) to
/// [`ClientMachine::lost`](super::ClientMachine::lost).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey(pub(super) u32);

/// A session, from [`Effect::Connect`](super::Effect::Connect) to
/// [`ClientMachine::remove`](super::ClientMachine::remove). Unlike a [`SessionId`](crate::frame::SessionId) it is never
/// that of two sessions at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(pub(super) u32);
