//! What holds for any bytes, however they arrive and wherever they are written down. Each function panics where it does
//! not: the fuzz targets call them with what a fuzzer makes up, the tests with mutated dialogs.

use crate::{CONTROL_LIMIT, Decoder, Event, Failure, Handshake, Limits, Message, Offer, Saved, SavedMessage};
use http1::invariants::Random;

/// Nothing at all, and what short and long inputs can reach.
const LIMITS: [usize; 4] = [0, 16, 300, 70_000];

/// What the first byte of an input stands for.
fn limits(first: u8) -> Limits {
    Limits { max_message: LIMITS[usize::from(first & 3)], deflate: first & 4 != 0 }
}

/// A frame as a client sends it: the bits and the opcode, the payload, the mask.
pub fn client_frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// All that was said, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Heard {
    /// In order.
    pub events: Vec<Event>,
    /// Where the client was failed.
    pub failure: Option<Failure>,
    /// What would be written down at the end.
    pub rest: Saved,
}

/// Reads pieces that end there; `moved` at each of them, as to another process.
///
/// # Panics
/// Where what a call answers cannot be.
pub fn hear(mut decoder: Decoder, limits: Limits, bytes: &[u8], ends: &[usize], moved: bool) -> Heard {
    let (mut events, mut failure, mut at) = (Vec::new(), None, 0);
    for &end in ends {
        loop {
            let before = decoder.is_ended();
            let step = match decoder.decode(&bytes[at..end]) {
                Ok(step) => step,
                Err(error) => {
                    assert!(failure.replace(error).is_none() && decoder.is_ended() && decoder.is_idle());
                    assert!((1002..=1009).contains(&error.code().get()));
                    at = end;
                    break;
                }
            };
            assert!(!before || step.event.is_none(), "nothing is said behind the end");
            at += step.consumed;
            assert!(at <= end && (at == end || step.event.is_some()), "it stops where something was said");
            assert!(decoder.held() <= limits.max_message + 2 * CONTROL_LIMIT + 200);
            match &step.event {
                Some(Event::Message(Message::Text(text))) => assert!(text.len() <= limits.max_message),
                Some(Event::Message(Message::Binary(bytes))) => assert!(bytes.len() <= limits.max_message),
                Some(Event::Ping(payload) | Event::Pong(payload)) => assert!(payload.len() <= CONTROL_LIMIT),
                Some(Event::Close(_)) => assert!(decoder.is_ended()),
                None => break,
            }
            events.extend(step.event);
        }
        if moved {
            let saved = decoder.save();
            decoder = Decoder::restore(saved.clone(), limits).expect("what was written down");
            assert_eq!(decoder.save(), saved);
            assert!(!decoder.is_idle() || decoder.held() == 0);
        }
    }
    Heard { events, failure, rest: decoder.save() }
}

/// Any fields, a line each: what is accepted has an answer of good fields, and what a server does not offer is never in it.
///
/// # Panics
/// Where that does not hold.
pub fn handshake(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let lines = bytes.split(|byte| *byte == b'\n');
    let fields: Vec<(&[u8], &[u8])> = lines
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], &line[colon + 1..]))
        })
        .collect();
    let method = if first & 1 == 0 { "GET" } else { "POST" };
    let minor = u8::from(first & 2 == 0);
    let named = |name: &str| fields.iter().any(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
    for offer in [Offer::default(), Offer { protocols: &["chat", "b"], deflate: true }] {
        match Handshake::decide(method, minor, fields.iter().copied(), offer) {
            Handshake::Ordinary => assert!(!named("Sec-WebSocket-Key")),
            Handshake::Refused(refusal) => assert!(matches!(refusal.status(), 400 | 426)),
            Handshake::Accepted(accepted) => {
                assert!(method == "GET" && minor == 1);
                for name in ["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"] {
                    assert!(named(name), "{name}");
                }
                assert!(accepted.protocol.is_none_or(|protocol| offer.protocols.contains(&protocol)));
                assert!(!accepted.deflate || (offer.deflate && named("Sec-WebSocket-Extensions")));
                let fields: Vec<_> = accepted.fields().collect();
                let optional = usize::from(accepted.protocol.is_some()) + usize::from(accepted.deflate);
                assert!(fields.len() == 3 + optional && fields[2].1.len() == 28);
                assert!(fields.iter().all(|(_, value)| value.bytes().all(|byte| matches!(byte, b' '..=b'~'))));
            }
        }
    }
}

