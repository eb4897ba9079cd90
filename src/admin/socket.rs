//! The unix socket, which never exists with another mode, and never replaces a live one.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

use otproxy_net::listen_unix;

/// The socket's mode: the user and the group of the process may connect. Nobody else gets far enough to be asked for a
/// token.
pub const SOCKET_MODE: u32 = 0o660;

/// A unix socket that is listened on. Dropping it removes it, unless another socket has replaced it or [it is not
/// owned](SocketOwnership).
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    place: SocketFile,
}

/// The place of a socket in the file system, while this lives.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
    owned: SocketOwnership,
}

/// The ownership of the place of a socket: a process removes its own at its end, and leaves it if another one has taken it over.
/// Clones are the same one.
#[derive(Debug, Clone)]
pub struct SocketOwnership(Arc<AtomicBool>);

impl SocketOwnership {
    fn new(owned: bool) -> Self {
        Self(Arc::new(AtomicBool::new(owned)))
    }

    /// Sets whether this process has it.
    pub fn set(&self, owned: bool) {
        self.0.store(owned, Ordering::Relaxed);
    }

    fn is_own(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The reason why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process has it.
    #[error("cannot use {}: a process that runs answers there; stop that one, or give `admin.socket` another path", .0.display())]
    Taken(PathBuf),
    /// A file is there that is no socket.
    #[error("cannot use {}: a file is there that is no socket; give `admin.socket` another path", .0.display())]
    NoSocket(PathBuf),
    /// The system refused it.
    #[error("cannot make the socket {}: {error}; its directory must exist and be writable", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

impl AdminSocket {
    /// Listens at `path`, and replaces the socket of a process that is dead.
    ///
    /// # Errors
    /// Fails if a process answers there, or if it cannot be created.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |error| SocketError::Io { path: path.to_owned(), error };
        match fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
            Ok(_) if answers(path).map_err(failed)? => return Err(SocketError::Taken(path.to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // It is created beside its place and moved there in one step: it is never there unfinished, and replaces a dead
        // one.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let beside = path.with_file_name(format!(".{}.{number}", std::process::id()));
        let made = listen_unix(&beside, SOCKET_MODE).and_then(|listener| {
            let place = SocketFile { path: path.to_owned(), file: file(&beside)?, owned: SocketOwnership::new(true) };
            fs::rename(&beside, path)?;
            Ok(Self { listener, place })
        });
        made.map_err(|error| {
            let _ = fs::remove_file(&beside);
            failed(error)
        })
    }

    /// Takes the socket over from the process that has it at `path`. It is that one's until [`SocketOwnership::set`].
    ///
    /// # Errors
    /// Fails if it is not there.
    pub fn take_over(path: &Path, listener: UnixListener) -> Result<Self, SocketError> {
        let made = listener.set_nonblocking(true).and_then(|()| file(path));
        let file = made.map_err(|error| SocketError::Io { path: path.to_owned(), error })?;
        Ok(Self { listener, place: SocketFile { path: path.to_owned(), file, owned: SocketOwnership::new(false) } })
    }

    /// Returns the ownership of its place.
    pub fn ownership(&self) -> SocketOwnership {
        self.place.owned.clone()
    }

    /// Returns the socket once more, for a successor.
    ///
    /// # Errors
    /// Fails if no descriptor is left.
    pub fn copy(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Converts it for the runtime that this is called in. Dropping the second part removes the socket.
    pub(super) fn into_parts(self) -> io::Result<(tokio::net::UnixListener, SocketFile)> {
        Ok((tokio::net::UnixListener::from_std(self.listener)?, self.place))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.owned.is_own() && file(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns the device and inode of what is at `path`.
fn file(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Returns whether a process accepts at `path`.
fn answers(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A blocking connect would wait while the queue is full.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A directory that is removed when dropped.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("otproxy-socket-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("admin.sock")
        }

        /// Returns the names of its files.
        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn sockets_that_one_process_makes_at_once_are_in_nobody_s_way() {
        let directory = Directory::new("many");
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let directory = &directory.0;
                let bind = move |number| AdminSocket::bind(&directory.join(format!("{thread}-{number}"))).unwrap();
                scope.spawn(move || (0..100).map(bind).collect::<Vec<_>>());
            }
        });
        assert!(directory.names().is_empty(), "each removed its own: {:?}", directory.names());
    }

    #[test]
    fn it_has_its_mode_and_goes_with_its_process() {
        let directory = Directory::new("mode");
        let socket = AdminSocket::bind(&directory.socket()).unwrap();
        assert_eq!(directory.names(), ["admin.sock"]);
        let mode = fs::symlink_metadata(directory.socket()).unwrap().mode();
        assert_eq!(mode & 0o7777, SOCKET_MODE);
        UnixStream::connect(directory.socket()).unwrap();
        drop(socket);
        assert!(directory.names().is_empty());
    }

    #[test]
    fn one_that_lives_stays() {
        let directory = Directory::new("lives");
        let first = AdminSocket::bind(&directory.socket()).unwrap();
        // A full queue is an answer too.
        let mut waiting = Vec::new();
        for _ in 0..2 {
            let error = AdminSocket::bind(&directory.socket()).unwrap_err();
            assert!(matches!(error, SocketError::Taken(_)), "{error}");
            assert_eq!(directory.names(), ["admin.sock"]);
            for _ in 0..=otproxy_net::UNIX_BACKLOG {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&SockAddr::unix(directory.socket()).unwrap());
                waiting.push(socket);
            }
        }
        drop(first);
    }

    #[test]
    fn a_dead_one_gives_way_and_its_owner_leaves_the_new_one() {
        let directory = Directory::new("dead");
        let dead = AdminSocket::bind(&directory.socket()).unwrap();
        let AdminSocket { listener, place } = dead;
        drop(listener);
        let alive = AdminSocket::bind(&directory.socket()).unwrap();
        drop(place);
        UnixStream::connect(directory.socket()).unwrap();
        drop(alive);
        assert!(directory.names().is_empty());
    }

    #[test]
    fn one_that_is_taken_over_is_removed_by_the_process_that_owns_it() {
        let directory = Directory::new("taken");
        let before = AdminSocket::bind(&directory.socket()).unwrap();
        let take = || AdminSocket::take_over(&directory.socket(), before.copy().unwrap()).unwrap();
        drop(take());
        assert_eq!(directory.names(), ["admin.sock"], "it was not this one's yet");
        let after = take();
        after.ownership().set(true);
        before.ownership().set(false);
        drop(before);
        UnixStream::connect(directory.socket()).unwrap();
        drop(after);
        assert!(directory.names().is_empty());
    }

    #[test]
    fn a_file_stays() {
        let directory = Directory::new("file");
        fs::write(directory.socket(), "precious").unwrap();
        let error = AdminSocket::bind(&directory.socket()).unwrap_err();
        assert!(matches!(error, SocketError::NoSocket(_)), "{error}");
        assert_eq!(fs::read_to_string(directory.socket()).unwrap(), "precious");
        let nowhere = directory.0.join("no/admin.sock");
        let error = AdminSocket::bind(&nowhere).unwrap_err().to_string();
        assert!(error.contains("its directory must exist"), "{error}");
    }
}
