use super::*;
use crate::formats::{COUNT, FLAG, LABEL};
use crate::key::{RoleKind, WhenAbsent};
use crate::mapping::{flat, mapping};
use crate::scope::Report;
use crate::takes::{items, list, value};
use crate::tree::{self, Value};

section! {
    /// A file.
    #[derive(Debug, Clone, PartialEq)]
    pub struct House {
        /// the name on the door, which
        /// may be long
        name: String = value(LABEL).required("here").restart(),
        /// the doors
        doors: Vec<Door> = items().or("[]"),
        /// The cellar, where there is one.
        cellar: Option<Cellar> = mapping().optional(),
        /// The roof, with the keys beside it.
        roof: Roof = flat(),
    }
}

section! {
    /// A mapping in a list.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Door from DoorKeys {
        /// whether it is open
        open as "is": bool = value(FLAG).or("false"),
        /// its number; unique
        number: u32 = value(COUNT).unique().required("7"),
    }
}

section! {
    /// A mapping that may be absent.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Cellar {
        /// how many steps lead there
        steps: u32 = value(COUNT).or("12").restart(),
        /// what is in it
        holds: Vec<String> = list(LABEL).or("[]"),
    }
}

section! {
    /// Keys without a mapping of their own.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Roof {
        /// how many tiles it has
        tiles: u32 = value(COUNT).or("1000"),
    }
}

impl Read for Door {
    fn read(scope: &Scope<'_>) -> Option<Self> {
        let keys = DoorKeys::read(scope);
        if keys.open == Some(true) && !scope.has("number") {
            scope.wrong("is", "is open, and has no number");
        }
        keys.complete()
    }
}

fn read(text: &str) -> Result<House, String> {
    let root = tree::build(text).unwrap();
    let Value::Map(entries) = &root.value else { panic!("{text}") };
    let report = Report::default();
    let table: &'static [Key] = House::keys().leak();
    let house = House::read(&Scope::root(&report, table, RoleKind::Edge, root.id, entries));
    match report.into_errors("house.yaml", |id| tree::locate(text, id)) {
        Some(errors) => Err(errors.to_string()),
        None => Ok(house.unwrap()),
    }
}

#[test]
fn keys_follow_from_the_declaration() {
    let keys = House::keys();
    let paths: Vec<_> = keys.iter().map(|key| key.path.as_str()).collect();
    assert_eq!(paths, ["name", "doors", "doors[].is", "doors[].number", "cellar.steps", "cellar.holds", "tiles"]);
    assert_eq!(keys[0].meaning, "the name on the door, which may be long");
    assert_eq!((keys[0].default, keys[0].example), (WhenAbsent::Required, "here"));
    assert_eq!((keys[2].default, keys[2].form.as_str()), (WhenAbsent::Text("false"), "`true` or `false`"));
    assert_eq!(keys[5].form, "name, or a list");
}

#[test]
fn absent_keys_have_their_defaults() {
    let house = read("name: here\ndoors: [{ number: 1 }, { is: true, number: 2 }]\ncellar: {}").unwrap();
    let doors = [(false, 1), (true, 2)].map(|(open, number)| Door { open, number });
    let cellar = Some(Cellar { steps: 12, holds: Vec::new() });
    assert_eq!(house, House { name: "here".to_owned(), doors: doors.into(), cellar, roof: Roof { tiles: 1000 } });
    assert_eq!(read("name: here\ntiles: 3").unwrap().cellar, None);
}

#[test]
fn all_that_is_wrong_is_said_and_checks_of_keys_with_each_other_do_not_wait() {
    let errors =
        read("tiles: many\ndoors: [{ number: 1 }, { number: 1 }, { is: true }]\ncellar: { step: 1 }").unwrap_err();
    let said: Vec<_> = errors.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(said, ["name", "tiles", "doors[1].number", "doors[2].number", "doors[2].is", "cellar.step"], "{errors}");
}

#[test]
fn a_section_with_a_key_that_takes_a_restart_cannot_come_or_go_without_one() {
    assert_eq!(House::restart_keys(), ["name", "cellar", "cellar.steps"]);
    let started = read("name: here\ncellar: { steps: 1, holds: [wine] }\ntiles: 1").unwrap();
    for (after, changed) in [
        ("name: here\ncellar: { steps: 1, holds: [beer] }\ntiles: 2", &[][..]),
        ("name: there\ncellar: { steps: 2 }", &["name", "cellar.steps"]),
        ("name: here", &["cellar"]),
    ] {
        let mut after = read(after).unwrap();
        assert_eq!(started.changed(&after), changed);
        let tiles = after.roof.tiles;
        after.keep(&started);
        assert_eq!((started.changed(&after), after.roof.tiles), (Vec::new(), tiles), "the rest is the new one's");
    }
}
