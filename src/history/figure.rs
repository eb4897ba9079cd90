//! The figures that have a history, each declared once: its name, its meaning, and how a minute's is made of those of its seconds.

/// The way in which the figure of a minute follows from those of its seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The greatest of them.
    Max,
}

impl Fold {
    /// Returns its word in the documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Max => "greatest",
        }
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident, $count:ident { $($variant:ident = $word:literal $fold:ident $meaning:literal;)+ })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $(#[doc = $meaning] $variant),+ }

        impl $name {
            /// All of them, in the order in which a row has them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns its name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Returns its meaning, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }

            /// Returns how minutes are made of seconds.
            #[must_use]
            pub const fn fold(self) -> Fold {
                match self { $(Self::$variant => Fold::$fold),+ }
            }
        }

        /// The number of these figures.
        pub const $count: usize = $name::ALL.len();
    )+ };
}

figures! {
    /// A figure of the whole process.
    Figure, FIGURES {
        Sessions = "sessions" Mean "Sessions, at a core.";
        Connections = "connections" Mean "Connections open.";
        Links = "links" Mean "Links of the multi-path protocol open, at a core.";
        Accepted = "accepted" Sum "Connections accepted.";
        Refused = "refused" Sum "Connections refused, and at a core requests on links.";
        PacketsIn = "packets_in" Sum "Game packets from players, each once, at a core.";
        PacketsOut = "packets_out" Sum "Game packets to players, each once, at a core.";
        BytesIn = "bytes_in" Sum "Payload bytes from players.";
        BytesOut = "bytes_out" Sum "Payload bytes to players.";
        RoundTripP50 = "round_trip_p50_seconds" Mean "The middle one of the round trips that players told, at a core.";
        RoundTripP95 = "round_trip_p95_seconds" Max "The one of these that 5 % exceed.";
        LostLinks = "lost_links" Sum "Players' links that broke while their clients lived on over others, at a core.";
        UnackedBytes = "unacked_bytes" Mean "Bytes kept for replay, at a core.";
        Trunks = "trunks" Mean "Trunks of the tunnel open.";
        Streams = "streams" Mean "Streams in those trunks open.";
        GameStall = "game_stall_seconds" Sum "Seconds for which worlds sent nothing to anybody while people played, at a core; counted when it is over.";
        WorkerDelay = "worker_delay_seconds" Max "The longest time by which a thread's turn came late.";
        StealShare = "steal_share" Max "The share of the time of all CPUs that the host of this virtual machine gave to others.";
        RunQueue = "run_queue_seconds" Max "The time for which the thread of this process that waited the longest was ready to run and had no CPU.";
    }
    /// A figure of one edge, at a core.
    EdgeFigure, EDGE_FIGURES {
        Links = "links" Mean "Links over it open.";
        RoundTripP50 = "round_trip_p50_seconds" Mean "The middle one of the round trips that players told on links over it.";
        RoundTripP95 = "round_trip_p95_seconds" Max "The one of these that 5 % exceed.";
        LostLinks = "lost_links" Sum "Players' links over it that broke while their clients lived on over others.";
        FirstShare = "first_share" Mean "The share of all players' packets that came over it first.";
        Jitter = "jitter_seconds" Max "The time by which round trips of the last seconds are above those of the last minutes.";
    }
    /// A figure of one world, at a core.
    WorldFigure, WORLD_FIGURES {
        Sessions = "sessions" Mean "Sessions.";
        PacketsIn = "packets_in" Sum "Game packets from players, each once.";
        PacketsOut = "packets_out" Sum "Game packets to players, each once.";
        Stall = "stall_seconds" Sum "Seconds for which it sent nothing to anybody while people played; counted when it is over.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_tell_their_unit() {
        let names: Vec<_> = Figure::ALL.iter().map(|figure| figure.as_str()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((names.len(), sorted.len()), (FIGURES, FIGURES));
        assert!(Figure::ALL.iter().all(|figure| figure.meaning().ends_with('.')));
    }
}
