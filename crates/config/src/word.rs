//! Words out of a fixed set.

use otproxy_protocol::Word;

use super::tree::{Node, Value, quote};

/// Similarity, from 0 to 1, from which on a word is taken for another that is misspelt.
const SIMILAR: f64 = 0.75;

/// Reads one of the words of `T`.
pub(super) fn word<T: Word>(node: &Node) -> Result<T, String> {
    let text = if let Value::Text(text) = &node.value { text.as_str() } else { "" };
    let found = T::ALL.iter().copied().find(|value| value.as_str() == text);
    found.ok_or_else(|| {
        let words: Vec<_> = T::ALL.iter().map(|value| value.as_str()).collect();
        none_of(node, &words)
    })
}

/// Returns the word that `text` was probably meant to be.
pub(super) fn similar<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    words
        .map(|word| (strsim::jaro_winkler(text, word), word))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// Returns `word` with the words that it may be instead.
fn none_of(word: &Node, words: &[&str]) -> String {
    let list: Vec<_> = words.iter().map(|word| quote(word)).collect();
    let mut message = format!("{} is not one of {}", word.quoted(), list.join(", "));
    if let Value::Text(text) = &word.value
        && let Some(word) = similar(text, words.iter().copied())
    {
        message.push_str(&format!("; did you mean `{word}`?"));
    }
    message
}
