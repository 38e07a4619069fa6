//! What holds for any bytes, however they arrive. Each function panics where it does not: the fuzz targets call them
//! with what a fuzzer makes up, the tests with mutated requests.

use super::chunked::Decoder;
use super::conditional::{self, Validators, Verdict};
use super::date::{self, Date};
use super::framing::{BodyFraming, body_framing, expects_continue};
use super::head::{Head, HeadLimits, Sample, Scanner};
use super::range::{self, MAX_RANGES, Part, Selection};
use super::response::{LAST_CHUNK, push_chunk_size};
use super::{Reject, is_token_byte};

/// The default limits, and small ones that a short input can reach.
const LIMITS: [HeadLimits; 2] =
    [HeadLimits { size: 16 * 1024, target: 8 * 1024, fields: 100 }, HeadLimits { size: 160, target: 64, fields: 4 }];
/// A head beyond any limit of the above.
const ROOM: HeadLimits = HeadLimits { size: 60_000, target: 50_000, fields: 1000 };

/// SplitMix64: small, and the same everywhere for the same seed.
pub struct Random(pub u64);

impl Random {
    /// A generator for what is decided about these bytes, so that a failure comes again from the bytes alone.
    pub fn of(bytes: &[u8]) -> Random {
        Random(
            bytes
                .iter()
                .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
        )
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % bound.max(1) as u64) as usize
    }

    /// Where pieces of `length` bytes end, in order; the last one ends behind all of them.
    pub fn cuts(&mut self, length: usize) -> Vec<usize> {
        let mut cuts: Vec<usize> = (0..self.below(8)).map(|_| self.below(length + 1)).collect();
        cuts.push(length);
        cuts.sort_unstable();
        cuts
    }
}

/// The ways in which bytes arrive: at once, one by one, in pieces of any length.
fn arrivals(bytes: &[u8]) -> [Vec<usize>; 3] {
    // One by one costs a scan each; behind the first few hundred, pieces of seven tell as much.
    let single = (1..=bytes.len()).filter(|at| *at < 600 || at % 7 == 0 || *at == bytes.len());
    [vec![bytes.len()], single.collect(), Random::of(bytes).cuts(bytes.len())]
}

/// A head as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    length: usize,
    method: String,
    minor: u8,
    target: Vec<u8>,
    path: Vec<u8>,
    query: Option<Vec<u8>>,
    host: Option<Vec<u8>>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    keep_alive: bool,
    framing: Result<BodyFraming, Reject>,
    continues: Result<bool, Reject>,
}

/// The head that stands in front of the bytes that arrive up to each of `ends`; `None` while it is not complete.
fn read_head(bytes: &[u8], ends: &[usize], limits: &HeadLimits) -> Result<Option<Read>, Reject> {
    let mut scanner = Scanner::default();
    for &end in ends {
        // As a connection does it: the first bytes that come are read at once if they can be.
        let mut head = Head::default();
        let ahead = if scanner.is_fresh() { head.parse_ahead(&bytes[..end], limits) } else { None };
        let length = match ahead {
            Some(length) => Some(length),
            None => scanner.scan(&bytes[..end], limits)?,
        };
        if let Some(length) = length {
            let bytes = &bytes[..length];
            if ahead.is_none() {
                head.parse(bytes, limits)?;
            }
            let fields = head.fields.iter();
            return Ok(Some(Read {
                length,
                method: head.method.to_string(),
                minor: head.minor,
                target: head.target.in_bytes(bytes).to_vec(),
                path: head.path.in_bytes(bytes).to_vec(),
                query: head.query.map(|query| query.in_bytes(bytes).to_vec()),
                host: head.host.map(|host| host.in_bytes(bytes).to_vec()),
                fields: fields
                    .map(|field| (field.name.in_bytes(bytes).to_vec(), field.value.in_bytes(bytes).to_vec()))
                    .collect(),
                keep_alive: head.keep_alive,
                framing: body_framing(&head, bytes),
                continues: expects_continue(&head, bytes),
            }));
        }
    }
    Ok(None)
}

