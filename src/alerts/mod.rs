//! Alerts: what owners must hear of, sent to a webhook of theirs.
//!
//! `told` decides which events those are, `queue` gathers them, `message` writes them as the other side takes them, `url` and `post` bring
//! a message there, and `keeper` is the task that does all of it. Nothing waits for it: it reads the log of events as any other reader
//! does, and whatever the other side does, it keeps so many events at the most.

mod keeper;
mod message;
mod post;
mod queue;
mod told;
mod url;

pub use keeper::{AlertSettings, keep};
pub use message::{LONGEST_MESSAGE, LONGEST_SENTENCE, Sender, test_message};
pub use post::{AlertFailure, MAX_ANSWER, MAX_TOLD, PostAnswer, PostError, WITHIN, post, read_url};
pub use queue::{EVERY, FIRST_AGAIN, GATHERED, LONGEST_AGAIN, MAX_WAITING};
pub use told::{LEAST_STANDSTILL, ToldEvents, told};
pub use url::{MAX_URL, UrlError, WebhookUrl};
