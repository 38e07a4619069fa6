//! axum on tokio's default runtime, a worker for each core; its Sse over a broadcast channel for each topic, as its
//! documentation and examples have it; and its WebSockets, that say what they hear or what is published.
//!
//! `/held` is for another peer: the origin that stands behind Pushpin.

use axum::Router;
use axum::extract::ws::{self, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{any, get};
use axum::serve::ListenerExt;
use futures_util::{Stream, StreamExt};
use std::collections::HashMap;
use std::convert::Infallible;
use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

#[derive(Default)]
struct Topics {
    senders: Mutex<HashMap<String, broadcast::Sender<Arc<Message>>>>,
    last: AtomicU64,
}

impl Topics {
    fn receiver(&self, topic: String) -> broadcast::Receiver<Arc<Message>> {
        let mut senders = self.senders.lock().expect("nobody panics with it");
        senders.entry(topic).or_insert_with(|| broadcast::channel(KEPT).0).subscribe()
    }
}

struct Message {
    id: u64,
    data: Utf8Bytes,
}

/// As many as the other servers keep of a topic, about.
const KEPT: usize = 128;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = env::args().nth(1).expect("ADDRESS");
    let app = Router::new()
        .route("/hello", get(|| async { "hello world" }))
        .route("/events/{topic}", get(subscribe).post(publish))
        .route("/held/{topic}", get(hold))
        .route("/ws/{topic}", any(subscribe_by_websocket))
        .route("/echo", any(echo))
        .with_state(Arc::new(Topics::default()));
    // As many as the kernel lets wait, like the others; tokio's own `bind` takes 128.
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address.parse().expect("HOST:PORT"))?;
    // As `axum::serve` documents it: a server without this may wait for delayed acknowledgements.
    let listener = socket.listen(4096)?.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await
}

async fn subscribe(
    State(topics): State<Arc<Topics>>,
    Path(topic): Path<String>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = BroadcastStream::new(topics.receiver(topic)).map(|received| {
        Ok(match received {
            Ok(message) => Event::default().id(message.id.to_string()).data(message.data.as_str()),
            Err(_) => Event::default().event("@gap").data("lagged"),
        })
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

async fn publish(State(topics): State<Arc<Topics>>, Path(topic): Path<String>, data: String) -> (StatusCode, String) {
    let id = topics.last.fetch_add(1, Ordering::Relaxed) + 1;
    let sender = topics.senders.lock().expect("nobody panics with it").get(&topic).cloned();
    let message = Arc::new(Message { id, data: data.into() });
    let subscribers = sender.map_or(0, |sender| sender.send(message).unwrap_or(0));
    (StatusCode::OK, format!("{{\"id\":{id},\"subscribers\":{subscribers}}}"))
}

/// What is published, until its client goes.
async fn subscribe_by_websocket(
    State(topics): State<Arc<Topics>>,
    Path(topic): Path<String>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let mut receiver = topics.receiver(topic);
    upgrade.on_upgrade(async move |mut socket: WebSocket| {
        loop {
            let sent = tokio::select! {
                received = receiver.recv() => match received {
                    Ok(message) => socket.send(ws::Message::Text(message.data.clone())).await,
                    // It is told by a close that something is missing.
                    Err(_) => return,
                },
                heard = socket.recv() => match heard {
                    Some(Ok(_)) => Ok(()),
                    _ => return,
                },
            };
            if sent.is_err() {
                return;
            }
        }
    })
}

/// What its client says.
async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket: WebSocket| {
        while let Some(Ok(message)) = socket.recv().await {
            let said = matches!(message, ws::Message::Text(_) | ws::Message::Binary(_));
            if said && socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// What Pushpin is told: hold this one, it gets what is published there.
async fn hold(Path(topic): Path<String>) -> ([(&'static str, String); 4], &'static str) {
    let fields = [
        ("content-type", "text/event-stream".to_owned()),
        ("grip-hold", "stream".to_owned()),
        ("grip-channel", topic),
        ("grip-keep-alive", ":\\n\\n; format=cstring; timeout=15".to_owned()),
    ];
    (fields, ":\n\n")
}
