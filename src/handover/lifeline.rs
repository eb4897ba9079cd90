//! The things of a process that outlive it if it is killed: files in memory, and connections. They are in the queue of a socket
//! whose other end the service manager keeps: one descriptor, however many are in it.
//!
//! Nothing can be taken out of the middle of a queue. So one that holds much that is over is made anew, and the manager is given the
//! new one before it forgets the one before.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tracing::{error, warn};

use super::message::MAX_PER_MESSAGE;
use super::{DescriptorStore, QUEUE, WITHIN, strange};

/// The beginning of the names under which the store keeps a lifeline; a number follows.
pub const LIFELINE: &str = "otproxy-lifeline-";
/// The number of the format of its messages.
const FORMAT: u8 = 1;
/// Bytes of a message at the most: its kind, and a number for each descriptor.
const MAX_BYTES: usize = 2 + 8 * MAX_PER_MESSAGE;
/// Connections that go into a queue one by one until it is made anew: a message takes a lot of room, whatever is in it. The queue
/// holds about 400 with the kernel's defaults.
const MOST_SINGLE: usize = 200;
/// The least time between two queues.
const PAUSE: Duration = Duration::from_millis(200);
/// Starts in a row that did not last, after which nothing goes on any more: one of the sessions may be the reason.
pub const MOST_TRIES: u8 = 5;

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The first one: the format, and how many processes before this one did not last.
    Head,
    /// Files in memory.
    Files,
    /// Connections, with their numbers.
    Sockets,
}

impl Kind {
    const ALL: [(u8, Self); 3] = [(b'H', Self::Head), (b'F', Self::Files), (b'S', Self::Sockets)];

    fn byte(self) -> u8 {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(byte, _)| *byte)
    }
}

/// One queue, and the name under which the manager keeps its other end.
#[derive(Debug)]
struct Queue {
    number: u32,
    ours: OwnedFd,
    /// Connections that went into it one by one.
    single: usize,
}

impl Queue {
    /// Makes an empty queue; also returns its other end.
    fn new(number: u32, tries: u8) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_send_buffer_size(&ours, QUEUE)?;
        let queue = Self { number, ours, single: 0 };
        queue.send(Kind::Head, &[u64::from(FORMAT), u64::from(tries)], &[])?;
        Ok((queue, theirs))
    }

    /// Has the manager keep its other end.
    fn keep(&self, store: &DescriptorStore, theirs: OwnedFd) -> io::Result<()> {
        store.keep(&self.name(), theirs.as_fd())?;
        store.barrier(WITHIN)?;
        drop(theirs);
        if self.is_kept() {
            Ok(())
        } else {
            Err(io::Error::other("the store has no room: raise FileDescriptorStoreMax= of the unit"))
        }
    }

    fn name(&self) -> String {
        format!("{LIFELINE}{}", self.number)
    }

    /// Returns whether there is another end. A store that is full closes what it was given, and says so in the manager's log alone.
    fn is_kept(&self) -> bool {
        let mut byte = [0];
        let mut beside = RecvAncillaryBuffer::default();
        let mut parts = [IoSliceMut::new(&mut byte)];
        matches!(recvmsg(&self.ours, &mut parts, &mut beside, RecvFlags::DONTWAIT), Err(Errno::AGAIN))
    }

    /// Puts descriptors in, at most 253, with a number for each.
    fn send(&self, kind: Kind, numbers: &[u64], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(MAX_BYTES);
        bytes.push(kind.byte());
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
        put(&self.ours, &bytes, descriptors)
    }

    /// Puts all of these in.
    fn send_all(&self, files: &[OwnedFd], sockets: &HashMap<u64, OwnedFd>) -> io::Result<()> {
        for files in files.chunks(MAX_PER_MESSAGE) {
            let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            self.send(Kind::Files, &[], &files)?;
        }
        let sockets: Vec<_> = sockets.iter().collect();
        for sockets in sockets.chunks(MAX_PER_MESSAGE) {
            let (numbers, sockets): (Vec<_>, Vec<_>) = sockets.iter().map(|(n, socket)| (**n, socket.as_fd())).unzip();
            self.send(Kind::Sockets, &numbers, &sockets)?;
        }
        Ok(())
    }
}

