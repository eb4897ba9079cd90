//! Fixed words, networks and times of answers and requests.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use otproxy_config as config;

/// Declares an enum whose variants have fixed words, which are also what people see and type.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? })+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// All values, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )+ };
}

words! {
    /// The role of the process.
    Role {
        /// It forwards connections to the core.
        Edge = "edge",
        /// It relays sessions to the game servers.
        Core = "core",
    }
    /// `listeners[].kind`
    ListenerKind {
        /// TCP to a target.
        Forward = "forward",
        /// Links of the multi-path protocol.
        Relay = "relay",
        /// HTTP, for clients and web sites.
        Web = "web",
    }
    /// The state of a listener: an open one takes connections.
    ListenerState {
        /// It takes them.
        Open = "open",
        /// It is drained and takes none; those that it has go on.
        Draining = "draining",
        /// It is drained, and has none left.
        Drained = "drained",
        /// It is not in the file any more, or the process ends: it takes none, and those that it has go on.
        Closed = "closed",
    }
    /// The state that an operator wants of a target.
    #[derive(clap::ValueEnum)]
    TargetState {
        /// It has connections as far as it is up.
        Ready = "ready",
        /// It has no new connections; those that it has go on.
        Drain = "drain",
        /// It has no new connections and is not checked; those that it has go on.
        Maint = "maint",
    }
    /// How far a connection has come.
    ConnectionState {
        /// Its kind and its target are not known yet.
        Opening = "opening",
        /// It is carried to a target.
        Forwarding = "forwarding",
        /// It is a link of a client.
        Link = "link",
    }
    /// How far a session has come, as in the architecture.
    SessionState {
        /// The game server has not answered yet.
        Connecting = "connecting",
        /// It has links and a game connection.
        Carried = "carried",
        /// The client took the last link off.
        Grace = "grace",
        /// The last link was lost.
        Lingering = "lingering",
        /// The game server has closed.
        Ending = "ending",
    }
    /// The one that banned an address.
    BannedBy {
        /// A person or a script, by this API.
        Operator = "operator",
        /// `bans.after`: the address broke the rules so often.
        Rules = "rules",
    }
    /// The state of an edge, as its core judges it.
    EdgeState {
        /// It is as it should be.
        Up = "up",
        /// Round trips over it are well above its own.
        Slow = "slow",
        /// It loses links while the same players' other links live.
        Hit = "hit",
        /// It cannot be used, or is not to be.
        Out = "out",
    }
    /// The word of an operator on whether clients are told of an edge.
    #[derive(clap::ValueEnum)]
    EdgeOrder {
        /// Clients are not told of it, however well it does. Links that it has go on.
        Out = "out",
        /// Clients are told of it, however badly it does.
        In = "in",
        /// The core decides again, by what it sees of it.
        Auto = "auto",
    }
    /// The one that has an edge refused.
    RevokedBy {
        /// `edges[].revoked`.
        File = "file",
        /// A person or a script, by this API: until that is undone, or until a restart.
        Operator = "operator",
    }
}

impl From<config::ListenerType> for ListenerKind {
    fn from(kind: config::ListenerType) -> Self {
        match kind {
            config::ListenerType::Forward => Self::Forward,
            config::ListenerType::Relay => Self::Relay,
            config::ListenerType::Web => Self::Web,
        }
    }
}

/// An address or a CIDR. One address has no prefix in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(pub IpNet);

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            f.pad(&self.0.addr().to_string())
        } else {
            f.pad(&self.0.to_string())
        }
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        config::network(text).map(Self)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An address, or a CIDR without bits set behind its prefix.",
            "examples": ["198.51.100.7", "198.51.100.0/24", "2001:db8:1:2::/64"],
        })
    }
}

/// A point in time, with whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub SystemTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A time outside of all calendars is none that a process has seen.
        let time = jiff::Timestamp::try_from(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{time:.0}")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        SystemTime::try_from(time).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time", "examples": ["2030-01-31T12:00:00Z"] })
    }
}
