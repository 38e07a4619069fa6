//! The link between a predecessor and its successor: one end each of a `SOCK_SEQPACKET` socketpair.
//!
//! It has no path in the file system, so nobody else can connect. Packets keep their order and carry descriptors.
//!
//! The words have a version of their own, beside that of the state in them. A word is written as it was at first; a
//! later version knows more of them. The successor says in its check which versions it knows, and the predecessor's
//! first word which one they speak: HELLO is version 1, GREETING says it. So neither hears a word that it does not know.

use super::anonymous::{Reader, anonymous_file};
use super::patience::Patience;
use super::state::{newest_of_test, v1};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A payload above this goes in a sealed memfd beside the packet: a packet over about 200 KB is EMSGSIZE.
const INLINE: usize = 32 * 1024;
/// The longest packet: an inline payload and the words around it.
const PACKET: usize = 64 * 1024;
/// The newest version of the words.
const WORDS: u32 = 7;
/// From here on a successor hears what its predecessor holds.
pub const HOLDS: u32 = 2;
/// From here on a successor says which listeners it keeps by their places; before, by their addresses as they were
/// configured, of which one may stand for several listeners.
pub const PLACES: u32 = 3;
/// From here on a successor is told whether it serves before it is promoted, or on `Go` and not before.
pub const SWITCHES: u32 = 4;
/// From here on connections move several at a time, and a successor hears what the hub has, if it reads version 3 of the
/// state.
pub const HUBS: u32 = 5;
/// From here on a successor hears of sessions, if it reads version 4 of the state, and is asked for what is for a client that
/// it has.
pub const CLIENTS: u32 = 6;
/// From here on a successor asks what its predecessor has counted, which says so when it ends as well, if both read version 5
/// of the state.
pub const FIGURES: u32 = 7;
/// The most descriptors in one packet, of listeners; the kernel's own limit is 253 (unix(7)).
pub const MAX_DESCRIPTORS: usize = 250;

/// One end of the link.
#[derive(Clone, Debug)]
pub struct Link(Arc<OwnedFd>);

