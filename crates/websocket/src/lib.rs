//! The server's side of WebSocket (RFC 6455) as bytes: no sockets, no clocks.
//!
//! A [`Decoder`] takes slices of any length and answers what it consumed and what it learned: a message, a ping, a close.
//! It can be written down at every byte ([`Saved`]) and goes on in another process. [`Frame`] writes what a server sends,
//! and [`State`] knows what is to be answered and when the connection is over. How one begins is a [`Handshake`].
//!
//! ```
//! use websocket::{Decoder, Event, Frame, Limits, Message, State};
//!
//! let mut decoder = Decoder::new(Limits { max_message: 65_536, deflate: false });
//! let mut state = State::Open;
//! let mut out = Vec::new();
//!
//! // "Hello" as a browser sends it, a ping, and a close: they come in whatever pieces.
//! let input = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x89\x80abcd\x88\x80abcd";
//! for piece in input.chunks(4) {
//!     let mut at = 0;
//!     while at < piece.len() {
//!         match decoder.decode(&piece[at..]) {
//!             Ok(step) => {
//!                 at += step.consumed;
//!                 let Some(event) = step.event else { continue };
//!                 if let Some(answer) = state.answer(&event) {
//!                     answer.push_to(&mut out);
//!                 }
//!                 if let Event::Message(Message::Text(text)) = event {
//!                     Frame::Text(&format!("{text} yourself")).push_to(&mut out);
//!                 }
//!             }
//!             Err(failure) => {
//!                 if let Some(close) = state.fail(failure) {
//!                     close.push_to(&mut out);
//!                 }
//!                 break;
//!             }
//!         }
//!     }
//! }
//! assert_eq!(out, b"\x81\x0eHello yourself\x8a\x00\x88\x00");
//! assert!(state.is_over());
//! ```

#![forbid(unsafe_code)]

mod decoder;
#[cfg(feature = "deflate")]
mod deflate;
mod extensions;
mod failure;
mod frame;
mod handshake;
#[cfg(any(test, fuzzing, feature = "invariants"))]
pub mod invariants;
mod mask;
mod state;

pub use decoder::{Close, Decoder, Event, Limits, Message, Saved, SavedMessage, Step};
#[cfg(feature = "deflate")]
pub use deflate::Deflater;
pub use failure::Failure;
pub use frame::{CONTROL_LIMIT, CloseCode, Frame, FrameHeader, Opcode, frame_header};
pub use handshake::{Accepted, Handshake, Offer, Refusal};
pub use state::State;
