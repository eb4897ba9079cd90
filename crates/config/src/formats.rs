//! Formats of plain values: durations, sizes, counts, ports, names and words.
//!
//! A parser takes a node and returns the value, or what is wrong with it and what to do.

use std::env;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use otproxy_protocol::quota::Quota;
use rustix::process::{Resource, getrlimit};

use super::memory::memory;
use super::takes::Format;
use super::tree::{Node, Value, quote};

/// The longest duration: nothing here is meant to last longer, and sums of a few cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest duration other than zero: timers do not tell less apart.
const MIN_DURATION: Duration = Duration::from_millis(1);
/// The largest size. More for each session would only be a slip of the unit.
const MAX_SIZE: (ByteSize, &str) = (ByteSize::gib(1), "1GiB");
/// The largest size of something for the whole process.
const MAX_MEMORY: (ByteSize, &str) = (ByteSize::tib(1), "1TiB");
/// The largest count. More connections or packets than these there cannot be.
const MAX_COUNT: u32 = 1_000_000_000;
/// Threads; more is a slip.
const MAX_WORKERS: usize = 1024;
/// The memory that a connection may take, with both of its sockets in the kernel.
const CONNECTION_MEMORY: ByteSize = ByteSize::kib(32);
/// Characters of a name that is a label.
const MAX_LABEL: usize = 64;
/// Characters of a URL.
const MAX_URL: usize = 255;
/// Characters of the name of the process: as long as a host name may be.
const MAX_NAME: usize = 255;

pub(super) const DURATION: Format<Duration> = Format::new("duration", duration);
pub(super) const TIMEOUT: Format<Duration> = Format::new("duration", timeout);
pub(super) const PERIOD: Format<Duration> = Format::new("duration", period);
/// The time between two reports.
pub(super) const REPORTS: Format<Duration> = Format::new("duration, from `1s`", reports);
pub(super) const SIZE: Format<usize> = Format::new("size", size);
pub(super) const MEMORY_OR_NONE: Format<Option<usize>> =
    Format::new("size, `auto` or `none`", |node| or_none(node, session_memory));
pub(super) const COUNT: Format<u32> = Format::new("count", count);
pub(super) const COUNT_OR_NONE: Format<Option<u32>> = Format::new("count or `none`", |node| or_none(node, count));
pub(super) const QUANTITY: Format<usize> = Format::new("count", quantity);
pub(super) const QUANTITY_OR_NONE: Format<Option<usize>> =
    Format::new("count or `none`", |node| or_none(node, quantity));
pub(super) const CONNECTIONS_OR_NONE: Format<Option<usize>> =
    Format::new("count, `auto` or `none`", |node| or_none(node, connections));
pub(super) const RATE_OR_NONE: Format<Option<Quota>> = Format::new("rate or `none`", |node| or_none(node, rate));
pub(super) const WORKERS: Format<NonZeroUsize> = Format::new("1 to 1024", workers);
pub(super) const FLAG: Format<bool> = Format::new("`true` or `false`", flag);
pub(super) const PATH: Format<PathBuf> = Format::new("path", path).seen_from(|path, folder| folder.join(path));
/// A file that nobody but the process reads. As a credential of systemd it is somewhere else, by its name.
pub(super) const SECRET: Format<PathBuf> = Format::new("path", path).seen_from(|path, folder| {
    credential(&path, env::var_os("CREDENTIALS_DIRECTORY")).unwrap_or_else(|| folder.join(path))
});
pub(super) const PORT: Format<u16> = Format::new("port", port);
pub(super) const MILLISECONDS: Format<u16> = Format::new("0 to 65535", milliseconds);
pub(super) const LABEL: Format<String> = Format::new("name", label);
pub(super) const PROCESS_NAME: Format<String> = Format::new("text", process_name);
pub(super) const TITLE: Format<String> = Format::new("text", title);
pub(super) const URL: Format<String> = Format::new("URL", url);