/// What the two say to each other, as postcard writes it: a word's place here is the number that stands for it.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// Predecessor: what you inherit. The listeners' descriptors follow, then the real stdin.
    Hello(v1::Inheritance),
    /// Successor: everything is bound and started, I accept; of the listeners I inherited these are mine too.
    Ready { kept: Vec<String> },
    /// Successor: I was told to stop.
    Stopping,
    /// Predecessor: you are the server now; what the application carries over is beside it.
    Promote { carried_version: Option<u32>, carried: Payload },
    /// Successor: the pid file is mine, signals too.
    Promoted,
    /// Predecessor: a connection, its socket, and the file it sends if `file`. Not to be run before `Commit`.
    Connection { id: u64, file: bool, snapshot: Payload },
    /// Successor: I have it.
    Ack(u64),
    /// Successor: I cannot take it.
    Refused(u64),
    /// Predecessor: it is yours.
    Commit(u64),
    /// Predecessor: it stays mine.
    Abort(u64),
    /// Either: a stop, passed on.
    Stop { at_once: bool },
    /// Predecessor: my copies of the listeners are closed, you are their sole holder.
    ListenersClosed,
    /// Predecessor: I am done; the counters go on from here. `cut` requests were cut by the deadline of a stop or of
    /// the reload. A HUP came too late for me.
    Finished { counters: v1::Counters, cut: u64, reload_again: bool },
    /// Predecessor, instead of `Hello`: we speak that version of the words, and this is what you inherit, in a version
    /// of the state. The descriptors follow in the same way, those of spare sockets before stdin.
    Greeting { words: u32, state: Vec<u8> },
    /// Successor, since version 2: I end, and this is why, in one line.
    Failed(String),
    /// Predecessor, since version 2: what I hold now, of which your limits are the limits too.
    Holds(Holds),
    /// Successor, since version 2: spare a connection for one that wants to come to me; or, for another of an address
    /// that has as many as it may, one of that address.
    Spare(Option<Vec<u8>>),
    /// Successor, since version 3, before `Ready`: of the listeners that I inherited those in these places are mine too.
    Kept { places: Vec<u32> },
    /// Predecessor, since version 4, behind `Greeting`: whether you are ready without accepting, restore what is carried
    /// over on `Promote`, and serve on `Go`; there is a state of which two may not serve.
    Order { switch: bool },
    /// Predecessor, since version 4: serve. What I hear from here on I do not act on.
    Go,
    /// Successor, since version 4, to `Go`: the pid file is mine, signals too.
    Serves,
    /// Predecessor, since version 5, before `Promote`: the log of the hub, as that writes it down.
    Hub(Payload),
    /// Predecessor, since version 5: connections, with the ids from that one on. Their descriptors follow, in their order
    /// each its socket's and its file's.
    Connections { first: u64, snapshots: Payload },
    /// Successor, since version 5: I have these.
    Acks(Vec<u64>),
    /// Successor, since version 5: I cannot take these.
    Refusals(Vec<u64>),
    /// Predecessor, since version 5: these are yours.
    Commits(Vec<u64>),
    /// Predecessor, since version 5, behind `Go`: publish what somebody here still publishes, as [`Publication`] has it.
    Publish { id: u64, publication: Payload },
    /// Successor, since version 5, to `Publish`: where it stands, or why it does not.
    Published { id: u64, outcome: Result<PublishedAt, String> },
    /// Predecessor, since version 6, behind `Go`: do what somebody here still does for a client, as [`ForClient`] has it.
    ForClient { id: u64, client: u64, what: Payload },
    /// Successor, since version 6, to `ForClient`.
    ForClientDone { id: u64, outcome: Result<(), Undone> },
    /// Predecessor, since version 6, before `Promote`: the sessions of SockJS, in the version of the state.
    Sessions(Payload),
    /// Successor, since version 7: what have you counted? My questions have numbers, from one on.
    Count(u64),
    /// Predecessor, since version 7, to `Count`, or with no number as one of its last words: what was counted, as
    /// [`SavedFigures`](super::state::SavedFigures) in the version of the state.
    Figures { number: u64, figures: Payload },
}

/// What is published by another process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    pub messages: Vec<PublishedMessage>,
    /// Whose key, and which.
    pub key: Option<(String, String)>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedMessage {
    pub namespace: String,
    pub topic: String,
    pub event: Option<String>,
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// Where something was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedAt {
    pub epoch: u64,
    pub offset: u64,
    pub subscribers: u64,
    pub repeated: bool,
}

/// What another process does for a client of a conversation.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForClient {
    Text(String),
    Binary(#[serde(with = "serde_bytes")] Vec<u8>),
    Close {
        code: u16,
        reason: String,
    },
    /// In the server's milliseconds.
    Wake(Option<u64>),
    Subscribe {
        namespace: String,
        topic: String,
    },
    Unsubscribe {
        namespace: String,
        topic: String,
    },
}

/// Why that was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Undone {
    /// There is no such client: it has not come yet, or has gone.
    Absent,
    /// As much waits for it as may.
    Full,
    /// It is closed.
    Closed,
    /// It listens to as many topics as it may.
    Topics,
    /// It takes text alone.
    NotText,
}

impl ForClient {
    /// As it is written in a packet.
    pub fn written(&self) -> io::Result<Vec<u8>> {
        postcard::to_allocvec(self).map_err(io::Error::other)
    }

