//! A chat: rooms, names, who is here, and the last lines for who joins. Open it in two windows, and reload the server while
//! you type:
//!
//! ```text
//! cargo run --release --example chat -- --pid-file chat.pid
//! kill -HUP $(cat chat.pid)
//! ```
//!
//! Clients come by WebSocket (`/chat`) or by SockJS (`/sockjs`). What they say and hear is JSON: [`Asked`] and [`Told`].

use handover::{
    Background, Body, Carried, Client, Closed, Config, Conversation, Header, Hub, Incoming, IntoResponse, Namespace,
    Request, Response, Router, Server,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Characters of a name, of a person or a room.
const NAME: usize = 24;
/// Bytes of a line, and lines that a room keeps.
const TEXT: usize = 1000;
const LINES: usize = 50;
/// People in a room, and rooms. Those in which nobody is make place for new ones.
const PEOPLE: usize = 200;
const ROOMS: usize = 64;
/// So often everybody hears something. A page that hears nothing for much longer comes back.
const BEAT: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let (hub, chat) = (Hub::new(), Arc::new(Chat::default()));
    let service = hub.conversation("chat", chat.clone()).max_message(8 * TEXT);
    let router = Router::new()
        .get("/", |_| file("text/html; charset=utf-8", include_str!("chat/index.html")))
        .get("/sockjs.min.js", |_| file("text/javascript; charset=utf-8", include_str!("chat/sockjs.min.js")))
        .get("/chat", service.websocket())
        .mount_service("/sockjs", service.sockjs());
    let (saved, restored, topics) = (chat.clone(), chat.clone(), service.namespace());
    let server = Server::builder()
        .config(Config::from_args())
        .hub(&hub)
        .carry_over(move || saved.save_rooms(), move |rooms| restored.restore_rooms(rooms))
        .background("heartbeat", move |background| chat.beat(&topics, background))
        .service(router);
    handover::exit_code(server.build().and_then(Server::run))
}

fn file(content_type: &str, text: &'static str) -> Response {
    let field = Header::from_bytes("Content-Type", content_type).expect("a valid field");
    Body::from(text).into_response().with_header(field)
}

/// What a client says.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Asked {
    Join { room: String, name: String },
    Say { text: String },
}

