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
        /// a file with the database's URL, in place of all keys but `table` and `every`; read again for each connection
        url_file: Option<PathBuf> = value(SECRET).optional("these keys say it").example("database.url"),
        /// the user of the database
        user: Option<String> = value(TITLE).optional("required without `url_file`").example("otproxy"),
        /// a file with its password, read again for each connection; over the socket a user may need none
        password_file: Option<PathBuf> = value(SECRET).optional("no password").example("database.password"),
        /// the name of the database
        database: Option<String> = value(TITLE).optional("required without `url_file`").example("myot"),
        /// the table in it
        table: String = value(TABLE).or("proxies"),
        /// from one look at its rows to the next; a change of the edges is there at once
        every: Duration = value(ROUND).or("30s"),
    }
}

/// The keys that a URL takes the place of.
const OF_THE_URL: [&str; 5] = ["socket", "address", "user", "password_file", "database"];

impl Read for ProxiesTable {
    fn read(scope: &Scope<'_>) -> Option<Self> {
        let keys = ProxiesTableKeys::read(scope);
        let mut wrong = false;
        let mut say = |key: &str, message: &str| {
            scope.wrong(key, message);
            wrong = true;
        };
        if scope.has("url_file") {
            for key in OF_THE_URL.into_iter().filter(|key| scope.has(key)) {
                say(key, "is there beside `url_file`, whose URL says it; leave one of them out");
            }
        } else {
            match (scope.has("socket"), scope.has("address")) {
                (true, true) => say("address", "is there beside `socket`, and the database is at one of them"),
                (false, false) => say(
                    "socket",
                    "is missing; write it as `socket: /run/mysqld/mysqld.sock`, or give `address`, or `url_file` in place of all",
                ),
                _ => {}
            }
            for (key, example) in [("user", "otproxy"), ("database", "myot")] {
                if !scope.has(key) {
                    say(key, &format!("is required without `url_file`, and missing; write it as `{key}: {example}`"));
                }
            }
        }
        keys.complete().filter(|_| !wrong)
    }
}

fn table(node: &Node) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match &node.value {
        Value::Text(text) if (1..=MAX_TABLE).contains(&text.len()) && text.chars().all(fits) => Ok(text.clone()),
        _ => Err(format!("{} is no name of a table; use letters a-z and A-Z, digits and `_`", node.quoted())),
    }
}
