//! Messages, as each side takes them. Pure.
//!
//! Sentences have names of others in them, so all of a sentence is taken for hostile: nothing in it mentions anybody, makes a link or
//! changes how the rest looks.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::queue::Batch;
use crate::admin::api::EventView;
use crate::events::{Event, Happening};
use otproxy_config::{AlertFormat, RoleKind};
use otproxy_protocol::printable::Printable;

/// The longest text of a message, in UTF-16 units: as much as Discord takes. Events that do not fit go into the next message.
pub const LONGEST_MESSAGE: usize = 2000;
/// Characters of a sentence in it; what is longer is cut.
pub const LONGEST_SENTENCE: usize = 280;
/// Units kept free for the line about what was left out.
const TAIL: usize = 80;

/// The process that tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: RoleKind,
}

/// A message, and the events that did not fit.
#[derive(Debug, PartialEq)]
pub(super) struct Composed {
    pub body: String,
    /// Events in it.
    pub told: Batch,
    pub rest: Vec<Event>,
}

/// Writes as many events of a batch as fit.
pub(super) fn compose(format: AlertFormat, sender: &Sender, batch: Batch) -> Composed {
    let Batch { events, left_out } = batch;
    let mut text = head(format, sender);
    let mut units = units(&text);
    let mut rest = events.into_iter().peekable();
    let mut told = Vec::new();
    while let Some(event) = rest.peek() {
        let line = line(format, event);
        units += self::units(&line);
        // The first one fits always: a sentence is cut.
        if units > LONGEST_MESSAGE - TAIL && !told.is_empty() {
            break;
        }
        text.push_str(&line);
        told.extend(rest.next());
    }
    if left_out > 0 {
        let _ = write!(text, "\n{left_out} older events were left out");
    }
    let body = written(format, sender, &text, &told, left_out);
    Composed { body, told: Batch { events: told, left_out }, rest: rest.collect() }
}

/// Returns the message of a test.
pub fn test_message(format: AlertFormat, sender: &Sender) -> String {
    let sentence = "a test: alerts of this process arrive here";
    let text = format!("{}\n{}", head(format, sender), escaped(format, sentence));
    written(format, sender, &text, &[], 0)
}

fn head(format: AlertFormat, Sender { name, role }: &Sender) -> String {
    let of = escaped(format, &format!("{role} {name}"));
    match format {
        AlertFormat::Discord => format!("**{of}**"),
        AlertFormat::Slack | AlertFormat::Json => of,
    }
}

fn line(format: AlertFormat, event: &Event) -> String {
    let sign = if event.what.is_warning() && !event.what.is_over() { "⚠" } else { "✔" };
    // Escapes count: none of it is longer then.
    let mut sentence = Printable(sentence(&event.what)).to_string();
    if let Some((end, _)) = sentence.char_indices().nth(LONGEST_SENTENCE) {
        sentence.truncate(end);
        sentence.push('…');
    }
    let mut line = format!("\n{sign} {} ", escaped(format, &time(event.time)));
    line.push_str(&escaped(format, &sentence));
    if event.suppressed > 0 {
        let _ = write!(line, ", {} more like it before", event.suppressed);
    }
    line
}

/// Returns an event in a sentence without addresses of servers: who reads a chat need not know them.
fn sentence(what: &Happening) -> String {
    match what {
        Happening::GameServer { port, up: true, .. } => format!("world {port} can be reached again"),
        Happening::GameServer { port, up: false, reason, .. } => format!("world {port} cannot be reached: {reason}"),
        what => what.to_string(),
    }
}

fn view(event: &Event) -> EventView {
    EventView { text: sentence(&event.what), ..event.into() }
}