/// Sends one message, unless the queue is full.
fn put(to: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_PER_MESSAGE))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    retry_on_intr(|| sendmsg(to, &[IoSlice::new(bytes)], &mut beside, flags))?;
    Ok(())
}

/// A message: its kind, numbers, and descriptors.
type Message = (Kind, Vec<u64>, Vec<OwnedFd>);

/// Takes the first message out of a queue, or looks at it; `None` if there is none.
fn take(from: &OwnedFd, flags: RecvFlags) -> io::Result<Option<Message>> {
    let mut bytes = [0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_PER_MESSAGE))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = flags | RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = match retry_on_intr(|| recvmsg(from, &mut parts, &mut beside, flags)) {
        Ok(received) if received.bytes > 0 => received,
        Ok(_) | Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    if received.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC) {
        return Err(io::Error::other("not all descriptors could be had; raise LimitNOFILE of the service"));
    }
    let (kind, rest) = bytes.get(..received.bytes).and_then(<[u8]>::split_first).ok_or_else(|| strange("nothing"))?;
    let kind = Kind::ALL.iter().find(|(byte, _)| byte == kind).map(|(_, kind)| *kind);
    let (numbers, []) = rest.as_chunks::<8>() else { return Err(strange("a message that is cut")) };
    let numbers: Vec<_> = numbers.iter().map(|number| u64::from_be_bytes(*number)).collect();
    match kind {
        Some(kind) if kind != Kind::Sockets || numbers.len() == descriptors.len() => {
            Ok(Some((kind, numbers, descriptors)))
        }
        _ => Err(strange("a message of another kind")),
    }
}

/// The things of a process that was killed.
#[derive(Debug)]
pub struct Survivors {
    /// Its files in memory.
    pub files: Vec<File>,
    /// Its connections, by number.
    pub sockets: HashMap<u64, OwnedFd>,
    /// The place at which they are kept further on, if there is one.
    pub tail: Option<Tail>,
}

/// The queue with all that a process has left that was killed.
#[derive(Debug)]
pub struct Tail {
    queue: Queue,
    tries: u8,
}

/// Takes over what a process has left that was killed: the ends of its queues that the manager kept, with their numbers. All of it
/// stays with the manager meanwhile, as this process may be killed as well.
///
/// # Errors
/// Fails if the queues are of another format, or if several processes in a row have not lasted. Nothing is kept then.
pub(super) fn survive(ends: Vec<(u32, OwnedFd)>, store: Option<&DescriptorStore>) -> io::Result<Option<Survivors>> {
    let Some(last) = ends.iter().map(|(number, _)| *number).max() else { return Ok(None) };
    let survivors = take_all(&ends, last.wrapping_add(1), store);
    for (number, _) in &ends {
        let name = format!("{LIFELINE}{number}");
        if let Some(Err(error)) = store.map(|store| store.remove(&name)) {
            warn!(%error, name, "the service manager cannot be told to forget what it has kept");
        }
    }
    survivors.map(Some)
}

fn take_all(ends: &[(u32, OwnedFd)], number: u32, store: Option<&DescriptorStore>) -> io::Result<Survivors> {
    let mut tries = 0;
    for (_, end) in ends {
        tries = tries.max(head(end)?);
    }
    if tries >= MOST_TRIES {
        return Err(io::Error::other(format!(
            "{tries} processes in a row have ended within a second, and what they went on with may be the reason"
        )));
    }
    let tail = store.and_then(|store| {
        let kept = Queue::new(number, tries + 1).and_then(|(queue, theirs)| queue.keep(store, theirs).map(|()| queue));
        kept.inspect_err(|error| warn!(%error, "sessions would not outlive this process if it were killed now")).ok()
    });
    let mut survivors = Survivors {
        files: Vec::new(),
        sockets: HashMap::new(),
        tail: tail.map(|queue| Tail { queue, tries: tries + 1 }),
    };
    for (_, end) in ends {
        survivors.move_all(end)?;
    }
    Ok(survivors)
}

