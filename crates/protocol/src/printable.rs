//! Text from elsewhere, in a form that a terminal or a log can have.
//!
//! A control character in a name, a reason or an error of another host could move a terminal's cursor, rename its window,
//! or begin a line of a log that nobody wrote. Characters that reverse the direction of writing show another text than
//! the one that is there.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

/// A value whose text has no control characters: each stands there escaped, as `\n` or `\u{1b}`. It has one line.
#[derive(Debug, Clone, Copy)]
pub struct Printable<T>(pub T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// A writer that passes text on, escaped as by [`Printable`].
pub struct Escaping<W>(pub W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Self(to) = self;
        let mut rest = text;
        while let Some((before, c, behind)) = split(rest) {
            to.write_str(before)?;
            write!(to, "{}", c.escape_default())?;
            rest = behind;
        }
        to.write_str(rest)
    }
}

/// Returns lines in which nothing but the line ends are control characters.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| misleads(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let lines: Vec<_> = text.split('\n').map(|line| Printable(line).to_string()).collect();
    Cow::Owned(lines.join("\n"))
}

/// Returns JSON with the same meaning, which a terminal can have: what its strings may hold unescaped, and a terminal would
/// take for orders, is escaped.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    // Outside of strings no other control characters can stand.
    let stays = |c: char| matches!(c, '\n' | '\r' | '\t') || !misleads(c);
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if stays(c) {
            escaped.push(c);
        } else {
            // All of them have four digits at the most.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        }
    }
    Cow::Owned(escaped)
}

/// Splits a text at its first character that misleads.
fn split(text: &str) -> Option<(&str, char, &str)> {
    let (at, c) = text.char_indices().find(|(_, c)| misleads(*c))?;
    let (before, rest) = text.split_at_checked(at)?;
    let (_, behind) = rest.split_at_checked(c.len_utf8())?;
    Some((before, c, behind))
}

/// Returns whether a terminal or a reader would take a character for something else than text: the controls of Unicode,
/// ends of lines and paragraphs, and changes of direction.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for (text, expected) in [
            ("", ""),
            ("waw1 zażółć ≥ 東", "waw1 zażółć ≥ 東"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("\u{9b}31mred", "\\u{9b}31mred"),
            ("a\r\nb\tc\0d\x7f", "a\\r\\nb\\tc\\u{0}d\\u{7f}"),
            ("exe\u{202e}gpj", "exe\\u{202e}gpj"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("\u{7}\u{7}", "\\u{7}\\u{7}"),
            ("C:\\new", "C:\\new"),
        ] {
            assert_eq!(Printable(text).to_string(), expected);
            let again = Printable(expected).to_string();
            assert_eq!(again, expected, "what is printable stays");
        }
    }

    #[test]
    fn lines_stay_lines() {
        assert!(matches!(printable_lines("a\nb\n"), Cow::Borrowed("a\nb\n")));
        assert_eq!(printable_lines("a\x1b\nb\r\n"), "a\\u{1b}\nb\\r\n");
    }

    #[test]
    fn json_means_the_same() {
        let text = "{\n\t\"name\": \"a\\n\"}\r\n";
        assert!(matches!(printable_json(text), Cow::Borrowed(same) if same == text));
        assert_eq!(printable_json("\"\u{9b}2J\u{202e}\x7f\""), "\"\\u009b2J\\u202e\\u007f\"");
        assert_eq!(printable_json("\"\x1b\""), "\"\\u001b\"");
    }
}
