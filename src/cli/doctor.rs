//! `otproxy doctor`

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use tokio::runtime::Builder;

use super::{ConfigFile, colours, files_needed, print_raw, raise_file_limit};
use crate::doctor::{self, DoctorCheck, OpenFiles};
use otproxy_config as config;

#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    file: ConfigFile,
    /// One JSON object on stdout instead of lines
    #[arg(long)]
    json: bool,
    /// Also find out whether game servers block an address that connects too often: they may refuse new players for some seconds then
    #[arg(long)]
    try_connects: bool,
}

impl Doctor {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let file = &self.file.config;
        let checks = match config::load(file) {
            Ok(config) => {
                let files = OpenFiles { limit: raise_file_limit(), needed: files_needed(&config) };
                let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
                let checks = runtime.block_on(doctor::examine(config, file, files, self.try_connects));
                // A name look-up that hangs would delay the end.
                runtime.shutdown_background();
                checks
            }
            Err(errors) => {
                let shown = file.display().to_string();
                let lines = errors.to_string();
                lines.lines().map(|error| DoctorCheck::wrong_file(&shown, error)).collect()
            }
        };
        let text = if self.json { doctor::json(&checks) } else { doctor::text(&checks, colours(&io::stdout())) };
        print_raw(text.as_bytes())?;
        Ok(if doctor::passed(&checks) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
