//! The reasons for which one side resets a stream.

crate::words! {
    /// The reason for which a stream of a trunk ended in the middle. The number on the wire is the place in this list.
    pub enum ResetReason {
        /// The connection behind it ended in the middle, or was closed by its side.
        Aborted = "aborted",
        /// It was to lead to a listener that the core does not have.
        UnknownListener = "unknown_listener",
        /// Its opening said nothing about a player.
        BadHeader = "bad_header",
        /// Its client belongs to a worker that does not have this trunk.
        WrongWorker = "wrong_worker",
    }
}

impl ResetReason {
    /// Returns the reason of that number; of one that a later version may have added, [`ResetReason::Aborted`].
    pub fn from_wire(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Aborted)
    }

    /// Returns its number.
    pub fn to_wire(self) -> u8 {
        crate::Word::index(self) as u8
    }
}
