//! A parked connection as it is written down. What it could be doing in version 1 stays as it is; [`Unsubscribed`] is what
//! versions before 3 have, which know no subscribers, and [`Unupgraded`] what version 3 has, which knows no WebSockets.
//!
//! Descriptors do not travel in the bytes; they follow beside them. Times are CLOCK_MONOTONIC in milliseconds, the same
//! in every process of a host.

use http1::chunked::{Decoder, State, Within};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::net::SocketAddr;

/// A parked connection without its descriptors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub peer: Option<SocketAddr>,
    pub served: u32,
    pub begun: Option<u64>,
    pub deadline: u64,
    #[serde(with = "serde_bytes")]
    pub input: Vec<u8>,
    pub state: SavedState,
}

/// What it was doing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SavedState {
    ReadingHead,
    ReadingBody {
        #[serde(with = "serde_bytes")]
        head: Vec<u8>,
        framing: SavedFraming,
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
        since: u64,
        limit: u64,
        declared: Option<u64>,
        expects_continue: bool,
    },
    Writing {
        #[serde(with = "serde_bytes")]
        unsent: Vec<u8>,
        remaining: RemainingBody,
        keep_alive: bool,
        line: String,
    },
    Lingering {
        until: u64,
    },
    /// Since version 3.
    Subscribed(Box<SavedSubscriber>),
    /// Since version 4.
    Conversing(Box<SavedWebSocket>),
    Attached(Box<SavedAttached>),
}

/// A response that has the frames of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedAttached {
    pub conversation: String,
    pub session: String,
    /// As the session names it.
    pub receiver: u64,
    /// The head, until that is sent.
    #[serde(with = "serde_bytes")]
    pub head: Vec<u8>,
    /// What its client is to have before anything else, and whether the response ends behind it.
    #[serde(with = "serde_bytes")]
    pub unsent: Vec<u8>,
    pub ends: bool,
    pub poll: bool,
    pub keep_alive: bool,
    pub minor: u8,
    pub line: String,
}

/// A session of SockJS, as it is without its connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedSession {
    pub conversation: String,
    pub id: String,
    /// As `sockjs` writes it down.
    #[serde(with = "serde_bytes")]
    pub machine: Vec<u8>,
    /// What connections have not taken yet.
    pub pending: Vec<SavedWrite>,
    /// While the application has it.
    pub client: Option<Box<SavedClient>>,
    /// Whose it is.
    pub origin: Option<String>,
    pub authorization: Option<ByteBuf>,
    /// Milliseconds, and bytes.
    pub heartbeat: u64,
    pub disconnect: u64,
    pub response_limit: u64,
}

/// What a connection of a session is to write.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedWrite {
    pub receiver: u64,
    pub pieces: Vec<ByteBuf>,
    pub ends: bool,
}

/// Sessions by themselves, as they are sent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SavedSessions(pub Vec<SavedSession>);

/// A subscriber.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedSubscriber {
    pub namespace: String,
    pub topics: Vec<String>,
    /// Everything up to here was looked at, and of what is gone it was told up to there.
    pub cursor: u64,
    pub told: u64,
    /// Whether its events are chunks, whether their data is JSON, whether heartbeats are events, whether it is a poll.
    pub chunked: bool,
    pub json: bool,
    pub beat: bool,
    pub poll: bool,
    /// Of an event that the client has a part of.
    #[serde(with = "serde_bytes")]
    pub unsent: Vec<u8>,
    pub heartbeat: u16,
    /// When it ends whatever there is to be heard: a poll is answered, a stream is over. `u64::MAX` is never.
    pub until: u64,
    /// The head of a poll's answer.
    #[serde(with = "serde_bytes")]
    pub head: Vec<u8>,
    pub keep_alive: bool,
    pub minor: u8,
    pub line: String,
}

