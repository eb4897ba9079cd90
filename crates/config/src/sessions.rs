//! `sessions`: limits and times of sessions.

use std::time::Duration;

use otproxy_protocol::quota::Quota;
use otproxy_protocol::words;

use super::declare::section;
use super::formats::{DURATION, MEMORY_OR_NONE, QUANTITY, RATE_OR_NONE, SIZE};
use super::takes::{value, word};

section! {
    /// `sessions`
    #[derive(Debug, Clone, PartialEq)]
    pub struct SessionsConfig {
        /// what a link must share with a session to join it: the client id, from any address, or the player address too
        bind_sessions: BindSessions = word().or("client"),
        /// how long a session without links lives on
        linger: Duration = value(DURATION).or("30s"),
        /// how long it lives on once its last link said that it leaves
        leave_grace: Duration = value(DURATION).or("2s"),
        /// sessions at once of one player address
        max_per_address: usize = value(QUANTITY).or("20"),
        /// sessions at once in all
        max: usize = value(QUANTITY).or("20000"),
        /// sessions at once on one link
        max_per_link: usize = value(QUANTITY).or("16"),
        /// new sessions of one player address; a link that joins a session does not count
        opens_per_address: Option<Quota> = value(RATE_OR_NONE).or("60/10s"),
        /// bytes kept for replay in each session; beyond it the core stops reading from the game server
        unacked: usize = value(SIZE).or("4MiB"),
        /// bytes kept ahead of their turn in each session; beyond it the session ends
        reorder: usize = value(SIZE).or("256KiB"),
        /// bytes that wait for the game server in each session; beyond it the session ends
        pending: usize = value(SIZE).or("1MiB"),
        /// bytes of these three kinds in all sessions together; `auto` is an eighth of the memory that the process may use
        memory: Option<usize> = value(MEMORY_OR_NONE).or("auto").example("512MiB"),
    }
}

words! {
    /// `sessions.bind_sessions`: what a link must share with a session to join it.
    pub enum BindSessions {
        /// The client id: a player's address may change, and differ by path.
        Client = "client",
        /// The client id and the player's address.
        Address = "address",
    }
}
