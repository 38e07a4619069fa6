use super::*;
use crate::invariants::{client_frame, dialogs, hear};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn limits(max_message: usize) -> Limits {
    Limits { max_message, deflate: false }
}

/// What is said, and where the first byte stands that fails.
fn outcome(bytes: &[u8], limits: Limits) -> (Vec<Event>, Option<(usize, Failure)>) {
    let (mut decoder, mut events) = (Decoder::new(limits), Vec::new());
    for (at, byte) in bytes.iter().enumerate() {
        match decoder.decode(&[*byte]) {
            Ok(step) => events.extend(step.event),
            Err(failure) => return (events, Some((at, failure))),
        }
    }
    (events, None)
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    client_frame(first, payload, KEY)
}

fn text(text: &str) -> Event {
    Event::Message(Message::Text(text.to_owned()))
}

#[test]
fn one_that_waits_is_small_and_holds_nothing() {
    assert!(size_of::<Decoder>() <= 48, "{}", size_of::<Decoder>());
    let mut decoder = Decoder::new(limits(100));
    for piece in [frame(0x81, b"Hello"), frame(0x02, b"a"), frame(0x89, b"ping"), frame(0x80, b"b")].concat().chunks(3)
    {
        let mut at = 0;
        while at < piece.len() {
            at += decoder.decode(&piece[at..]).expect("frames").consumed;
        }
    }
    assert!(decoder.is_idle() && decoder.held() == 0);
}

#[test]
fn messages_are_put_together_and_what_comes_between_is_said_first() {
    let bytes = [
        frame(0x01, b"Hel"),
        frame(0x89, b"there?"),
        frame(0x00, b""),
        frame(0x80, b"lo"),
        frame(0x82, &[1, 2]),
        frame(0x8a, b""),
        frame(0x88, b"\x03\xe8bye"),
        frame(0x81, b"behind the close"),
    ]
    .concat();
    let close = Close { code: CloseCode::NORMAL, reason: "bye".to_owned() };
    let events = [
        Event::Ping(b"there?".to_vec()),
        text("Hello"),
        Event::Message(Message::Binary(vec![1, 2])),
        Event::Pong(Vec::new()),
        Event::Close(Some(close)),
    ];
    assert_eq!(outcome(&bytes, limits(100)), (events.to_vec(), None));
}