fn time(time: SystemTime) -> String {
    let seconds = Timestamp::try_from(time).and_then(|time| Timestamp::from_second(time.as_second()));
    seconds.unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

fn escaped(format: AlertFormat, text: &str) -> String {
    let text = Printable(text).to_string();
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match (format, c) {
            (AlertFormat::Json, c) => escaped.push(c),
            (AlertFormat::Slack, '&') => escaped.push_str("&amp;"),
            (AlertFormat::Slack, '<') => escaped.push_str("&lt;"),
            (AlertFormat::Slack, '>') => escaped.push_str("&gt;"),
            (AlertFormat::Slack, c) => escaped.push(c),
            (AlertFormat::Discord, ' ' | ',' | '.' | '%' | '+' | '\'' | '-') => escaped.push(c),
            (AlertFormat::Discord, c) => {
                // Each mark of its may be escaped so, those of links and mentions included.
                if c.is_ascii_punctuation() {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
        }
    }
    escaped
}

fn written(format: AlertFormat, sender: &Sender, text: &str, events: &[Event], left_out: u64) -> String {
    let value = match format {
        AlertFormat::Discord => json!({ "content": text, "allowed_mentions": { "parse": [] } }),
        AlertFormat::Slack => json!({
            "text": text, "mrkdwn": false, "link_names": false, "parse": "none", "unfurl_links": false, "unfurl_media": false,
        }),
        AlertFormat::Json => {
            let events: Vec<Value> = events.iter().map(|event| json!(view(event))).collect();
            let Sender { name, role } = sender;
            json!({ "name": name, "role": role.as_str(), "text": text, "events": events, "left_out": left_out })
        }
    };
    value.to_string()
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn sender() -> Sender {
        Sender { name: "core_1".to_owned(), role: RoleKind::Core }
    }

    fn event(what: Happening) -> Event {
        Event { serial: 7, time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_400), suppressed: 0, what }
    }

    fn target(target: &str) -> Event {
        event(Happening::Target { listener: "l".to_owned(), target: target.to_owned(), up: false })
    }

    fn composed(format: AlertFormat, events: Vec<Event>, left_out: u64) -> (Value, Composed) {
        let composed = compose(format, &sender(), Batch { events, left_out });
        (serde_json::from_str(&composed.body).unwrap(), composed)
    }

    #[test]
    fn each_side_has_the_message_in_its_form() {
        let stall = |ongoing| Happening::GameStall { port: 7172, seconds: 6.0, ongoing };
        let events = || vec![event(stall(true)), Event { suppressed: 3, ..event(stall(false)) }];
        let (discord, _) = composed(AlertFormat::Discord, events(), 2);
        assert_eq!(
            discord,
            json!({
                "content": "**core core\\_1**\n⚠ 2023-11-14T22\\:13\\:20Z world 7172 has been standing still for 6.0 s\n\
                    ✔ 2023-11-14T22\\:13\\:20Z world 7172 stood still for 6.0 s, 3 more like it before\n2 older events were left out",
                "allowed_mentions": { "parse": [] },
            })
        );
        let (slack, _) = composed(AlertFormat::Slack, vec![target("a<b>&c")], 0);
        assert_eq!(slack["text"], "core core_1\n⚠ 2023-11-14T22:13:20Z target a&lt;b&gt;&amp;c of l is down");
        assert_eq!(
            (&slack["mrkdwn"], &slack["parse"], &slack["link_names"]),
            (&json!(false), &json!("none"), &json!(false))
        );
        let (json, _) = composed(AlertFormat::Json, events(), 2);
        assert_eq!((&json["name"], &json["role"], &json["left_out"]), (&json!("core_1"), &json!("core"), &json!(2)));
        assert_eq!((&json["events"][0]["kind"], &json["events"][1]["suppressed"]), (&json!("game_stall"), &json!(3)));
    }

    #[test]
    fn nothing_in_a_sentence_mentions_anybody_or_makes_a_link() {
        let (discord, _) =
            composed(AlertFormat::Discord, vec![target("@everyone <@1> [a](http://b) `c` ||d||\n# e")], 0);
        let text = discord["content"].as_str().unwrap();
        let sentence = "\\@everyone \\<\\@1\\> \\[a\\]\\(http\\:\\/\\/b\\) \\`c\\` \\|\\|d\\|\\|\\\\n\\# e";
        assert!(text.contains(sentence), "{text}");
        let (slack, _) = composed(AlertFormat::Slack, vec![target("<!channel> <http://a|b>")], 0);
        assert!(slack["text"].as_str().unwrap().contains("&lt;!channel&gt; &lt;http://a|b&gt;"));
    }

    #[test]
    fn a_chat_learns_no_address_of_a_server() {
        for up in [true, false] {
            let address = "10.0.0.9:7172".to_owned();
            let world = Happening::GameServer { port: 7172, address, up, reason: "refused" };
            for format in AlertFormat::ALL {
                let (value, _) = composed(*format, vec![event(world.clone())], 0);
                assert!(
                    value.to_string().contains("world 7172 can") && !value.to_string().contains("10.0.0.9"),
                    "{value}"
                );
            }
        }
    }

    #[test]
    fn a_test_says_so_in_each_form() {
        for format in AlertFormat::ALL {
            let message: Value = serde_json::from_str(&test_message(*format, &sender())).unwrap();
            assert!(message.to_string().contains("a test"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn a_message_is_short_enough_and_loses_nothing(names in prop::collection::vec(".{0,600}", 1..64), left_out in 0u64..1000) {
            for format in AlertFormat::ALL {
                let events: Vec<_> = names.iter().map(|name| target(name)).collect();
                let mut rest = events.clone();
                let mut told = Vec::new();
                while !rest.is_empty() {
                    let (value, composed) = composed(*format, rest, left_out);
                    let text = value.get("content").or(value.get("text")).unwrap().as_str().unwrap();
                    prop_assert!(units(text) <= LONGEST_MESSAGE, "{}", units(text));
                    prop_assert!(!composed.told.events.is_empty());
                    told.extend(composed.told.events);
                    rest = composed.rest;
                }
                prop_assert_eq!(&told, &events);
            }
        }
    }
}
