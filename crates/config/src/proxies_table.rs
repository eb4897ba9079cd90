//! `proxies_table`: the table of a web site's database that the core keeps in step with its edges.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{HostPort, TARGET};
use super::declare::{Read, section};
use super::formats::{PATH, ROUND, SECRET, TITLE};
use super::scope::Scope;
use super::takes::{Format, value};
use super::tree::{Node, Value};

/// The name of a table.
const TABLE: Format<String> = Format::new("name of a table", table);
/// Characters of such a name: as many as MariaDB takes.
const MAX_TABLE: usize = 64;

section! {
    /// `proxies_table`: a table in MariaDB, whose rows for the edges the core keeps.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ProxiesTable from ProxiesTableKeys {
        /// the database's unix socket
        socket: Option<PathBuf> = value(PATH).optional("it is at `address`").example("/run/mysqld/mysqld.sock"),
        /// in place of it, the database's address; what goes there is not encrypted
        address: Option<HostPort> = value(TARGET).optional("it is at `socket`").example("127.0.0.1:3306"),
        /// the user of the database
        user: String = value(TITLE).required("otproxy"),
        /// a file with its password, read again for each connection; over the socket a user may need none
        password_file: Option<PathBuf> = value(SECRET).optional("no password").example("database.password"),
        /// the name of the database
        database: String = value(TITLE).required("myot"),
        /// the table in it
        table: String = value(TABLE).or("proxies"),
        /// from one look at its rows to the next; a change of the edges is there at once
        every: Duration = value(ROUND).or("30s"),
    }
}

impl Read for ProxiesTable {
    fn read(scope: &Scope<'_>) -> Option<Self> {
        let keys = ProxiesTableKeys::read(scope);
        match (scope.has("socket"), scope.has("address")) {
            (true, true) => scope.wrong("address", "is there beside `socket`, and the database is at one of them"),
            (false, false) => {
                scope.wrong("socket", "is missing; write it as `socket: /run/mysqld/mysqld.sock`, or give `address`")
            }
            _ => return keys.complete(),
        }
        None
    }
}

fn table(node: &Node) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match &node.value {
        Value::Text(text) if (1..=MAX_TABLE).contains(&text.len()) && text.chars().all(fits) => Ok(text.clone()),
        _ => Err(format!("{} is no name of a table; use letters a-z and A-Z, digits and `_`", node.quoted())),
    }
}
