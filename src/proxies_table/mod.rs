//! The table `proxies` of a web site's database, whose rows for the edges of this core follow what is decided of them.

mod database;
mod keeper;
mod plan;

pub use database::{Database, MAX_ROWS, TableError, create_table, create_user, grant};
pub use keeper::{TableSettings, WITHIN, keep};
pub use plan::{OUT, Own, ProxyRow, RowChange, Rows, plan};