    /// What was written.
    pub fn read(bytes: &[u8]) -> io::Result<ForClient> {
        postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl Publication {
    /// As it is written in a packet.
    pub fn written(&self) -> io::Result<Vec<u8>> {
        postcard::to_allocvec(self).map_err(io::Error::other)
    }

    /// What was written.
    pub fn read(bytes: &[u8]) -> io::Result<Publication> {
        postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// A connection among several.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshots(pub Vec<(bool, ByteBuf)>);

impl Snapshots {
    /// As they are written in a packet.
    pub fn written(&self) -> io::Result<Vec<u8>> {
        postcard::to_allocvec(&self.0).map_err(io::Error::other)
    }

    /// What was written.
    pub fn read(bytes: &[u8]) -> io::Result<Snapshots> {
        let all = postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Snapshots(all))
    }
}

/// What a predecessor holds.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    pub connections: usize,
    /// Of the memory for requests and answers that wait.
    pub bytes: usize,
    /// Addresses, of four or eight bytes, and how many connections each has. Only those are named of which that has
    /// changed.
    pub addresses: Vec<(Vec<u8>, usize)>,
}

/// Bytes inside the packet, or behind it in a memfd, which is the packet's last descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Payload {
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    Memfd,
}

impl Message {
    /// The connections that it answers for.
    pub fn ids(&self) -> &[u64] {
        match self {
            Message::Ack(id) | Message::Refused(id) => std::slice::from_ref(id),
            Message::Acks(ids) | Message::Refusals(ids) => ids,
            _ => &[],
        }
    }

    /// The name of its kind, for a message: what else it says may be long, and private.
    pub fn kind(&self) -> &'static str {
        match self {
            Message::Hello { .. } => "Hello",
            Message::Ready { .. } => "Ready",
            Message::Stopping => "Stopping",
            Message::Promote { .. } => "Promote",
            Message::Promoted => "Promoted",
            Message::Connection { .. } => "Connection",
            Message::Ack { .. } => "Ack",
            Message::Refused { .. } => "Refused",
            Message::Commit { .. } => "Commit",
            Message::Abort { .. } => "Abort",
            Message::Stop { .. } => "Stop",
            Message::ListenersClosed => "ListenersClosed",
            Message::Finished { .. } => "Finished",
            Message::Greeting { .. } => "Greeting",
            Message::Failed { .. } => "Failed",
            Message::Holds { .. } => "Holds",
            Message::Spare { .. } => "Spare",
            Message::Kept { .. } => "Kept",
            Message::Order { .. } => "Order",
            Message::Go => "Go",
            Message::Serves => "Serves",
            Message::Hub(_) => "Hub",
            Message::Connections { .. } => "Connections",
            Message::Acks(_) => "Acks",
            Message::Refusals(_) => "Refusals",
            Message::Commits(_) => "Commits",
            Message::Publish { .. } => "Publish",
            Message::Published { .. } => "Published",
            Message::Sessions(_) => "Sessions",
            Message::ForClient { .. } => "ForClient",
            Message::ForClientDone { .. } => "ForClientDone",
            Message::Count(_) => "Count",
            Message::Figures { .. } => "Figures",
        }
    }
}

/// What came of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Yes,
    /// The other side is slow: try again later. Nothing was sent.
    Later,
}

/// A packet as it came.
#[derive(Debug)]
pub struct Packet {
    pub message: Message,
    pub descriptors: Vec<OwnedFd>,
    /// Descriptors were lost, because this process may not open more.
    pub truncated: bool,
}

/// The versions of the words that this process knows.
pub fn words() -> std::ops::RangeInclusive<u32> {
    1..=newest_of_test().map_or(WORDS, |newest| WORDS.min(newest))
}