/// The bytes, the failure, and which byte shows it, counted from the end: 0 is the last one.
#[test]
fn what_a_client_may_not_send_and_the_byte_that_shows_it() {
    use Failure::*;
    let close = |payload: &[u8]| frame(0x88, payload);
    // Behind a whole header there is nothing left but the payload.
    let at_payload = |byte: usize, length: usize| length - 1 - byte;
    let table: &[(&str, Vec<u8>, Failure, usize)] = &[
        ("rsv1", frame(0xc1, b"x"), ReservedBits, 6),
        ("rsv2", frame(0xa1, b"x"), ReservedBits, 6),
        ("rsv3", frame(0x91, b"x"), ReservedBits, 6),
        ("all three", frame(0xf2, b"x"), ReservedBits, 6),
        ("rsv1 on a ping", frame(0xc9, b""), ReservedBits, 5),
        ("rsv1 on a close", frame(0xc8, b""), ReservedBits, 5),
        ("rsv1 on a continuation", [frame(0x01, b""), frame(0xc0, b"")].concat(), ReservedBits, 5),
        ("opcode 3", frame(0x83, b""), ReservedOpcode, 5),
        ("opcode 7", frame(0x87, b""), ReservedOpcode, 5),
        ("opcode 11", frame(0x8b, b""), ReservedOpcode, 5),
        ("opcode 15", frame(0x8f, b""), ReservedOpcode, 5),
        ("opcode 4 within a message", [frame(0x01, b"a"), frame(0x04, b"")].concat(), ReservedOpcode, 5),
        ("opcode 12, not the last fragment", frame(0x0c, b""), ReservedOpcode, 5),
        ("no mask", b"\x81\x05Hello".to_vec(), Unmasked, 5),
        ("no mask on a control frame", b"\x89\x00".to_vec(), Unmasked, 0),
        ("no mask and a length of two bytes", b"\x82\x7e\x01\x00".to_vec(), Unmasked, 2),
        ("a ping in fragments", frame(0x09, b"x"), FragmentedControl, 6),
        ("a pong in fragments", frame(0x0a, b"x"), FragmentedControl, 6),
        ("a close in fragments", frame(0x08, b"\x03\xe8"), FragmentedControl, 7),
        ("a ping of 126 bytes", frame(0x89, &[0; 126]), ControlTooLong, 132),
        ("a close of 126 bytes", frame(0x88, &[3; 126]), ControlTooLong, 132),
        ("a pong of 65,536 bytes", b"\x8a\xff\0\0\0\0\0\x01\0\0".to_vec(), ControlTooLong, 8),
        ("125 in two bytes", b"\x82\xfe\x00\x7dabcd".to_vec(), LengthNotMinimal, 4),
        ("0 in two bytes", b"\x82\xfe\x00\x00abcd".to_vec(), LengthNotMinimal, 4),
        ("65,535 in eight bytes", b"\x82\xff\0\0\0\0\0\0\xff\xffabcd".to_vec(), LengthNotMinimal, 4),
        ("5 in eight bytes", b"\x82\xff\0\0\0\0\0\0\0\x05".to_vec(), LengthNotMinimal, 0),
        ("2^63", b"\x82\xff\x80\0\0\0\0\0\0\0".to_vec(), LengthTopBit, 7),
        ("2^64 - 1", b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), LengthTopBit, 7),
        ("a continuation first", frame(0x80, b""), NothingToContinue, 5),
        ("a continuation first, and more to come", frame(0x00, b""), NothingToContinue, 5),
        ("a continuation behind a message", [frame(0x81, b"a"), frame(0x80, b"b")].concat(), NothingToContinue, 6),
        (
            "a continuation behind the last one",
            [frame(0x01, b"a"), frame(0x80, b"b"), frame(0x80, b"c")].concat(),
            NothingToContinue,
            6,
        ),
        ("a message in a message", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), MessageInMessage, 6),
        ("fragments in a message", [frame(0x01, b""), frame(0x02, b"b")].concat(), MessageInMessage, 6),
        (
            "a message in a message, and a ping before it",
            [frame(0x02, b"a"), frame(0x89, b""), frame(0x82, b"b")].concat(),
            MessageInMessage,
            6,
        ),
        ("a close of one byte", close(b"\x03"), CloseLength, 0),
        ("a reason that is not UTF-8", close(b"\x03\xe8\xff"), CloseReason, 0),
        ("a reason that is cut", close(b"\x03\xe8\xce\xba\xe1\xbd"), CloseReason, 0),
        ("a byte that is never UTF-8", frame(0x81, b"caf\xe9\xff!"), BadUtf8, at_payload(4, 6)),
        ("a byte that stands alone", frame(0x81, b"a\x80b"), BadUtf8, at_payload(1, 3)),
        ("two bytes for one that is enough", frame(0x81, b"\xc0\xafb"), BadUtf8, at_payload(0, 3)),
        ("three bytes for two that are enough", frame(0x81, b"\xe0\x9f\x80"), BadUtf8, at_payload(1, 3)),
        ("a surrogate", frame(0x81, b"\xed\xa0\x80"), BadUtf8, at_payload(1, 3)),
        ("above U+10FFFF", frame(0x81, b"\xf4\x90\x80\x80"), BadUtf8, at_payload(1, 4)),
        ("an end within a character", frame(0x81, b"ab\xe2\x82"), BadUtf8, 0),
        ("an end within a character, in fragments", [frame(0x01, b"\xe2"), frame(0x80, b"\x82")].concat(), BadUtf8, 0),
        ("an end within a character, an empty one", [frame(0x01, b"\xe2"), frame(0x80, b"")].concat(), BadUtf8, 0),
        ("within a fragment", [frame(0x01, b"a\xffb"), frame(0x80, b"b")].concat(), BadUtf8, 8),
        (
            "across fragments, and a ping between them",
            [frame(0x01, b"\xf4"), frame(0x89, b"\x8f"), frame(0x00, b"\x90\x80"), frame(0x80, b"x")].concat(),
            BadUtf8,
            8,
        ),
        ("301 bytes", frame(0x82, &[0; 301]), TooLarge, 4 + 301),
        ("more than can be", b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(), TooLarge, 0),
        ("too much together", [frame(0x02, &[0; 200]), frame(0x80, &[0; 101])].concat(), TooLarge, 4 + 101),
        (
            "too much together, though text may still be",
            [frame(0x01, &[b'a'; 200]), frame(0x00, &[b'a'; 100]), frame(0x80, b"a")].concat(),
            TooLarge,
            4 + 1,
        ),
    ];
    for (name, bytes, failure, from_end) in table {
        let (_, failed) = outcome(bytes, limits(300));
        assert_eq!(failed, Some((bytes.len() - 1 - from_end, *failure)), "{name}");
        // The whole is refused as its bytes are.
        let whole = hear(Decoder::new(limits(300)), limits(300), bytes, &[bytes.len()], false);
        assert_eq!(whole.failure, Some(*failure), "{name}");
    }
}

