//! The table `proxies` of a web site's database, whose rows for the edges of this core follow what is decided of them.

mod plan;

pub use plan::{OUT, Own, ProxyRow, RowChange, Rows, plan};
