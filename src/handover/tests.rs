use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use rustix::cmsg_space;
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};

use super::lifeline::{head, survive};
use super::*;

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

/// Raises the limit of descriptors as far as it goes; returns whether `count` more fit.
fn room_for(count: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.is_none_or(|limit| limit > count + 1000)
}

#[test]
fn what_is_left_arrives_whole_and_in_order_after_its_sender_is_gone() {
    let count = 3000;
    if !room_for(count) {
        eprintln!("skipped: the limit of descriptors is too low");
        return;
    }
    let listeners: Vec<_> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    // Some connections, each of which is sent many times.
    let connections: Vec<_> = addresses.iter().map(|address| TcpStream::connect(address).unwrap()).collect();
    let sockets: Vec<_> = connections.iter().map(AsFd::as_fd).cycle().take(3000).collect();
    let state: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();

    let (ours, theirs) = pair();
    let lent: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    send(&ours, &state, &lent, &sockets).unwrap();
    drop(ours);
    drop(listeners);

    let inheritance = receive(&theirs).unwrap();
    assert_eq!(inheritance.state, state);
    let there: Vec<_> = inheritance.listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    assert_eq!(there, addresses);
    assert_eq!(inheritance.sockets.len(), sockets.len());
    for (got, sent) in inheritance.sockets.iter().zip(connections.iter().cycle()) {
        assert!(fcntl_getfd(got).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(rustix::net::getsockname(got).unwrap(), rustix::net::getsockname(sent).unwrap());
    }
    // Connections that waited in the kernel are still there.
    for (listener, client) in inheritance.listeners.iter().zip(&connections) {
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
    }
    let error = receive(&theirs).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
}

#[test]
fn nothing_at_all_can_be_left_as_well() {
    let (ours, theirs) = pair();
    for state in [&[][..], b"state"] {
        send(&ours, state, &[], &[]).unwrap();
        let inheritance = receive(&theirs).unwrap();
        assert_eq!(inheritance.state, state);
        assert!(inheritance.listeners.is_empty() && inheritance.sockets.is_empty());
    }
}

#[test]
fn counts_around_the_size_of_a_message_arrive() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let max = MAX_PER_MESSAGE;
    for (listeners, sockets) in [(1, max), (max, 1), (max + 1, 2 * max), (0, max - 1), (1, 0)] {
        let (ours, theirs) = pair();
        send(&ours, &[], &vec![listener.as_fd(); listeners], &vec![ours.as_fd(); sockets]).unwrap();
        let got = receive(&theirs).unwrap();
        assert_eq!((got.listeners.len(), got.sockets.len()), (listeners, sockets));
    }
}

#[test]
fn what_is_too_much_is_not_sent() {
    let announced = |state, listeners, sockets| Announcement { state, listeners, sockets }.check();
    announced(MAX_STATE, 1, MAX_DESCRIPTORS - 1).unwrap();
    for (state, listeners, sockets) in
        [(MAX_STATE + 1, 0, 0), (0, 1, MAX_DESCRIPTORS), (0, MAX_DESCRIPTORS + 1, 0), (0, u32::MAX, u32::MAX)]
    {
        let error = announced(state, listeners, sockets).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
        let bytes = Announcement { state, listeners, sockets }.bytes();
        assert!(Announcement::parse(&bytes).is_err());
    }
    let (ours, _theirs) = pair();
    assert!(send_message(&ours, b"1", &vec![ours.as_fd(); MAX_PER_MESSAGE + 1]).is_err());
}