/// A request head.
pub fn head(bytes: &[u8]) {
    for limits in &LIMITS {
        let [whole, arrivals @ ..] = arrivals(bytes);
        let outcome = read_head(bytes, &whole, limits);
        for ends in &arrivals {
            assert_eq!(read_head(bytes, ends, limits), outcome, "in pieces that end at {ends:?}");
        }
        // What has been decided stays so, whatever comes behind it.
        let longer = [bytes, b"\r\n\r\nGET / HTTP/1.1\r\n"].concat();
        match &outcome {
            Err(_) => assert_eq!(read_head(&longer, &[longer.len()], limits), outcome),
            Ok(None) => assert!(bytes.len() < limits.size, "a head without end"),
            Ok(Some(read)) => {
                assert_eq!(read_head(&longer, &[longer.len()], limits), outcome);
                assert_eq!(read_head(bytes, &[read.length], limits), outcome);
                assert!(read.length <= limits.size && read.fields.len() <= limits.fields);
                assert!(read.target.len() <= limits.target);
                check_read(read, &bytes[..read.length]);
            }
        }
    }
}

fn check_read(read: &Read, bytes: &[u8]) {
    assert!(bytes.ends_with(b"\r\n\r\n"));
    assert!(!read.method.is_empty() && read.method.bytes().all(is_token_byte));
    assert!(read.minor <= 1);
    assert!(!read.target.is_empty() && read.target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#'));
    let suffix = match &read.query {
        Some(query) => [&read.path[..], b"?", query].concat(),
        None => read.path.clone(),
    };
    assert!(read.target.ends_with(&suffix), "path and query are the end of the target");
    match read.path.first() {
        Some(b'/') => assert!(!read.path.contains(&b'?')),
        Some(_) => assert_eq!((read.path.as_slice(), read.method.as_str()), (&b"*"[..], "OPTIONS")),
        None => assert!(read.target.starts_with(b"h") || read.target.starts_with(b"H"), "an absolute target"),
    }
    for (name, value) in &read.fields {
        assert!(!name.is_empty() && name.iter().copied().all(is_token_byte));
        assert!(value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)));
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        assert!(!blank(value.first()) && !blank(value.last()), "white space around a value is not part of it");
    }
    let hosts = values(read, "host");
    assert!(hosts.len() <= 1 && hosts.len() >= usize::from(read.minor), "{hosts:?}");
    assert!(read.host.iter().all(|host| host.iter().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(byte))));
    assert_eq!(read.framing, framing_by_the_book(read));

    // Written down again it is the same request.
    let mut text = format!("{} ", read.method).into_bytes();
    text.extend_from_slice(&read.target);
    text.extend_from_slice(format!(" HTTP/1.{}\r\n", read.minor).as_bytes());
    for (name, value) in &read.fields {
        text.extend_from_slice(&[&name[..], b": ", value, b"\r\n"].concat());
    }
    text.extend_from_slice(b"\r\n");
    let again = read_head(&text, &[text.len()], &ROOM).expect("what was read is valid").expect("it is complete");
    assert_eq!(again, Read { length: text.len(), ..read.clone() });
}

fn values(read: &Read, name: &str) -> Vec<String> {
    let fields = read.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
    fields.map(|(_, value)| value.iter().map(|&byte| char::from(byte)).collect()).collect()
}

