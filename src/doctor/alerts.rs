//! The webhook of alerts: its file, who may read it, and the authorities that stand behind the other side. Nothing is sent.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::DoctorCheck;
use crate::alerts::{PostError, UrlError, read_url};
use crate::certs::roots::Roots;
use crate::unit::SecretReader;
use otproxy_config::{AlertsConfig, WebhookConfig};

/// The check of alerts.
const CHECK: &str = "alerts";
/// The rights of those who are not the owner.
const OTHERS: u32 = 0o077;

/// Looks at the files that a webhook needs.
pub(super) fn examine(config: &AlertsConfig) -> Vec<DoctorCheck> {
    let WebhookConfig { url_file, ca } = &config.webhook;
    let subject = url_file.display().to_string();
    let what = (CHECK, subject.as_str());
    let url = match read_url(url_file) {
        Ok(url) => url,
        Err(PostError::Url { source, .. }) => {
            return vec![DoctorCheck::fail(what, source.to_string(), source.remedy())];
        }
        Err(error) => {
            return vec![DoctorCheck::fail(what, error.to_string(), UrlError::Empty.remedy())];
        }
    };
    if url.is_tls()
        && let Err(error) = (Roots { ca: ca.clone() }).config("give `ca` beside `url_file`")
    {
        return vec![DoctorCheck::told(what, &error, "give `ca` beside `url_file`")];
    }
    vec![open_to(url_file).map_or_else(
        || DoctorCheck::ok(CHECK, &subject, "it has a URL; `otproxy alert test` sends a message there"),
        |mode| {
            let message = format!("others may read it (mode {mode:o}), and who knows the URL can write to the chat");
            DoctorCheck::warn(what, message, SecretReader::here().give(url_file))
        },
    )]
}

/// Returns the mode of a file that others may read or change.
fn open_to(file: &Path) -> Option<u32> {
    let mode = fs::metadata(file).ok()?.mode() & 0o777;
    (mode & OTHERS != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::doctor::CheckStatus;
    use otproxy_config::AlertFormat;

    #[test]
    fn the_file_is_looked_at() {
        let file = std::env::temp_dir().join(format!("otproxy-doctor-alerts-{}", std::process::id()));
        let webhook = WebhookConfig { url_file: file.clone(), ca: None };
        let config = AlertsConfig { webhook, format: AlertFormat::Discord };
        let look = |text: &str, mode| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let check = examine(&config).pop().unwrap();
            let said = format!("{} {:?}", check.message, check.remedy);
            assert!(!said.contains("secret") && check.check == CHECK, "{said}");
            (check.status, said)
        };
        assert_eq!(look("http://127.0.0.1:1/secret\n", 0o600).0, CheckStatus::Ok);
        let (status, said) = look("http://127.0.0.1:1/secret\n", 0o644);
        assert!(status == CheckStatus::Warn && said.contains("mode 644"), "{said}");
        let (status, said) = look("http://198.51.100.7/secret\n", 0o600);
        assert!(status == CheckStatus::Fail && said.contains("https://"), "{said}");
        fs::remove_file(&file).unwrap();
        assert_eq!(examine(&config).pop().unwrap().status, CheckStatus::Fail);
    }
}