/// Sends messages by hand; returns the error of the one that receives them.
fn refused(messages: &[(&[u8], &[BorrowedFd<'_>])]) -> String {
    let (ours, theirs) = pair();
    for (bytes, descriptors) in messages {
        send_message(&ours, bytes, descriptors).unwrap();
    }
    drop(ours);
    receive(&theirs).unwrap_err().to_string()
}

#[test]
fn what_no_otproxy_sends_is_refused_with_the_reason() {
    let memory = memory_of(b"abc").unwrap();
    let (listener, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), pair().0);
    let one = &[memory.as_fd()][..];
    let first = |state, listeners, sockets| Announcement { state, listeners, sockets }.bytes();
    let mut newer = first(3, 0, 0);
    newer[11] = 2;
    let short = "the other process ended before it had sent all";
    for (messages, says) in [
        (vec![], short),
        (vec![(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[][..])], "a message of 27 bytes instead of 28"),
        (vec![(&b"GET / HTTP/1.1\r\nHost: ab\r\n\r\n"[..], &[][..])], "no otproxy's state"),
        (vec![(&newer, one)], "format 2, and this version knows only format 1"),
        (vec![(&first(3, 0, 0), &[])], "0 descriptors where one holds the state"),
        (vec![(&first(2, 0, 0), one)], "a state of 3 bytes instead of 2"),
        (vec![(&first(0, 0, 0), &[listener.as_fd()])], "the other process sent a state of 0 bytes"),
        (vec![(&first(3, 1, 0), one)], short),
        (vec![(&first(3, 1, 0), one), (&[0; 4], &[])], "0 descriptors in message 0"),
        (vec![(&first(3, 1, 0), one), (&[0; 4], &[memory.as_fd()])], "a descriptor that does not listen"),
        (vec![(&first(3, 1, 0), one), (&[0; 4], &[other.as_fd()])], "a descriptor that does not listen"),
        (vec![(&first(3, 1, 0), one), (&[1; 4], &[listener.as_fd()])], "1 descriptors in message 0"),
        (vec![(&first(3, 0, 1), one), (&[0; 4], &[one[0]; 2])], "2 descriptors in message 0"),
    ] {
        let error = refused(&messages);
        assert!(error.contains(says), "{error}: {says}");
    }
}

#[test]
fn a_queue_that_nobody_reads_has_an_end() {
    let (ours, _theirs) = pair();
    ours.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
    let error = (0..1_000_000).find_map(|_| send_message(&ours, b"1", &[ours.as_fd()]).err()).expect("an end");
    assert!([ErrorKind::TimedOut, ErrorKind::Other].contains(&error.kind()), "{error}");
}

proptest! {
    #[test]
    fn any_first_message_is_read_as_it_was_written_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40),
        state in 0..=MAX_STATE, listeners in 0..500_000_u32, sockets in 0..500_000_u32) {
        let _ = Announcement::parse(&bytes);
        let announced = Announcement { state, listeners, sockets };
        prop_assert_eq!(Announcement::parse(&announced.bytes()).unwrap(), announced);
    }
}

/// A service manager that keeps descriptors.
struct Manager {
    socket: UnixDatagram,
    kept: Vec<OwnedFd>,
}

impl Manager {
    fn named(name: &str) -> (Self, DescriptorStore) {
        let name = format!("otproxy-{name}-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let store = DescriptorStore::of(Some(format!("@{name}").as_ref()), Some("8".as_ref())).unwrap();
        (Self { socket, kept: Vec::new() }, store)
    }

    /// Takes the next message, with its descriptors.
    fn next(&mut self, says: &str) {
        let mut bytes = vec![0; says.len()];
        receive_message(&self.socket, &mut bytes, &mut self.kept).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), says);
    }
}

#[test]
fn a_store_keeps_what_is_left_until_it_is_told_to_forget_it() {
    let (mut manager, store) = Manager::named("store");
    let (ours, theirs) = pair();
    send(&ours, b"state", &[], &[ours.as_fd()]).unwrap();
    store.keep(INHERITANCE, theirs.as_fd()).unwrap();
    drop((ours, theirs));
    manager.next("FDSTORE=1\nFDNAME=otproxy\nFDPOLL=0\n");
    let kept = UnixStream::from(manager.kept.pop().unwrap());
    assert_eq!(receive(&kept).unwrap().state, b"state");
    store.remove(INHERITANCE).unwrap();
    manager.next("FDSTOREREMOVE=1\nFDNAME=otproxy\n");
    assert!(manager.kept.is_empty());
}