/// RFC 9112 §6.3 once more, as it reads.
fn framing_by_the_book(read: &Read) -> Result<BodyFraming, Reject> {
    let (lengths, codings) = (values(read, "content-length"), values(read, "transfer-encoding"));
    let length = match lengths.as_slice() {
        [] => None,
        [length] => Some(length),
        _ => return Err(Reject::BadContentLength),
    };
    if codings.is_empty() {
        let Some(length) = length else { return Ok(BodyFraming::None) };
        let digits = length.trim_start_matches('0');
        return match digits.parse::<u128>() {
            _ if length.is_empty() || !length.chars().all(|digit| digit.is_ascii_digit()) => {
                Err(Reject::BadContentLength)
            }
            Err(_) if digits.is_empty() => Ok(BodyFraming::None),
            Ok(length) if length <= u128::from(u64::MAX) => Ok(BodyFraming::Length(length as u64)),
            _ => Err(Reject::BadContentLength),
        };
    }
    if length.is_some() {
        return Err(Reject::LengthAndEncoding);
    }
    if read.minor == 0 {
        return Err(Reject::EncodingInHttp10);
    }
    let joined = codings.join(",").to_ascii_lowercase();
    let codings: Vec<&str> = joined.split(',').map(|coding| coding.trim_matches([' ', '\t'])).collect();
    let codings: Vec<&str> = codings.into_iter().filter(|coding| !coding.is_empty()).collect();
    match codings.iter().position(|coding| *coding == "chunked") {
        Some(at) if at + 1 < codings.len() => Err(Reject::ChunkedNotLast),
        None => Err(Reject::ChunkedNotLast),
        Some(0) => Ok(BodyFraming::Chunked),
        Some(_) => Err(Reject::UnknownCoding),
    }
}

/// The fields that decide about the body: each line of the input is the value of one of them.
pub fn framing(bytes: &[u8]) {
    const FIELDS: [&str; 4] = ["Content-Length", "Transfer-Encoding", "Expect", "Connection"];
    let mut text = match bytes.first().is_some_and(|byte| byte % 8 == 0) {
        true => b"POST / HTTP/1.0\r\nHost: x\r\n".to_vec(),
        false => b"POST / HTTP/1.1\r\nHost: x\r\n".to_vec(),
    };
    for line in bytes.split(|&byte| byte == b'\n') {
        let Some((first, value)) = line.split_first() else { continue };
        text.extend_from_slice(FIELDS[usize::from(*first) % 4].as_bytes());
        text.extend_from_slice(b": ");
        text.extend(value.iter().filter(|&&byte| byte != b'\r'));
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    if let Ok(Some(read)) = read_head(&text, &[text.len()], &LIMITS[0]) {
        check_read(&read, &text);
        // Optional white space is SP and HTAB (RFC 9110 §5.6.3), not all that Unicode has, such as U+00A0.
        let closes =
            |value: &String| value.split(',').any(|word| word.trim_matches([' ', '\t']).eq_ignore_ascii_case("close"));
        assert!(!(read.keep_alive && values(&read, "connection").iter().any(closes)));
        if read.continues == Ok(true) {
            assert!(read.minor == 1 && !values(&read, "expect").is_empty());
        }
    }
}

/// What came of decoding: the body, how many bytes were used, and whether it is over.
type Decoded = (Vec<u8>, usize, Result<bool, Reject>);

/// Decodes what arrives up to each of `ends`, each time by a decoder that was written down and read again, as for a
/// successor.
fn decode(bytes: &[u8], ends: &[usize]) -> Decoded {
    let mut decoder = Decoder::default();
    let (mut body, mut at) = (Vec::new(), 0);
    for &end in ends {
        while at < end && !decoder.is_done() {
            let input = &bytes[at..end];
            match decoder.decode(input) {
                Err(reject) => return (body, at, Err(reject)),
                Ok(step) => {
                    assert!(step.consumed > 0 && step.consumed <= input.len() && step.data.end <= step.consumed);
                    assert_eq!(step.done, decoder.is_done());
                    body.extend_from_slice(&input[step.data]);
                    at += step.consumed;
                }
            }
        }
        let (state, overhead) = decoder.saved();
        decoder = Decoder::resume(state, overhead);
    }
    let done = decoder.is_done();
    (body, at, Ok(done))
}

/// A chunked body.
pub fn chunked(bytes: &[u8]) {
    let [whole, arrivals @ ..] = arrivals(bytes);
    let (body, used, outcome) = decode(bytes, &whole);
    for ends in &arrivals {
        let (other, other_used, other_outcome) = decode(bytes, ends);
        assert_eq!((&other, other_outcome), (&body, outcome), "in pieces that end at {ends:?}");
        // An error is seen in the piece that has it, so what stands before it in that piece may not have been counted.
        assert!(outcome.is_err() || other_used == used);
    }
    assert!(used <= bytes.len() && body.len() <= used);
    // A size of 16 digits and three line ends for each byte of data, as many bytes of extensions, 4 KiB more of them
    // and as many of trailers, of which a line end and a colon in each three are not counted.
    assert!(used <= 24 * body.len() + 5 * 4096 + 64, "{used} bytes for {}", body.len());
    match outcome {
        Err(_) => {}
        Ok(false) => assert_eq!(used, bytes.len()),
        Ok(true) => {
            assert_eq!(body_by_the_book(&bytes[..used]), body);
            let longer = [bytes, b"0\r\n\r\n"].concat();
            assert_eq!(decode(&longer, &[longer.len()]), (body.clone(), used, outcome), "what follows is not touched");
        }
    }

    // As we would write it.
    let mut random = Random::of(bytes);
    let (mut written, mut from) = (Vec::new(), 0);
    for to in random.cuts(body.len()) {
        if from < to {
            push_chunk_size(&mut written, to - from);
            written.extend_from_slice(&body[from..to]);
            written.extend_from_slice(b"\r\n");
        }
        from = to;
    }
    written.extend_from_slice(LAST_CHUNK);
    assert_eq!(decode(&written, &[written.len()]), (body, written.len(), Ok(true)));
}

/// RFC 9112 §7.1 once more, line by line, of a body that is valid and whole.
fn body_by_the_book(mut rest: &[u8]) -> Vec<u8> {
    let line = |rest: &mut &[u8]| {
        let end = rest.windows(2).position(|window| window == b"\r\n").expect("a line end");
        let (line, behind) = (rest[..end].to_vec(), &rest[end + 2..]);
        *rest = behind;
        line
    };
    let mut body = Vec::new();
    loop {
        let size = line(&mut rest);
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        assert!(digits <= 16, "more than a u64 holds");
        let extensions = size[digits..].trim_ascii_start();
        assert!(extensions.starts_with(b";") || size.len() == digits, "{}", size.escape_ascii());
        let digits = std::str::from_utf8(&size[..digits]).expect("ASCII");
        let size = usize::from_str_radix(digits, 16).expect("a size, and no larger than what came");
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[..size]);
        assert_eq!(&rest[size..size + 2], b"\r\n");
        rest = &rest[size + 2..];
    }
    loop {
        let trailer = line(&mut rest);
        if trailer.is_empty() {
            assert!(rest.is_empty());
            return body;
        }
        let colon = trailer.iter().position(|&byte| byte == b':').expect("a name and a value");
        assert!(colon > 0 && trailer[..colon].iter().copied().all(is_token_byte));
    }
}

