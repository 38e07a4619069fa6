//! What the steps of a request cost one by one, in memory: `cargo bench --bench micro`.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use handover::{Handler, Header, Request, Router, StatusCode};
use http1::chunked::Decoder;
use http1::framing::body_framing;
use http1::head::{Head, HeadLimits, Scanner};
use http1::response::{HeadOptions, ResponseFraming, encode_fields, finish_head};

/// The server's defaults.
const LIMITS: HeadLimits = HeadLimits { size: 16 << 10, target: 8 << 10, fields: 100 };
const DATE: &[u8] = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

/// What wrk sends.
const SMALL: &[u8] = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:8888\r\n\r\n";

const BROWSER: &[u8] = b"GET /item/a%20b?c=d HTTP/1.1\r\nHost: www.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: http://www.example.org/items?page=2\r\nConnection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nUpgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-User: ?1\r\n\
    If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nPriority: u=0, i\r\n\r\n";

const UPLOAD: &[u8] = b"POST /echo HTTP/1.1\r\nHost: www.example.org\r\nContent-Type: application/json\r\n\
    Content-Length: 1024\r\n\r\n";

fn main() {
    divan::main();
}

fn head_of(bytes: &[u8]) -> Head {
    let mut head = Head::default();
    head.parse(bytes, &LIMITS).expect("a valid head");
    head
}

mod head {
    use super::*;

    /// Heads that come at once, as they mostly do.
    fn whole(bencher: Bencher, bytes: &[u8]) {
        // Reused from request to request, as a connection does.
        let mut head = Head::default();
        bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
            head.parse_ahead(black_box(bytes), &LIMITS).expect("a whole and valid head");
            head.fields.len()
        });
    }

    #[divan::bench]
    fn small(bencher: Bencher) {
        whole(bencher, SMALL);
    }

    #[divan::bench]
    fn browser(bencher: Bencher) {
        whole(bencher, BROWSER);
    }

    /// The same in two pieces: tried, looked through for its end twice, and read.
    #[divan::bench]
    fn browser_in_two(bencher: Bencher) {
        let mut head = Head::default();
        bencher.counter(BytesCount::new(BROWSER.len())).bench_local(|| {
            let bytes = black_box(BROWSER);
            let first = &bytes[..bytes.len() / 2];
            assert!(head.parse_ahead(first, &LIMITS).is_none());
            let mut scanner = Scanner::default();
            assert_eq!(scanner.scan(first, &LIMITS), Ok(None));
            let length = scanner.scan(bytes, &LIMITS).expect("a valid head").expect("a whole head");
            head.parse(&bytes[..length], &LIMITS).expect("a valid head");
            head.fields.len()
        });
    }
}

mod framing {
    use super::*;

    fn decide(bencher: Bencher, bytes: &[u8]) {
        let head = head_of(bytes);
        bencher.bench_local(|| body_framing(black_box(&head), black_box(bytes)));
    }

    #[divan::bench]
    fn none(bencher: Bencher) {
        decide(bencher, SMALL);
    }

    #[divan::bench]
    fn browser(bencher: Bencher) {
        decide(bencher, BROWSER);
    }

    #[divan::bench]
    fn content_length(bencher: Bencher) {
        decide(bencher, UPLOAD);
    }
}

/// 64 KiB in chunks of that many bytes.
#[divan::bench(args = [16, 1024, 16384])]
fn chunked_decode(bencher: Bencher, chunk: usize) {
    let mut coded = Vec::new();
    for _ in 0..(64 << 10) / chunk {
        coded.extend_from_slice(format!("{chunk:x}\r\n").as_bytes());
        coded.resize(coded.len() + chunk, b'x');
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"0\r\n\r\n");
    let mut body = Vec::with_capacity(64 << 10);
    bencher.counter(BytesCount::new(64_u32 << 10)).bench_local(|| {
        let (mut decoder, mut at) = (Decoder::default(), 0);
        body.clear();
        while !decoder.is_done() {
            let step = decoder.decode(black_box(&coded[at..])).expect("a valid body");
            body.extend_from_slice(&coded[at..][step.data]);
            at += step.consumed;
        }
        body.len()
    });
}

/// The head of an answer with that many fields of the handler's own.
#[divan::bench(args = [1, 10])]
fn response_head(bencher: Bencher, fields: usize) {
    let fields: Vec<Header> = (0..fields)
        .map(|number| {
            let value = &b"text/html; charset=utf-8"[..];
            Header::from_bytes(format!("X-Field-{number}"), value).expect("a valid field")
        })
        .collect();
    let options = HeadOptions { framing: ResponseFraming::Length(11), keep_alive: true, client_minor: 1 };
    let mut out = Vec::with_capacity(1024);
    bencher.bench_local(|| {
        out.clear();
        encode_fields(&mut out, StatusCode(200), black_box(&fields), DATE).expect("valid fields");
        finish_head(&mut out, black_box(&options));
        out.len()
    });
}

mod router {
    use super::*;

    /// 30 routes, from the parsed head to the handler's answer.
    fn route(bencher: Bencher, bytes: &[u8]) {
        let mut router = Router::new().get("/hello", |_: &mut Request| "hello world");
        for number in 0..14 {
            router = router
                .get(&format!("/api/v1/things{number}"), |_: &mut Request| "")
                .get(&format!("/api/v1/things{number}/{{id}}/parts/{{*rest}}"), |_: &mut Request| "");
        }
        let router =
            router.get("/item/{name}", |request: &mut Request| request.param("name").map_or(0, str::len).to_string());
        let mut request = Request::from_head(bytes).expect("a valid head");
        bencher.bench_local(|| router.handle(black_box(&mut request)));
    }

    #[divan::bench]
    fn fixed(bencher: Bencher) {
        route(bencher, SMALL);
    }

    #[divan::bench]
    fn with_parameter(bencher: Bencher) {
        route(bencher, BROWSER);
    }

    #[divan::bench]
    fn not_found(bencher: Bencher) {
        route(bencher, b"GET /nowhere/at/all HTTP/1.1\r\nHost: bench\r\n\r\n");
    }
}