/// Parses a duration that may be zero.
pub(super) fn duration(node: &Node) -> Result<Duration, String> {
    let unit = |number: &str| {
        Err(format!("`{number}` has no unit; write `{number}s` for seconds, or `{number}ms`, as HAProxy takes it"))
    };
    let text = match &node.value {
        Value::Int(number) => return unit(&number.to_string()),
        Value::Float(number) => return unit(&number.to_string()),
        Value::Text(text) => text,
        _ => return Err(format!("{} is not a duration; write one as `30s` or `500ms`", node.quoted())),
    };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return unit(&quote(text).replace('`', ""));
    }
    let duration = humantime::parse_duration(text)
        .map_err(|_| format!("{} is not a duration; write one as `30s`, `500ms` or `1m30s`", quote(text)))?;
    if duration > MAX_DURATION {
        return Err(format!("{} is too long; the longest is `24h`", quote(text)));
    }
    if !duration.is_zero() && duration < MIN_DURATION {
        return Err(format!("{} is too short; the shortest is `1ms`", quote(text)));
    }
    Ok(duration)
}

/// Parses a duration that must not be zero.
pub(super) fn timeout(node: &Node) -> Result<Duration, String> {
    match duration(node)? {
        Duration::ZERO => Err(format!("{} would end everything at once; give at least `1ms`", node.quoted())),
        duration => Ok(duration),
    }
}

/// Parses an interval.
pub(super) fn period(node: &Node) -> Result<Duration, String> {
    match duration(node)? {
        Duration::ZERO => Err(format!("{} is no time between two; give at least `1ms`", node.quoted())),
        duration => Ok(duration),
    }
}

/// Parses the time between two reports, each of which reads all sockets of the host.
pub(super) fn reports(node: &Node) -> Result<Duration, String> {
    match period(node)? {
        short if short < Duration::from_secs(1) => {
            Err(format!("{} is too short between two reports; the shortest is `1s`", node.quoted()))
        }
        period => Ok(period),
    }
}

/// Parses a number of bytes, not 0.
pub(super) fn size(node: &Node) -> Result<usize, String> {
    size_up_to(node, MAX_SIZE)
}

/// Parses a number of bytes for all sessions, or the word `auto`: an eighth of the memory that the process may use.
pub(super) fn session_memory(node: &Node) -> Result<usize, String> {
    match &node.value {
        Value::Text(text) if text == "auto" => Ok(usize::try_from(memory() / 8).unwrap_or(usize::MAX).max(1)),
        _ => size_up_to(node, MAX_MEMORY).map_err(|message| format!("{message}, `auto` for an eighth of the memory")),
    }
}

fn size_up_to(node: &Node, (max, most): (ByteSize, &str)) -> Result<usize, String> {
    let wrong = || format!("{} is not a size; write one as `4MiB`, `256KiB`, or in bytes", node.quoted());
    let bytes = match &node.value {
        Value::Int(bytes) => u64::try_from(*bytes).map_err(|_| wrong())?,
        Value::Text(text) => text.parse::<ByteSize>().map_err(|_| wrong())?.as_u64(),
        _ => return Err(wrong()),
    };
    if bytes == 0 {
        return Err("must not be 0; write a size as `4MiB`".to_owned());
    }
    if bytes > max.as_u64() {
        return Err(format!("{} is too much; the most is `{most}`", node.quoted()));
    }
    usize::try_from(bytes).map_err(|_| wrong())
}

/// Parses a whole number, from 1.
pub(super) fn count(node: &Node) -> Result<u32, String> {
    match int(node) {
        Some(0) => Err("must not be 0; the least is 1".to_owned()),
        Some(number) => match u32::try_from(number) {
            Ok(number) if number <= MAX_COUNT => Ok(number),
            _ => Err(format!("{} is out of range; write a number from 1 to {MAX_COUNT}", node.quoted())),
        },
        None => Err(format!("{} is not a whole number; write one as `20`", node.quoted())),
    }
}

/// Parses a number as [`count`] does, but with a larger limit.
pub(super) fn quantity(node: &Node) -> Result<usize, String> {
    usize::try_from(count(node)?).map_err(|_| format!("{} is out of range", node.quoted()))
}