/// Requests that ask for a WebSocket, for [`handshake`] to begin with.
pub fn handshake_seeds() -> Vec<Vec<u8>> {
    let good = "Upgrade: websocket\nConnection: keep-alive, Upgrade\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\
        Sec-WebSocket-Version: 13\n";
    let others = [
        "",
        "Sec-WebSocket-Protocol: x, chat\n",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n",
        "Sec-WebSocket-Extensions: a; b=\"\\c\", permessage-deflate; server_max_window_bits=15\n",
        "Sec-WebSocket-Version: 8\n",
        "Upgrade: h2c\n",
    ];
    others
        .iter()
        .flat_map(|other| ["\0", "\x01", "\x02"].map(|first| format!("{first}{good}{other}").into_bytes()))
        .collect()
}

/// Any bytes as a compressed message: they inflate to no more than the limit, or are refused; and as a message they are the
/// same again when they were compressed.
///
/// # Panics
/// Where that does not hold.
#[cfg(feature = "deflate")]
pub fn inflate(bytes: &[u8]) {
    for limit in [0, 100, 100_000] {
        match crate::deflate::inflate(bytes.to_vec(), limit) {
            Ok(message) => assert!(message.len() <= limit),
            Err(failure) => assert!(matches!(failure, Failure::TooLarge | Failure::BadDeflate)),
        }
    }
    let mut payload = Vec::new();
    crate::Deflater::new().deflate(bytes, &mut payload);
    assert_eq!(crate::deflate::inflate(payload, bytes.len()).as_deref(), Ok(bytes));
}

/// One by one in front, then in pieces of seven, which tell as much.
fn singly(length: usize) -> Vec<usize> {
    (1..=length).filter(|at| *at < 600 || at % 7 == 0 || *at == length).collect()
}

/// What a client sends, behind a byte for the limits: it is the same whole, in pieces, and moved in between; and what was
/// heard is heard again if it is sent again.
///
/// # Panics
/// Where that does not hold.
pub fn frames(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let limits = limits(*first);
    let whole = hear(Decoder::new(limits), limits, bytes, &[bytes.len()], false);
    for (ends, moved) in
        [(singly(bytes.len()), true), (Random::of(bytes).cuts(bytes.len()), true), (singly(bytes.len()), false)]
    {
        let pieces = hear(Decoder::new(limits), limits, bytes, &ends, moved);
        assert_eq!(pieces, whole, "in pieces that end at {ends:?}, moved: {moved}");
    }
    let again: Vec<u8> = whole.events.iter().flat_map(sent).collect();
    let heard = hear(Decoder::new(limits), limits, &again, &[again.len()], false);
    assert_eq!((heard.events, heard.failure), (whole.events, None));
}

/// As a client says it in one frame.
fn sent(event: &Event) -> Vec<u8> {
    let key = [0x12, 0xf0, 0x80, 0x7f];
    match event {
        Event::Message(Message::Text(text)) => client_frame(0x81, text.as_bytes(), key),
        Event::Message(Message::Binary(bytes)) => client_frame(0x82, bytes, key),
        Event::Ping(payload) => client_frame(0x89, payload, key),
        Event::Pong(payload) => client_frame(0x8a, payload, key),
        Event::Close(None) => client_frame(0x88, b"", key),
        Event::Close(Some(close)) => {
            client_frame(0x88, &[&close.code.get().to_be_bytes()[..], close.reason.as_bytes()].concat(), key)
        }
    }
}

/// What another process says that a decoder was, and what comes then: it is refused, or read as it says, in any pieces.
/// Answers whether it was taken.
///
/// # Panics
/// Where that does not hold.
pub fn saved(bytes: &[u8]) -> bool {
    let Some(([first, flags, received, header, control, message], bytes)) = bytes.split_first_chunk() else {
        return false;
    };
    let limits = limits(*first);
    let mut rest = bytes;
    let mut next = |length: u8| {
        let (taken, behind) = rest.split_at(rest.len().min(length.into()));
        rest = behind;
        taken.to_vec()
    };
    let saved = Saved {
        header: next(*header),
        control: next(*control),
        message: (flags & 2 != 0).then(|| SavedMessage {
            text: flags & 4 != 0,
            compressed: flags & 8 != 0,
            payload: next(*message),
        }),
        received: if flags & 16 != 0 { u64::MAX } else { u64::from(*received) },
        ended: flags & 1 != 0,
    };
    let restored = || Decoder::restore(saved.clone(), limits);
    let Some(decoder) = restored() else { return false };
    assert_eq!(decoder.save(), saved);
    let whole = hear(decoder, limits, rest, &[rest.len()], false);
    let pieces = hear(restored().expect("as before"), limits, rest, &singly(rest.len()), true);
    assert_eq!(whole, pieces);
    true
}