#[test]
fn each_failure_has_its_status() {
    use Failure::*;
    for failure in [ReservedBits, ReservedOpcode, Unmasked, FragmentedControl, ControlTooLong, LengthNotMinimal] {
        assert_eq!(failure.code().get(), 1002);
    }
    for failure in [LengthTopBit, NothingToContinue, MessageInMessage, CloseLength, Failure::CloseCode] {
        assert_eq!(failure.code().get(), 1002);
    }
    assert_eq!([CloseReason, BadUtf8, BadDeflate].map(|failure| failure.code().get()), [1007; 3]);
    assert_eq!(TooLarge.code().get(), 1009);
}

/// As the cases 7.7 and 7.9 of Autobahn's test suite have it, and what is above 4999.
#[test]
fn a_status_that_is_not_to_be_sent_is_a_failure() {
    let good = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
    let bad = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    for code in good.into_iter().chain(bad) {
        let valid = crate::CloseCode::new(code);
        assert_eq!(valid.is_some(), good.contains(&code), "{code}");
        let (events, failed) = outcome(&frame(0x88, &code.to_be_bytes()), limits(0));
        match valid {
            Some(code) => {
                let close = Close { code, reason: String::new() };
                assert_eq!((events, failed), (vec![Event::Close(Some(close))], None));
            }
            None => assert_eq!((events, failed), (vec![], Some((7, Failure::CloseCode))), "{code}"),
        }
    }
}

#[test]
fn messages_may_be_as_long_as_the_limit_and_control_frames_are_not_counted() {
    let bytes = [
        frame(0x02, &[0; 200]),
        frame(0x89, &[0; 125]),
        frame(0x00, &[0; 100]),
        frame(0x80, b""),
        frame(0x82, &[0; 300]),
    ]
    .concat();
    let (events, failed) = outcome(&bytes, limits(300));
    assert_eq!((events.len(), failed), (3, None));
    assert_eq!(outcome(&frame(0x81, b""), limits(0)), (vec![text("")], None));
    assert_eq!(outcome(&frame(0x81, b"x"), limits(0)).1, Some((1, Failure::TooLarge)));
}

/// Memory follows what has come, not what a header promises.
#[test]
fn a_promise_holds_no_memory() {
    let limits = limits(1 << 30);
    let mut decoder = Decoder::new(limits);
    decoder.decode(b"\x82\xff\0\0\0\0\x40\0\0\0abcd").expect("1 GiB");
    assert!(decoder.held() < 200, "{}", decoder.held());
    decoder.decode(&[0; 1000]).expect("some of it");
    assert!(decoder.held() < 2500, "{}", decoder.held());
}

