//! The table `proxies` of a web site's database, whose rows for the edges of this core follow what is decided of them.

mod access;
mod database;
mod fault;
mod keeper;
mod plan;
mod url;

pub use access::MAX_SECRET;
pub use database::{Database, MAX_ROWS};
pub use fault::{Fault, TableError, create_table, create_user, grant};
pub use keeper::{PACE, TableSettings, WITHIN, keep};
pub use plan::{OUT, Own, ProxyRow, RowChange, Rows, plan};
pub use url::UrlError;
