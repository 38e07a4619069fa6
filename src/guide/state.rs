//! What handlers share, and how it goes through a reload.
//!
//! Handlers run on several threads at once, so what they share is behind an `Arc` and a lock, or is atomic. A lock is held for
//! what needs it, and not while a body is read: that waits for a client.
//!
//! ```
//! use handover::{Request, Router, Server, test::Client};
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, Mutex};
//!
//! type Notes = Arc<Mutex<BTreeMap<String, String>>>;
//!
//! fn routes(notes: &Notes) -> Router {
//!     let (read, written) = (notes.clone(), notes.clone());
//!     Router::new()
//!         .get("/notes/{name}", move |request: &mut Request| {
//!             read.lock().expect("nobody panics with it").get(request.param("name")?).cloned()
//!         })
//!         .put("/notes/{name}", move |request: &mut Request| -> std::io::Result<()> {
//!             let text = String::from_utf8_lossy(&request.body_bytes()?).into_owned();
//!             let name = request.param("name").unwrap_or_default().to_owned();
//!             written.lock().expect("nobody panics with it").insert(name, text);
//!             Ok(())
//!         })
//! }
//!
//! let notes = Notes::default();
//! let client = Client::new(routes(&notes));
//! client.put("/notes/milk").body("two bottles").send();
//! assert_eq!(client.get("/notes/milk").send().text(), "two bottles");
//!
//! let server = Server::builder().service(routes(&notes)).carry_over_json(&notes);
//! # let _ = server;
//! ```
//!
//! A reload runs the program afresh, and its memory is empty. [`carry_over_json`](crate::Builder::carry_over_json) hands the
//! state over at the moment when no handler runs: nobody sees it empty, and no write that was answered is lost. A field that
//! is new is `#[serde(default)]`. A program that cannot read what it gets does not take over; the old one goes on. There is one
//! state, which may have others in it, and as JSON it has up to 16 MiB: what grows without end belongs on a disk.
//!
//! [`carry_over`](crate::Builder::carry_over) is the same with bytes and a version of your own. Both are for what may be lost
//! in a crash: nothing is written to a disk.
//!
//! A thread beside the handlers, a sensor or a timer, is [`background`](crate::Builder::background). It runs in the process
//! that is the server, and in no other, so nothing is measured twice while a reload is on its way.
//!
//! ```
//! use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
//! use std::time::Duration;
//!
//! let ticks = Arc::new(AtomicU32::new(0));
//! let counted = ticks.clone();
//! let server = handover::Server::builder()
//!     .handler(move |_| format!("{}\n", ticks.load(Ordering::Relaxed)))
//!     .background("ticks", move |background| {
//!         while background.sleep(Duration::from_secs(1)) {
//!             counted.fetch_add(1, Ordering::Relaxed);
//!         }
//!     });
//! # let _ = server;
//! ```
//!
//! Next: [`push`](super::push).
