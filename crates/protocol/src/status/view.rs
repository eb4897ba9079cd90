//! An answer in XML, as one that asked for it reads it.

use super::xml::Attributes;

/// The part of a server's status that people look at. All of it is the server's word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// The address that it gives to players.
    pub address: String,
    /// The port beside it.
    pub port: String,
    /// The number of players online.
    pub online: Option<u32>,
    /// The most that may be.
    pub max: Option<u32>,
}

impl ServerStatus {
    /// Reads an answer to [`StatusRequest::Xml`](super::StatusRequest::Xml); `None` if it is none.
    #[must_use]
    pub fn read(xml: &[u8]) -> Option<Self> {
        let mut view = Self::default();
        let mut tag = Attributes::of(xml, b"<serverinfo")?;
        while let Some((name, value)) = tag.read_next().ok()? {
            let value = || text(xml.get(value.clone()).unwrap_or_default());
            match name {
                b"servername" => view.name = value(),
                b"ip" => view.address = value(),
                b"port" => view.port = value(),
                _ => {}
            }
        }
        if let Some(mut tag) = Attributes::of(xml, b"<players") {
            while let Some((name, value)) = tag.read_next().ok()? {
                let number = || text(xml.get(value.clone()).unwrap_or_default()).parse().ok();
                match name {
                    b"online" => view.online = number(),
                    b"max" => view.max = number(),
                    _ => {}
                }
            }
        }
        Some(view)
    }
}

/// Returns a value of an attribute as text, with the five characters that XML writes by name.
fn text(value: &[u8]) -> String {
    let escaped = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    let text = String::from_utf8_lossy(value).into_owned();
    escaped.iter().fold(text, |text, (name, is)| text.replace(name, is))
}