/// Reads what `parse` reads, or the word `none`.
fn or_none<T>(node: &Node, parse: impl Fn(&Node) -> Result<T, String>) -> Result<Option<T>, String> {
    match &node.value {
        Value::Text(text) if text == "none" => Ok(None),
        _ => parse(node).map(Some).map_err(|message| format!("{message}, or `none` for no limit")),
    }
}

/// Parses a count in a period.
pub(super) fn rate(node: &Node) -> Result<Quota, String> {
    let wrong = || format!("{} is not a rate; write one as `20/10s`: so many in so long", node.quoted());
    let Value::Text(text) = &node.value else { return Err(wrong()) };
    let (number, period) = text.split_once('/').ok_or_else(wrong)?;
    let of = |text: &str| Node { id: node.id, value: Value::Text(text.to_owned()) };
    Ok(Quota::per(count(&of(number))?, timeout(&of(period))?))
}

/// Parses a number of threads.
pub(super) fn workers(node: &Node) -> Result<NonZeroUsize, String> {
    let number = int(node).and_then(|number| usize::try_from(number).ok()).filter(|number| *number <= MAX_WORKERS);
    number
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| format!("{} is not a number of threads; write one from 1 to {MAX_WORKERS}", node.quoted()))
}

/// Returns the number of CPUs, as far as [`workers`] goes.
pub(super) fn default_workers() -> NonZeroUsize {
    let cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(MAX_WORKERS).map_or(cpus, |most| cpus.min(most))
}

/// Parses a count, or the word `auto`: the number of connections that this process can carry for certain.
pub(super) fn connections(node: &Node) -> Result<usize, String> {
    match &node.value {
        Value::Text(text) if text == "auto" => Ok(auto_connections()),
        _ => {
            quantity(node).map_err(|message| format!("{message}, `auto` for as many as there are files and memory for"))
        }
    }
}

/// Returns the number of connections that this process can carry. A connection takes two files, and a quarter of all is
/// left for closing ones and everything else. If very many files are allowed, memory is the limit.
fn auto_connections() -> usize {
    // The program raises its soft limit to the hard one.
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX) / 8 * 3;
    let connections = files.min(memory() / CONNECTION_MEMORY.as_u64()).clamp(1, MAX_COUNT.into());
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// Parses true or false.
pub(super) fn flag(node: &Node) -> Result<bool, String> {
    match node.value {
        Value::Bool(flag) => Ok(flag),
        _ => Err(format!("{} is neither `true` nor `false`", node.quoted())),
    }
}

/// Parses a path of a file, as it is written.
pub(super) fn path(node: &Node) -> Result<PathBuf, String> {
    match &node.value {
        Value::Text(text) if !text.is_empty() => Ok(text.into()),
        _ => Err(format!("{} is not the path of a file", node.quoted())),
    }
}

/// Returns the credential that has the name of a file, if there is one in this directory.
fn credential(file: &Path, directory: Option<OsString>) -> Option<PathBuf> {
    let credential = Path::new(&directory?).join(file.file_name()?);
    (credential.is_absolute() && credential.is_file()).then_some(credential)
}

/// Parses a port, not 0.
pub(super) fn port(node: &Node) -> Result<u16, String> {
    int(node)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{} is not a port; write a number from 1 to 65535", node.quoted()))
}

/// Parses a number of milliseconds, as clients take it.
pub(super) fn milliseconds(node: &Node) -> Result<u16, String> {
    int(node)
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("{} is no number of milliseconds from 0 to 65535; write one as `20`", node.quoted()))
}

/// Parses a name that is a label in metrics and logs.
pub(super) fn label(node: &Node) -> Result<String, String> {
    label_text(text(node)?)
}

/// Checks a label that is a part of a value.
pub(super) fn label_text(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.is_empty() {
        return Err("is empty; give it a name".to_owned());
    }
    if text.chars().count() > MAX_LABEL {
        return Err(format!("{} is too long; a name has at most {MAX_LABEL} characters", quote(text)));
    }
    if !text.chars().all(fits) {
        return Err(format!(
            "{} cannot be a name; use only letters a-z and A-Z, digits, `_`, `-` and `.`",
            quote(text)
        ));
    }
    Ok(text.to_owned())
}