/// What it hears.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Told<'a> {
    Welcome { name: &'a str, here: Vec<&'a String>, lines: &'a VecDeque<Line> },
    Said(&'a Line),
    Joined { name: &'a str },
    Left { name: &'a str },
    Refused { why: &'a str },
    Server { generation: u64, pid: u32 },
    Beat,
}

/// What somebody has said. No two lines of a room have the same time: so a page knows which it has.
#[derive(Serialize, Deserialize)]
struct Line {
    at: u64,
    name: String,
    text: String,
}

#[derive(Default)]
struct Chat {
    rooms: Mutex<BTreeMap<String, Room>>,
}

#[derive(Default, Serialize, Deserialize)]
struct Room {
    lines: VecDeque<Line>,
    here: BTreeMap<String, Seat>,
}

/// Whose a name is. A successor hears of it before the client has moved, and knows none at first.
#[derive(Default, Serialize, Deserialize)]
struct Seat {
    #[serde(skip)]
    client: Option<Client>,
}

/// Where a client is: its state.
#[derive(Serialize, Deserialize)]
struct Place {
    room: String,
    name: String,
}

impl Conversation for Chat {
    type State = Option<Place>;

    fn open(&self, _: &Client, _: &mut Request) -> Result<Option<Place>, Response> {
        Ok(None)
    }

    fn message(&self, client: &Client, place: &mut Option<Place>, message: Incoming<'_>) {
        let asked = serde_json::from_str(message.text().unwrap_or_default());
        let done = match (asked, &place) {
            (Ok(Asked::Join { room, name }), None) => self.join(client, room, name).map(|joined| *place = Some(joined)),
            (Ok(Asked::Say { text }), Some(place)) => self.say(client, place, text.trim_end()),
            _ => Err("join a room, then say something"),
        };
        if let Err(why) = done {
            tell(client, &Told::Refused { why });
        }
    }

    fn close(&self, client: &Client, place: Option<Place>, _: &Closed) {
        let Some(Place { room, name }) = place else { return };
        let mut rooms = self.rooms();
        let Some(Room { here, .. }) = rooms.get_mut(&room) else { return };
        // Somebody else may have the name by now.
        let is_its = |seat: &Seat| seat.client.as_ref().is_some_and(|other| other.id() == client.id());
        if here.get(&name).is_some_and(is_its) {
            here.remove(&name);
            let _ = client.publish(&room, json(&Told::Left { name: &name }));
        }
    }

    fn save(&self, place: &Option<Place>) -> Carried {
        Carried { version: 1, bytes: json(place).into_bytes() }
    }

    fn restore(&self, client: &Client, saved: Carried) -> Option<Option<Place>> {
        let place = serde_json::from_slice::<Option<Place>>(&saved.bytes).ok().filter(|_| saved.version == 1)?;
        if let Some(Place { room, name }) = &place {
            let seat = Seat { client: Some(client.clone()) };
            self.rooms().entry(room.clone()).or_default().here.insert(name.clone(), seat);
        }
        Some(place)
    }
}

impl Chat {
    fn rooms(&self) -> MutexGuard<'_, BTreeMap<String, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock as a whole: nothing is said between the lines that the client gets now and those that it hears later.
    fn join(&self, client: &Client, room: String, name: String) -> Result<Place, &'static str> {
        if !is_name(&room) || !is_name(&name) {
            return Err("a name has 1 to 24 letters, digits, spaces, dots, and - or _");
        }
        let mut rooms = self.rooms();
        if !rooms.contains_key(&room) && rooms.len() >= ROOMS {
            rooms.retain(|_, room| !room.here.is_empty());
        }
        if !rooms.contains_key(&room) && rooms.len() >= ROOMS {
            return Err("there are as many rooms as there may be");
        }
        let Room { here, lines } = rooms.entry(room.clone()).or_default();
        let holder = here.get(&name).and_then(|seat| seat.client.as_ref());
        if holder.is_some_and(|holder| !holder.is_closed()) {
            return Err("somebody here has that name");
        }
        if here.len() >= PEOPLE {
            return Err("this room is full");
        }
        let _ = client.publish(&room, json(&Told::Joined { name: &name }));
        client.subscribe(&room).map_err(|_| "you have gone")?;
        here.insert(name.clone(), Seat { client: Some(client.clone()) });
        tell(client, &Told::Welcome { name: &name, here: here.keys().collect(), lines });
        tell(client, &this_server());
        Ok(Place { room, name })
    }

    fn say(&self, client: &Client, Place { room, name }: &Place, text: &str) -> Result<(), &'static str> {
        if text.is_empty() || text.len() > TEXT || text.contains(|char: char| char.is_control() && char != '\n') {
            return Err("a line is text of 1 to 1000 bytes");
        }
        let mut rooms = self.rooms();
        let lines = &mut rooms.entry(room.clone()).or_default().lines;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let at = lines.back().map_or(now, |line| now.max(line.at + 1));
        let line = Line { at, name: name.clone(), text: text.to_owned() };
        client.publish(room, json(&Told::Said(&line))).map_err(|_| "nobody hears you just now")?;
        lines.push_back(line);
        lines.drain(..lines.len().saturating_sub(LINES));
        Ok(())
    }

    /// In the process that serves: says that it does, then tells everybody something now and then. Who is not there for that
    /// has left, as one whose connection was lost while it moved.
    fn beat(&self, topics: &Namespace, background: &Background) {
        let rooms: Vec<String> = self.rooms().keys().cloned().collect();
        rooms.iter().for_each(|room| _ = topics.publish(room, json(&this_server())));
        while background.sleep(BEAT) {
            for (room, Room { here, .. }) in self.rooms().iter_mut() {
                here.retain(|name, seat| {
                    let is_here = seat.client.as_ref().is_some_and(|client| tell(client, &Told::Beat));
                    if !is_here {
                        let _ = topics.publish(room, json(&Told::Left { name }));
                    }
                    is_here
                });
            }
        }
    }

    fn save_rooms(&self) -> Carried {
        Carried { version: 1, bytes: json(&*self.rooms()).into_bytes() }
    }

    /// Some clients may be here already, others follow.
    fn restore_rooms(&self, saved: Carried) {
        let read = serde_json::from_slice::<BTreeMap<String, Room>>(&saved.bytes).ok();
        for (name, Room { lines, here }) in read.filter(|_| saved.version == 1).into_iter().flatten() {
            let mut rooms = self.rooms();
            let room = rooms.entry(name).or_default();
            room.lines = lines;
            here.into_keys().for_each(|name| _ = room.here.entry(name).or_default());
        }
    }
}

/// One that does not take what it is told is told why, and closed.
fn tell(client: &Client, what: &Told<'_>) -> bool {
    let told = client.send(json(what)).is_ok();
    if !told {
        let _ = client.close(4000, "you read too slowly");
    }
    told
}

fn json(what: &impl Serialize) -> String {
    serde_json::to_string(what).expect("text and numbers")
}

fn this_server() -> Told<'static> {
    Told::Server { generation: handover::generation(), pid: std::process::id() }
}

fn is_name(name: &str) -> bool {
    let is_allowed = |char: char| char.is_alphanumeric() || " .-_".contains(char);
    (1..=NAME).contains(&name.chars().count()) && name.chars().all(is_allowed) && name.trim() == name
}