/// A decoder as a successor gets it, perhaps from who means it ill, and what it then reads.
pub fn decoder(decoder: &Decoder, input: &[u8]) {
    let mut outcomes = Vec::new();
    for ends in [vec![input.len()], (1..=input.len()).collect()] {
        let (mut decoder, mut at, mut body) = (decoder.clone(), 0, Vec::new());
        let mut idle = 0;
        let mut failed = None;
        'pieces: for end in ends {
            while at < end && !decoder.is_done() {
                match decoder.decode(&input[at..end]) {
                    Ok(step) => {
                        // It may see only then that a chunk is over.
                        idle = if step.consumed == 0 { idle + 1 } else { 0 };
                        assert!(step.consumed <= end - at && idle < 2, "it makes no progress");
                        body.extend_from_slice(&input[at..end][step.data]);
                        at += step.consumed;
                    }
                    Err(reject) => {
                        failed = Some(reject);
                        break 'pieces;
                    }
                }
            }
        }
        outcomes.push((body, failed, decoder.is_done()));
    }
    assert_eq!(outcomes[0], outcomes[1]);
}

/// A request with its body.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    head: Read,
    body: Vec<u8>,
}

/// Reads one request after the other from what arrives up to each of `ends`, as a connection does: the requests, the
/// reason that ended it, and the bytes that belong to a request which is not complete.
fn read_messages(bytes: &[u8], ends: &[usize]) -> (Vec<Message>, Option<Reject>, usize) {
    enum Wanted {
        Head(Scanner),
        Bytes(Read, u64, Vec<u8>),
        Chunks(Read, Decoder, Vec<u8>),
    }
    let (mut messages, mut at) = (Vec::new(), 0);
    let mut wanted = Wanted::Head(Scanner::default());
    // Where the request began that is being read.
    let mut begun = 0;
    for &end in ends {
        loop {
            let input = &bytes[at..end];
            wanted = match wanted {
                Wanted::Head(mut scanner) => match scanner.scan(input, &LIMITS[0]) {
                    Err(reject) => return (messages, Some(reject), bytes.len() - begun),
                    Ok(None) => {
                        wanted = Wanted::Head(scanner);
                        break;
                    }
                    Ok(Some(length)) => {
                        let read = read_head(&input[..length], &[length], &LIMITS[0]);
                        let framing = read.and_then(|read| {
                            let read = read.expect("it was complete");
                            let framing = read.framing?;
                            read.continues?;
                            Ok((read, framing))
                        });
                        at += length;
                        match framing {
                            Err(reject) => return (messages, Some(reject), bytes.len() - begun),
                            Ok((head, BodyFraming::None)) => {
                                begun = at;
                                messages.push(Message { head, body: Vec::new() });
                                Wanted::Head(Scanner::default())
                            }
                            Ok((head, BodyFraming::Length(length))) => Wanted::Bytes(head, length, Vec::new()),
                            Ok((head, BodyFraming::Chunked)) => Wanted::Chunks(head, Decoder::default(), Vec::new()),
                        }
                    }
                },
                Wanted::Bytes(head, left, mut body) => {
                    let taken = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    body.extend_from_slice(&input[..taken]);
                    at += taken;
                    if (taken as u64) < left {
                        wanted = Wanted::Bytes(head, left - taken as u64, body);
                        break;
                    }
                    begun = at;
                    messages.push(Message { head, body });
                    Wanted::Head(Scanner::default())
                }
                Wanted::Chunks(head, mut decoder, mut body) => {
                    let step = match decoder.decode(input) {
                        Err(reject) => return (messages, Some(reject), bytes.len() - begun),
                        Ok(step) => step,
                    };
                    at += step.consumed;
                    body.extend_from_slice(&input[step.data]);
                    if step.done {
                        begun = at;
                        messages.push(Message { head, body });
                        Wanted::Head(Scanner::default())
                    } else if at < end {
                        Wanted::Chunks(head, decoder, body)
                    } else {
                        wanted = Wanted::Chunks(head, decoder, body);
                        break;
                    }
                }
            };
        }
    }
    (messages, None, bytes.len() - begun)
}