/// What clients send, good and bad: for tests and fuzzers to begin with.
pub fn dialogs() -> Vec<Vec<u8>> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let frame = |first: u8, payload: &[u8]| client_frame(first, payload, key);
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes()[..], reason].concat());
    let text = "Grüße, 世界 🌍".as_bytes();
    let mut dialogs = vec![
        vec![],
        frame(0x81, b"Hello"),
        client_frame(0x81, b"Hello", [0; 4]),
        frame(0x81, b""),
        frame(0x82, b""),
        frame(0x82, &[0xff, 0xfe, 0, 1, 2]),
        frame(0x81, text),
        [frame(0x81, b"one"), frame(0x81, b"two"), frame(0x82, b"three")].concat(),
        // Fragments, empty ones too, and control frames between them.
        [frame(0x01, b"Hel"), frame(0x80, b"lo")].concat(),
        [frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")].concat(),
        [frame(0x02, b"\xff"), frame(0x00, b""), frame(0x00, b"\xfe"), frame(0x80, b"\xfd")].concat(),
        [frame(0x01, b"Hel"), frame(0x89, b"there?"), frame(0x8a, b""), frame(0x80, b"lo"), frame(0x89, b"")].concat(),
        [frame(0x01, &text[..3]), frame(0x00, &text[3..4]), frame(0x89, b"\xff"), frame(0x80, &text[4..])].concat(),
        [frame(0x01, b"never"), frame(0x89, b"1"), close(1000, b""), frame(0x81, b"behind")].concat(),
        // Control frames.
        frame(0x89, b""),
        frame(0x89, &[7; 125]),
        frame(0x8a, b"nobody asked"),
        frame(0x88, b""),
        close(1000, b""),
        close(1001, "tschüß".as_bytes()),
        close(4999, &[b'x'; 123]),
        [close(1000, b""), b"whatever comes behind".to_vec()].concat(),
        // Lengths around those that are written otherwise.
        frame(0x82, &[1; 125]),
        frame(0x82, &[2; 126]),
        frame(0x82, &[3; 300]),
        [frame(0x02, &[4; 150]), frame(0x80, &[5; 150])].concat(),
        // What is refused.
        [frame(0x81, b"good"), frame(0x83, b"bad")].concat(),
        [frame(0x01, b"one"), frame(0x81, b"two")].concat(),
        frame(0x80, b"of nothing"),
        frame(0xc1, b"RSV1"),
        frame(0xa1, b""),
        frame(0x09, b"ping"),
        frame(0x81, b"caf\xe9!"),
        frame(0x81, b"cut \xf0\x9f\x8c"),
        [frame(0x01, b"\xed"), frame(0x89, b"between"), frame(0x80, b"\xa0\x80")].concat(),
        [frame(0x01, b"\xf4"), frame(0x80, b"\x90\x80\x80")].concat(),
        frame(0x88, b"\x03"),
        close(1005, b""),
        close(1000, b"\xff"),
        frame(0x82, &[6; 301]),
        b"\x81\x05Hello".to_vec(),
        b"\x82\xfe\x00\x05abcdHello".to_vec(),
        b"\x82\xff\x00\x00\x00\x00\x00\x00\x01\x00".to_vec(),
        b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00".to_vec(),
        b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x89\xfe\x00\x7eabcd".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    if cfg!(feature = "deflate") {
        // RFC 7692 §7.2.3: in one frame, in two, two blocks, one that says it is the last, stored, empty.
        let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
        dialogs.extend([
            frame(0xc1, hello),
            [frame(0x41, &hello[..3]), frame(0x89, b"x"), frame(0x80, &hello[3..])].concat(),
            frame(0xc1, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"),
            frame(0xc1, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"),
            frame(0xc2, b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"),
            [frame(0xc2, b"\x00"), frame(0xc1, b""), frame(0x81, b"plain")].concat(),
            [frame(0x41, hello), frame(0xc0, b"")].concat(),
            frame(0xc1, b"\xff\xff\xff"),
            frame(0xc1, b"\xf2\x48\xcd"),
        ]);
    }
    dialogs
}

/// Those with each of the limits, for [`frames`] to begin with.
pub fn frames_seeds() -> Vec<Vec<u8>> {
    (0..8).flat_map(|first| dialogs().into_iter().map(move |dialog| [&[first][..], &dialog].concat())).collect()
}

/// What a decoder was in the middle of each, and the rest, for [`saved`] to begin with.
pub fn saved_seeds() -> Vec<Vec<u8>> {
    (0..8)
        .flat_map(|first| dialogs().into_iter().map(move |dialog| saved_at(first, &dialog, dialog.len() / 2)))
        .collect()
}

/// What a decoder was behind so many bytes of a dialog, and the rest of it.
fn saved_at(first: u8, dialog: &[u8], cut: usize) -> Vec<u8> {
    let limits = limits(first);
    let saved = hear(Decoder::new(limits), limits, dialog, &[cut], false).rest;
    let within = saved.message.is_some();
    let message = saved.message.unwrap_or_default();
    let flags = [saved.ended, within, message.text, message.compressed];
    let flags = flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
    let lengths = [saved.header.len(), saved.control.len(), message.payload.len()].map(|length| length as u8);
    let front = [&[first, flags, saved.received as u8][..], &lengths].concat();
    [&front[..], &saved.header, &saved.control, &message.payload, &dialog[cut..]].concat()
}

/// Those compressed, for [`inflate`] to begin with.
#[cfg(feature = "deflate")]
pub fn inflate_seeds() -> impl Iterator<Item = Vec<u8>> {
    let mut deflater = crate::Deflater::new();
    dialogs().into_iter().map(move |dialog| {
        let mut out = Vec::new();
        deflater.deflate(&dialog, &mut out);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialog_is_the_same_however_it_arrives_and_wherever_it_moves() {
        // An interpreter takes hours for all: some, with each of the limits.
        frames_seeds().iter().step_by(if cfg!(miri) { 61 } else { 1 }).for_each(|bytes| frames(bytes));
    }

    /// A few changes: bytes that turn over, go, come again.
    fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() + 1);
            let end = (at + random.below(12)).min(bytes.len());
            match random.below(4) {
                0 => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
                1 => drop(bytes.drain(at..end)),
                _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                _ => bytes.push(random.below(256) as u8),
            }
        }
    }

    #[test]
    fn so_is_one_that_nobody_sends() {
        let (dialogs, mut random) = (frames_seeds(), Random(1));
        for _ in 0..if cfg!(miri) { 3 } else { 6000 } {
            let mut bytes = dialogs[random.below(dialogs.len())].clone();
            bytes.extend_from_slice(dialogs[random.below(dialogs.len())].get(1..).unwrap_or_default());
            mutate(&mut bytes, &mut random);
            frames(&bytes);
        }
    }

    #[test]
    fn a_handshake_is_accepted_or_refused_for_a_reason() {
        let (handshakes, mut random) = (handshake_seeds(), Random(3));
        handshakes.iter().for_each(|bytes| handshake(bytes));
        for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
            let mut bytes = handshakes[random.below(handshakes.len())].clone();
            mutate(&mut bytes, &mut random);
            handshake(&bytes);
        }
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn any_bytes_inflate_within_the_limit_or_are_refused() {
        let mut random = Random(4);
        let seeds: Vec<_> = inflate_seeds().take(if cfg!(miri) { 3 } else { usize::MAX }).collect();
        for _ in 0..if cfg!(miri) { 3 } else { 2000 } {
            let mut bytes = seeds[random.below(seeds.len())].clone();
            mutate(&mut bytes, &mut random);
            inflate(&bytes);
        }
    }

    /// What a decoder was at any byte, and then changed.
    #[test]
    fn what_nobody_wrote_down_is_refused_or_read_as_it_says() {
        let (dialogs, mut random) = (dialogs(), Random(2));
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        let mut taken = 0;
        for round in 0..rounds {
            let dialog = &dialogs[random.below(dialogs.len())];
            let mut bytes = saved_at((round % 8) as u8, dialog, random.below(dialog.len() + 1));
            if round % 3 != 0 {
                mutate(&mut bytes, &mut random);
            }
            taken += usize::from(saved(&bytes));
        }
        assert!(rounds / 4 < taken && taken < rounds * 9 / 10, "{taken} of {rounds}");
    }
}