/// Else each of a million fragments of a byte could copy all that came before it.
#[test]
fn a_message_of_many_fragments_is_moved_seldom() {
    let limits = limits(if cfg!(miri) { 100 } else { 1000 });
    let (mut decoder, mut held) = (Decoder::new(limits), vec![]);
    decoder.decode(&frame(0x02, b"x")).expect("the first");
    for _ in 1..limits.max_message {
        decoder.decode(&frame(0x00, b"x")).expect("a byte more");
        assert!(decoder.held() <= size_of::<Progress>() + limits.max_message);
        held.push(decoder.held());
    }
    held.dedup();
    assert!(held.len() < 12, "{held:?}");
    decoder.decode(&frame(0x80, b"")).expect("the last");
    assert!(decoder.is_idle());
}

#[test]
fn a_decoder_that_failed_reads_nothing_more() {
    let mut decoder = Decoder::new(limits(10));
    assert_eq!(decoder.decode(b"\x81\x00"), Err(Failure::Unmasked));
    assert_eq!(decoder.decode(&frame(0x81, b"x")), Ok(Step { consumed: 7, event: None }));
    assert!(decoder.is_ended() && decoder.is_idle());
    let saved = Saved { ended: true, ..Saved::default() };
    assert_eq!(decoder.save(), saved);
    let mut again = Decoder::restore(saved, limits(10)).expect("as it was");
    assert_eq!(again.decode(b"\x81\x00"), Ok(Step { consumed: 2, event: None }));
}

/// Each dialog, at each byte: written down there and gone on with, it says what it says whole.
#[test]
fn a_dialog_goes_on_in_another_process_at_every_byte() {
    // Not all of them for an interpreter, which takes long.
    for (number, dialog) in dialogs().into_iter().enumerate().step_by(if cfg!(miri) { 5 } else { 1 }) {
        for deflate in [false, true] {
            let limits = Limits { max_message: 300, deflate };
            let whole = hear(Decoder::new(limits), limits, &dialog, &[dialog.len()], false);
            // Nor each byte of a payload of hundreds.
            for cut in (0..=dialog.len()).filter(|cut| !cfg!(miri) || *cut < 20 || cut % 29 == 0) {
                let halves = hear(Decoder::new(limits), limits, &dialog, &[cut, dialog.len()], true);
                assert_eq!(halves, whole, "dialog {number} at {cut}");
            }
        }
    }
}

/// Each of these is what no decoder can be.
#[test]
fn what_contradicts_itself_is_not_gone_on_with() {
    let header = |bytes: &[u8]| Saved { header: bytes.to_vec(), ..Saved::default() };
    let message = |text, payload: &[u8]| SavedMessage { text, compressed: false, payload: payload.to_vec() };
    let within = |text, payload: &[u8]| Saved { message: Some(message(text, payload)), ..Saved::default() };
    let good = [
        header(b""),
        header(b"\x81"),
        header(b"\x81\xfe\x00"),
        within(true, b"abc\xe2"),
        Saved { header: b"\x80\x85abcd".to_vec(), received: 2, ..within(true, b"xab") },
        Saved { header: b"\x81\x85abcd".to_vec(), received: 0, ..within(true, b"") },
        Saved { header: b"\x89\x85abcd".to_vec(), received: 1, control: b"a".to_vec(), ..within(true, b"abc") },
    ];
    for saved in good {
        let decoder = Decoder::restore(saved.clone(), limits(10)).unwrap_or_else(|| panic!("{saved:?}"));
        assert_eq!(decoder.save(), saved);
    }
    let bad = [
        Saved { ended: true, ..header(b"\x81") },
        Saved { ended: true, ..within(true, b"") },
        header(&[0x81; 15]),
        // Whole, with too much behind it, and without what it has begun.
        header(b"\x81\x85abcde"),
        header(b"\x81\x85abcd"),
        header(b"\x80"),
        header(b"\x83"),
        header(b"\xc1"),
        header(b"\x81\x05"),
        header(b"\x81\x8b"),
        header(b"\x81\xfe\x00\x05"),
        header(b"\x81\xff\x80"),
        Saved { header: b"\x81".to_vec(), ..within(true, b"") },
        // More than the limit, and with what is still to come.
        within(false, &[0; 11]),
        Saved { header: b"\x80\x88abcd".to_vec(), received: 2, ..within(false, &[0; 6]) },
        within(true, b"\xff"),
        Saved { message: Some(SavedMessage { compressed: true, ..message(true, b"") }), ..Saved::default() },
        // More, or fewer, or other bytes than have come of the frame.
        Saved { received: 1, ..header(b"") },
        Saved { received: 5, header: b"\x80\x85abcd".to_vec(), ..within(true, b"abcde") },
        Saved { received: 2, header: b"\x80\x85abcd".to_vec(), ..within(true, b"a") },
        Saved { received: u64::MAX, header: b"\x80\x85abcd".to_vec(), ..within(true, b"a") },
        Saved { received: 1, header: b"\x81\x85abcd".to_vec(), ..within(true, b"ab") },
        Saved { received: 1, header: b"\x81\x85abcd".to_vec(), ..within(false, b"a") },
        Saved { control: b"a".to_vec(), ..header(b"") },
        Saved { control: b"a".to_vec(), ..within(true, b"a") },
        Saved { received: 2, control: b"a".to_vec(), ..header(b"\x89\x85abcd") },
        Saved { received: 1, control: b"a".to_vec(), header: b"\x80\x85abcd".to_vec(), ..within(true, b"a") },
    ];
    for saved in bad {
        assert!(Decoder::restore(saved.clone(), limits(10)).is_none(), "{saved:?}");
    }
}