impl Link {
    /// Both ends, close-on-exec.
    pub fn pair() -> io::Result<(Link, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Link(Arc::new(ours)), theirs))
    }

    /// The end that a predecessor gave us.
    pub fn of(fd: OwnedFd) -> io::Result<Link> {
        match rustix::net::sockopt::socket_type(&fd)? {
            SocketType::SEQPACKET => Ok(Link(Arc::new(fd))),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no link to a predecessor")),
        }
    }

    /// Sends without waiting.
    pub fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<Sent> {
        let bytes = postcard::to_allocvec(message).map_err(io::Error::other)?;
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            return match sendmsg(&*self.0, &[IoSlice::new(&bytes)], &mut ancillary, flags) {
                Ok(_) => Ok(Sent::Yes),
                Err(Errno::INTR) => continue,
                // ETOOMANYREFS: too many descriptors are on their way already (unix(7)).
                Err(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => Ok(Sent::Later),
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Sends, and waits a while for room.
    pub fn send_within(&self, message: &Message, descriptors: &[BorrowedFd<'_>], patience: Duration) -> io::Result<()> {
        let mut patience = Patience::new(patience);
        while self.send(message, descriptors)? == Sent::Later {
            if patience.is_over() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // Writable means room again, but for ETOOMANYREFS, which only time heals.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether a packet is here that nobody has received.
    pub fn has_unread(&self) -> bool {
        rustix::io::ioctl_fionread(&*self.0).is_ok_and(|bytes| bytes > 0)
    }

    /// Waits for the next packet; `None` when the other side is gone, and all that it had said has been received.
    pub fn receive(&self) -> io::Result<Option<Packet>> {
        let mut bytes = vec![0; PACKET];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS + 3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(&*self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                // The other side went before it had read all that we have sent (unix(7)). It is said once, and before
                // what that side has still sent, in which connections may be.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let message = postcard::from_bytes(&bytes[..received.bytes])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some(Packet { message, descriptors, truncated: received.flags.contains(ReturnFlags::CTRUNC) }))
    }

    /// Gives up a wait for `receive` in another thread, on both sides.
    pub fn shut_down(&self) {
        let _ = rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Both);
    }
}

/// A payload for a packet, and the memfd that goes with it if it is large.
pub fn payload(bytes: Vec<u8>) -> io::Result<(Payload, Option<OwnedFd>)> {
    if bytes.len() <= INLINE {
        return Ok((Payload::Inline(bytes), None));
    }
    Ok((Payload::Memfd, Some(anonymous_file(&bytes, Reader::Other)?.into())))
}

impl Payload {
    /// The bytes; a memfd is taken from the end of `descriptors`.
    pub fn open(self, descriptors: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
        match self {
            Payload::Inline(bytes) => Ok(bytes),
            Payload::Memfd => {
                let missing = || io::Error::new(io::ErrorKind::InvalidData, "the payload's descriptor is missing");
                let mut memfd = File::from(descriptors.pop().ok_or_else(missing)?);
                // The sender's position is shared with the descriptor.
                memfd.rewind()?;
                let mut bytes = Vec::new();
                memfd.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// Steps at which a test ends or stops this process, by naming one in `HANDOVER_TEST_KILL` or `HANDOVER_TEST_STOP`; that
/// is once, so that it can be made to go on. Only tests set these.
pub fn test_point(step: &str) {
    use nix::sys::signal::{Signal, raise};
    static REACHED: AtomicBool = AtomicBool::new(false);
    for (variable, signal) in [("HANDOVER_TEST_KILL", Signal::SIGKILL), ("HANDOVER_TEST_STOP", Signal::SIGSTOP)] {
        if std::env::var_os(variable).is_some_and(|named| named == step) && !REACHED.swap(true, Ordering::Relaxed) {
            // To this thread: a stop of the process would let it go on for a few packets, until another thread has
            // taken the signal.
            let _ = raise(signal);
        }
    }
}

/// A time that a test shortens, by naming seconds in `variable`. Only tests set these.
pub fn test_time(variable: &str, time: Duration) -> Duration {
    let said = std::env::var(variable).ok();
    said.and_then(|text| Duration::try_from_secs_f64(text.parse().ok()?).ok()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::super::state::Counters;
    use super::*;
    use std::os::fd::AsFd;
    use std::time::Instant;

    #[test]
    fn packets_keep_their_order_and_their_descriptors() {
        let (one, other) = Link::pair().expect("a pair");
        let other = Link::of(other).expect("a link");
        let file = File::open("/dev/null").expect("a file");
        let (large, memfd) = payload(vec![7; INLINE + 1]).expect("a memfd");
        let memfd = memfd.expect("above the limit");
        let snapshot = Message::Connection { id: 9, file: true, snapshot: large };
        assert_eq!(one.send(&snapshot, &[file.as_fd(), memfd.as_fd()]).expect("room"), Sent::Yes);
        assert_eq!(one.send(&Message::Commit(9), &[]).expect("room"), Sent::Yes);
        drop(one);
        let Packet { message, mut descriptors, truncated } = other.receive().expect("a packet").expect("a packet");
        let Message::Connection { id: 9, file: true, snapshot } = message else { panic!("{message:?}") };
        assert!(!truncated);
        assert_eq!(snapshot.open(&mut descriptors).expect("a memfd"), vec![7; INLINE + 1]);
        assert_eq!(descriptors.len(), 1);
        assert!(matches!(other.receive(), Ok(Some(Packet { message: Message::Commit(9), .. }))));
        assert!(matches!(other.receive(), Ok(None)));
    }

    /// A word stays as it is; what it does not say is another word.
    #[test]
    fn messages_are_written_as_they_were_at_first() {
        let counters = Counters { served: 1, refused: 2, connections: 300, migrated: 4, reloads: 5 }.into();
        let addresses = vec![(vec![127, 0, 0, 1], 2), (vec![0; 8], 0)];
        let snapshots =
            Snapshots(vec![(true, ByteBuf::from([7])), (false, ByteBuf::new())]).written().expect("plain data");
        assert_eq!(snapshots, [2, 1, 1, 7, 0, 0]);
        let message = PublishedMessage { namespace: "n".into(), topic: "t".into(), event: None, data: vec![1] };
        let publication = Publication { messages: vec![message], key: Some(("".into(), "k".into())) };
        assert_eq!(publication.written().expect("plain data"), b"\x01\x01n\x01t\x00\x01\x01\x01\x00\x01k");
        let at = PublishedAt { epoch: 300, offset: 1, subscribers: 2, repeated: false };
        let written = |what: ForClient| what.written().expect("plain data");
        assert_eq!(written(ForClient::Text("a".into())), b"\0\x01a");
        assert_eq!(written(ForClient::Binary(vec![7])), [1, 1, 7]);
        assert_eq!(written(ForClient::Close { code: 300, reason: "b".into() }), b"\x02\xac\x02\x01b");
        assert_eq!(written(ForClient::Wake(Some(9))), [3, 1, 9]);
        let (namespace, topic) = ("n".to_owned(), "t".to_owned());
        assert_eq!(
            written(ForClient::Subscribe { namespace: namespace.clone(), topic: topic.clone() }),
            b"\x04\x01n\x01t"
        );
        assert_eq!(written(ForClient::Unsubscribe { namespace, topic }), b"\x05\x01n\x01t");
        let undone = [Undone::Absent, Undone::Full, Undone::Closed, Undone::Topics];
        assert_eq!(postcard::to_allocvec(&undone).expect("plain data"), [0, 1, 2, 3]);
        let messages: [(Message, &[u8]); 33] = [
            (Message::Stopping, &[2]),
            (
                Message::Promote { carried_version: Some(300), carried: Payload::Inline(vec![1, 2, 200]) },
                &[3, 1, 0xac, 2, 0, 3, 1, 2, 200],
            ),
            (Message::Promoted, &[4]),
            (Message::Connection { id: 300, file: true, snapshot: Payload::Memfd }, &[5, 0xac, 2, 1, 1]),
            (Message::Ack(128), &[6, 128, 1]),
            (Message::Refused(16384), &[7, 128, 128, 1]),
            (Message::Abort(0), &[9, 0]),
            (Message::ListenersClosed, &[11]),
            (Message::Finished { counters, cut: 6, reload_again: true }, &[12, 1, 2, 0xac, 2, 4, 5, 6, 1]),
            (Message::Greeting { words: 2, state: vec![7, 200] }, &[13, 2, 2, 7, 200]),
            (Message::Failed("no".into()), &[14, 2, b'n', b'o']),
            (
                Message::Holds(Holds { connections: 300, bytes: 4, addresses }),
                &[15, 0xac, 2, 4, 2, 4, 127, 0, 0, 1, 2, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            (Message::Spare(None), &[16, 0]),
            (Message::Spare(Some(vec![127, 0, 0, 1])), &[16, 1, 4, 127, 0, 0, 1]),
            (Message::Kept { places: vec![0, 300] }, &[17, 2, 0, 0xac, 2]),
            (Message::Order { switch: true }, &[18, 1]),
            (Message::Go, &[19]),
            (Message::Serves, &[20]),
            (Message::Hub(Payload::Inline(vec![1, 200])), &[21, 0, 2, 1, 200]),
            (Message::Connections { first: 300, snapshots: Payload::Inline(vec![9]) }, &[22, 0xac, 2, 0, 1, 9]),
            (Message::Acks(vec![1, 300]), &[23, 2, 1, 0xac, 2]),
            (Message::Refusals(vec![2]), &[24, 1, 2]),
            (Message::Commits(vec![]), &[25, 0]),
            (Message::Publish { id: 300, publication: Payload::Inline(vec![9]) }, &[26, 0xac, 2, 0, 1, 9]),
            (Message::Published { id: 1, outcome: Ok(at) }, &[27, 1, 0, 0xac, 2, 1, 2, 0]),
            (Message::Published { id: 1, outcome: Err("no".into()) }, &[27, 1, 1, 2, b'n', b'o']),
            (Message::ForClient { id: 300, client: 2, what: Payload::Inline(vec![9]) }, &[28, 0xac, 2, 2, 0, 1, 9]),
            (Message::ForClientDone { id: 1, outcome: Ok(()) }, &[29, 1, 0]),
            (Message::ForClientDone { id: 1, outcome: Err(Undone::Full) }, &[29, 1, 1, 1]),
            (Message::ForClientDone { id: 1, outcome: Err(Undone::NotText) }, &[29, 1, 1, 4]),
            (Message::Sessions(Payload::Inline(vec![9])), &[30, 0, 1, 9]),
            (Message::Count(300), &[31, 0xac, 2]),
            (Message::Figures { number: 300, figures: Payload::Inline(vec![9]) }, &[32, 0xac, 2, 0, 1, 9]),
        ];
        for (message, expected) in messages {
            let bytes = postcard::to_allocvec(&message).expect("plain data");
            assert_eq!(bytes, expected, "{message:?}");
        }
    }

    /// The other side has ended with packets of ours unread: that was taken for its end, before what it had still said.
    #[test]
    fn what_was_said_before_a_reset_is_heard() {
        let (one, other) = Link::pair().expect("a pair");
        let other = Link::of(other).expect("a link");
        assert_eq!(one.send(&Message::Ack(7), &[]).expect("room"), Sent::Yes);
        let file = File::open("/dev/null").expect("a file");
        let snapshot = Message::Connection { id: 9, file: false, snapshot: Payload::Inline(vec![1]) };
        assert_eq!(other.send(&snapshot, &[file.as_fd()]).expect("room"), Sent::Yes);
        assert_eq!(other.send(&Message::Commit(9), &[]).expect("room"), Sent::Yes);
        assert!(one.has_unread());
        drop(other);
        let first = one.receive().expect("a packet").expect("a packet");
        assert!(
            matches!(first.message, Message::Connection { id: 9, .. }) && first.descriptors.len() == 1,
            "{first:?}"
        );
        // To answer fails, and takes nothing away from what is still to be heard.
        assert!(one.send(&Message::Ack(9), &[]).is_err());
        assert!(matches!(one.receive(), Ok(Some(Packet { message: Message::Commit(9), .. }))));
        assert!(!one.has_unread());
        assert!(matches!(one.receive(), Ok(None)));
        assert!(matches!(one.receive(), Ok(None)));
    }

    #[test]
    fn a_full_link_says_later() {
        let (one, other) = Link::pair().expect("a pair");
        let mut sent = 0;
        while one.send(&Message::Commit(1), &[]).expect("an open link") == Sent::Yes {
            sent += 1;
            assert!(sent < 1_000_000);
        }
        drop(other);
        // A process that another test starts has it as well, until it executes its program.
        let deadline = Instant::now() + Duration::from_secs(10);
        while one.send(&Message::Commit(1), &[]).is_ok() {
            assert!(Instant::now() < deadline, "nobody has the other end");
        }
    }
}