/// Returns the tries that the first message of a queue tells.
pub(super) fn head(end: &OwnedFd) -> io::Result<u8> {
    match take(end, RecvFlags::PEEK)? {
        Some((Kind::Head, numbers, _)) => match *numbers.as_slice() {
            [format, tries] if format == u64::from(FORMAT) => Ok(u8::try_from(tries).unwrap_or(u8::MAX)),
            [format, ..] => {
                Err(strange(&format!("its lifeline in format {format}, and this version knows only {FORMAT}")))
            }
            [] => Err(strange("a lifeline without a format")),
        },
        // Another one was killed while it took this over, and all of it is in the next.
        None => Ok(0),
        Some(_) => Err(strange("a lifeline without a beginning")),
    }
}

impl Survivors {
    /// Moves all messages of a queue to the new one. Each is there before it is gone here.
    fn move_all(&mut self, end: &OwnedFd) -> io::Result<()> {
        while let Some((kind, numbers, descriptors)) = take(end, RecvFlags::PEEK)? {
            if let Some(Tail { queue, .. }) = &self.tail
                && kind != Kind::Head
            {
                let lent: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                if let Err(error) = queue.send(kind, &numbers, &lent) {
                    warn!(%error, "some sessions would not outlive this process if it were killed now");
                }
            }
            take(end, RecvFlags::empty())?;
            match kind {
                Kind::Head => {}
                Kind::Files => self.files.extend(descriptors.into_iter().map(File::from)),
                Kind::Sockets => self.sockets.extend(numbers.into_iter().zip(descriptors)),
            }
        }
        Ok(())
    }
}

/// The things that outlive this process if it is killed.
#[derive(Debug)]
pub struct Lifeline {
    store: DescriptorStore,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// None once it has ended.
    queue: Option<Queue>,
    /// The one that takes its place once the manager has it. All that comes meanwhile goes into both.
    next: Option<Queue>,
    files: Vec<OwnedFd>,
    sockets: HashMap<u64, OwnedFd>,
    /// The number of the last connection.
    serial: u64,
    /// The queue lacks something, or holds what is over.
    stale: bool,
    /// Not all that the process before has left is back or over: it stays.
    waits: bool,
    tries: u8,
}