/// A WebSocket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedWebSocket {
    /// Of what its client has sent.
    pub decoder: SavedFrames,
    /// Of a frame that the client has a part of.
    #[serde(with = "serde_bytes")]
    pub unsent: Vec<u8>,
    /// Whether a ping was sent and not answered, a close frame was sent, or one has come.
    pub asked: bool,
    pub close_sent: bool,
    pub close_received: bool,
    /// When to ask, or to go without what was asked for.
    pub due: u64,
    pub heartbeat: u16,
    /// When it is closed whatever there is to be heard. `u64::MAX` is never.
    pub until: u64,
    pub deflate: bool,
    pub max_message: u64,
    pub line: String,
    pub side: SavedSide,
}

/// A decoder of frames as it is written down: see `websocket::Saved`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SavedFrames {
    #[serde(with = "serde_bytes")]
    pub header: Vec<u8>,
    pub received: u64,
    #[serde(with = "serde_bytes")]
    pub control: Vec<u8>,
    pub message: Option<SavedFragments>,
    pub ended: bool,
}

/// A message of which not all has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedFragments {
    pub text: bool,
    pub compressed: bool,
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// Who is behind a WebSocket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SavedSide {
    Listener { subscription: SavedTopics, json: bool },
    Talker(Box<SavedClient>),
}

/// Topics and where in them somebody is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedTopics {
    pub namespace: String,
    pub topics: Vec<String>,
    pub cursor: u64,
    pub told: u64,
    /// Of these nothing up to there is for it.
    pub recent: Vec<(String, u64)>,
}

/// A client of a conversation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedClient {
    pub conversation: String,
    pub id: u64,
    /// What the application has saved, and the version of that; `None` if it could not.
    pub state: Option<(u32, ByteBuf)>,
    pub topics: Option<SavedTopics>,
    /// What waits for it: whether it is text, and its bytes.
    pub messages: Vec<(bool, ByteBuf)>,
    pub close: Option<(u16, String)>,
    pub wake: Option<u64>,
    /// Whether it speaks SockJS: then its messages are text alone.
    pub sockjs: bool,
}

/// A snapshot in version 3, which knows no WebSockets: one of those sends what its client has a part of, and ends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unupgraded(Snapshot);

impl From<Snapshot> for Unupgraded {
    fn from(snapshot: Snapshot) -> Unupgraded {
        Unupgraded(without_websocket(snapshot))
    }
}

fn without_websocket(mut snapshot: Snapshot) -> Snapshot {
    if let SavedState::Conversing(websocket) = snapshot.state {
        let SavedWebSocket { unsent, line, .. } = *websocket;
        snapshot.state = SavedState::Writing { unsent, remaining: RemainingBody::None, keep_alive: false, line };
    } else if let SavedState::Attached(attached) = snapshot.state {
        let SavedAttached { unsent, line, .. } = *attached;
        snapshot.state = SavedState::Writing { unsent, remaining: RemainingBody::None, keep_alive: false, line };
    }
    snapshot
}

impl TryFrom<Unupgraded> for Snapshot {
    type Error = &'static str;

    fn try_from(Unupgraded(snapshot): Unupgraded) -> Result<Snapshot, &'static str> {
        match snapshot.state {
            SavedState::Conversing(_) => Err("it has a WebSocket, which its version does not know"),
            SavedState::Attached(_) => Err("it has a session, which its version does not know"),
            _ => Ok(snapshot),
        }
    }
}

/// A snapshot in a version that knows no subscribers: one of those sends what its client has a part of, and ends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Unsubscribed(Snapshot);

impl From<Snapshot> for Unsubscribed {
    fn from(snapshot: Snapshot) -> Unsubscribed {
        let mut snapshot = without_websocket(snapshot);
        if let SavedState::Subscribed(subscriber) = snapshot.state {
            let SavedSubscriber { unsent, line, .. } = *subscriber;
            snapshot.state = SavedState::Writing { unsent, remaining: RemainingBody::None, keep_alive: false, line };
        }
        Unsubscribed(snapshot)
    }
}

impl TryFrom<Unsubscribed> for Snapshot {
    type Error = &'static str;

