//! Questions about a list, as the query of a GET.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::Network;

/// The greatest number of items in an answer, from 1; `DEFAULT` unless the question names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PageSize<const DEFAULT: usize>(usize);

/// The greatest number of items that a question may ask for.
pub const MOST: usize = 10_000;

impl<const DEFAULT: usize> PageSize<DEFAULT> {
    /// Makes the limit; `None` if it is zero or more than a list may have.
    pub fn new(items: usize) -> Option<Self> {
        (1..=MOST).contains(&items).then_some(Self(items))
    }

    /// Returns the number.
    pub fn get(self) -> usize {
        self.0
    }
}

impl<const DEFAULT: usize> Default for PageSize<DEFAULT> {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl<'de, const DEFAULT: usize> Deserialize<'de> for PageSize<DEFAULT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = usize::deserialize(deserializer)?;
        Self::new(items).ok_or_else(|| D::Error::custom(format!("`{items}` is not from 1 to {MOST}")))
    }
}

impl<const DEFAULT: usize> JsonSchema for PageSize<DEFAULT> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Most{DEFAULT}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT })
    }
}

/// The traffic of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrafficQuestion {
    /// The first day that counts, in UTC, as in `2026-11-05`; without it all that are kept count.
    pub since: Option<String>,
}

/// For a list that is given as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoQuestion {}

/// Which connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsQuestion {
    /// Only those of the listener with this name. One that does not exist has none.
    pub listener: Option<String>,
    /// Only those of players, or peers whose player is not known, in this network.
    pub address: Option<Network>,
    /// At the most.
    #[serde(default)]
    pub limit: PageSize<100>,
}

/// Which sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionsQuestion {
    /// Only those of this client.
    pub client: Option<u32>,
    /// Only those of players in this network.
    pub address: Option<Network>,
    /// At the most.
    #[serde(default)]
    pub limit: PageSize<100>,
}

/// The measure by which top talkers are ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Top {
    /// Connections.
    #[default]
    Connections,
    /// Bytes, in both directions together.
    Bytes,
}

/// Which top talkers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressesQuestion {
    /// The measure by which they are ordered.
    #[serde(default)]
    pub by: Top,
    /// At the most.
    #[serde(default)]
    pub limit: PageSize<20>,
}

/// Which bans.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BansQuestion {
    /// Only those that have a part of this network in them.
    pub address: Option<Network>,
    /// At the most.
    #[serde(default)]
    pub limit: PageSize<100>,
}