/// A stream of requests: their heads, framing and bodies are the same however they arrive.
pub fn stream(bytes: &[u8]) {
    let [whole, arrivals @ ..] = arrivals(bytes);
    let outcome = read_messages(bytes, &whole);
    for ends in &arrivals {
        assert_eq!(read_messages(bytes, ends), outcome, "in pieces that end at {ends:?}");
    }
    // What was read of the stream without its incomplete end is the same.
    let complete = bytes.len() - outcome.2;
    let (messages, rejected, rest) = read_messages(&bytes[..complete], &[complete]);
    assert_eq!((messages, rejected, rest), (outcome.0, None, 0));
}

/// Range fields, one a line, behind eight bytes that are the size of the representation.
pub fn range(bytes: &[u8]) {
    let Some((size, values)) = bytes.split_first_chunk() else { return };
    // Small sizes are where the edges are.
    let size = u64::from_le_bytes(*size);
    let size = if size % 2 == 0 { size >> 56 } else { size };
    let values: Vec<&[u8]> = values.split(|&byte| byte == b'\n').collect();
    let again = |value: String| range::select([value.as_bytes()].into_iter(), size);
    let selection = range::select(values.iter().copied(), size);
    assert!(values.len() == 1 || selection == Selection::Whole);
    let inside = |part: &Part| {
        assert!(part.length > 0 && part.start.checked_add(part.length).is_some_and(|end| end <= size));
        let shown = part.content_range(size);
        let (first, last) = (part.start, part.start + part.length - 1);
        assert_eq!(shown, format!("bytes {first}-{last}/{size}"));
        format!("{first}-{last}")
    };
    match &selection {
        Selection::Whole | Selection::Unsatisfiable => {}
        Selection::Part(part) => assert_eq!(again(format!("bytes={}", inside(part))), selection),
        Selection::Parts(parts) => {
            assert!((2..=MAX_RANGES).contains(&parts.len()));
            assert!(parts.is_sorted_by(|one, next| one.start + one.length <= next.start));
            let asked: Vec<String> = parts.iter().map(inside).collect();
            assert_eq!(again(format!("bytes={}", asked.join(", "))), selection);
        }
    }
    // What selects something for a file selects the same for a longer one, unless it counts from the end.
    if let (Selection::Part(part), false) = (&selection, values[0].contains(&b'-') && values[0].contains(&b',')) {
        let suffix = values[0].iter().position(|&byte| byte == b'-').is_some_and(|at| values[0][..at].ends_with(b"="));
        if let (false, Some(larger)) = (suffix || part.start + part.length == size, size.checked_mul(2)) {
            assert_eq!(range::select(values.iter().copied(), larger), selection);
        }
    }
}

