//! One route a behaviour, for trying a stop and a reload by hand and from tests.
//!
//! | route | |
//! |---|---|
//! | `GET /hello` | `hello world` |
//! | `GET /sleep/{ms}` | sleeps in the handler, then `slept {ms}` |
//! | `GET /bytes/{n}` | that many `x`, with Content-Length |
//! | `GET /stream/{chunks}/{ms}` | pushes that many chunks, that long apart |
//! | `POST /echo` | streams the body back |
//! | `POST /journal` | appends the body as a line to the file named by `LAB_JOURNAL`, then answers with that line |
//! | `GET /pid` | `{"pid":…,"generation":…}` |
//! | `GET /count` | how often that was asked, over all generations |
//! | `POST /map/{key}`, `GET /map/{key}` | keeps the body, over all generations; answers with it, or 404 |
//! | `GET /panic` | panics |
//! | `POST /open` | with `LAB_CONFINED`: opens the path that the body is, to read or with `?write` to write, and answers with what the file holds or why it cannot be opened |
//! | `GET /events/{topic}`, `POST /events/{topic}` | subscribes, publishes: anybody may; `tick` counts ten times a second, over all generations |
//! | `GET /events-of/{topic}` | the same subscription by a handler |
//! | `GET /ws/echo` | a WebSocket that says what it hears |
//! | `GET /ws/count` | a WebSocket that answers each message with how many there were, its own, over all generations |
//! | `/sockjs/{echo,disabled_websocket_echo,cookie_needed_echo,close,broadcast}` | the services that the suite of SockJS asks for, with all its transports; streams of the echoes end after 4,096 bytes |
//! | `/sockjs/count` | as `/ws/count`, by SockJS |
//! | `GET /sockjs.js` | the script of the page for frames: the file named by `LAB_SOCKJS` |
//! | `GET /ws/thread` | a WebSocket for which a thread of the process that hears `go` counts, until it hears anything else |
//!
//! A start goes wrong in the way that the file named by `LAB_TRAP` says: `panic`, `exit`, `abort`, `segv`, `overflow`,
//! `memory`,
//! `hang` or `restore`. A check does not, nor what is come back to.
//!
//! With `LAB_WITHOUT_THREAD` it lacks the conversation of `/ws/thread`; with `LAB_RESTORES_AFTER` no client of that
//! goes on in another process before there is that file. With `LAB_TICKS` a background thread counts a hundred times a
//! second, over all generations, and appends each number to that file. With `LAB_STATELESS` it carries nothing over and
//! has no hub, and two generations may serve at a time. With `LAB_CONFINED` requests can open that directory and nothing
//! else, by Landlock, and write to `writable` in it.
//!
//! It takes the program's flags: `cargo run --release --example lab -- --help`.

