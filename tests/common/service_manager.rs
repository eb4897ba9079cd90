//! A service manager with a store of descriptors, as systemd is one to a service.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use rustix::cmsg_space;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::HANG;
use super::folder::Folder;
use super::metrics::LOOK;

/// The manager of one service. It takes messages for as long as the test runs.
pub struct ServiceManager {
    folder: Folder,
    kept: Arc<Mutex<Vec<(String, OwnedFd)>>>,
    full: Arc<AtomicBool>,
}

impl ServiceManager {
    pub fn new() -> Self {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        let kept: Arc<Mutex<Vec<(String, OwnedFd)>>> = Arc::default();
        let (store, full) = (Arc::clone(&kept), Arc::<AtomicBool>::default());
        let has_no_room = Arc::clone(&full);
        thread::spawn(move || {
            while let Some((message, descriptors)) = receive(&socket) {
                let value = |key: &str| message.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
                let mut kept = store.lock().unwrap();
                let name = value("FDNAME=").unwrap_or_default();
                if value("FDSTORE=").is_some() {
                    if has_no_room.load(Ordering::Relaxed) {
                        continue;
                    }
                    kept.extend(descriptors.into_iter().map(|descriptor| (name.clone(), descriptor)));
                } else if value("FDSTOREREMOVE=").is_some() {
                    kept.retain(|(other, _)| *other != name);
                }
                // Descriptors of any other message are closed: so a barrier knows that all before it was done.
            }
        });
        Self { folder, kept, full }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("notify")
    }

    /// Has it keep a descriptor.
    pub fn keep(&self, name: &str, descriptor: OwnedFd) {
        self.kept.lock().unwrap().push((name.to_owned(), descriptor));
    }

    /// Waits until what it keeps is like that.
    pub fn keeps(&self, like: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + HANG;
        while !like(&self.kept()) {
            assert!(Instant::now() < deadline, "it keeps {:?}", self.kept());
            thread::sleep(LOOK);
        }
    }

    /// Waits until it was told to forget what was left.
    pub fn forgets(&self) {
        self.keeps(|kept| kept.iter().all(|name| name != "otproxy"));
    }

    /// Has it forget all that it keeps.
    pub fn forget(&self) {
        self.kept.lock().unwrap().clear();
    }

    /// Has it keep nothing from now on, and say nothing of it.
    pub fn fill(&self) {
        self.full.store(true, Ordering::Relaxed);
    }

    /// Replaces what it keeps.
    pub fn replace(&self, change: impl FnOnce(OwnedFd) -> OwnedFd) {
        let mut kept = self.kept.lock().unwrap();
        let (name, descriptor) = kept.pop().unwrap();
        kept.push((name, change(descriptor)));
    }

    /// Returns the names of the descriptors that it keeps.
    pub fn kept(&self) -> Vec<String> {
        self.kept.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    /// Returns the command of the service: with the descriptors that it keeps, if it keeps any.
    pub fn service(&self, command: Command) -> Command {
        let kept = self.kept.lock().unwrap();
        let names: Vec<_> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let mut shell = Command::new("sh");
        shell.env("LISTEN_FDS", kept.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let handed = match &kept[..] {
            [] => None,
            [(_, one)] => {
                shell.stdin(one.try_clone().unwrap()).stdout(Stdio::piped());
                Some("3<&0 </dev/null")
            }
            [(_, one), (_, two)] => {
                shell.stdin(one.try_clone().unwrap()).stdout(two.try_clone().unwrap());
                Some("3<&0 4<&1 </dev/null >/dev/null")
            }
            _ => panic!("a shell hands on those that are its stdin and its stdout: {names:?}"),
        };
        let mut service = match handed {
            None => command,
            Some(handed) => {
                let start = format!("LISTEN_PID=$$ exec \"$0\" \"$@\" {handed}");
                shell.arg("-c").arg(start).arg(command.get_program()).args(command.get_args()).stderr(Stdio::piped());
                shell
            }
        };
        service.env("NOTIFY_SOCKET", self.socket()).env("FDSTORE", "16");
        service
    }
}

fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let (mut bytes, mut space) = ([0; 4096], [MaybeUninit::uninit(); cmsg_space!(ScmRights(16))]);
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC).ok()?;
    let descriptors = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    Some((String::from_utf8_lossy(&bytes[..received.bytes]).into_owned(), descriptors))
}
