//! Two classes of requests at a fixed rate: one in so many blocks its handler, the others do not. What the others wait
//! is the figure.
//!
//! A request has a time at which it is due, and its latency counts from there, also when every connection was still
//! waiting for an answer: a server that stands still cannot hide it by not being asked. Which requests block is drawn
//! from a fixed seed, so that it is the same for every server and yet falls together now and then.
//!
//! `mix ADDRESS FAST-PATH SLOW-PATH RATE CONNECTIONS SECONDS ONE-IN`; answers with a line of JSON, in microseconds.

use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

struct Plan {
    address: String,
    fast: Vec<u8>,
    slow: Vec<u8>,
    interval: Duration,
    began: Instant,
    blocks: Vec<bool>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Seen {
    fast: Vec<u64>,
    slow: Vec<u64>,
    errors: usize,
    error: Option<String>,
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, fast, slow, rate, connections, seconds, one_in] = arguments.as_slice() else {
        eprintln!("mix: usage: mix ADDRESS FAST-PATH SLOW-PATH RATE CONNECTIONS SECONDS ONE-IN");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u64>().unwrap_or_else(|_| panic!("{text:?} is not a whole number"));
    let (rate, one_in) = (number(rate), number(one_in));
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes();
    let plan = Arc::new(Plan {
        address: address.clone(),
        fast: request(fast),
        slow: request(slow),
        interval: Duration::from_nanos(1_000_000_000 / rate),
        // Every connection is made by then.
        began: Instant::now() + Duration::from_millis(200),
        blocks: draw(rate * number(seconds), one_in),
        next: AtomicUsize::new(0),
    });
    let clients: Vec<_> = (0..number(connections))
        .map(|_| {
            let plan = plan.clone();
            thread::spawn(move || plan.run())
        })
        .collect();
    let mut seen = Seen::default();
    for client in clients {
        let one = client.join().expect("a client never panics");
        seen.fast.extend(one.fast);
        seen.slow.extend(one.slow);
        seen.errors += one.errors;
        seen.error = seen.error.or(one.error);
    }
    if let Some(error) = &seen.error {
        eprintln!("mix: {error}");
    }
    let (fast, slow) = (summary(&mut seen.fast), summary(&mut seen.slow));
    let took = plan.began.elapsed().as_micros();
    println!("{{\"fast\":{fast},\"slow\":{slow},\"errors\":{},\"took\":{took}}}", seen.errors);
}

/// Which requests block, by a linear congruential generator with a fixed seed.
fn draw(requests: u64, one_in: u64) -> Vec<bool> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 33
    };
    (0..requests).map(|_| next() % one_in == 0).collect()
}

fn summary(micros: &mut [u64]) -> String {
    micros.sort_unstable();
    let at = |share: f64| micros.get(((micros.len() as f64 * share) as usize).min(micros.len().max(1) - 1));
    let at = |share| at(share).copied().unwrap_or(0);
    format!(
        "{{\"count\":{},\"p50\":{},\"p99\":{},\"p999\":{},\"max\":{}}}",
        micros.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}

impl Plan {
    fn run(&self) -> Seen {
        let mut seen = Seen::default();
        let mut stream = None;
        let mut buffer = vec![0; 4096];
        let connected = self.connect().map(|connected| stream = Some(connected));
        if let Err(error) = connected {
            seen.fail(error);
        }
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&blocks) = self.blocks.get(index) else { return seen };
            let due = self.began + self.interval * index as u32;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let request = if blocks { &self.slow } else { &self.fast };
            let asked = match stream.take() {
                Some(stream) => Ok(stream),
                None => self.connect(),
            };
            let answered = asked.and_then(|mut stream| {
                stream.write_all(request)?;
                read_answer(&mut stream, &mut buffer)?;
                Ok(stream)
            });
            match answered {
                Ok(open) => {
                    let took = due.elapsed().as_micros() as u64;
                    if blocks { &mut seen.slow } else { &mut seen.fast }.push(took);
                    stream = Some(open);
                }
                Err(error) => seen.fail(error),
            }
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(stream)
    }
}

impl Seen {
    fn fail(&mut self, error: io::Error) {
        self.errors += 1;
        self.error.get_or_insert_with(|| error.to_string());
    }
}

/// Reads one answer with status 200 and a Content-Length, which is what all of them send.
fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let Some(length) = length.filter(|_| head.starts_with("http/1.1 200")) else {
            return Err(io::Error::other(format!("an answer that is not expected: {head}")));
        };
        if filled >= end + 4 + length {
            return Ok(());
        }
    }
}
