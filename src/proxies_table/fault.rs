//! The reasons why the table is not in step with the edges, and what to do about each.

use std::io;
use std::path::PathBuf;

use mysql_async::Error;
use thiserror::Error;

use super::access::{Access, Place};
use super::database::MAX_ROWS;
use super::url::UrlError;

/// The reason why the table is not in step with the edges, with its remedy.
#[derive(Debug, Error)]
#[error("{fault}")]
pub struct TableError {
    /// The fault in words.
    pub fault: Fault,
    /// The remedy.
    pub remedy: String,
}

/// A fault of a table, or of the way to it.
#[derive(Debug, Error)]
pub enum Fault {
    /// A file of a secret cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// It holds no URL of a database.
    #[error("{} has no URL of a database: {source}", path.display())]
    Url {
        /// The file.
        path: PathBuf,
        /// The fault in it.
        source: UrlError,
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
    /// Returns the error of a look that took too long.
    #[must_use]
    pub fn late() -> Self {
        Fault::Late.alone()
    }

    /// Returns whether the connection is gone, and the database said nothing of why.
    pub(super) fn is_lost(&self) -> bool {
        matches!(&self.fault, Fault::Database(error) if !matches!(error, Error::Server(_)))
    }
}

impl Fault {
    /// Adds what to do about it, as far as that can be said without knowing the way to the table.
    pub(super) fn alone(self) -> TableError {
        let remedy = match &self {
            Self::File { .. } => "give the file to the user of the service, with nothing else in it".to_owned(),
            Self::Url { source, .. } => format!("{}; docs/proxies-table.md has the form", source.remedy()),
            _ => "see what the database is doing: SHOW FULL PROCESSLIST".to_owned(),
        };
        TableError { fault: self, remedy }
    }

    /// Adds what to do about it, for a table that is reached so.
    pub(super) fn at(self, access: &Access, table: &str) -> TableError {
        let create = || format!("make it as `{}` does", create_table(table));
        let Access { user, database, .. } = access;
        let remedy = match &self {
            Self::NoColumn(_) => create(),
            Self::TooLong => "see whether `proxies_table.table` names the right one".to_owned(),
            Self::Database(Error::Server(error)) => match error.code {
                1045 | 1698 => {
                    format!("see the user and its password; the user is made as `{}` does", create_user(user))
                }
                1044 | 1142 | 1143 => grant(user, database, table),
                1049 => format!("CREATE DATABASE {database}, or mend the database's name"),
                1146 | 1054 | 1364 => create(),
                1290 | 1836 => "the database takes no changes now: SET GLOBAL read_only = 0".to_owned(),
                1205 | 1213 => "the table is locked by another; it is tried again".to_owned(),
                _ => "see the database's log".to_owned(),
            },
            Self::Database(_) => match &access.place {
                Place::Socket(socket) => format!("see whether the database runs, and listens on {}", socket.display()),
                Place::Address(address) => format!("see whether the database runs, and listens at {address}"),
            },
            Self::File { .. } | Self::Url { .. } | Self::Late => return self.alone(),
        };
        TableError { fault: self, remedy }
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
pub fn grant(user: &str, database: &str, table: &str) -> String {
    format!("GRANT SELECT, INSERT, UPDATE ON {database}.{table} TO '{user}'@'localhost'")
}