use handover::{
    AllowedPaths, Background, Body, Carried, Client, Config, Conversation, Header, Hub, Incoming, IntoResponse,
    Namespace, Publishers, Request, Response, Router, Server, SockJs, StatusCode,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What `/echo` takes. It holds a few KiB of a body at a time, whatever its size.
const ECHO_LIMIT: u64 = 1 << 30;

fn main() -> ExitCode {
    let state = Arc::new(Mutex::new(State::default()));
    let (saved, restored) = (state.clone(), state.clone());
    let save = move || Carried { version: 2, bytes: locked(&saved).text().into_bytes() };
    let restore = move |carried: Carried| {
        if let (2, Ok(text)) = (carried.version, String::from_utf8(carried.bytes)) {
            *locked(&restored) = State::read(&text);
        }
    };
    let config = Config::from_args();
    let trap = trap();
    if trap != "restore" {
        fall_into(&trap);
    }
    let restore = move |carried| {
        if trap == "restore" {
            panic!("as the trap asks");
        }
        restore(carried);
    };
    let routes = routes(std::env::var_os("LAB_JOURNAL"))
        .get("/count", counter(state.clone()))
        .get("/map/{key}", value_of(state.clone()))
        .post("/map/{key}", keep(state.clone()));
    let mut server = Server::builder().config(config);
    let confined = std::env::var_os("LAB_CONFINED").map(PathBuf::from);
    let routes = if confined.is_some() { routes.post("/open", open) } else { routes };
    if let Some(directory) = confined {
        let writable = directory.join("writable");
        server = server.confine(AllowedPaths::default().read(directory).write(writable));
    }
    if std::env::var_os("LAB_STATELESS").is_none() {
        let hub = Hub::new();
        let events = hub.namespace("lab").history(1000).publishers(Publishers::Anyone);
        let own = events.clone();
        let echo = hub.conversation("echo", Echo).max_message(16 << 20).origins(["*"]);
        let count = hub.conversation("count", Count).origins(["*"]);
        let routes = routes.get("/ws/echo", echo.websocket()).get("/ws/count", count.websocket());
        let routes = sockjs(routes, &hub).mount_service("/sockjs/count", every_transport(count.sockjs()));
        let routes = match std::env::var_os("LAB_WITHOUT_THREAD") {
            None => routes.get("/ws/thread", hub.conversation("thread", Thread).websocket()),
            Some(_) => routes,
        };
        let routes = routes.mount_service("/events", events.service()).get(
            "/events-of/{topic}",
            move |request: &mut Request| {
                own.subscribe(request).topic(request.param("topic").unwrap_or_default()).respond()
            },
        );
        server = server.hub(&hub).background("tick", tick(state.clone(), events)).carry_over(save, restore);
        server = server.service(routes);
    } else {
        server = server.service(routes);
    }
    if let Some(path) = std::env::var_os("LAB_TICKS") {
        server = server.background("ticks in a file", tick_into(state, path));
    }
    handover::exit_code(server.give_back_at_rest(true).build().and_then(Server::run))
}

/// Says what it hears.
struct Echo;

impl Conversation for Echo {
    type State = ();

    fn open(&self, _: &Client, _: &mut Request) -> Result<(), Response> {
        Ok(())
    }

    fn message(&self, client: &Client, (): &mut (), message: Incoming<'_>) {
        // A client that does not read has what it wants.
        let _ = match message {
            Incoming::Text(text) => client.send(text),
            Incoming::Binary(bytes) => client.send(bytes),
        };
    }

    fn save(&self, (): &()) -> Carried {
        Carried { version: 1, bytes: Vec::new() }
    }

    fn restore(&self, _: &Client, _: Carried) -> Option<()> {
        Some(())
    }
}

/// The services that the suite of SockJS asks for. Each conversation has a name of its own, by which a successor finds it.
fn sockjs(routes: Router, hub: &Hub) -> Router {
    let origins = ["*", "null"];
    let echo = |name: &str| every_transport(hub.conversation(name, Echo).origins(origins).sockjs());
    let close = every_transport(hub.conversation("sockjs close", Close).origins(origins).sockjs());
    let broadcast = every_transport(hub.conversation("sockjs broadcast", Broadcast).origins(origins).sockjs());
    routes
        .mount_service("/sockjs/echo", echo("sockjs echo").response_limit(4096))
        .mount_service("/sockjs/disabled_websocket_echo", echo("sockjs disabled").response_limit(4096).websocket(false))
        .mount_service("/sockjs/cookie_needed_echo", echo("sockjs cookie").response_limit(4096).cookie(true))
        .mount_service("/sockjs/close", close)
        .mount_service("/sockjs/broadcast", broadcast)
        .get("/sockjs.js", |_: &mut Request| {
            let script = std::env::var_os("LAB_SOCKJS").and_then(|path| std::fs::read(path).ok());
            script.map(|script| typed(script.into(), "text/javascript; charset=utf-8"))
        })
}

fn every_transport(service: SockJs) -> SockJs {
    service.jsonp(true).htmlfile(true).iframe("/sockjs.js")
}

/// Closes at once.
struct Close;

impl Conversation for Close {
    type State = ();

    fn open(&self, client: &Client, _: &mut Request) -> Result<(), Response> {
        // It is open, and nobody else has closed it.
        let _ = client.close(3000, "Go away!");
        Ok(())
    }

    fn message(&self, _: &Client, (): &mut (), _: Incoming<'_>) {}

    fn save(&self, (): &()) -> Carried {
        Carried { version: 1, bytes: Vec::new() }
    }

    fn restore(&self, _: &Client, _: Carried) -> Option<()> {
        Some(())
    }
}

/// Tells everybody what one says.
struct Broadcast;

impl Conversation for Broadcast {
    type State = ();

    fn open(&self, client: &Client, _: &mut Request) -> Result<(), Response> {
        let subscribed = client.subscribe("all");
        subscribed.map_err(|error| (StatusCode(503), format!("{error}\n")).into_response())
    }

    fn message(&self, client: &Client, (): &mut (), message: Incoming<'_>) {
        // What is too long is heard by nobody.
        if let Some(text) = message.text() {
            let _ = client.publish("all", text);
        }
    }

    fn save(&self, (): &()) -> Carried {
        Carried { version: 1, bytes: Vec::new() }
    }

    fn restore(&self, _: &Client, _: Carried) -> Option<()> {
        Some(())
    }
}

/// Answers each message with how many there were.
struct Count;

impl Conversation for Count {
    type State = u64;

    fn open(&self, _: &Client, _: &mut Request) -> Result<u64, Response> {
        Ok(0)
    }

    fn message(&self, client: &Client, count: &mut u64, _: Incoming<'_>) {
        *count += 1;
        let _ = client.send(count.to_string());
    }

    fn save(&self, count: &u64) -> Carried {
        Carried { version: 1, bytes: count.to_le_bytes().to_vec() }
    }

    fn restore(&self, _: &Client, saved: Carried) -> Option<u64> {
        Some(u64::from_le_bytes(saved.bytes.try_into().ok()?))
    }
}

/// Has a thread of this process count, a number each 5 ms, wherever its client is by then, and closes it where it hears that
/// this is enough.
struct Thread;

impl Conversation for Thread {
    type State = ();

    fn open(&self, _: &Client, _: &mut Request) -> Result<(), Response> {
        Ok(())
    }

    fn message(&self, client: &Client, (): &mut (), message: Incoming<'_>) {
        if message != Incoming::Text("go") {
            let _ = client.close(4000, "enough");
            return;
        }
        let client = client.clone();
        thread::spawn(move || {
            let process = std::process::id();
            let mut numbers = 1_u64..;
            while numbers.next().is_some_and(|number| client.send(format!("{number} {process}")).is_ok()) {
                thread::sleep(Duration::from_millis(5));
            }
        });
    }

    fn save(&self, (): &()) -> Carried {
        Carried { version: 1, bytes: Vec::new() }
    }

    fn restore(&self, _: &Client, _: Carried) -> Option<()> {
        if let Some(path) = std::env::var_os("LAB_RESTORES_AFTER") {
            while !std::fs::exists(&path).unwrap_or(true) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Some(())
    }
}

/// What is carried over.
#[derive(Default)]
struct State {
    count: u64,
    ticks: u64,
    /// Of those that are published.
    published: u64,
    map: BTreeMap<String, String>,
}

impl State {
    /// A line for each key, behind the count.
    fn text(&self) -> String {
        let mut text = format!("{} {} {}\n", self.count, self.ticks, self.published);
        text.extend(self.map.iter().map(|(key, value)| format!("{key}={value}\n")));
        text
    }

    fn read(text: &str) -> State {
        let mut lines = text.lines();
        let mut numbers = lines.next().unwrap_or_default().split(' ').map(|number| number.parse().unwrap_or(0));
        let [count, ticks, published] = std::array::from_fn(|_| numbers.next().unwrap_or(0));
        let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        State { count, ticks, published, map: lines.filter_map(pair).collect() }
    }
}

/// Counts, ten times a second, and publishes each number.
fn tick(state: Shared, events: Namespace) -> impl Fn(&Background) {
    move |background| {
        while background.sleep(Duration::from_millis(100)) {
            let mut state = locked(&state);
            let number = state.published + 1;
            match events.publish("tick", number.to_string()) {
                Ok(_) => state.published = number,
                Err(error) => eprintln!("cannot publish a tick: {error}"),
            }
        }
    }
}

/// Counts, a hundred times a second, and appends each number to a file.
fn tick_into(state: Shared, path: OsString) -> impl Fn(&Background) {
    move |background| {
        while background.sleep(Duration::from_millis(10)) {
            let mut state = locked(&state);
            state.ticks += 1;
            let line = format!("{}\n", state.ticks);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
                eprintln!("cannot tick: {error}");
            }
        }
    }
}

type Shared = Arc<Mutex<State>>;

fn locked(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn counter(state: Shared) -> impl Fn(&mut Request) -> String {
    move |_| {
        let mut state = locked(&state);
        state.count += 1;
        format!("{}\n", state.count)
    }
}

fn value_of(state: Shared) -> impl Fn(&mut Request) -> Option<String> {
    move |request| locked(&state).map.get(request.param("key")?).cloned()
}

fn keep(state: Shared) -> impl Fn(&mut Request) -> Result<(StatusCode, &'static str), Refusal> {
    move |request| {
        let mut value = String::new();
        let refused = |error: io::Error| (StatusCode(400), format!("{error}\n"));
        request.as_reader().read_to_string(&mut value).map_err(refused)?;
        let key = request.param("key").unwrap_or_default().to_owned();
        if value.contains('\n') || key.contains(['=', '\n']) {
            return Err((StatusCode(400), "neither may have a line end, nor a key a `=`\n".to_owned()));
        }
        locked(&state).map.insert(key, value);
        Ok((StatusCode(201), ""))
    }
}

/// In which way this start is to go wrong, if it is.
fn trap() -> String {
    // What is come back to is the image that ran before there was a trap.
    let spared = [handover::CHECK_VARIABLE, "HANDOVER_CAME_BACK"].iter().any(|name| std::env::var_os(name).is_some());
    let path = std::env::var_os("LAB_TRAP").filter(|_| !spared);
    path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default().trim().to_owned()
}

fn fall_into(trap: &str) {
    match trap {
        "panic" => panic!("as the trap asks"),
        "exit" => std::process::exit(9),
        "elsewhere" => {
            std::env::set_current_dir("/").expect("a directory");
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
            std::process::exit(9);
        }
        "abort" => std::process::abort(),
        "memory" => drop(std::hint::black_box(Vec::<u8>::with_capacity(isize::MAX as usize))),
        // SAFETY: none; it is to crash.
        "segv" => _ = unsafe { std::ptr::without_provenance::<u8>(8).read_volatile() },
        "overflow" => _ = overflow(&[1; 4096]),
        "hang" => loop {
            thread::sleep(Duration::from_secs(1));
        },
        _ => {}
    }
}

/// Until the stack ends.
#[expect(unconditional_recursion)]
fn overflow(before: &[u8]) -> u64 {
    let more = [before[0]; 4096];
    std::hint::black_box(&more);
    overflow(&more) + u64::from(more[7])
}

fn routes(journal_path: Option<OsString>) -> Router {
    Router::new()
        .get("/hello", |_| "hello world")
        .get("/sleep/{ms}", sleep)
        .get("/bytes/{n}", bytes)
        .get("/stream/{chunks}/{ms}", stream)
        .post("/echo", echo)
        .max_body(ECHO_LIMIT)
        .post("/journal", move |request: &mut Request| journal(request, journal_path.as_ref()))
        .get("/pid", |_| {
            let text = format!("{{\"pid\":{},\"generation\":{}}}\n", std::process::id(), handover::generation());
            typed(text.into(), "application/json")
        })
        .get("/panic", |_| -> &'static str { panic!("as asked for") })
}

/// An answer for somebody who tries things by hand: what was wrong, in one line.
type Refusal = (StatusCode, String);

fn sleep(request: &mut Request) -> Result<String, Refusal> {
    let ms = number(request, "ms")?;
    thread::sleep(Duration::from_millis(ms));
    Ok(format!("slept {ms}\n"))
}

fn bytes(request: &mut Request) -> Result<Response, Refusal> {
    let n = number(request, "n")?;
    Ok(typed(Body::reader(io::repeat(b'x').take(n), Some(n)), "application/octet-stream"))
}

fn stream(request: &mut Request) -> Result<Response, Refusal> {
    let (chunks, ms) = (number(request, "chunks")?, number(request, "ms")?);
    let body = Body::stream(move |writer| {
        for chunk in 1..=chunks {
            if chunk > 1 {
                thread::sleep(Duration::from_millis(ms));
            }
            writeln!(writer, "chunk {chunk} of {chunks}")?;
            writer.flush()?;
        }
        Ok(())
    });
    Ok(typed(body, "text/plain; charset=utf-8"))
}

/// With a length it is sent back with that length. Without one, an unbuffered chunked body, it goes back chunked.
fn echo(request: &mut Request) -> Response {
    let length = request.body_length().map(|length| length as u64);
    typed(Body::reader(request.take_body(), length), "application/octet-stream")
}

/// An oracle for lost and doubled requests: a line in the file is a request that ran, an answer one that was
/// answered.
fn journal(request: &mut Request, path: Option<&OsString>) -> Result<Response, Refusal> {
    let failed = |what: String| (StatusCode(500), format!("{what}\n"));
    let path = path.ok_or_else(|| failed("LAB_JOURNAL is not set: start the lab with a file name there".into()))?;
    let mut line = request.body_bytes().map_err(|error| bad(format!("the body could not be read: {error}")))?;
    if line.is_empty() {
        return Err(bad("the body is empty: send a line for the journal"));
    }
    if line.contains(&b'\n') {
        return Err(bad("the body has a newline: send one line, without its end"));
    }
    line.push(b'\n');
    let file = OpenOptions::new().append(true).create(true).open(path);
    // One write, so that the lines of several workers and processes stay whole. Half a line would be a lie.
    match file.and_then(|mut file| file.write(&line)) {
        Ok(written) if written == line.len() => Ok(typed(line.into(), "text/plain; charset=utf-8")),
        Ok(written) => Err(failed(format!("only {written} of {} bytes went into {path:?}", line.len()))),
        Err(error) => Err(failed(format!("cannot append to {path:?}: {error}"))),
    }
}

/// Says what whoever asks can open here.
fn open(request: &mut Request) -> Result<Vec<u8>, Refusal> {
    let path = request.body_bytes().map_err(|error| bad(format!("the body could not be read: {error}")))?;
    let path = Path::new(OsStr::from_bytes(&path));
    let mut content = Vec::new();
    let opened = match request.query() {
        Some("write") => OpenOptions::new().write(true).create(true).truncate(false).open(path).map(drop),
        _ if path.is_dir() => std::fs::read_dir(path).map(drop),
        _ => std::fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut content).map(drop)),
    };
    opened.map(|()| content).map_err(|error| (StatusCode(403), format!("{error}\n")))
}

/// Digits only: the standard parser takes a `+`.
fn number(request: &Request, name: &str) -> Result<u64, Refusal> {
    let text = request.param(name).unwrap_or_default();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| bad(format!("{name} is {text:?}, allowed is a whole number, 0 to {}", u64::MAX)))
}

fn bad(what: impl Into<String>) -> Refusal {
    (StatusCode(400), what.into() + "\n")
}

fn typed(body: Body, content_type: &str) -> Response {
    let field = Header::from_bytes("Content-Type", content_type).expect("a valid field");
    body.into_response().with_header(field)
}