#[test]
fn a_barrier_waits_until_the_manager_has_come_to_it() {
    let (mut manager, store) = Manager::named("barrier");
    let waits = std::thread::spawn({
        let store = store.clone();
        move || store.barrier(Duration::from_secs(60))
    });
    manager.next("BARRIER=1\n");
    assert_eq!(manager.kept.len(), 1);
    assert!(!waits.is_finished());
    manager.kept.clear();
    waits.join().unwrap().unwrap();
    let error = store.barrier(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.to_string(), "the service manager does not answer");
}

/// A manager that keeps descriptors by name, on a thread of its own.
#[derive(Clone, Default)]
struct KeptByName(Arc<Mutex<Vec<(String, OwnedFd)>>>);

impl KeptByName {
    /// Returns one with room for so many, and its store.
    fn start(name: &str, room: usize) -> (Self, DescriptorStore) {
        let (Manager { socket, .. }, store) = Manager::named(name);
        let kept = Self::default();
        let all = kept.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 256];
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            loop {
                let mut beside = RecvAncillaryBuffer::new(&mut space);
                let flags = RecvFlags::CMSG_CLOEXEC;
                let Ok(got) = recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut beside, flags) else { return };
                let text = String::from_utf8_lossy(&bytes[..got.bytes]).into_owned();
                let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
                let descriptors = beside.drain().filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(some) => Some(some),
                    _ => None,
                });
                let descriptors: Vec<_> = descriptors.flatten().collect();
                let mut all = all.0.lock();
                if text.starts_with("FDSTORE=1") && all.len() < room {
                    all.extend(descriptors.into_iter().map(|descriptor| (name.clone(), descriptor)));
                } else if text.starts_with("FDSTOREREMOVE") {
                    all.retain(|(other, _)| *other != name);
                }
            }
        });
        (kept, store)
    }

    /// Returns the ends of lifelines as the next process gets them.
    fn ends(&self) -> Vec<(u32, OwnedFd)> {
        let end = |(name, end): &(String, OwnedFd)| {
            (name.strip_prefix(LIFELINE).unwrap().parse().unwrap(), end.try_clone().unwrap())
        };
        self.0.lock().iter().map(end).collect()
    }
}

/// Returns the address of each connection, by number.
fn addresses(sockets: &HashMap<u64, OwnedFd>) -> HashMap<u64, std::net::SocketAddr> {
    let address = |socket: &OwnedFd| TcpStream::from(socket.try_clone().unwrap()).local_addr().unwrap();
    sockets.iter().map(|(number, socket)| (*number, address(socket))).collect()
}

/// Connections to a server of their own.
struct Connections(TcpListener);

impl Connections {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Returns one more that is held, and its address.
    fn hold(&self, lifeline: &Arc<Lifeline>) -> (Held, std::net::SocketAddr) {
        let connection = TcpStream::connect(self.0.local_addr().unwrap()).unwrap();
        let address = connection.local_addr().unwrap();
        // Its queue has an end.
        self.0.accept().unwrap();
        (lifeline.hold(connection.into()), address)
    }
}

fn a_file() -> Vec<OwnedFd> {
    vec![memory_of(b"journal").unwrap().into()]
}

#[test]
fn what_is_held_outlives_the_process_and_what_is_over_does_not() {
    let (manager, store) = KeptByName::start("lifeline", 8);
    let connections = Connections::new();
    let lifeline = Lifeline::begin(store.clone(), a_file(), None).unwrap();
    lifeline.settle();
    let mut held: Vec<_> = (0..250).map(|_| connections.hold(&lifeline)).collect();
    drop(held.split_off(100));
    let expected: HashMap<_, _> = held.iter().map(|(held, address)| (held.serial(), *address)).collect();
    lifeline.renew().unwrap();
    store.barrier(WITHIN).unwrap();
    assert_eq!(manager.ends().len(), 1, "the one before is forgotten");

    // The process is killed, and the next one too, before it has anything of its own.
    for _ in 0..2 {
        let survivors = survive(manager.ends(), Some(&store)).unwrap().expect("something");
        assert_eq!(addresses(&survivors.sockets), expected);
        assert_eq!(survivors.files.len(), 1);
        store.barrier(WITHIN).unwrap();
        assert_eq!(manager.ends().len(), 1);
    }

    // The one after it goes on with one of them, and is killed: that one is there twice, until all are back.
    let survivors = survive(manager.ends(), Some(&store)).unwrap().expect("something");
    let next = Lifeline::begin(store.clone(), a_file(), survivors.tail).unwrap();
    let one = next.hold(survivors.sockets.into_values().next().unwrap());
    assert!(!expected.contains_key(&one.serial()), "numbers of two processes never meet");
    let both = survive(manager.ends(), Some(&store)).unwrap().expect("something");
    assert_eq!((both.sockets.len(), both.files.len()), (101, 2));
    next.settle();
    next.renew().unwrap();
    // A process that ends takes its own descriptor, and the queue still has the connection.
    assert!(one.take().is_some() && one.take().is_none());
    let (ends, _) = (manager.ends(), drop(both));
    let own = ends.into_iter().filter(|(_, end)| head(end).is_ok_and(|tries| tries == 3)).collect();
    let own = survive(own, None).unwrap().expect("something");
    assert_eq!((own.sockets.len(), own.files.len()), (1, 1));
}

