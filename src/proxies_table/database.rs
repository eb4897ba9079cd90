//! The table in MariaDB: connecting, reading rows, and changing them in one transaction.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder, Row};
use thiserror::Error;
use tokio::task::spawn_blocking;

use super::plan::{OUT, Own, ProxyRow, RowChange, Rows, plan};
use otproxy_config::ProxiesTable;

/// Rows of a table that are read; one with more is none of proxies.
pub const MAX_ROWS: usize = 10_000;
/// Bytes of the file of a password that are read.
const MAX_PASSWORD: u64 = 4096;
/// The columns that a table needs.
const COLUMNS: [&str; 4] = ["host", "port", "priority", "disabled"];

/// The reason why the table is not in step with the edges.
#[derive(Debug, Error)]
pub enum TableError {
    /// The file of the password cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The database refused, or cannot be reached.
    #[error("{0}")]
    Database(#[from] Error),
    /// The table lacks a column.
    #[error("the table has no column `{0}`")]
    NoColumn(&'static str),
    /// It has too many rows.
    #[error("the table has more than {MAX_ROWS} rows")]
    TooLong,
    /// It took too long.
    #[error("the database does not answer in time, or the table is locked")]
    Late,
}

impl TableError {
    /// Returns what to do about it.
    #[must_use]
    pub fn remedy(&self, config: &ProxiesTable) -> String {
        let ProxiesTable { user, database, table, .. } = config;
        let create = || format!("make it as `{}` does", create_table(table));
        match self {
            Self::Password { .. } => {
                "give the file to the user of the service, with the password alone in it".to_owned()
            }
            Self::NoColumn(_) => create(),
            Self::TooLong => "see whether `proxies_table.table` names the right one".to_owned(),
            Self::Late => "see what the database is doing: SHOW FULL PROCESSLIST".to_owned(),
            Self::Database(Error::Server(error)) => match error.code {
                1045 | 1698 => {
                    format!("see `user` and `password_file`; the user is made as `{}` does", create_user(user))
                }
                1044 | 1142 | 1143 => grant(config),
                1049 => format!("CREATE DATABASE {database}, or mend `proxies_table.database`"),
                1146 => create(),
                1054 | 1364 => create(),
                1290 | 1836 => "the database takes no changes now: SET GLOBAL read_only = 0".to_owned(),
                1205 | 1213 => "the table is locked by another; it is tried again".to_owned(),
                _ => "see the database's log".to_owned(),
            },
            Self::Database(_) => match (&config.socket, &config.address) {
                (Some(socket), _) => format!("see whether the database runs, and listens on {}", socket.display()),
                (None, Some(address)) => format!("see whether the database runs, and listens at {address}"),
                (None, None) => "see `proxies_table`".to_owned(),
            },
        }
    }
}

/// Returns the statement that makes a table as it is to be.
#[must_use]
pub fn create_table(table: &str) -> String {
    format!(
        "CREATE TABLE {table} (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, host VARCHAR(255) NOT NULL, port SMALLINT UNSIGNED NOT NULL, \
         priority SMALLINT UNSIGNED NOT NULL DEFAULT 0, disabled TINYINT UNSIGNED NOT NULL DEFAULT 0)"
    )
}

/// Returns the statement that makes a user without a password, who comes over the socket.
#[must_use]
pub fn create_user(user: &str) -> String {
    format!("CREATE USER '{user}'@'localhost' IDENTIFIED VIA unix_socket")
}

/// Returns the statement that gives a user the rights that are needed.
#[must_use]
pub fn grant(config: &ProxiesTable) -> String {
    let ProxiesTable { user, database, table, .. } = config;
    format!("GRANT SELECT, INSERT, UPDATE ON {database}.{table} TO '{user}'@'localhost'")
}

/// A connection to the database, with what is known of the table.
pub struct Database {
    conn: Conn,
    table: String,
    /// True if a new row has to be given its `id`.
    gives_id: bool,
}

impl Database {
    /// Connects, and looks at the table's columns.
    ///
    /// # Errors
    /// Returns the reason why it cannot be used.
    pub async fn connect(config: &ProxiesTable) -> Result<Self, TableError> {
        let mut options = OptsBuilder::default()
            .user(Some(&config.user))
            .pass(password(config).await?)
            .db_name(Some(&config.database))
            .prefer_socket(config.socket.is_some());
        if let Some(socket) = &config.socket {
            options = options.socket(Some(socket.display().to_string()));
        }
        if let Some(address) = &config.address {
            options = options.ip_or_hostname(address.host.clone()).tcp_port(address.port);
        }
        let mut conn = Conn::new(options).await?;
        let table = config.table.clone();
        let columns: Vec<Row> = conn.query(format!("SHOW COLUMNS FROM `{table}`")).await?;
        let text = |row: &Row, column: &str| row.get_opt::<String, _>(column).and_then(Result::ok).unwrap_or_default();
        let there: Vec<_> = columns.iter().map(|row| text(row, "Field").to_ascii_lowercase()).collect();
        for column in COLUMNS {
            if !there.iter().any(|name| name == column) {
                return Err(TableError::NoColumn(column));
            }
        }
        let id = columns.iter().find(|row| text(row, "Field").eq_ignore_ascii_case("id"));
        let gives_id = id.is_some_and(|id| !text(id, "Extra").to_ascii_lowercase().contains("auto_increment"));
        Ok(Self { conn, table, gives_id })
    }

    /// Brings the rows in step with the edges. Returns how many changes that took.
    ///
    /// # Errors
    /// Returns the reason why it did not; nothing has changed then, where the table can take changes back.
    pub async fn keep(&mut self, edges: &[Own]) -> Result<usize, TableError> {
        // Without a change there is no lock.
        let rows = self.rows("").await?;
        if plan(&rows, edges).is_empty() {
            return Ok(0);
        }
        self.conn.query_drop("START TRANSACTION").await?;
        let changed = self.change(edges).await;
        match changed {
            Ok(_) => self.conn.query_drop("COMMIT").await?,
            // The database takes it back by itself where it is gone.
            Err(_) => drop(self.conn.query_drop("ROLLBACK").await),
        }
        changed
    }

    async fn change(&mut self, edges: &[Own]) -> Result<usize, TableError> {
        let rows = self.rows("FOR UPDATE").await?;
        let changes = plan(&rows, edges);
        let table = &self.table;
        for change in &changes {
            match change {
                RowChange::Add { public, priority } => {
                    let values = (&public.host, public.port, priority);
                    let (id, next) = if self.gives_id { ("id, ", "COALESCE(MAX(id), 0) + 1, ") } else { ("", "") };
                    // The derived table lets the statement read the table that it writes to.
                    let from = if self.gives_id {
                        format!(" FROM (SELECT id FROM `{table}`) AS known")
                    } else {
                        String::new()
                    };
                    let statement = format!(
                        "INSERT INTO `{table}` ({id}host, port, priority, disabled) SELECT {next}?, ?, ?, 0{from}"
                    );
                    self.conn.exec_drop(statement, values).await?;
                }
                RowChange::List { rows: Rows { host, port, disabled }, priority } => {
                    let statement = format!(
                        "UPDATE `{table}` SET disabled = 0, priority = ? WHERE BINARY host = ? AND port = ? AND disabled = ?"
                    );
                    self.conn.exec_drop(statement, (priority, host, port, disabled)).await?;
                }
                RowChange::Out { rows: Rows { host, port, disabled } } => {
                    let statement = format!(
                        "UPDATE `{table}` SET disabled = {OUT} WHERE BINARY host = ? AND port = ? AND disabled = ?"
                    );
                    self.conn.exec_drop(statement, (host, port, disabled)).await?;
                }
            }
        }
        Ok(changes.len())
    }

    /// Tries whether the rights are there that are needed, and changes nothing.
    ///
    /// # Errors
    /// Returns the first that is missing.
    pub async fn try_rights(&mut self) -> Result<(), TableError> {
        let table = &self.table;
        let nothing = format!("UPDATE `{table}` SET priority = priority, disabled = disabled WHERE 1 = 0");
        self.rows("").await?;
        self.conn.query_drop(nothing).await?;
        let (table, id) = (&self.table, if self.gives_id { "id, " } else { "" });
        let nothing = format!(
            "INSERT INTO `{table}` ({id}host, port, priority, disabled) \
             SELECT {id}host, port, priority, disabled FROM `{table}` WHERE 1 = 0"
        );
        Ok(self.conn.query_drop(nothing).await?)
    }

    async fn rows(&mut self, lock: &str) -> Result<Vec<ProxyRow>, TableError> {
        let table = &self.table;
        let statement = format!(
            "SELECT host, CAST(port AS CHAR), CAST(priority AS CHAR), CAST(disabled AS CHAR) FROM `{table}` LIMIT {} {lock}",
            MAX_ROWS + 1
        );
        let rows: Vec<Row> = self.conn.query(statement).await?;
        if rows.len() > MAX_ROWS {
            return Err(TableError::TooLong);
        }
        let text = |row: &Row, column: usize| {
            let bytes: Option<Vec<u8>> = row.get_opt::<Option<Vec<u8>>, _>(column).and_then(Result::ok).flatten();
            bytes.and_then(|bytes| String::from_utf8(bytes).ok())
        };
        let row = |row: Row| {
            // A host that is no text is none of an edge.
            let host = text(&row, 0)?;
            let number = |column| text(&row, column).and_then(|text| text.parse::<u64>().ok());
            let port = number(1).and_then(|port| u16::try_from(port).ok());
            Some(ProxyRow { host, port, priority: number(2), disabled: number(3) })
        };
        Ok(rows.into_iter().filter_map(row).collect())
    }
}

/// Reads the password, without the end of its line.
async fn password(config: &ProxiesTable) -> Result<Option<String>, TableError> {
    let Some(path) = config.password_file.clone() else { return Ok(None) };
    let file = path.clone();
    let reading = spawn_blocking(move || {
        let mut text = String::new();
        File::open(file)?.take(MAX_PASSWORD).read_to_string(&mut text)?;
        Ok(text)
    });
    let text = reading.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    let text = text.map_err(|source| TableError::Password { path, source })?;
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}
