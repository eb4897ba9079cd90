//! `otproxy upgrade`: takes over from the process that runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::ValueHint;
use tracing::info;

use crate::admin::api::{ApiError, Role, UpgradeBegun, UpgradeRequest};
use crate::admin::{AdminClient, ApiAnswer};
use crate::handover::{Meeting, Predecessor, is_managed, is_own_user};
use otproxy_config as config;
use otproxy_config::{Config, ConfigErrors, RoleKind};

/// The flags of `otproxy upgrade`.
#[derive(Debug, clap::Args)]
pub(super) struct Upgrade {
    /// The configuration file, YAML, of the edge or core that it is to be
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: PathBuf,
    /// The unix socket of the one that runs [default: admin.socket of the file]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,
}

impl Upgrade {
    /// Returns its configuration file.
    pub fn file(&self) -> &Path {
        &self.config
    }

    /// Reads that.
    ///
    /// # Errors
    /// Returns all errors of the file.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        config::load(&self.config)
    }

    /// Asks the process that runs to hand over to this one, and returns it when it has come.
    ///
    /// # Errors
    /// Says why it does not, or why this one cannot.
    pub async fn call(&self, config: &Config) -> anyhow::Result<Predecessor> {
        if is_managed() {
            bail!(
                "a service manager runs this, and would not know which process is the service: have the unit run `otproxy {}`, and use \
                 `systemctl restart`, which hands over as well",
                config.role()
            );
        }
        let own = config.process().admin.socket.as_deref();
        let Some(socket) = self.socket.as_deref().or(own) else {
            bail!(
                "{}: without `admin.socket` there is no way to the process that runs; give --socket <PATH>, or restart it",
                self.config.display()
            );
        };
        check_owner(socket, config.role())?;
        let meeting = Meeting::beside(socket);
        let meeting = meeting
            .with_context(|| format!("cannot make a socket beside {}, in a folder to write to", socket.display()))?;
        let place = meeting.name().to_owned();
        let role = match config.role() {
            RoleKind::Edge => Role::Edge,
            RoleKind::Core => Role::Core,
        };
        let request = UpgradeRequest { role, place, takes_socket: own == Some(socket) };
        let body = serde_json::to_string(&request).context("cannot ask that")?;
        let answer = AdminClient::socket(socket).post("/api/v1/upgrade", body).await;
        let answer = answer.with_context(|| nobody(socket, config.role()))?;
        if answer.status != 200 {
            return Err(refused(&answer, socket));
        }
        let UpgradeBegun { pid, version } =
            serde_json::from_slice(&answer.body).with_context(|| format!("{} is not of otproxy", socket.display()))?;
        let predecessor = meeting.met().context("the process that runs has not come to hand over")?;
        info!(pid, version, socket = %socket.display(), "takes over from the process that runs");
        Ok(predecessor)
    }
}

/// Checks that the process that runs is one of this user.
fn check_owner(socket: &Path, role: RoleKind) -> anyhow::Result<()> {
    let owner = fs::metadata(socket).with_context(|| nobody(socket, role))?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    // Root could, and would run on as root what had less rights until now.
    let remedy = if is_own_user(owner) { "with sudo" } else { "with `sudo -u`" };
    bail!("{} is of the process of user id {owner}: run this as that user, {remedy}", socket.display())
}

/// Says that nothing runs there.
fn nobody(socket: &Path, role: RoleKind) -> String {
    let socket = socket.display();
    format!("cannot reach a process that runs at {socket}; if none does, start it with `otproxy {role}`")
}

/// Returns the error of a process that does not hand over.
fn refused(answer: &ApiAnswer, socket: &Path) -> anyhow::Error {
    let socket = socket.display();
    match serde_json::from_slice::<ApiError>(&answer.body) {
        Ok(_) if answer.status == 404 => {
            anyhow!("the process at {socket} is of a version that hands nothing over; restart it instead")
        }
        Ok(ApiError { error, remedy, .. }) => anyhow!("the process at {socket} does not hand over: {error}; {remedy}"),
        Err(_) => anyhow!("what answers at {socket} does not do so as otproxy does"),
    }
}