#[test]
fn what_ends_leaves_nothing_and_a_store_without_room_is_an_error() {
    let (manager, store) = KeptByName::start("ending", 1);
    let lifeline = Lifeline::begin(store.clone(), a_file(), None).unwrap();
    let error = Lifeline::begin(store.clone(), a_file(), None).unwrap_err();
    assert!(error.to_string().contains("FileDescriptorStoreMax="), "{error}");
    let error = lifeline.renew().unwrap_err();
    assert!(error.to_string().contains("FileDescriptorStoreMax="), "{error}");
    lifeline.end();
    assert!(manager.ends().is_empty());
    lifeline.renew().unwrap();
    assert!(manager.ends().is_empty(), "it has ended");
    assert!(survive(Vec::new(), Some(&store)).unwrap().is_none());
}

#[test]
fn processes_that_do_not_last_are_not_gone_on_with_for_ever() {
    let (manager, store) = KeptByName::start("lasting", 8);
    drop(Lifeline::begin(store.clone(), a_file(), None).unwrap());
    let again = || survive(manager.ends(), Some(&store));
    for _ in 0..MOST_TRIES - 1 {
        again().unwrap().expect("something");
        store.barrier(WITHIN).unwrap();
    }
    let tail = again().unwrap().expect("something").tail;
    let lifeline = Lifeline::begin(store.clone(), a_file(), tail).unwrap();
    lifeline.lasts();
    lifeline.renew().unwrap();
    store.barrier(WITHIN).unwrap();
    for _ in 0..MOST_TRIES {
        again().unwrap().expect("it has lasted");
        store.barrier(WITHIN).unwrap();
    }
    let error = again().unwrap_err();
    assert!(error.to_string().contains("in a row"), "{error}");
    store.barrier(WITHIN).unwrap();
    assert!(manager.ends().is_empty());
}

#[test]
fn what_is_no_lifeline_is_refused() {
    let socket = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let format = [&b"H"[..], &9_u64.to_be_bytes(), &0_u64.to_be_bytes()].concat();
    let head = [&b"H"[..], &1_u64.to_be_bytes(), &0_u64.to_be_bytes()].concat();
    for (messages, says) in [
        (vec![&b"S12345678"[..]], "a message of another kind"),
        (vec![b"F"], "a lifeline without a beginning"),
        (vec![b"H"], "a lifeline without a format"),
        (vec![b"H1234"], "a message that is cut"),
        (vec![&format], "its lifeline in format 9, and this version knows only 1"),
        (vec![&head, b"X"], "a message of another kind"),
    ] {
        let (ours, theirs) = socket();
        for message in messages {
            rustix::net::send(&ours, message, rustix::net::SendFlags::empty()).unwrap();
        }
        let error = survive(vec![(1, theirs)], None).unwrap_err();
        assert!(error.to_string().contains(says), "{error}: {says}");
    }
}

