//! The way on which players are told to play.

crate::words! {
    /// The way on which clients are told to play, in answers to logins of either kind.
    pub enum Worlds {
        /// Clients that are known to have links are told to play over these, at 127.0.0.1, and all others over an edge.
        Auto = "auto",
        /// All are told to play over links.
        Links = "links",
        /// All are told to play over an edge.
        Edge = "edge",
    }
}