impl Lifeline {
    /// Begins with no connections, and with these files. All that is in `tail` stays until [`Lifeline::settle`].
    ///
    /// # Errors
    /// Fails if the manager cannot be reached, or has no room.
    pub fn begin(store: DescriptorStore, files: Vec<OwnedFd>, tail: Option<Tail>) -> io::Result<Arc<Self>> {
        let none = HashMap::new();
        let (queue, tries) = match tail {
            Some(Tail { queue, tries }) => {
                queue.send_all(&files, &none)?;
                (queue, tries)
            }
            None => {
                let (queue, theirs) = Queue::new(1, 0)?;
                queue.send_all(&files, &none)?;
                queue.keep(&store, theirs)?;
                (queue, 0)
            }
        };
        let state = State {
            // The numbers of no two processes meet: those of a queue grow from one to the next.
            serial: u64::from(queue.number) << 32,
            queue: Some(queue),
            next: None,
            files,
            sockets: none,
            stale: false,
            waits: true,
            tries,
        };
        Ok(Arc::new(Self { store, state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Holds a connection until what is returned is dropped. If there is no room at this moment, it is there a little later.
    pub fn hold(self: &Arc<Self>, socket: OwnedFd) -> Held {
        let mut state = self.state.lock();
        state.serial += 1;
        let serial = state.serial;
        let State { queue, next, stale, .. } = &mut *state;
        for queue in queue.iter_mut().chain(next) {
            queue.single += 1;
            let sent = queue.send(Kind::Sockets, &[serial], &[socket.as_fd()]);
            *stale |= sent.is_err() || queue.single >= MOST_SINGLE;
        }
        if *stale {
            self.changed.notify_all();
        }
        state.sockets.insert(serial, socket);
        Held { lifeline: Arc::clone(self), serial }
    }

    /// Has the queue hold only what this process has, as all that the one before left is back or over.
    pub fn settle(&self) {
        let mut state = self.state.lock();
        (state.waits, state.stale) = (false, true);
        self.changed.notify_all();
    }

    /// Takes note that this process has lasted, so that none of its sessions is what ends it.
    pub fn lasts(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.tries) > 0 {
            state.stale = true;
            self.changed.notify_all();
        }
    }

    /// Makes the queue anew whenever that is due, until the end: to be run on a thread of its own.
    pub fn run(&self) {
        while self.wait() {
            match self.renew() {
                Ok(()) => {}
                Err(error) => {
                    self.state.lock().next = None;
                    error!(%error, "sessions of this moment would not outlive this process if it were killed");
                }
            }
            // Not at once again, unless it ends.
            self.changed.wait_while_for(&mut self.state.lock(), |state| state.queue.is_some(), PAUSE);
        }
    }

    /// Waits until the queue is to be made anew; returns false at the end.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while state.queue.is_some() && (state.waits || !state.stale) {
            self.changed.wait(&mut state);
        }
        state.queue.is_some()
    }

    /// Makes the queue anew: with what this process has, and nothing else.
    pub(super) fn renew(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(number) = state.queue.as_ref().map(|queue| queue.number.wrapping_add(1)) else { return Ok(()) };
        let (queue, theirs) = Queue::new(number, state.tries)?;
        queue.send_all(&state.files, &state.sockets)?;
        state.stale = false;
        let name = queue.name();
        // The manager may take its time, and nobody is to wait for it who has a connection to be held.
        let kept = queue.ours.try_clone()?;
        state.next = Some(queue);
        drop(state);
        Queue { number, ours: kept, single: 0 }.keep(&self.store, theirs)?;
        let mut state = self.state.lock();
        let State { queue, next, .. } = &mut *state;
        let before = queue.as_ref().map(Queue::name);
        if before.is_some() {
            *queue = next.take();
        }
        drop(state);
        // If it has ended meanwhile, nothing is to be kept.
        self.store.remove(&before.unwrap_or(name))
    }

    /// Ends it: nothing is kept any more.
    pub fn end(&self) {
        let mut state = self.state.lock();
        let Some(queue) = state.queue.take() else { return };
        self.changed.notify_all();
        // To tell the manager takes a descriptor, and these are not needed any more.
        let over = (std::mem::take(&mut state.sockets), std::mem::take(&mut state.files), state.next.take());
        drop(state);
        drop(over);
        let name = queue.name();
        drop(queue);
        let told = self.store.remove(&name).and_then(|()| self.store.barrier(WITHIN));
        if let Err(error) = told {
            warn!(%error, "the service manager cannot be told to forget what it has kept");
        }
    }
}

/// A connection that is held.
#[derive(Debug)]
pub struct Held {
    lifeline: Arc<Lifeline>,
    serial: u64,
}

impl Held {
    /// Returns its number.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Takes the descriptor by which it is held, for a process that ends and leaves the connection to the next one: there may not be
    /// another one left. The queue has the connection until the end.
    pub fn take(&self) -> Option<OwnedFd> {
        let mut state = self.lifeline.state.lock();
        // A new queue would lack it.
        state.waits = true;
        state.sockets.remove(&self.serial)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.lifeline.state.lock();
        state.sockets.remove(&self.serial);
        state.stale = true;
        self.lifeline.changed.notify_all();
    }
}
