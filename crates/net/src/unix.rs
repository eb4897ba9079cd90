//! Unix sockets that never exist with another mode.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that wait to be accepted.
pub const UNIX_BACKLOG: i32 = 128;

/// Listens at `path`, with this mode from the first moment on. A file that is there is removed. Accepting does not block.
///
/// # Errors
/// Fails if the system refuses it.
pub fn listen_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let _ = fs::remove_file(path);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The mode is set before the socket has its place, and the process's mask never lets a wider one through.
    File::from(OwnedFd::from(socket.try_clone()?)).set_permissions(Permissions::from_mode(mode))?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(UNIX_BACKLOG)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}