/// Parses the name of the process.
pub(super) fn process_name(node: &Node) -> Result<String, String> {
    if matches!(&node.value, Value::Text(text) if text.trim().is_empty()) {
        return Err("is empty; give it a name, or leave the key out for the host name".to_owned());
    }
    title(node)
}

/// Parses a name for people.
pub(super) fn title(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    if text.trim().is_empty() {
        return Err("is empty; give it a name, or leave the key out".to_owned());
    }
    if text.chars().count() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(format!(
            "{} cannot be a name; use at most {MAX_NAME} characters, all of them printable",
            quote(text)
        ));
    }
    Ok(text.to_owned())
}

/// Parses a URL that clients are told. It fits between quotes in Lua as it is.
pub(super) fn url(node: &Node) -> Result<String, String> {
    const EXAMPLE: &str = "write it as `https://www.example/edges.json`";
    let text = text(node)?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let fits = |c: char| c.is_ascii_graphic() && !"\"'\\`<>".contains(c);
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) || !text.chars().all(fits) {
        return Err(format!("{} is not a URL; {EXAMPLE}", quote(text)));
    }
    if text.len() > MAX_URL {
        return Err(format!("{} is too long; a URL has at most {MAX_URL} characters", quote(text)));
    }
    Ok(text.to_owned())
}

/// Returns the host name, as the name of the process.
pub(super) fn host_name() -> String {
    let host: String = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME)
        .collect();
    if host.is_empty() { "otproxy".to_owned() } else { host }
}

fn text(node: &Node) -> Result<&str, String> {
    match &node.value {
        Value::Text(text) => Ok(text),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
            Err(format!("{} is not text; put it in quotes", node.quoted()))
        }
        _ => Err(format!("{} is not text; write a name", node.quoted())),
    }
}

