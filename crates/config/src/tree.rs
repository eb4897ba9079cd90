//! A YAML document as a tree whose every node can be found again in the text.
//!
//! The YAML library tells where something stands only in its errors. So each node is numbered in
//! the order of reading, and [`locate`] reads the text again and fails on purpose at that number:
//! the position of that error is the position of the node.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde_yaml::Deserializer;

use super::error::Location;

/// Values and keys of a file: more than any useful one has. Aliases can multiply a small file; this bounds the result. No more brackets may open either: the
/// time that the library takes grows with the square of those that are open at once.
pub const MAX_NODES: usize = 20_000;
/// Characters of a value that are quoted in an error.
const MAX_QUOTED: usize = 60;

/// The number of a node or key, in the order of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(usize);

/// A value in the document.
#[derive(Debug)]
pub(super) struct Node {
    pub id: NodeId,
    pub value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a mapping and its value. Keys may repeat: finding that is up to the reader.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_id: NodeId,
    pub node: Node,
}

/// The reason why there is no tree.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub location: Option<Location>,
    pub message: String,
}

impl Node {
    /// Returns the value as it is quoted in errors: short, on one line.
    pub fn quoted(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Int(value) => format!("`{value}`"),
            Value::Float(value) => format!("`{value}`"),
            Value::Text(value) => quote(value),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// Puts `text` between backticks, without control characters, and cut if it is long.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("`");
    for (count, c) in text.chars().enumerate() {
        if count == MAX_QUOTED {
            quoted.push_str("..");
            break;
        }
        if c.is_control() { quoted.extend(c.escape_default()) } else { quoted.push(c) }
    }
    quoted.push('`');
    quoted
}

/// Reads the one document of `text`.
pub(super) fn build(text: &str) -> Result<Node, SyntaxError> {
    if let Some((at, _)) = text.match_indices(['[', '{']).nth(MAX_NODES) {
        let location = Location::end_of(text.get(..at).unwrap_or_default());
        return Err(SyntaxError { location: Some(location), message: TOO_LARGE.to_owned() });
    }
    let mut documents = Deserializer::from_str(text);
    let first = documents.next();
    let root = match first {
        Some(document) => Reading::whole().deserialize(document).map_err(|error| SyntaxError::new(error, text))?,
        None => Node { id: NodeId(0), value: Value::Null },
    };
    let Some(second) = documents.next() else { return Ok(root) };
    // Fails at its first node, for the position, unless its syntax is wrong before that.
    let Err(error) = Reading::until(NodeId(0)).deserialize(second) else { return Ok(root) };
    let mut error = SyntaxError::new(error, text);
    if error.message == STOPPED {
        error.message = "a second YAML document begins here; keep all in one, without `---`".to_owned();
    }
    Err(error)
}

/// Builds a tree of one scalar, list or mapping, for text that is no file: the defaults.
pub(super) fn fragment(text: &str) -> Node {
    build(text).unwrap_or(Node { id: NodeId(0), value: Value::Null })
}

/// Returns the place of node `id` in `text`, of which [`build`] made a tree.
pub(super) fn locate(text: &str, id: NodeId) -> Option<Location> {
    let document = Deserializer::from_str(text).next()?;
    let error = Reading::until(id).deserialize(document).err()?;
    error.location().map(Location::from)
}

impl From<serde_yaml::Location> for Location {
    fn from(at: serde_yaml::Location) -> Self {
        Self { line: at.line(), column: at.column() }
    }
}

impl SyntaxError {
    fn new(error: serde_yaml::Error, text: &str) -> Self {
        let location = error.location().map(Location::from);
        let mut message = error.to_string();
        // The library appends the position, which is printed in front already, and prepends its
        // own path to messages of this module.
        if let Some(at) = location {
            message = message.replacen(&format!(" at line {} column {}", at.line, at.column), "", 1);
        }
        for own in [STOPPED, NO_TAGS, TOO_LARGE] {
            if message.ends_with(own) {
                message = own.to_owned();
            }
        }
        if message == TOO_DEEP_THERE {
            message = TOO_DEEP.to_owned();
        }
        if message.ends_with(PLAIN_WORD) {
            message = format!("a key must be {PLAIN_WORD}");
        }
        if let Some(hint) = location.and_then(|at| hint(text, at)) {
            message.push_str(hint);
        }
        // The library has the end of a text whose last line has no end one line further on.
        let location = location.map(|at| at.min(Location::end_of(text)));
        Self { location, message }
    }
}

/// Returns a hint about the usual mistake on such a line, which the parser cannot know.
fn hint(text: &str, at: Location) -> Option<&'static str> {
    let line = text.lines().nth(at.line.checked_sub(1)?)?;
    if line.trim_start_matches(' ').starts_with('\t') {
        Some("; indent with spaces, not with tabs")
    } else if line.contains(" [") && line.contains("]:") {
        Some("; put an IPv6 address in quotes, as in `\"[::]:7162\"`")
    } else {
        None
    }
}

