//! Push over HTTP: what an application publishes to and subscribes from ([`Hub`], [`Namespace`]), and the handler that
//! clients speak to.
//!
//! - `hub` is what an application has.
//! - `service` answers requests: it publishes, lists, and makes subscriptions, of which the engine takes care.
//! - `subscribe` lets an application's own handler make one.
//! - `conversation` is for clients that answer: what an application does for them, and the handshake of their WebSockets.
//! - `sockjs` has those come who have no WebSocket.
//! - `question` reads what a client asks for: topics, where to begin, in which form.
//! - `access` says who may, and by which token; `token` reads and makes those, and `token_keys` has the keys and their file.
//! - `origin` says which pages may read, and which clients are of this host.
//! - `bus` is what messages go through where several hosts serve them.
//! - `history` is the log as a file, from one start to the next.

mod access;
#[cfg_attr(not(feature = "redis"), path = "no_bus.rs")]
pub(crate) mod bus;
mod conversation;
pub mod history;
mod hub;
mod origin;
mod question;
mod service;
mod sockjs;
mod subscribe;
mod token;
mod token_keys;

pub(crate) use access::bearer;
pub use conversation::{Client, ClientId, Conversation, ConversationService, Incoming, Outgoing, SubscribeError};
pub(crate) use hub::new_epoch;
pub use hub::{Hub, Namespace, Publishers, Subscribers};
pub(crate) use origin::is_local;
pub use pubsub::{BadEvent, BadTopic, Message, Position, PublishError, SendError, TopicFigures};
pub use sockjs::SockJs;
pub use subscribe::Subscribe;
pub use token::Token;
pub use token_keys::TokenKeys;
