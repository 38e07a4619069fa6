//! SockJS without sockets: its URLs, answers, frames and payloads, and a session that outlives its connections.
//!
//! What it is held against is the protocol's own suite, [sockjs-protocol](https://github.com/sockjs/sockjs-protocol), in its
//! main branch, and what sockjs-client 1.6 does. No I/O and no clock: requests and times arrive as arguments, and what is to
//! be written is a value.
//!
//! - [`route`] says what a method and a path ask for.
//! - [`Service`] answers whatever needs no session, and has the fields of what does.
//! - [`payload`] reads the messages that clients send.
//! - [`Session`] says what each receiver gets, in its [`Form`]. Times are monotonic milliseconds, sizes bytes.
//!
//! ```
//! use sockjs::payload::{Limits, xhr_send};
//! use sockjs::{Endpoint, Features, Form, Route, Session, Settings, Transport, route};
//!
//! // A client's first poll opens the session: the application hears of it, and the client gets its frame.
//! let Route::Session { endpoint, .. } = route("POST", "/000/x7/xhr", Features::default()) else { panic!() };
//! assert_eq!(endpoint, Endpoint::Receive(Transport::Xhr));
//! let mut session = Session::new(Settings::default(), 0);
//! let outcome = session.arrive(1, Form::new(Transport::Xhr, None)?, 0);
//! assert!(outcome.opened);
//! assert_eq!(outcome.writes[0].pieces, [b"o\n"]);
//! assert!(outcome.writes[0].ends);
//! session.written(1, 10);
//!
//! // It sends something, the application answers, and the next poll takes that away.
//! let messages = session.receive(xhr_send(br#"["hello"]"#, Limits::default())?)?;
//! session.send(format!("{} to you", messages[0]))?;
//! assert!(session.flush(20).writes.is_empty());
//! let outcome = session.arrive(2, Form::Xhr, 30);
//! assert_eq!(outcome.writes[0].pieces, [b"a[\"hello to you\"]\n"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod frame;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
pub mod payload;
mod refusal;
mod route;
mod saved;
mod session;
mod transport;

pub use answer::{Answer, Asked, Field, Origins, Service, check_upgrade};
pub use frame::{Frame, quote};
pub use refusal::Refusal;
pub use route::{Endpoint, Features, Route, SESSION_ID, route};
pub use saved::{BadSaved, Saved, SavedForm, SavedReceiver, SavedSession, SavedState};
pub use session::{Close, Outcome, REASON, SendError, Session, Settings, Write};
pub use transport::{Callback, Form, Transport};