const STOPPED: &str = "stopped at the node that was asked for";
const NO_TAGS: &str = "a YAML tag (`!..`) means nothing here; leave it out, or quote the value";
const PLAIN_WORD: &str = "a plain word";
const TOO_LARGE: &str =
    "more than 20000 values are too many for a configuration; leave some out, and see whether aliases multiply them";
/// The library's message for it.
const TOO_DEEP_THERE: &str = "recursion limit exceeded";
const TOO_DEEP: &str = "is nested deeper than any configuration; see whether a bracket is not closed";

/// Reads one node, and all below it.
#[derive(Clone, Copy)]
struct Reading<'c> {
    /// The number of the next node. `None`: begin at 0.
    next: Option<&'c Cell<usize>>,
    stop_at: Option<NodeId>,
}

impl<'c> Reading<'c> {
    fn whole() -> Self {
        Self { next: None, stop_at: None }
    }

    fn until(id: NodeId) -> Self {
        Self { next: None, stop_at: Some(id) }
    }

    fn number<E: de::Error>(self) -> Result<NodeId, E> {
        let id = NodeId(self.next.map_or(0, Cell::get));
        if let Some(next) = self.next {
            next.set(id.0 + 1);
        }
        if self.stop_at == Some(id) {
            Err(E::custom(STOPPED))
        } else if id.0 >= MAX_NODES {
            Err(E::custom(TOO_LARGE))
        } else {
            Ok(id)
        }
    }

    fn node<E: de::Error>(self, value: Value) -> Result<Node, E> {
        Ok(Node { id: self.number()?, value })
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        if self.next.is_some() {
            return deserializer.deserialize_any(self);
        }
        let counter = Cell::new(0);
        deserializer.deserialize_any(Reading { next: Some(&counter), stop_at: self.stop_at })
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.node(Value::Null)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.node(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.node(Value::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.node(Value::Int(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.node(Value::Int(value.into()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.node(Value::Int(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.node(Value::Int(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.node(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.node(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let id = self.number()?;
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(self)? {
            nodes.push(node);
        }
        Ok(Node { id, value: Value::List(nodes) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let id = self.number()?;
        let mut entries = Vec::new();
        while let Some((key_id, key)) = map.next_key_seed(Key(self))? {
            let node = map.next_value_seed(self)?;
            entries.push(Entry { key, key_id, node });
        }
        Ok(Node { id, value: Value::Map(entries) })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _tagged: A) -> Result<Node, A::Error> {
        self.number()?;
        Err(de::Error::custom(NO_TAGS))
    }
}

/// Reads a key, as the text it is written as: `7171:` and `off:` are words too.
struct Key<'c>(Reading<'c>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = (NodeId, String);

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = (NodeId, String);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PLAIN_WORD)
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok((self.0.number()?, key.to_owned()))
    }
}

#[cfg(test)]
mod tests;