/// Parses a whole number, also in quotes.
fn int(node: &Node) -> Option<i128> {
    match &node.value {
        Value::Int(number) => Some(*number),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::fragment;
    use super::*;

    #[test]
    fn urls_are_told_as_they_are() {
        let read = |text: &str| url(&Node { id: fragment("x").id, value: Value::Text(text.to_owned()) });
        for right in ["https://www.example/edges.json", "http://198.51.100.7:8080/?a=b&c=%20d", "http://[2001:db8::7]/"]
        {
            assert_eq!(read(right).as_deref(), Ok(right));
        }
        let long = format!("https://{}", "a".repeat(MAX_URL));
        for wrong in [
            "",
            "www.example",
            "ftp://a",
            "https://",
            "https:///x",
            "https://a b",
            "https://a\"",
            "https://a\\",
            "https://ä",
            &long,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_credential_takes_the_place_of_the_file_of_its_name() {
        let folder = std::env::temp_dir().join(format!("otproxy-credential-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("admin.token"), "").unwrap();
        let found = |file: &str, directory: Option<&Path>| credential(Path::new(file), directory.map(Into::into));
        let handed_over = Some(folder.join("admin.token"));
        assert_eq!(found("admin.token", Some(&folder)), handed_over);
        assert_eq!(found("/etc/otproxy/admin.token", Some(&folder)), handed_over);
        assert_eq!(found("read.token", Some(&folder)), None);
        assert_eq!(found("admin.token", None), None);
        assert_eq!(found("src", Some(Path::new("."))), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn durations() {
        let read = |text| duration(&fragment(text));
        assert_eq!(read("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(read("24h"), Ok(MAX_DURATION));
        assert_eq!(read("0s"), Ok(Duration::ZERO));
        for number in ["30", "'30'", "1.5", "0"] {
            let said = read(number).expect_err(number);
            assert!(said.contains("has no unit") && said.contains("as HAProxy takes it"), "{said}");
        }
        for wrong in ["''", "s", "-1s", "30 parrots", "true", "[1s]", "25h", "10us", "99999999999999999999y"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(timeout(&fragment("0s")).is_err());
    }

    #[test]
    fn sizes() {
        let read = |text| size(&fragment(text));
        assert_eq!(read("4MiB"), Ok(4 << 20));
        assert_eq!(read("4 MiB"), Ok(4 << 20));
        assert_eq!(read("4MB"), Ok(4_000_000));
        assert_eq!(read("4096"), Ok(4096));
        assert_eq!(read("1GiB"), Ok(1 << 30));
        for wrong in ["0", "0KiB", "-1", "2GiB", "1.5", "4 parrots", "''", "true", "99999999999999999999999"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_memory_of_all_sessions() {
        let read = |text| or_none(&fragment(text), session_memory);
        assert_eq!((read("2GiB"), read("none")), (Ok(Some(2 << 30)), Ok(None)));
        let auto = read("auto").unwrap().unwrap() as u64;
        assert_eq!(auto, memory() / 8);
        for wrong in ["0", "2TiB", "much"] {
            let wrong = read(wrong).unwrap_err();
            assert!(wrong.contains("`auto`") && wrong.contains("`none`"), "{wrong}");
        }
        assert!(size(&fragment("2GiB")).unwrap_err().contains("the most is `1GiB`"));
        assert!(read("2TiB").unwrap_err().contains("the most is `1TiB`"));
    }

    #[test]
    fn numbers() {
        assert_eq!(count(&fragment("20")), Ok(20));
        assert_eq!(or_none(&fragment("none"), count), Ok(None));
        assert_eq!(or_none(&fragment("7"), count), Ok(Some(7)));
        for wrong in ["0", "-1", "1000000001", "1.5", "many", "no"] {
            assert!(or_none(&fragment(wrong), count).is_err(), "{wrong}");
        }
        assert_eq!(port(&fragment("65535")), Ok(65535));
        for wrong in ["0", "65536", "-1", "http"] {
            assert!(port(&fragment(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(workers(&fragment("1024")).map(NonZeroUsize::get), Ok(1024));
        for wrong in ["0", "1025", "-1", "all"] {
            assert!(workers(&fragment(wrong)).is_err(), "{wrong}");
        }
        assert!(default_workers().get() <= MAX_WORKERS);
    }

    #[test]
    fn connections_as_there_are_files_for() {
        let read = |text| or_none(&fragment(text), connections);
        let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let auto = read("auto").unwrap().unwrap();
        assert!(auto >= 1 && auto as u64 <= files / 2, "{auto} of {files}");
        assert_eq!((read("7"), read("none")), (Ok(Some(7)), Ok(None)));
        let wrong = read("much").unwrap_err();
        assert!(wrong.contains("`auto`") && wrong.contains("`none`"), "{wrong}");
    }

    #[test]
    fn rates() {
        let read = |text| or_none(&fragment(text), rate);
        assert_eq!(read("20/10s"), Ok(Some(Quota::per(20, Duration::from_secs(10)))));
        assert_eq!(read("'1/1ms'"), Ok(Some(Quota::per(1, Duration::from_millis(1)))));
        assert_eq!(read("1000000000/1ms"), Ok(Some(Quota::per(1_000_000_000, Duration::from_millis(1)))));
        assert_eq!(read("none"), Ok(None));
        for wrong in ["20", "20/", "/10s", "20/10", "20/0s", "0/10s", "-1/10s", "20/10s/1", "10s/20", "''", "true"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(label(&fragment("waw-1.a_B")).as_deref(), Ok("waw-1.a_B"));
        let long = "x".repeat(65);
        for wrong in ["''", "a b", "a\"b", "\"a\\nb\"", "7", "true", "ü", &long] {
            assert!(label(&fragment(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(process_name(&fragment("my edge (ü)")).as_deref(), Ok("my edge (ü)"));
        for wrong in ["''", "' '", "\"a\\nb\"", "7"] {
            assert!(process_name(&fragment(wrong)).is_err(), "{wrong}");
        }
        assert!(process_name(&fragment(&format!("'{}'", host_name()))).is_ok());
    }
}
