//! Telling clients what happens, when it happens.
//!
//! A [`Hub`](crate::Hub) has topics. Clients subscribe by an event stream, a long poll or a WebSocket, at one URL; whoever
//! publishes does it by POST, or in the program. Subscribers hold no thread, and a reload moves them without a gap.
//!
//! ```
//! use handover::{Hub, Publishers, Request, Router, Server};
//! use std::io::{BufRead, BufReader, Write};
//!
//! let hub = Hub::new();
//! let news = hub.namespace("news").publishers(Publishers::Anyone);
//! let own = news.clone();
//! let router = Router::new()
//!     .mount_service("/events", news.service())
//!     .post("/weather", move |request: &mut Request| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!         own.publish("weather", request.body_bytes()?)?;
//!         Ok(())
//!     });
//!
//! let server = handover::test::Server::start(Server::builder().hub(&hub).service(router))?;
//! let mut stream = server.connect();
//! stream.write_all(b"GET /events/weather HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
//! let mut lines = BufReader::new(stream).lines().map(|line| line.expect("received"));
//! assert_eq!(lines.next().as_deref(), Some("HTTP/1.1 200 OK"));
//!
//! assert_eq!(server.post("/weather").body("rain").send().status(), 204);
//! assert!(lines.any(|line| line == "data: rain"));
//! # Ok::<(), handover::Error>(())
//! ```
//!
//! In a browser that is `new EventSource("/events/weather")`. After a lost connection it comes back with the last id that it
//! had, and gets what it has missed, or is told that this is no longer there.
//!
//! - What is kept is bounded, by number, age and memory: [`Namespace::history`](crate::Namespace::history) and the others.
//! - Who may do what: [`Subscribers`](crate::Subscribers), [`Publishers`](crate::Publishers), [`TokenKeys`](crate::TokenKeys).
//! - Pages of other origins are let in by [`origins`](crate::Namespace::origins).
//! - Clients that answer are for a [`Conversation`](crate::Conversation), by WebSocket or SockJS.
//!
//! Next: [`testing`](super::testing).
