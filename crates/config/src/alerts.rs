//! `alerts`: what owners are told of, by a webhook.

use std::path::PathBuf;

use otproxy_protocol::words;

use super::declare::section;
use super::formats::{PATH, SECRET};
use super::mapping::mapping;
use super::takes::{value, word};

section! {
    /// `alerts`: messages to a chat about what its owners must hear of.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct AlertsConfig {
        /// `webhook`
        webhook: WebhookConfig = mapping(),
        /// the form of messages: that of a webhook of Discord or Slack, or JSON for a program of yours
        format: AlertFormat = word().required("discord"),
    }
}

section! {
    /// `webhook`: the place where messages go.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct WebhookConfig {
        /// a file with the URL, which is a secret; read again for each message
        url_file: PathBuf = value(SECRET).required("webhook.url"),
        /// a file with the authorities, PEM, of which one has signed the other side's certificate
        ca: Option<PathBuf> = value(PATH).optional("those of the system").example("ca.pem"),
    }
}

words! {
    /// `format`: the form of messages.
    pub enum AlertFormat {
        /// As Discord takes it.
        Discord = "discord",
        /// As Slack takes it, and others who take the same.
        Slack = "slack",
        /// All that there is to say, for programs.
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn read(alerts: &str) -> Result<AlertsConfig, String> {
        let text =
            format!("role: edge\nlisteners: [{{ name: a, listen: '127.0.0.1:0', forward_to: 'b:1' }}]\n{alerts}\n");
        let config = parse("edge.yaml", &text).map_err(|errors| errors.to_string())?;
        Ok(config.process().alerts.clone().expect("it has them"))
    }

    #[test]
    fn a_webhook_has_a_file_and_a_form() {
        let alerts = read("alerts: { webhook: { url_file: /u }, format: slack }").unwrap();
        let webhook = WebhookConfig { url_file: "/u".into(), ca: None };
        assert_eq!(alerts, AlertsConfig { webhook, format: AlertFormat::Slack });
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (alerts, says) in [
            ("alerts: { webhook: { url_file: /u } }", "format"),
            ("alerts: { format: discord }", "url_file"),
            ("alerts: { webhook: { url_file: /u }, format: Discord }", "did you mean `discord`?"),
            ("alerts: { webhook: { url: 'https://secret.example' }, format: json }", "url_file"),
        ] {
            let error = read(alerts).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
