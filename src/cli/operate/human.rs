//! Numbers for people.

/// Formats bytes with at least three significant digits: `4.66 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    // A value that would be shown as 1024 is one of the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value >= 99.95 { 0 } else { usize::from(value < 9.995) + 1 };
    format!("{value:.decimals$} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// Formats a time in its two largest units: `1d 2h`, `5m 3s`, `42s`.
pub(super) fn time(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Formats a round time in as few units as it has: `365d`, `1d`.
pub(super) fn round(seconds: u32) -> String {
    let text = time(seconds.into());
    match text.split_once(" 0") {
        Some((largest, _)) => largest.to_owned(),
        None => text,
    }
}

/// Formats an age in whole units.
pub(super) fn age(seconds: f64) -> String {
    // The conversion from a float saturates.
    time(seconds as u64)
}

/// Formats a round trip.
pub(super) fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1000.0)
}

/// Formats a count with its digits in groups: `1 234 567`.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10 * 1024, "10.0 KiB"),
            (1_048_575, "1.00 MiB"),
            (100 << 20, "100 MiB"),
            (5_000_000_000, "4.66 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
        for (value, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3599, "59m 59s"),
            (3600, "1h 0m"),
            (93_784, "1d 2h"),
            (u64::MAX, "213503982334601d 7h"),
        ] {
            assert_eq!(time(value), text);
        }
        assert_eq!(
            (age(0.9), age(61.2), age(f64::NAN), age(-1.0)),
            ("0s".into(), "1m 1s".into(), "0s".into(), "0s".into())
        );
        let rounded = [86_400 * 365, 86_400, 7200, 60, 90, 5].map(round);
        assert_eq!(rounded, ["365d", "1d", "2h", "1m", "1m 30s", "5s"]);
        assert_eq!(milliseconds(0.0314), "31.4 ms");
        assert_eq!(count(0), "0");
        assert_eq!((count(999), count(1000), count(1_234_567)), ("999".into(), "1 000".into(), "1 234 567".into()));
    }
}
