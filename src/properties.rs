//! What the invariants say, for thousands of mutations of the data files in `tests/requests`.
//!
//! `HANDOVER_SEED` begins elsewhere; a failure names the seed and the bytes. The fuzz targets go further.

use crate::cases::Case;
use crate::engine::connection::invariants as connection;
use crate::lifecycle::invariants as lifecycle;
use crate::site::invariants as site;
use http1::date;
use http1::head::{Head, HeadLimits};
use http1::invariants::{self as http, Random};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, UNIX_EPOCH};

/// What a mutation may put in: what means something somewhere.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b"\x7f",
    b"\xff",
    b":",
    b",",
    b";",
    b"=",
    b"\"",
    b"\\",
    b"?",
    b"#",
    b"%",
    b"%2e",
    b"%2F",
    b"/",
    b"..",
    b"*",
    b"-",
    b"+",
    b"9999999999999999999999",
    b"ffffffffffffffff",
    b"HTTP/1.0",
    b"Host: x\r\n",
    b"Connection: close\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"bytes=0-",
    b"Sun, 06 Nov 1994 08:49:37 GMT",
    b"http://",
];

/// A few changes: bytes that turn over, go, come, repeat or change places.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(5) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            3 => bytes.truncate(at),
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
        }
    }
}

/// Holds `invariant` against that many mutations of `seeds`, some of them of two in a row.
fn hold(rounds: usize, seeds: &[Vec<u8>], invariant: impl Fn(&[u8])) {
    let seed = std::env::var("HANDOVER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = Random(seed);
    for round in 0..rounds {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        if random.below(4) == 0 {
            bytes.extend_from_slice(&seeds[random.below(seeds.len())]);
        }
        mutate(&mut bytes, &mut random);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| invariant(&bytes))) {
            eprintln!("HANDOVER_SEED={seed}, round {round}: {}", bytes.escape_ascii());
            resume_unwind(panic);
        }
    }
}

fn requests() -> Vec<Vec<u8>> {
    Case::all().iter().map(Case::bytes).collect()
}

/// What stands behind the head of each request.
fn bodies() -> Vec<Vec<u8>> {
    let requests = requests();
    let behind = requests.iter().filter_map(|bytes| {
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        (bytes.len() > head + 4).then(|| bytes[head + 4..].to_vec())
    });
    behind.collect()
}

/// The values of the fields whose name begins so, or the paths.
fn pieces(of: impl Fn(&str) -> Option<&str>) -> Vec<Vec<u8>> {
    let requests = requests();
    let text: Vec<_> = requests.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect();
    let found = text.iter().flat_map(|text| text.split("\r\n")).filter_map(of);
    found.map(|piece| piece.as_bytes().to_vec()).collect()
}

fn path(line: &str) -> Option<&str> {
    line.strip_prefix("GET /")?.split(' ').next()
}

#[test]
fn a_head_is_one_head_however_it_arrives() {
    hold(6000, &requests(), http::head);
}

/// It reads heads for many servers, and has been fuzzed for years.
#[test]
fn what_is_taken_for_a_head_httparse_reads_the_same_way() {
    let limits = HeadLimits { size: 16 * 1024, target: 8 * 1024, fields: 100 };
    let taken = Cell::new(0);
    hold(6000, &requests(), |bytes| {
        let mut head = Head::default();
        let Some(length) = head.parse_ahead(bytes, &limits) else { return };
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Request::new(&mut fields);
        match other.parse(bytes) {
            // A minor version above 1 counts as 1 (RFC 9110 §2.5), which it leaves to others.
            Err(httparse::Error::Version) => return,
            parsed => assert_eq!(parsed, Ok(httparse::Status::Complete(length))),
        }
        assert_eq!(other.method, Some(head.method.as_str()));
        assert_eq!(other.version, Some(head.minor));
        assert_eq!(other.path.map(str::as_bytes), Some(head.target.in_bytes(bytes)));
        let ours = head.fields.iter().map(|field| (field.name.in_bytes(bytes), field.value.in_bytes(bytes)));
        let theirs = other.headers.iter().map(|field| (field.name.as_bytes(), field.value));
        assert!(ours.eq(theirs), "{:?}", other.headers);
        taken.set(taken.get() + 1);
    });
    assert!(taken.get() > 1000, "{} were compared", taken.get());
}

