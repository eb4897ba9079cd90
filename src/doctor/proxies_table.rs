//! The table of proxies: the database, the table's columns, and the rights of the user.

use tokio::time::timeout;

use super::DoctorCheck;
use crate::proxies_table::{Database, TableError, WITHIN};
use otproxy_config::ProxiesTable;

/// The check of the table.
const CHECK: &str = "proxies_table";

/// Tries all that keeping the table takes. Nothing in it changes.
pub(super) async fn examine(config: ProxiesTable) -> DoctorCheck {
    let trying = async {
        let mut database = Database::connect(&config).await?;
        database.try_rights().await?;
        let (user, name) = database.names();
        Ok(format!("{user} reads and changes it in the database {name}"))
    };
    match timeout(WITHIN, trying).await.unwrap_or_else(|_| Err(TableError::late())) {
        Ok(says) => DoctorCheck::ok(CHECK, &config.table, says),
        Err(error) => DoctorCheck::fail((CHECK, &config.table), error.to_string(), error.remedy),
    }
}
