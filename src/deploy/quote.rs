//! Quoting for sh.

/// Returns a word as sh takes it for that word: as it is, if nothing in it means anything to a shell, and else in quotes.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+,=".contains(&byte);
    // `%` in front is a job, and `=` in front is a path in some shells.
    let is_plain = !word.is_empty() && word.bytes().all(plain) && !word.starts_with(['%', '=']);
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_a_meaning_stay_as_they_are() {
        for word in ["root@198.51.100.7", "-o", "ControlPath=/tmp/x/%C", "a_b+c,d", "[::1]"] {
            assert_eq!(quoted(word) == word, !word.contains('['), "{word}");
        }
        assert_eq!((quoted(""), quoted("it's"), quoted("%1")), ("''".into(), r"'it'\''s'".into(), "'%1'".into()));
    }
}