#[test]
fn a_stream_is_the_same_requests_however_it_arrives() {
    hold(4000, &requests(), http::stream);
}

#[test]
fn a_chunked_body_is_one_body_however_it_arrives() {
    hold(10_000, &bodies(), http::chunked);
}

#[test]
fn framing_is_decided_as_the_rfc_has_it() {
    let seeds = ["\x005", "\x01chunked", "\x01gzip, chunked", "\x005\n\x015", "\x02100-continue", "\x03close"];
    hold(10_000, &seeds.map(|seed| seed.as_bytes().to_vec()), http::framing);
}

#[test]
fn ranges_lie_inside_of_the_file() {
    let values = pieces(|line| line.strip_prefix("Range: "));
    let with_size = |value: &Vec<u8>| [&[0, 0, 0, 0, 0, 0, 0, 11][..], value].concat();
    hold(10_000, &values.iter().map(with_size).collect::<Vec<_>>(), http::range);
}

#[test]
fn conditions_are_decided_as_the_rfc_has_it() {
    let mut values =
        pieces(|line| line.strip_prefix("If-").and_then(|field| field.split_once(": ")).map(|(_, value)| value));
    values.extend([b"\"tag\"".to_vec(), b"W/\"tag\", \"x\"".to_vec()]);
    hold(4000, &values, http::dates);
}

#[test]
fn what_is_taken_for_a_date_httpdate_reads_the_same_way() {
    let mut seeds =
        pieces(|line| line.strip_prefix("If-").and_then(|field| field.split_once(": ")).map(|(_, value)| value));
    seeds.extend([b"Sunday, 06-Nov-94 08:49:37 GMT".to_vec(), b"Sun Nov  6 08:49:37 1994".to_vec()]);
    let taken = Cell::new(0);
    hold(10_000, &seeds, |value| {
        let Some(second) = date::parse(value) else { return };
        let text = str::from_utf8(value).expect("a date is ASCII");
        match httpdate::parse_http_date(text) {
            Ok(time) => assert_eq!(time, UNIX_EPOCH + Duration::from_secs(second)),
            // It has no leap seconds.
            Err(_) => assert!(text.contains(":60")),
        }
        taken.set(taken.get() + 1);
    });
    assert!(taken.get() > 1000, "{} were compared", taken.get());
}

#[test]
fn a_path_is_one_name() {
    hold(10_000, &pieces(path), site::path);
}

#[test]
fn nothing_outside_of_the_root_is_opened() {
    let mut seeds = pieces(path);
    seeds.extend(
        [
            "in\n../out/f\n../../f\n../../../secret\na/b/l3",
            "a\nl0/b\n..\nc\nl1/f",
            "up/root/f\nin/c/",
            "/f\nl0",
            "/etc/passwd\n/\nl0",
            "~/a/b\n~/..\n~\n~/f\nl0/l3",
            "~/../outside\n~x/f\n~//./a/./b/f\n~/l1\na/l2",
            "~/l1/secret\n~/..\n../~\n/\nl0",
        ]
        .map(|seed| seed.as_bytes().to_vec()),
    );
    hold(2000, &seeds, site::below);
}

#[test]
fn a_state_is_read_as_it_was_written_or_not_at_all() {
    for state in lifecycle::states() {
        connection::state(&state);
    }
    hold(10_000, &lifecycle::states(), connection::state);
}

#[test]
fn a_decoder_from_elsewhere_reads_on_or_refuses() {
    let mut seeds = Vec::new();
    for first in 0..16 {
        for second in [0, 1, 15, 16, 17, 127, 255] {
            seeds.push([&[4, first, second, 0, 0][..], b"5\r\nhello\r\n0\r\n\r\n"].concat());
            seeds.push([&[5, first, 1, second, 255, 255][..], b"5;a\r\nhello\r\n0\r\n\r\n"].concat());
        }
    }
    hold(10_000, &seeds, lifecycle::decoder);
}