#[test]
fn a_manager_is_known_by_its_variables() {
    let runs = |socket: Option<&str>, started: Option<&str>| {
        super::manager::runs(socket.map(AsRef::as_ref), started.map(AsRef::as_ref), 7)
    };
    assert!(runs(Some("/run/systemd/notify"), None) && runs(None, Some("7")) && runs(Some("@a"), Some("8")));
    for (socket, started) in
        [(None, None), (Some(""), None), (None, Some("8")), (None, Some("seven")), (None, Some(""))]
    {
        assert!(!runs(socket, started), "{socket:?} {started:?}");
    }
}

/// Returns the two ends of a takeover. Neither waits longer for the other than the test may take.
fn ends() -> (Successor, Predecessor) {
    let (ours, theirs) = pair();
    (Successor::over(ours, Duration::from_secs(60)), Predecessor::over(theirs, Duration::from_secs(60)))
}

#[test]
fn a_takeover_is_done_in_three_steps() {
    let (successor, predecessor) = ends();
    let runs = std::thread::spawn(move || {
        let (listener, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), pair().0);
        successor.offer(b"", &[listener.as_fd()], &[])?;
        successor.offer(b"state", &[], &[other.as_fd()])?;
        successor.give_up()
    });
    assert_eq!(predecessor.offered().unwrap().listeners.len(), 1);
    predecessor.accept().unwrap();
    let left = predecessor.offered().unwrap();
    assert_eq!((&*left.state, left.sockets.len()), (&b"state"[..], 1));
    assert!(!runs.is_finished());
    predecessor.take_over().unwrap();
    runs.join().unwrap().unwrap();
}

#[test]
fn the_one_that_runs_goes_on_wherever_the_other_ends() {
    let gone = "the other process has given it up, or is gone";
    // After it was given everything, too: only its last word counts.
    for words in [&b""[..], b"+", b"++"] {
        let (ours, theirs) = pair();
        let successor = Successor::over(ours, Duration::from_secs(60));
        let other = std::thread::spawn(move || {
            for word in words {
                receive(&theirs).unwrap();
                (&theirs).write_all(&[*word]).unwrap();
            }
            let _ = (&theirs).read(&mut [0]);
        });
        let given = successor.offer(b"", &[], &[]).and_then(|()| successor.offer(b"", &[], &[]));
        let given = given.and_then(|()| successor.give_up());
        assert_eq!(given.unwrap_err().to_string(), gone, "{words:?}");
        other.join().unwrap();
    }
}

#[test]
fn the_one_that_takes_over_goes_by_no_other_word() {
    for (says, expected) in [
        (&b""[..], "the other process has given it up, or is gone"),
        (b"+", "the other process sent another word than is its turn"),
    ] {
        let (ours, theirs) = pair();
        (&ours).write_all(says).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let error = Predecessor::over(theirs, Duration::from_secs(60)).take_over().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn neither_waits_for_ever() {
    let (short, late) = (Duration::from_millis(1), "the other process does not answer in time");
    let (ours, theirs) = pair();
    let offered = Successor::over(ours, short).offer(b"", &[], &[]);
    assert_eq!(offered.unwrap_err().to_string(), late);
    drop(theirs);
    let (_ours, theirs) = pair();
    assert_eq!(Predecessor::over(theirs, short).take_over().unwrap_err().to_string(), late);
}

#[tokio::test]
async fn they_meet_at_a_place_for_one_user_which_is_gone_afterwards() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = std::env::temp_dir().join(format!("otproxy-meeting-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let socket = folder.join("admin.sock");
    let meeting = Meeting::beside(&socket).unwrap();
    let place = folder.join(meeting.name());
    assert_eq!(std::fs::metadata(&place).unwrap().mode() & 0o7777, 0o600);
    let successor = Successor::at(&place).await.unwrap();
    assert!(successor.is_near());
    let predecessor = meeting.met().unwrap();
    assert!(!place.exists());
    predecessor.accept().unwrap();
    successor.offer(b"", &[], &[]).unwrap();
    predecessor.offered().unwrap();
    let nobody = Meeting::beside(&socket).unwrap().met().unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
    assert!(Successor::at(&place).await.is_err());
    std::fs::remove_dir_all(&folder).unwrap();
    let own = rustix::process::geteuid().as_raw();
    assert!(is_own_user(own) && is_own_user(0) && !is_own_user(own + 1));
}
