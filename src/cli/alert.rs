//! `otproxy alert`: the webhook that owners are told by.

use std::process::ExitCode;

use anyhow::{Context, anyhow};

use super::{ConfigFile, print_raw, runtime};
use crate::alerts::{self, PostAnswer, Sender};
use otproxy_config as config;
use otproxy_config::AlertsConfig;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Alert {
    /// Send a message to the webhook of `alerts` now, and say what the other side answered
    ///
    /// It takes the file as the process does that runs, and changes nothing there. The URL is not shown. Exit code 1 if the message
    /// was not taken.
    Test(ConfigFile),
}

impl Alert {
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let Self::Test(ConfigFile { config: file }) = self;
        let config = config::load(file)?;
        let none = || {
            anyhow!(
                "{}: it has no `alerts`; write `alerts: {{ webhook: {{ url_file: webhook.url }}, format: discord }}`",
                file.display()
            )
        };
        let AlertsConfig { webhook, format } = config.process().alerts.clone().ok_or_else(none)?;
        let sender = Sender { name: config.process().name.clone(), role: config.role() };
        let (runtime, signals) = runtime()?;
        let posted = runtime.block_on(async {
            tokio::select! {
                posted = alerts::post(webhook, alerts::test_message(format, &sender)) => Some(posted),
                () = signals.caught() => None,
            }
        });
        // A name look-up that hangs would delay the end.
        runtime.shutdown_background();
        let Some(posted) = posted else { return Ok(ExitCode::FAILURE) };
        let PostAnswer { status, told } = posted.context("the test message was not taken")?;
        let told = if told.is_empty() { told } else { format!(": {told}") };
        print_raw(format!("the test message was taken: status {status}{told}\n").as_bytes())
    }
}
