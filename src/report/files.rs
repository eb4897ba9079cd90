//! The files of a report, each of which is replaced whole.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use md5::{Digest as _, Md5};
use rustix::fs::OFlags;

use super::players::PlayerCount;

/// The sockets, as lsof prints them.
pub const SOCKETS: &str = "report.txt";
/// The MD5 of [`SOCKETS`].
pub const MD5: &str = "report.txt.md5";
/// The numbers of players over time.
pub const PLAYERS: &str = "players.csv";
/// The files of a report.
pub const FILES: [&str; 3] = [SOCKETS, MD5, PLAYERS];
/// Bytes of a file of a report that are read at most: more than 100,000 connections take.
pub const MAX_FILE: usize = 16 << 20;
/// The first line of [`PLAYERS`].
const TITLE: &str = "time,online,unique,counted\n";
/// Bytes of [`PLAYERS`] at most.
pub const MAX_PLAYERS: u64 = 2 << 20;
/// Bytes that are left of [`PLAYERS`] when it has as many as it may: 31 days, with a line each minute.
pub const KEPT_PLAYERS: u64 = 3 << 19;

/// Reads a file of the report in a folder, and when it was written. It blocks on the disk.
///
/// # Errors
/// Fails if it cannot be read, is no plain file, or has more than [`MAX_FILE`] bytes.
pub fn read(folder: &Path, file: &str) -> io::Result<(Vec<u8>, SystemTime)> {
    // A link would lead to another file, and opening a pipe would wait for a writer.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(folder.join(file))?;
    let metadata = opened.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(MAX_FILE).min(MAX_FILE));
    opened.take(MAX_FILE as u64 + 1).read_to_end(&mut content)?;
    if content.len() > MAX_FILE {
        return Err(io::Error::other(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok((content, metadata.modified()?))
}

/// Returns the line that `md5sum` prints for a file, and `md5sum -c` reads.
#[must_use]
pub fn md5_line(content: &[u8], file: &str) -> String {
    let mut line = md5_hex(content);
    // Writing to a string cannot fail.
    let _ = writeln!(line, "  {file}");
    line
}

/// Returns the MD5 of a content, in hexadecimal.
#[must_use]
pub fn md5_hex(content: &[u8]) -> String {
    let mut text = String::with_capacity(32);
    for byte in Md5::digest(content) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Writes the sockets and their MD5 to a folder, which is made if it is not there. Both are written beside before either is
/// replaced, and the MD5 last: so a reader that takes the MD5 first never has one of sockets that it cannot find, and one that
/// takes both at the wrong moment finds them right an instant later.
///
/// # Errors
/// Fails if a file cannot be written. The files from before are there still.
pub fn write_sockets(folder: &Path, text: &str) -> io::Result<()> {
    put_sockets(folder, text, None)
}

/// Does the same, with files that were last changed at a time.
///
/// # Errors
/// Fails as that does.
pub fn put_sockets(folder: &Path, text: &str, written: Option<SystemTime>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let line = md5_line(text.as_bytes(), SOCKETS);
    let sockets = beside(folder, SOCKETS, text.as_bytes(), written)?;
    let md5 = beside(folder, MD5, line.as_bytes(), written)?;
    fs::rename(sockets, folder.join(SOCKETS))?;
    fs::rename(md5, folder.join(MD5))
}

/// Writes one file of a report to a folder, whole or not at all.
///
/// # Errors
/// Fails if it cannot be written. The file from before is there still.
pub fn put(folder: &Path, file: &str, content: &[u8], written: Option<SystemTime>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::rename(beside(folder, file, content, written)?, folder.join(file))
}

/// Writes a file beside the one whose place it is to take.
fn beside(folder: &Path, file: &str, content: &[u8], written: Option<SystemTime>) -> io::Result<PathBuf> {
    let path = folder.join(format!(".{file}.new"));
    let mut beside = File::create(&path)?;
    beside.write_all(content)?;
    written.map_or(Ok(()), |written| beside.set_modified(written))?;
    Ok(path)
}

/// Adds a line to the numbers of players, and drops the oldest when there are too many.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn add_players(folder: &Path, time: SystemTime, players: PlayerCount) -> io::Result<()> {
    let path = folder.join(PLAYERS);
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(&path)?;
    let mut line = String::new();
    if file.metadata()?.len() == 0 {
        line.push_str(TITLE);
    }
    let PlayerCount { online, unique, counted } = players;
    let _ = writeln!(line, "{},{online},{unique},{counted}", humantime::format_rfc3339_seconds(time));
    file.write_all(line.as_bytes())?;
    if file.metadata()?.len() > MAX_PLAYERS {
        shorten(&path, file)?;
    }
    Ok(())
}

/// Keeps the newest lines of a file.
fn shorten(path: &Path, mut file: File) -> io::Result<()> {
    file.seek(SeekFrom::End(-KEPT_PLAYERS.cast_signed()))?;
    let mut newest = Vec::new();
    file.take(KEPT_PLAYERS).read_to_end(&mut newest)?;
    // The first line is cut.
    let lines = newest.iter().position(|&byte| byte == b'\n').and_then(|end| newest.get(end + 1..)).unwrap_or_default();
    let beside = path.with_extension("csv.new");
    let mut shorter = File::create(&beside)?;
    shorter.write_all(TITLE.as_bytes())?;
    shorter.write_all(lines)?;
    drop(shorter);
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("otproxy-report-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn md5sum_checks_the_line() {
        assert_eq!(md5_line(b"", "a"), "d41d8cd98f00b204e9800998ecf8427e  a\n");
        let folder = folder("md5");
        for text in ["first\n", "second\n"] {
            write_sockets(&folder, text).unwrap();
            assert_eq!(fs::read_to_string(folder.join(SOCKETS)).unwrap(), text);
            let checked = Command::new("md5sum").args(["-c", "--quiet", MD5]).current_dir(&folder).status();
            assert!(checked.unwrap().success());
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "nothing is left beside");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn plain_files_of_some_length_are_read() {
        let folder = folder("read");
        write_sockets(&folder, "sockets\n").unwrap();
        let (content, at) = read(&folder, SOCKETS).unwrap();
        assert_eq!(
            (content.as_slice(), at),
            (&b"sockets\n"[..], fs::metadata(folder.join(SOCKETS)).unwrap().modified().unwrap())
        );
        assert_eq!(read(&folder, PLAYERS).unwrap_err().kind(), io::ErrorKind::NotFound);
        // Each of these would lead elsewhere, or not end.
        std::os::unix::fs::symlink("/etc/passwd", folder.join(PLAYERS)).unwrap();
        assert!(read(&folder, PLAYERS).is_err());
        fs::remove_file(folder.join(PLAYERS)).unwrap();
        assert!(Command::new("mkfifo").arg(folder.join(PLAYERS)).status().unwrap().success());
        assert!(read(&folder, PLAYERS).unwrap_err().to_string().contains("no plain file"));
        fs::remove_file(folder.join(PLAYERS)).unwrap();
        fs::create_dir(folder.join(PLAYERS)).unwrap();
        assert!(read(&folder, PLAYERS).is_err());
        File::create(folder.join(MD5)).unwrap().set_len(MAX_FILE as u64).unwrap();
        assert_eq!(read(&folder, MD5).unwrap().0.len(), MAX_FILE);
        File::create(folder.join(MD5)).unwrap().set_len(MAX_FILE as u64 + 1).unwrap();
        assert!(read(&folder, MD5).unwrap_err().to_string().contains("more than 16777216 bytes"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_oldest_numbers_go() {
        let folder = folder("players");
        fs::create_dir_all(&folder).unwrap();
        let (path, line) = (folder.join(PLAYERS), "2026-11-28T19:33:00Z,1,1,1\n");
        let lines = usize::try_from(MAX_PLAYERS).unwrap() / line.len();
        fs::write(&path, TITLE.to_owned() + &line.repeat(lines - 1)).unwrap();
        let players = PlayerCount { online: 3, unique: 2, counted: 2 };
        for minute in 0..3 {
            let time = UNIX_EPOCH + Duration::from_secs(60 * minute);
            add_players(&folder, time, players).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.len() as u64 <= MAX_PLAYERS && text.starts_with(TITLE));
            assert!(text.ends_with(&format!("\n1970-01-01T00:0{minute}:00Z,3,2,2\n")));
            assert!(text.lines().skip(1).all(|line| line.split(',').count() == 4));
        }
        assert!(fs::metadata(&path).unwrap().len() < KEPT_PLAYERS + 100, "it was shortened");
        const { assert!(KEPT_PLAYERS > 31 * 24 * 60 * 35, "31 days of lines of 35 bytes") };
        fs::remove_dir_all(folder).unwrap();
    }
}
