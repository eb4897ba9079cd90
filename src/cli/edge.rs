//! `otproxy edge`: runs an edge; or, with a name, shows and steers one of a core.

use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;

use super::operate::{ApiFlags, order_time, run};
use super::wrong_together;
use crate::admin::api::{EdgeOrder, EdgeRequest, LONGEST_WHY};

/// The flags of `otproxy edge`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "otproxy edge -c <FILE>\n       otproxy edge <NAME> [out|in|auto] [OPTIONS]")]
pub(super) struct Edge {
    /// At a core that runs: this edge, as `edges` in the core's file names it
    name: Option<String>,
    /// Say whether clients are told of it; without it the edge is shown
    #[arg(value_enum, requires = "name")]
    order: Option<EdgeOrder>,
    /// For how long, as in `1h` [default: until there is another word]
    #[arg(long = "for", value_name = "DURATION", value_parser = order_time, requires = "order")]
    lasts: Option<u32>,
    /// The reason, for those who see it
    #[arg(long, value_name = "TEXT", value_parser = why, requires = "order")]
    why: Option<String>,
    #[command(flatten)]
    asking: ApiFlags,
}

impl Edge {
    /// Returns the file of the edge that is to run; `None` if this is a question to a core.
    ///
    /// # Errors
    /// Returns the error of the flags if neither is asked for.
    pub fn file(&self) -> Result<Option<&Path>, clap::Error> {
        match (&self.name, self.asking.only_config()) {
            (Some(_), _) => Ok(None),
            (None, Ok(Some(file))) => Ok(Some(file)),
            (None, Ok(None)) => Err(wrong_together(
                "edge",
                ErrorKind::MissingRequiredArgument,
                "give --config <FILE> to run an edge, or the <NAME> of one that a core knows",
            )),
            (None, Err(flag)) => Err(wrong_together(
                "edge",
                ErrorKind::ArgumentConflict,
                &format!(
                    "{flag} goes with the <NAME> of an edge that a core knows, and running one takes --config alone"
                ),
            )),
        }
    }

    /// Asks a core about the edge, or has it go by a word on it.
    pub fn ask(&self) -> anyhow::Result<ExitCode> {
        let edge = self.name.clone().unwrap_or_default();
        run(async {
            match self.order {
                None => self.asking.see_edge(&edge).await,
                Some(order) => {
                    let request = EdgeRequest { edge, order, for_seconds: self.lasts, why: self.why.clone() };
                    self.asking.act_on_edge(&request).await
                }
            }
        })
    }
}

/// Parses `--why`.
fn why(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0..=LONGEST_WHY => Ok(text.to_owned()),
        _ => Err(format!("it has at most {LONGEST_WHY} characters")),
    }
}
