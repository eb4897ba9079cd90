//! The reasons for which sessions end and requests on links are refused.

use crate::words;

words! {
    /// The reason for which a session ended.
    pub enum EndReason {
        /// The client left on its last link and did not come back within `sessions.leave_grace`.
        ClientLeft = "client_left",
        /// All links were lost and none came back within `sessions.linger`.
        LinksLost = "links_lost",
        /// The game server closed the connection.
        GameClosed = "game_closed",
        /// The game server could not be reached.
        GameUnreachable = "game_unreachable",
        /// Its turn to connect to the game server did not come in time, or was given to a network that has fewer waiting.
        ConnectQueue = "connect_queue",
        /// Its place was given to a network that has fewer sessions, as `sessions.max` was reached.
        Evicted = "evicted",
        /// The client or the game server sent what the protocol does not allow.
        ProtocolError = "protocol_error",
        /// `sessions.reorder` or `sessions.pending` was reached, or the last packet number.
        Limit = "limit",
        /// `sessions.memory` was reached, and it kept the most of the network that kept the most.
        Memory = "memory",
        /// The process is shutting down.
        Shutdown = "shutdown",
        /// The task that carried it failed: a defect of this program.
        Panic = "panic",
        /// The process was killed, and the next one cannot prove where the session stood.
        Restart = "restart",
        /// The operator had it ended.
        Disconnected = "disconnected",
    }
}

words! {
    /// The reason for which a request on a link was refused.
    pub enum OpenError {
        /// The port asked for is not in `game_servers`.
        Port = "port",
        /// The session belongs to another player's address, and `sessions.bind_sessions` is `address`.
        Identity = "identity",
        /// `sessions.max` or `sessions.max_per_address` was reached.
        SessionLimit = "session_limit",
        /// Data for a session that does not exist any more, or was not opened.
        UnknownSession = "unknown_session",
        /// An IPv6 player, and the game server is set to `ipv6_players: refuse`.
        Ipv6Player = "ipv6_player",
        /// `sessions.max_per_link` was reached.
        LinkSessions = "link_sessions",
        /// More links for one session than a client ever has.
        SessionLinks = "session_links",
        /// Links joined the session more often than those of a client ever do.
        JoinRate = "join_rate",
        /// Links of one session from more addresses at once than a client ever has.
        SessionAddresses = "session_addresses",
        /// `sessions.opens_per_address` was reached.
        OpenRate = "open_rate",
        /// So many sessions wait for the game server that the client would not wait for its turn.
        ConnectQueue = "connect_queue",
    }
}