    fn try_from(Unsubscribed(snapshot): Unsubscribed) -> Result<Snapshot, &'static str> {
        match snapshot.state {
            SavedState::Subscribed(_) => Err("it has a subscriber, which its version does not know"),
            SavedState::Conversing(_) => Err("it has a WebSocket, which its version does not know"),
            SavedState::Attached(_) => Err("it has a session, which its version does not know"),
            _ => Ok(snapshot),
        }
    }
}

/// The rest of a response.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum RemainingBody {
    None,
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The file's descriptor travels beside the socket's.
    File {
        offset: u64,
        end: u64,
    },
}

/// Where in its framing a request body is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SavedFraming {
    /// Bytes still to come.
    Length(u64),
    Chunked(SavedDecoder),
}

/// Where a decoder of the chunked coding is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedDecoder {
    state: SavedDecoderState,
    overhead: u16,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum SavedDecoderState {
    Size { size: u64, digits: u8 },
    Extension { size: u64, at: SavedWithin },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum SavedWithin {
    BeforeSemicolon,
    AfterQuoted,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Token,
    Quoted,
    QuotedPair,
}

/// Both ways between what is written down and what works.
macro_rules! same_variants {
    ($one:ident, $other:ident: $($variant:ident $({ $($field:ident),+ })?),+) => {
        impl From<$one> for $other {
            fn from(value: $one) -> $other {
                match value {
                    $($one::$variant $({ $($field),+ })? => $other::$variant $({ $($field: $field.into()),+ })?,)+
                }
            }
        }

        impl From<$other> for $one {
            fn from(value: $other) -> $one {
                match value {
                    $($other::$variant $({ $($field),+ })? => $one::$variant $({ $($field: $field.into()),+ })?,)+
                }
            }
        }
    };
}

same_variants!(Within, SavedWithin:
    BeforeSemicolon, AfterQuoted, BeforeName, Name, AfterName, BeforeValue, Token, Quoted, QuotedPair);
same_variants!(State, SavedDecoderState:
    Size { size, digits }, Extension { size, at }, SizeLf { size }, Data { left }, DataCr, DataLf, TrailerStart,
    TrailerName, TrailerValue, TrailerLf, EndLf, Done);

impl From<&Decoder> for SavedDecoder {
    fn from(decoder: &Decoder) -> SavedDecoder {
        let (state, overhead) = decoder.saved();
        SavedDecoder { state: state.into(), overhead }
    }
}

impl From<SavedDecoder> for Decoder {
    fn from(SavedDecoder { state, overhead }: SavedDecoder) -> Decoder {
        Decoder::resume(state.into(), overhead)
    }
}

#[cfg(any(test, fuzzing))]
impl Snapshot {
    /// One for each state, and each way in which a body comes and a response goes.
    pub fn samples() -> Vec<Snapshot> {
        let body = |framing: SavedFraming| SavedState::ReadingBody {
            head: b"POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n".to_vec(),
            framing,
            body: b"abc".to_vec(),
            since: 1,
            limit: 1 << 20,
            declared: Some(9),
            expects_continue: true,
        };
        let writing = |remaining: RemainingBody| SavedState::Writing {
            unsent: b"HTTP/1.1 200 OK\r\n".to_vec(),
            remaining,
            keep_alive: true,
            line: "GET /a".into(),
        };
        let topics = || SavedTopics {
            namespace: "n".into(),
            topics: vec!["a".into(), "b".into()],
            cursor: 300,
            told: 7,
            recent: vec![("b".into(), 301)],
        };
        let websocket = |side, decoder| {
            SavedState::Conversing(Box::new(SavedWebSocket {
                decoder,
                unsent: b"\x81".to_vec(),
                asked: true,
                close_sent: false,
                close_received: false,
                due: 9,
                heartbeat: 15,
                until: 10,
                deflate: false,
                max_message: 65536,
                line: "GET /ws".into(),
                side,
            }))
        };
        let states = [
            SavedState::ReadingHead,
            body(SavedFraming::Length(6)),
            body(SavedFraming::Chunked((&Decoder::default()).into())),
            writing(RemainingBody::None),
            writing(RemainingBody::Bytes(b"hello".to_vec())),
            writing(RemainingBody::File { offset: 1, end: 9 }),
            SavedState::Lingering { until: 2 },
            SavedState::Subscribed(Box::new(SavedSubscriber {
                namespace: "n".into(),
                topics: vec!["a".into(), "b".into()],
                cursor: 300,
                told: 7,
                chunked: true,
                json: false,
                beat: true,
                poll: false,
                unsent: b"id: ".to_vec(),
                heartbeat: 15,
                until: 9,
                head: Vec::new(),
                keep_alive: true,
                minor: 1,
                line: "GET /n/a".into(),
            })),
            websocket(SavedSide::Listener { subscription: topics(), json: true }, SavedFrames::default()),
            websocket(
                SavedSide::Talker(Box::new(SavedClient {
                    conversation: "chat".into(),
                    id: 300,
                    state: Some((1, ByteBuf::from(b"state"))),
                    topics: Some(topics()),
                    messages: vec![(true, ByteBuf::from(b"hi")), (false, ByteBuf::from(b"\x00"))],
                    close: Some((4000, "bye".into())),
                    wake: Some(5),
                    sockjs: false,
                })),
                SavedFrames {
                    header: b"\x89\x81abcd".to_vec(),
                    received: 0,
                    control: Vec::new(),
                    message: Some(SavedFragments { text: true, compressed: false, payload: b"half".to_vec() }),
                    ended: false,
                },
            ),
            SavedState::Attached(Box::new(SavedAttached {
                conversation: "chat".into(),
                session: "x7".into(),
                receiver: 300,
                head: b"HTTP/1.1 200 OK\r\n".to_vec(),
                unsent: Vec::new(),
                ends: false,
                poll: true,
                keep_alive: true,
                minor: 1,
                line: "POST /0/x7/xhr".into(),
            })),
        ];
        let peer = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
        let snapshot = |state| Snapshot {
            peer,
            served: 1,
            begun: Some(1),
            deadline: 2,
            input: b"GET /b HTTP/1.1\r\n".to_vec(),
            state,
        };
        states.into_iter().map(snapshot).collect()
    }

    /// What stands beside them.
    pub fn sample_of_session() -> SavedSession {
        SavedSession {
            conversation: "chat".into(),
            id: "x7".into(),
            machine: b"\x00machine".to_vec(),
            pending: vec![SavedWrite { receiver: 300, pieces: vec![ByteBuf::from(*b"o\n")], ends: true }],
            client: None,
            origin: Some("null".into()),
            authorization: None,
            heartbeat: 25_000,
            disconnect: 5_000,
            response_limit: 131_072,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here is a new version of the state.
    #[test]
    fn a_decoder_is_written_as_it_was_at_first() {
        use State::*;
        let plain = [DataCr, DataLf, TrailerStart, TrailerName, TrailerValue, TrailerLf, EndLf, Done];
        let places = [
            Within::BeforeSemicolon,
            Within::AfterQuoted,
            Within::BeforeName,
            Within::Name,
            Within::AfterName,
            Within::BeforeValue,
            Within::Token,
            Within::Quoted,
            Within::QuotedPair,
        ];
        let mut all = vec![
            (Size { size: 300, digits: 200 }, vec![0, 0xac, 2, 200]),
            (SizeLf { size: 300 }, vec![2, 0xac, 2]),
            (Data { left: 300 }, vec![3, 0xac, 2]),
        ];
        all.extend(plain.into_iter().zip(4..).map(|(state, number)| (state, vec![number])));
        all.extend(places.into_iter().zip(0..).map(|(at, number)| (Extension { size: 1, at }, vec![1, 1, number])));
        for (state, mut written) in all {
            written.extend([0x80, 0x20]);
            let saved = SavedDecoder::from(&Decoder::resume(state, 4096));
            assert_eq!(postcard::to_allocvec(&saved).as_deref(), Ok(&written[..]), "{state:?}");
            let read: SavedDecoder = postcard::from_bytes(&written).expect("what was written");
            assert_eq!(Decoder::from(read).saved(), (state, 4096));
        }
    }
}
