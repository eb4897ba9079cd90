//! The numbers of a session that change with its packets.

/// The numbers of a session that change with its packets. This crate gives them back as they were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The last packet of the client that is wholly in the game server's socket.
    pub received: u32,
    /// Bytes written to the game server up to the end of that packet.
    pub written: u64,
    /// Bytes of the game server that are in the record, as frames or as the partial packet, or were and are
    /// acknowledged.
    pub read: u64,
    /// Bytes from the client, as the session counts them.
    pub bytes_in: u64,
    /// Bytes to the client, as the session counts them.
    pub bytes_out: u64,
    /// The owner's number of the stage that the session is in.
    pub stage: u8,
}
