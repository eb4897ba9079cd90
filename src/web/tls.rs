//! The certificates of a listener, read again when their files change.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::certs::CertError;
use crate::certs::certificate::DAYS_LEFT;
use crate::certs::server::ServerIdentity;
use crate::certs::watch::{WatchResult, Watched};
use crate::metrics::Metrics;
use otproxy_config::WebTlsConfig;

/// The interval at which the files are looked at.
pub const REREAD: Duration = Duration::from_secs(5);
/// The interval of the lines about a certificate that ends.
const WARN_EACH: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificates of one listener; none while it is plain.
#[derive(Debug)]
pub(super) struct WebTls {
    listener: String,
    now: Mutex<Option<Files>>,
}

#[derive(Debug, Clone)]
struct Files {
    config: WebTlsConfig,
    /// `None` where they cannot be used.
    identity: Option<Watched<ServerIdentity>>,
}

impl Files {
    fn load(listener: &str, config: &WebTlsConfig) -> Self {
        let identity = load(config)
            .inspect_err(|error| error!(listener, %error, "nobody gets in: the certificate cannot be used"))
            .ok();
        Self { config: config.clone(), identity }
    }
}

/// Reads the files, and checks that they belong together.
pub(super) fn load(config: &WebTlsConfig) -> Result<Watched<ServerIdentity>, CertError> {
    let WebTlsConfig { cert, key } = config;
    Watched::load(vec![cert.clone(), key.clone()], || ServerIdentity::load(cert, key))
}

impl WebTls {
    /// Reads the files that the configuration names, if any. What cannot be used is logged: whoever starts or reloads has checked
    /// them just before.
    pub fn new(listener: &str, config: Option<&WebTlsConfig>) -> Arc<Self> {
        let now = Mutex::new(config.map(|config| Files::load(listener, config)));
        Arc::new(Self { listener: listener.to_owned(), now })
    }

    /// Goes by other files, if they are others.
    pub fn set(&self, config: Option<&WebTlsConfig>) {
        let same = self.now.lock().as_ref().map(|files| &files.config) == config;
        if !same {
            let files = config.map(|config| Files::load(&self.listener, config));
            *self.now.lock() = files;
        }
    }

    /// Returns the configuration for a new connection; `Ok(None)` if it is plain.
    ///
    /// # Errors
    /// Fails while there is no certificate that can be used.
    pub fn server_config(&self) -> Result<Option<Arc<ServerConfig>>, ()> {
        match &*self.now.lock() {
            None => Ok(None),
            Some(files) => {
                let identity = files.identity.as_ref().ok_or(())?;
                Ok(Some(Arc::clone(identity.value().server_config())))
            }
        }
    }

    /// Looks at the files and at the clock, until dropped. It runs on no worker: a file system may hang.
    pub async fn keep(self: Arc<Self>, metrics: Arc<Metrics>) {
        let mut rounds = interval(REREAD);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Instant::now();
        loop {
            rounds.tick().await;
            let Some(mut files) = self.now.lock().clone() else { continue };
            // It fails only while the process ends.
            let Ok((files, result)) = spawn_blocking(move || {
                let result = look(&mut files);
                (files, result)
            })
            .await
            else {
                return;
            };
            self.tell(&result);
            let renewed = matches!(result, WatchResult::Renewed);
            let identity = files.identity.as_ref().map(|identity| identity.value().clone());
            let still = |now: &Option<Files>| now.as_ref().map(|now| &now.config) == Some(&files.config);
            {
                let mut now = self.now.lock();
                // A reload may have named others meanwhile.
                if still(&now) {
                    *now = Some(files);
                }
            }
            if let Some(identity) = identity {
                self.count(identity.not_after(), &metrics);
                if renewed || Instant::now() >= next {
                    next = Instant::now() + WARN_EACH;
                    self.warn_of(&identity);
                }
            }
        }
    }

    fn tell(&self, result: &WatchResult<CertError>) {
        let listener = &self.listener;
        match result {
            WatchResult::None => {}
            WatchResult::Renewed => info!(listener, "the certificate was read again"),
            WatchResult::Unusable(error) => error!(listener, %error, "it goes on with the certificate of before"),
        }
    }

    fn count(&self, end: SystemTime, metrics: &Metrics) {
        let seconds = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let gauge = metrics.certificate_expiry_timestamp.with_label_values(&[label(&self.listener).as_str()]);
        gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    fn warn_of(&self, identity: &ServerIdentity) {
        let (listener, days) = (&self.listener, identity.days_left(SystemTime::now()));
        if days < DAYS_LEFT {
            warn!(listener, days, "the certificate expires; renew it where it was made: no restart is needed");
        }
    }
}

fn look(files: &mut Files) -> WatchResult<CertError> {
    let WebTlsConfig { cert, key } = &files.config;
    match &mut files.identity {
        Some(identity) => identity.look(|| ServerIdentity::load(cert, key)),
        None => match load(&files.config) {
            Ok(identity) => {
                files.identity = Some(identity);
                WatchResult::Renewed
            }
            // It was said when it was first read.
            Err(_) => WatchResult::None,
        },
    }
}

/// Returns the value of the label `certificate` for a listener's.
pub(super) fn label(listener: &str) -> String {
    format!("listener:{listener}")
}