/// A value of a conditional field.
pub fn dates(value: &[u8]) {
    const ETAG: &str = "\"tag\"";
    let Some(probe) = Sample::new("GET", "/", &[("If-Modified-Since", value)]) else { return };
    // As the head gives it, without the white space around it.
    let date = conditional::parse_date(probe.fields().values("If-Modified-Since").next().unwrap_or_default());
    let evaluate = |method: &str, field: &str, modified: u64| {
        let request = Sample::new(method, "/", &[(field, value)]).expect("as before");
        conditional::evaluate(request.fields(), Validators { etag: ETAG, modified: Some(modified), is_dated: true })
    };
    if let Some(date) = date {
        assert!(date <= date::LAST);
        let written = Date(date).to_string();
        assert_eq!(conditional::parse_date(written.as_bytes()), Some(date), "{written}");
    }
    for modified in [0, date.unwrap_or(7).saturating_sub(1), date.unwrap_or(7), date.unwrap_or(7) + 1] {
        let (seen, unseen) = match date {
            Some(date) if modified <= date => (Verdict::NotModified, Verdict::Proceed),
            Some(_) => (Verdict::Proceed, Verdict::Failed),
            None => (Verdict::Proceed, Verdict::Proceed),
        };
        assert_eq!(evaluate("GET", "If-Modified-Since", modified), seen);
        assert_eq!(evaluate("POST", "If-Modified-Since", modified), Verdict::Proceed);
        assert_eq!(evaluate("GET", "If-Unmodified-Since", modified), unseen);

        // What matches a tag strongly matches it weakly.
        let (if_match, if_none) = (evaluate("GET", "If-Match", modified), evaluate("GET", "If-None-Match", modified));
        assert!(if_match != Verdict::NotModified && if_none != Verdict::Failed);
        assert!(if_match == Verdict::Failed || if_none == Verdict::NotModified);
        assert_eq!(evaluate("POST", "If-None-Match", modified) == Verdict::Failed, if_none == Verdict::NotModified);

        let request = Sample::new("GET", "/", &[("If-Range", value)]).expect("as before");
        let holds = |now: u64, is_dated: bool| {
            let validators = Validators { etag: ETAG, modified: Some(modified), is_dated };
            conditional::if_range_holds(request.fields(), validators, now)
        };
        let tagged = value.trim_ascii() == ETAG.as_bytes();
        assert_eq!(holds(modified + 1, true), tagged || date == Some(modified));
        assert_eq!(holds(modified, true), tagged);
        assert_eq!(holds(modified + 1, false), tagged);
    }
}
