//! `otproxy deploy`: puts the folder of `otproxy init` onto its hosts, over the system's own ssh.
//!
//! The plan is a pure function of topology and options: for each host the commands in their order, as they are shown by
//! `--dry-run` (`plan`, `script`, `reach`, `command`). The first of them asks the host what it has; `found` reads the answer, and
//! `wanted` decides from it which of the others are needed. So a deployment that was interrupted goes on from the truth. `run` runs
//! them.

mod command;
mod error;
mod found;
mod plan;
mod quote;
mod reach;
mod run;
mod script;
mod wanted;

pub use error::DeployError;
pub use plan::{DeployOptions, FirewallChoice, Plan, ProgramChoice, Selection, Step};
pub use quote::quoted;
pub use reach::socket_folder;
pub use run::{COMMAND_WITHIN, MAX_OUTPUT, Said, run};
pub use script::UNDO_AFTER;