#[cfg(feature = "deflate")]
mod deflate {
    use super::*;

    const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";

    fn limits(max_message: usize) -> Limits {
        Limits { max_message, deflate: true }
    }

    #[test]
    fn a_compressed_message_is_inflated_when_it_is_whole() {
        let pieces = [frame(0x41, &HELLO[..2]), frame(0x89, b""), frame(0x00, &HELLO[2..]), frame(0x80, b"")].concat();
        let bytes = [frame(0xc1, HELLO), pieces, frame(0xc2, HELLO), frame(0x81, b"plain")].concat();
        let events = [
            text("Hello"),
            Event::Ping(Vec::new()),
            text("Hello"),
            Event::Message(Message::Binary(b"Hello".to_vec())),
            text("plain"),
        ];
        assert_eq!(outcome(&bytes, limits(7)), (events.to_vec(), None));
    }

    /// The bytes, the failure, and which byte shows it, counted from the end.
    #[test]
    fn what_it_may_not_be_and_the_byte_that_shows_it() {
        use Failure::*;
        let latin1 = {
            let mut out = Vec::new();
            crate::Deflater::new().deflate(b"caf\xe9", &mut out);
            out
        };
        let table: &[(&str, Vec<u8>, Failure, usize)] = &[
            ("rsv1 on a continuation", [frame(0x41, HELLO), frame(0xc0, b"")].concat(), ReservedBits, 5),
            ("rsv1 on one of a plain message", [frame(0x01, b""), frame(0xc0, b"")].concat(), ReservedBits, 5),
            ("rsv1 on a ping", frame(0xc9, b""), ReservedBits, 5),
            ("rsv2 too", frame(0xe1, b""), ReservedBits, 5),
            ("more than the limit as it comes", frame(0xc2, &[0; 11]), TooLarge, 4 + 11),
            ("more than the limit inflated", frame(0xc1, b"\x4a\x4c\x84\x03\x00"), TooLarge, 0),
            ("no deflate", frame(0xc1, b"\xff\xff\xff"), BadDeflate, 0),
            ("cut", frame(0xc1, &HELLO[..4]), BadDeflate, 0),
            ("not UTF-8", frame(0xc1, &latin1), BadUtf8, 0),
            ("not UTF-8, in fragments", [frame(0x41, &latin1), frame(0x80, b"")].concat(), BadUtf8, 0),
        ];
        for (name, bytes, failure, from_end) in table {
            let (_, failed) = outcome(bytes, limits(10));
            assert_eq!(failed, Some((bytes.len() - 1 - from_end, *failure)), "{name}");
        }
    }
}
