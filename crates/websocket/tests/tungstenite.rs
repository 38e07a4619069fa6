//! Held against `tungstenite`, which many use: what one writes the other reads as the same, and what both read they read the
//! same way.
//!
//! `HANDOVER_SEED` begins elsewhere; a failure names the seed and the round.

use http1::invariants::Random;
use std::io::{self, Read, Write};
use tungstenite::protocol::frame::coding::{CloseCode as TheirCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame as TheirFrame, FrameHeader};
use tungstenite::protocol::{Message as TheirMessage, Role, WebSocket, WebSocketConfig};
use websocket::invariants::{dialogs, hear};
use websocket::{Close, CloseCode, Decoder, Event, Frame, Limits, Message, State};

const LIMITS: Limits = Limits { max_message: 200_000, deflate: false };

fn seed() -> u64 {
    std::env::var("HANDOVER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Text with characters of each length.
fn text(random: &mut Random, most: usize) -> String {
    const CHARS: [char; 8] = ['a', '\0', '~', 'é', '߿', '€', '\u{ffff}', '🌍'];
    (0..random.below(most)).map(|_| CHARS[random.below(CHARS.len())]).collect()
}

fn bytes(random: &mut Random, most: usize) -> Vec<u8> {
    (0..random.below(most)).map(|_| random.below(256) as u8).collect()
}

/// Short mostly, and around those lengths that are written otherwise.
fn length(random: &mut Random) -> usize {
    match random.below(40) {
        0 => 70_000,
        1..=9 => 400,
        10..=14 => 130,
        _ => 20,
    }
}

fn close(random: &mut Random) -> Option<Close> {
    let code = CloseCode::new([1000, 1001, 1002, 1011, 1012, 3000, 4999][random.below(7)])?;
    (random.below(4) > 0).then(|| Close { code, reason: text(random, 30) })
}

/// What is said in a dialog; a close comes last, if there is one.
fn events(random: &mut Random) -> Vec<Event> {
    let mut events: Vec<Event> = (0..random.below(12))
        .map(|_| match random.below(4) {
            0 => Event::Ping(bytes(random, 126)),
            1 => Event::Pong(bytes(random, 126)),
            2 => {
                let most = length(random);
                Event::Message(Message::Binary(bytes(random, most)))
            }
            _ => {
                let most = length(random);
                Event::Message(Message::Text(text(random, most)))
            }
        })
        .collect();
    if random.below(2) == 0 {
        events.push(Event::Close(close(random)));
    }
    events
}

fn theirs_of(close: &Close) -> CloseFrame {
    CloseFrame { code: TheirCode::from(close.code.get()), reason: close.reason.clone().into() }
}

/// What a client of theirs says, as we would.
fn ours_of(message: TheirMessage) -> Event {
    match message {
        TheirMessage::Text(text) => Event::Message(Message::Text(text.as_str().to_owned())),
        TheirMessage::Binary(bytes) => Event::Message(Message::Binary(bytes.to_vec())),
        TheirMessage::Ping(payload) => Event::Ping(payload.to_vec()),
        TheirMessage::Pong(payload) => Event::Pong(payload.to_vec()),
        TheirMessage::Close(close) => Event::Close(close.map(|close| Close {
            code: CloseCode::new(close.code.into()).expect("what may be sent"),
            reason: close.reason.as_str().to_owned(),
        })),
        TheirMessage::Frame(frame) => panic!("it is never read: {frame}"),
    }
}

/// A frame of their making, with a mask that the seed decides.
fn push(out: &mut Vec<u8>, random: &mut Random, opcode: OpCode, finished: bool, payload: Vec<u8>) {
    let mask = Some([(); 4].map(|()| random.below(256) as u8));
    let header = FrameHeader { is_final: finished, opcode, mask, ..FrameHeader::default() };
    TheirFrame::from_payload(header, payload.into()).format(out).expect("a vector takes all");
}

/// Messages in fragments at times, and then with a ping or a pong between them at times, which goes into `heard`.
fn push_message(out: &mut Vec<u8>, random: &mut Random, heard: &mut Vec<Event>, kind: Data, payload: &[u8]) {
    let ends = if random.below(2) == 0 { random.cuts(payload.len()) } else { vec![payload.len()] };
    let mut at = 0;
    for (number, end) in ends.iter().enumerate() {
        let opcode = OpCode::Data(if number == 0 { kind } else { Data::Continue });
        push(out, random, opcode, number + 1 == ends.len(), payload[at..*end].to_vec());
        at = *end;
        if number + 1 < ends.len() && random.below(3) == 0 {
            let payload = bytes(random, 126);
            push(out, random, OpCode::Control(Control::Ping), true, payload.clone());
            heard.push(Event::Ping(payload));
        }
    }
}

#[test]
fn what_they_write_we_read() {
    let mut random = Random(seed());
    for round in 0..600 {
        let (mut out, mut heard) = (Vec::new(), Vec::new());
        for event in events(&mut random) {
            let (out, random) = (&mut out, &mut random);
            match &event {
                Event::Message(Message::Text(text)) => {
                    push_message(out, random, &mut heard, Data::Text, text.as_bytes());
                }
                Event::Message(Message::Binary(bytes)) => push_message(out, random, &mut heard, Data::Binary, bytes),
                Event::Ping(payload) => push(out, random, OpCode::Control(Control::Ping), true, payload.clone()),
                Event::Pong(payload) => push(out, random, OpCode::Control(Control::Pong), true, payload.clone()),
                Event::Close(close) => {
                    let payload = TheirFrame::close(close.as_ref().map(theirs_of)).into_payload().to_vec();
                    push(out, random, OpCode::Control(Control::Close), true, payload);
                }
            }
            heard.push(event);
        }
        for moved in [false, true] {
            let ends = random.cuts(out.len());
            let ours = hear(Decoder::new(LIMITS), LIMITS, &out, &ends, moved);
            assert!(ours.failure.is_none() && ours.events == heard, "HANDOVER_SEED={}, round {round}", seed());
        }
    }
}

/// Bytes that come in pieces, and a place for those that are answered.
struct Wire {
    input: Vec<u8>,
    at: usize,
    random: Random,
    output: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = (1 + self.random.below(5000)).min(buffer.len());
        let read = (&self.input[self.at..]).read(&mut buffer[..most])?;
        self.at += read;
        Ok(read)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What they read, and the error at which they stopped.
fn they_read(input: Vec<u8>, role: Role, limit: usize) -> (Vec<TheirMessage>, tungstenite::Error, Vec<u8>) {
    let config = WebSocketConfig::default().max_message_size(Some(limit)).max_frame_size(Some(limit.max(125)));
    let wire = Wire { random: Random::of(&input), input, at: 0, output: Vec::new() };
    let mut socket = WebSocket::from_raw_socket(wire, role, Some(config));
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => messages.push(message),
            Err(error) => {
                let _ = socket.flush();
                return (messages, error, socket.into_inner().output);
            }
        }
    }
}

#[test]
fn what_we_write_they_read() {
    let mut random = Random(seed());
    for round in 0..600 {
        let events = events(&mut random);
        let mut out = Vec::new();
        for event in &events {
            match event {
                Event::Message(Message::Text(text)) => Frame::Text(text).push_to(&mut out),
                Event::Message(Message::Binary(bytes)) => Frame::Binary(bytes).push_to(&mut out),
                Event::Ping(payload) => Frame::Ping(payload).push_to(&mut out),
                Event::Pong(payload) => Frame::Pong(payload).push_to(&mut out),
                Event::Close(close) => {
                    Frame::Close(close.as_ref().map(|close| (close.code, &close.reason[..]))).push_to(&mut out);
                }
            }
        }
        let (messages, _, output) = they_read(out, Role::Client, LIMITS.max_message);
        let read: Vec<Event> = messages.into_iter().map(ours_of).collect();
        assert_eq!(read, events, "HANDOVER_SEED={}, round {round}", seed());
        // And what they answer by themselves: pongs, and the close.
        let answers = hear(Decoder::new(LIMITS), LIMITS, &output, &[output.len()], false);
        assert_eq!(answers.failure, None);
        let closed = matches!(events.last(), Some(Event::Close(_)));
        assert_eq!(matches!(answers.events.last(), Some(Event::Close(_))), closed);
    }
}

/// Both answer what has to be answered: a whole dialog, with a client of theirs that closes.
#[test]
fn a_client_of_theirs_closes_and_is_answered() {
    let wire = Wire { input: Vec::new(), at: 0, random: Random(seed()), output: Vec::new() };
    let mut client = WebSocket::from_raw_socket(wire, Role::Client, None);
    client.send(TheirMessage::Ping(b"there?".to_vec().into())).expect("a vector takes all");
    let close = Close { code: CloseCode::GOING_AWAY, reason: "bye".to_owned() };
    client.close(Some(theirs_of(&close))).expect("a vector takes all");
    let (mut decoder, mut state, mut out, mut at) = (Decoder::new(LIMITS), State::Open, Vec::new(), 0);
    let said = client.get_ref().output.clone();
    while at < said.len() {
        let step = decoder.decode(&said[at..]).expect("what they write");
        at += step.consumed;
        if let Some(answer) = step.event.as_ref().and_then(|event| state.answer(event)) {
            answer.push_to(&mut out);
        }
    }
    assert!(state.is_over());
    client.get_mut().input = out;
    assert_eq!(client.read().expect("our pong"), TheirMessage::Pong(b"there?".to_vec().into()));
    let answered = client.read().expect("our close");
    assert_eq!(ours_of(answered), Event::Close(Some(Close { code: CloseCode::GOING_AWAY, reason: String::new() })));
}

/// Of bytes that nobody sends, they read at least what we do, and as the same: what we take is a dialog to both.
#[test]
fn what_we_take_for_a_dialog_they_read_the_same_way() {
    let (dialogs, mut random) = (dialogs(), Random(seed()));
    let limits = Limits { max_message: 300, deflate: false };
    let (mut taken, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = dialogs[random.below(dialogs.len())].clone();
        bytes.extend_from_slice(&dialogs[random.below(dialogs.len())]);
        for _ in 0..random.below(3) {
            let at = random.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        let ours = hear(Decoder::new(limits), limits, &bytes, &[bytes.len()], false);
        let (theirs, error, _) = they_read(bytes.clone(), Role::Server, limits.max_message);
        let name = format!("HANDOVER_SEED={}, round {round}: {}", seed(), bytes.escape_ascii());
        // A close with a status that may not be sent they answer themselves; to us it is no event.
        let mut read = theirs.into_iter().take(ours.events.len()).map(ours_of);
        assert!(ours.events.iter().all(|event| read.next().as_ref() == Some(event)), "{name}");
        match ours.failure {
            None => {
                use tungstenite::Error::{ConnectionClosed, Protocol};
                use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
                // Only the end of the bytes.
                assert!(matches!(error, ConnectionClosed | Protocol(ResetWithoutClosingHandshake)), "{error}: {name}");
                taken += 1;
            }
            Some(_) => refused += 1,
        }
    }
    assert!(taken > 1000 && refused > 1000, "{taken}, {refused}");
}
