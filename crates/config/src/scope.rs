//! Reading the keys of one mapping, without stopping at what is wrong.

use std::cell::RefCell;
use std::path::Path;

use super::error::{ConfigErrors, Location};
use super::key::{self, Key, ListenerType, RoleKind, WhenAbsent};
use super::tree::{Entry, Node, NodeId, Value, fragment};
use super::word::similar;

/// The remedy of a line with a key that earlier versions had.
const NO_SPARES: &str = "is gone: an edge and the core share a few connections, and none is kept ready for each player; remove \
                         this line";
/// Keys that earlier versions had, each with what to do.
const FORMER_KEYS: &[(&str, &str)] = &[("core.spare", NO_SPARES), ("tunnel.spare", NO_SPARES)];

/// Everything that was found wrong.
#[derive(Default)]
pub(super) struct Report {
    findings: RefCell<Vec<(NodeId, String, String)>>,
    /// Values of which there may be one each: whose, the value, and the path where it is.
    claims: RefCell<Vec<(String, String, String)>>,
}

impl Report {
    fn add(&self, spot: &Spot, message: impl Into<String>) {
        self.findings.borrow_mut().push((spot.at, spot.path.clone(), message.into()));
    }

    pub fn into_errors(self, file: &str, locate: impl Fn(NodeId) -> Option<Location>) -> Option<ConfigErrors> {
        ConfigErrors::located(file, self.findings.into_inner(), locate)
    }
}

/// A place in the document, to say later that something is wrong there.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    at: NodeId,
    path: String,
}

/// Returns the values of a list without their places.
pub(super) fn values<T>(list: Vec<(Spot, T)>) -> Vec<T> {
    list.into_iter().map(|(_, value)| value).collect()
}

/// A mapping of the document whose keys are being read.
///
/// A reader of a value returns `None` if it was wrong, and has reported it then.
pub(super) struct Scope<'a> {
    report: &'a Report,
    /// The keys that this kind of file may have.
    table: &'static [Key],
    role: RoleKind,
    kind: Option<ListenerType>,
    /// The folder of the file and of other files that it names; `None` if those are not to be read.
    folder: Option<&'a Path>,
    /// As in errors: `listeners[0].limits`
    path: String,
    /// As in the table of keys: `listeners[].limits`
    pattern: String,
    at: NodeId,
    /// The place of the whole mapping, or of its key where that has no value.
    own: NodeId,
    entries: &'a [Entry],
    /// The top level of the file.
    file: &'a [Entry],
}

impl<'a> Scope<'a> {
    /// Makes the scope of a file's top level. Reports unknown keys.
    pub fn root(report: &'a Report, table: &'static [Key], role: RoleKind, at: NodeId, entries: &'a [Entry]) -> Self {
        let (path, pattern) = (String::new(), String::new());
        let scope =
            Self { report, table, role, kind: None, folder: None, path, pattern, at, own: at, entries, file: entries };
        scope.check_keys();
        scope
    }

    /// Sets the folder of other files that it names.
    pub fn in_folder(self, folder: Option<&'a Path>) -> Self {
        Self { folder, ..self }
    }

    pub fn role(&self) -> RoleKind {
        self.role
    }

    /// Returns the kind of the listener that it is of.
    pub fn kind(&self) -> Option<ListenerType> {
        self.kind
    }

