//! The table in MariaDB: connecting, reading rows, and changing them in one transaction.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row};

use super::access::{Access, Place};
use super::fault::{Fault, TableError};
use super::plan::{OUT, Own, ProxyRow, RowChange, Rows, plan};
use otproxy_config::ProxiesTable;

/// Rows of a table that are read; one with more is none of proxies.
pub const MAX_ROWS: usize = 10_000;
/// The columns that a table needs.
const COLUMNS: [&str; 4] = ["host", "port", "priority", "disabled"];

/// A connection to the database, with what is known of the table.
pub struct Database {
    conn: Conn,
    access: Access,
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
        let access = Access::of(config).await?;
        match connection(&access, &config.table).await {
            Ok((conn, gives_id)) => Ok(Self { conn, access, table: config.table.clone(), gives_id }),
            Err(fault) => Err(fault.at(&access, &config.table)),
        }
    }

    /// Returns the user and the database.
    #[must_use]
    pub fn names(&self) -> (&str, &str) {
        (&self.access.user, &self.access.database)
    }

    /// Brings the rows in step with the edges. Returns how many changes that took.
    ///
    /// # Errors
    /// Returns the reason why it did not; nothing has changed then, where the table can take changes back.
    pub async fn keep(&mut self, edges: &[Own]) -> Result<usize, TableError> {
        let kept = self.bring_in_step(edges).await;
        kept.map_err(|fault| fault.at(&self.access, &self.table))
    }

    async fn bring_in_step(&mut self, edges: &[Own]) -> Result<usize, Fault> {
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

    async fn change(&mut self, edges: &[Own]) -> Result<usize, Fault> {
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
        let tried = self.change_nothing().await;
        tried.map_err(|fault| fault.at(&self.access, &self.table))
    }

    async fn change_nothing(&mut self) -> Result<(), Fault> {
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

    async fn rows(&mut self, lock: &str) -> Result<Vec<ProxyRow>, Fault> {
        let table = &self.table;
        let statement = format!(
            "SELECT host, CAST(port AS CHAR), CAST(priority AS CHAR), CAST(disabled AS CHAR) FROM `{table}` LIMIT {} {lock}",
            MAX_ROWS + 1
        );
        let rows: Vec<Row> = self.conn.query(statement).await?;
        if rows.len() > MAX_ROWS {
            return Err(Fault::TooLong);
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

/// Connects, and looks at the table's columns. Returns whether new rows have to be given their `id`.
async fn connection(access: &Access, table: &str) -> Result<(Conn, bool), Fault> {
    let Access { place, user, password, database } = access;
    let options = OptsBuilder::default()
        .user(Some(user))
        .pass(password.clone())
        .db_name(Some(database))
        .prefer_socket(matches!(place, Place::Socket(_)));
    let options = match place {
        Place::Socket(socket) => options.socket(Some(socket.display().to_string())),
        Place::Address(address) => options.ip_or_hostname(address.host.clone()).tcp_port(address.port),
    };
    let mut conn = Conn::new(options).await?;
    let columns: Vec<Row> = conn.query(format!("SHOW COLUMNS FROM `{table}`")).await?;
    let text = |row: &Row, column: &str| row.get_opt::<String, _>(column).and_then(Result::ok).unwrap_or_default();
    let there: Vec<_> = columns.iter().map(|row| text(row, "Field").to_ascii_lowercase()).collect();
    for column in COLUMNS {
        if !there.iter().any(|name| name == column) {
            return Err(Fault::NoColumn(column));
        }
    }
    let id = columns.iter().find(|row| text(row, "Field").eq_ignore_ascii_case("id"));
    let gives_id = id.is_some_and(|id| !text(id, "Extra").to_ascii_lowercase().contains("auto_increment"));
    Ok((conn, gives_id))
}