    /// Returns the folder of other files that it names; `None` if those are not to be read.
    pub fn folder(&self) -> Option<&'a Path> {
        self.folder
    }

    /// Returns the place of `key`'s value, or of the whole mapping if the key is absent.
    pub fn spot(&self, key: &str) -> Spot {
        Spot { at: self.entry(key).map_or(self.at, value_id), path: self.path_of(key) }
    }

    /// Reports something that is wrong with `key`.
    pub fn wrong(&self, key: &str, message: impl Into<String>) {
        self.report.add(&self.spot(key), message);
    }

    /// Reports something that is wrong with the mapping itself.
    pub fn wrong_here(&self, message: impl Into<String>) {
        self.report.add(&Spot { at: self.own, path: self.path.clone() }, message);
    }

    /// Reports something that is wrong at `spot`.
    pub fn wrong_at(&self, spot: &Spot, message: impl Into<String>) {
        self.report.add(spot, message);
    }

    /// Returns the places of the items of `key`'s list; of the bare value where it is one.
    pub fn spots(&self, key: &str) -> Vec<Spot> {
        let spot = self.spot(key);
        match self.entry(key).map(|entry| &entry.node.value) {
            Some(Value::List(nodes)) => {
                let item =
                    |(index, node): (usize, &Node)| Spot { at: node.id, path: format!("{}[{index}]", spot.path) };
                nodes.iter().enumerate().map(item).collect()
            }
            Some(_) => vec![spot],
            None => Vec::new(),
        }
    }

    /// Takes `value` for `spot`; an error where another place has it. `of` tells which values must differ.
    pub fn claim(&self, of: &str, spot: &Spot, value: String) {
        let mut claims = self.report.claims.borrow_mut();
        match claims.iter().find(|(whose, taken, _)| whose == of && *taken == value) {
            Some((.., path)) => {
                self.report.add(spot, format!("`{value}` is already used by {path}; each must be its own"));
            }
            None => claims.push((of.to_owned(), value, spot.path.clone())),
        }
    }

    /// Returns the first value of others that `meets` one, with the path of its key.
    pub fn met(&self, of: &str, meets: impl Fn(&str) -> bool) -> Option<(String, String)> {
        let claims = self.report.claims.borrow();
        let met = claims.iter().find(|(whose, taken, _)| whose == of && meets(taken));
        met.map(|(_, taken, path)| (taken.clone(), path.clone()))
    }

    /// Claims a value as [`Scope::claim`] does, among those of the same key in all mappings of a list.
    pub fn claim_own(&self, key: &str, value: String) {
        self.claim(&self.pattern_of(key), &self.spot(key), value);
    }

    /// Takes `value` for `key`, before others claim it.
    pub fn reserve(&self, of: &str, key: &str, value: String) {
        self.report.claims.borrow_mut().push((of.to_owned(), value, self.path_of(key)));
    }

    /// Returns whether the file has this key at its top level.
    pub fn file_has(&self, key: &str) -> bool {
        self.file.iter().any(|entry| entry.key == key)
    }

    /// Returns the text of a key in a mapping at the top level of the file, right or not.
    pub fn file_word(&self, mapping: &str, key: &str) -> Option<&'a str> {
        let find = |entries: &'a [Entry], key: &str| entries.iter().find(|entry| entry.key == key);
        let Value::Map(entries) = &find(self.file, mapping)?.node.value else { return None };
        let Value::Text(text) = &find(entries, key)?.node.value else { return None };
        Some(text)
    }

    /// Returns whether the mapping has this key.
    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Returns whether a key has a list without items.
    pub fn has_empty_list(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| matches!(&entry.node.value, Value::List(items) if items.is_empty()))
    }

    /// Returns whether the mapping has a mapping of this name, right or not, with this key.
    pub fn has_in(&self, mapping: &str, key: &str) -> bool {
        let entries = self.entry(mapping).map(|entry| &entry.node.value);
        matches!(entries, Some(Value::Map(entries)) if entries.iter().any(|entry| entry.key == key))
    }

    /// Reads a value, or the key's default.
    pub fn value<T>(&self, key: &str, parse: impl Fn(&Node) -> Result<T, String>) -> Option<T> {
        match self.entry(key) {
            Some(entry) => self.parse(&entry.node, &self.spot(key), &parse),
            None => parse(&self.default(key)?).ok(),
        }
    }

    /// Reads a list, or a bare value as a list of one, each with its place.
    pub fn list<T>(&self, key: &str, parse: impl Fn(&Node) -> Result<T, String>) -> Option<Vec<(Spot, T)>> {
        let spot = self.spot(key);
        let default;
        let node = match self.entry(key) {
            Some(entry) => &entry.node,
            None => {
                default = self.default(key)?;
                &default
            }
        };
        let Value::List(nodes) = &node.value else {
            return Some(vec![(spot.clone(), self.parse(node, &spot, &parse)?)]);
        };
        let values: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(index, node)| {
                let spot = Spot { at: node.id, path: format!("{}[{index}]", spot.path) };
                let value = self.parse(node, &spot, &parse);
                value.map(|value| (spot, value))
            })
            .collect();
        values.into_iter().collect()
    }

    /// Reads a list as [`Scope::list`] does, but an empty list is an error.
    pub fn some<T>(&self, key: &str, parse: impl Fn(&Node) -> Result<T, String>) -> Option<Vec<(Spot, T)>> {
        let list = self.list(key, parse)?;
        if list.is_empty() {
            self.wrong(key, "is an empty list; give at least one");
            return None;
        }
        Some(list)
    }

    /// Reads a list as [`Scope::some`] does, whose values may also be mappings, which `read` takes. Their keys are
    /// checked.
    pub fn some_or_keys<T>(
        &self,
        key: &str,
        parse: impl Fn(&Node) -> Result<T, String>,
        read: impl Fn(&Scope<'a>) -> Option<T>,
    ) -> Option<Vec<(Spot, T)>> {
        let Some(entry) = self.entry(key) else {
            return self.some(key, parse);
        };
        let (path, one) = (self.path_of(key), std::slice::from_ref(&entry.node));
        let (nodes, listed) = match &entry.node.value {
            Value::List(nodes) => (nodes.as_slice(), true),
            _ => (one, false),
        };
        if nodes.is_empty() {
            return self.some(key, parse);
        }
        let item = |(index, node): (usize, &'a Node)| {
            let path = if listed { format!("{path}[{index}]") } else { path.clone() };
            let spot = Spot { at: node.id, path: path.clone() };
            let Value::Map(entries) = &node.value else {
                return self.parse(node, &spot, &parse).map(|value| (spot, value));
            };
            let pattern = format!("{}[]", self.pattern_of(key));
            let scope = Scope { path, pattern, at: node.id, own: node.id, entries, ..*self };
            scope.check_keys();
            read(&scope).map(|value| (spot, value))
        };
        let items: Vec<_> = nodes.iter().enumerate().map(item).collect();
        items.into_iter().collect()
    }

    /// Returns the scope of a mapping below this one. If absent, it is empty, and its keys have their defaults.
    pub fn section(&self, key: &str) -> Scope<'a> {
        let entries = match self.entry(key).map(|entry| &entry.node.value) {
            Some(Value::Map(entries)) => entries.as_slice(),
            Some(Value::Null) => {
                self.wrong(key, "has no value; give it keys, or leave it out");
                &[]
            }
            Some(_) => {
                let keys: Vec<_> =
                    key::below(self.table, &self.pattern_of(key)).map(|key| format!("`{key}`")).collect();
                self.wrong(key, format!("must be a mapping with the keys {}", keys.join(", ")));
                &[]
            }
            None => &[],
        };
        let at = self.entry(key).map_or(self.at, |entry| entry.node.id);
        let own = self.entry(key).map_or(self.at, value_id);
        let scope = Scope { path: self.path_of(key), pattern: self.pattern_of(key), at, own, entries, ..*self };
        scope.check_keys();
        scope
    }

    /// Returns the mappings of a list. The keys of each are to be checked by [`Scope::check_keys`]; `None` if there is
    /// no list.
    pub fn items(&self, key: &str) -> Option<Vec<Scope<'a>>> {
        let Some(entry) = self.entry(key) else {
            return self.default(key).map(|_| Vec::new());
        };
        let Value::List(nodes) = &entry.node.value else {
            let nothing = matches!(entry.node.value, Value::Null);
            let what = if nothing { "has no value; it takes a list" } else { "must be a list" };
            self.wrong(key, format!("{what}; begin each item with `- `"));
            return None;
        };
        let item = |(index, node): (usize, &'a Node)| {
            let path = format!("{}[{index}]", self.path_of(key));
            let Value::Map(entries) = &node.value else {
                let message = format!("{} is not a mapping; give it keys, as in `- name: ..`", node.quoted());
                self.report.add(&Spot { at: node.id, path }, message);
                return None;
            };
            let pattern = format!("{}[]", self.pattern_of(key));
            Some(Scope { path, pattern, at: node.id, own: node.id, entries, ..*self })
        };
        let items: Vec<_> = nodes.iter().enumerate().map(item).collect();
        Some(items.into_iter().flatten().collect())
    }

    /// Returns the scope of the same mapping, with the keys of this kind of listener.
    pub fn of_kind(self, kind: Option<ListenerType>) -> Self {
        Self { kind, ..self }
    }

    /// Reports keys that are unknown, repeated, or not for this role or kind of listener.
    pub fn check_keys(&self) {
        for (index, entry) in self.entries.iter().enumerate() {
            let spot = Spot { at: entry.key_id, path: self.path_of(&entry.key) };
            if self.entries.iter().take(index).any(|earlier| earlier.key == entry.key) {
                self.report.add(&spot, "is there twice; keep one");
                continue;
            }
            let keys: Vec<&Key> = key::at_or_below(self.table, &self.pattern_of(&entry.key)).collect();
            let Some(key) = keys.first() else {
                self.report.add(&spot, self.unknown(&entry.key));
                continue;
            };
            let other_role = key.role.filter(|role| *role != self.role);
            let other_kind = key.of_kinds().filter(|_| self.kind.is_some_and(|own| !key.is_of_kind(own)));
            if let Some(role) = other_role {
                self.report.add(&spot, format!("only in `role: {role}`; leave it out here"));
            } else if let Some(kinds) = other_kind {
                self.report.add(&spot, format!("only with {kinds}; leave it out here"));
            }
        }
    }

    fn unknown(&self, key: &str) -> String {
        if key == "<<" {
            return "merge keys are not supported; write the keys out".to_owned();
        }
        let pattern = self.pattern_of(key);
        if let Some((_, remedy)) = FORMER_KEYS.iter().find(|(former, _)| *former == pattern) {
            return (*remedy).to_owned();
        }
        if let Some(word) = self.meant(key) {
            return format!("unknown key; did you mean `{word}`?");
        }
        let mut words: Vec<_> = self.words().map(|word| format!("`{word}`")).collect();
        words.dedup();
        format!("unknown key; here are {}", words.join(", "))
    }

    /// Returns the key that an unknown one was probably meant to be.
    fn meant(&self, key: &str) -> Option<&'static str> {
        let known = key::at_or_below(self.table, &self.pattern_of(key)).next().is_some();
        if known { None } else { similar(key, self.words()) }
    }

    /// Returns the keys that this mapping may have.
    fn words(&self) -> impl Iterator<Item = &'static str> {
        key::below(self.table, &self.pattern).filter(|word| {
            key::at_or_below(self.table, &self.pattern_of(word))
                .any(|key| key.role.is_none_or(|role| role == self.role))
        })
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub fn path_of(&self, key: &str) -> String {
        // A key of the file may be anything: an error stays on its line.
        let key: String = key.chars().map(|c| if c.is_control() { '?' } else { c }).take(100).collect();
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    fn pattern_of(&self, key: &str) -> String {
        if self.pattern.is_empty() { key.to_owned() } else { format!("{}.{key}", self.pattern) }
    }

    fn parse<T>(&self, node: &Node, spot: &Spot, parse: &impl Fn(&Node) -> Result<T, String>) -> Option<T> {
        let result = match node.value {
            Value::Null => Err("has no value; give one, or leave the key out".to_owned()),
            _ => parse(node),
        };
        result.map_err(|message| self.report.add(spot, message)).ok()
    }

    fn default(&self, key: &str) -> Option<Node> {
        let entry = key::find(self.table, &self.pattern_of(key))?;
        if entry.default == WhenAbsent::Required {
            // One mistake is one error: a misspelt key has been reported as such.
            let meant = |entry: &Entry| entry.key == "<<" || self.meant(&entry.key) == Some(key);
            if !self.entries.iter().any(meant) {
                let message = format!("is required, and missing; write it as `{key}: {}`", entry.example);
                self.report.add(&Spot { at: self.at, path: self.path_of(key) }, message);
            }
            return None;
        }
        entry.default_for(self.role, self.kind).map(fragment)
    }
}

/// Returns the node to point at for a value: an absent value has no place of its own, but its key has.
fn value_id(entry: &Entry) -> NodeId {
    if matches!(entry.node.value, Value::Null) { entry.key_id } else { entry.node.id }
}
