//! What is wrong with a request, as clients are told.

use std::fmt;

/// Why a request is refused. It is displayed as the body of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no body, or it is JSON but no array of strings.
    PayloadExpected,
    /// The body is no JSON, or no UTF-8.
    BrokenJson,
    /// The body has more bytes than allowed.
    TooLarge,
    /// There are more messages than allowed.
    TooManyMessages,
    /// A transport that calls a function, and no name of one.
    CallbackRequired,
    /// That name has what could be more than a name.
    InvalidCallback,
    /// A WebSocket without `Upgrade: websocket`.
    NoUpgrade,
    /// A WebSocket without `Connection: Upgrade`; a proxy may have changed it.
    NotConnected,
    /// No session has that id: it never had, or has it no longer.
    UnknownSession,
}

impl Refusal {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            // What SockJS asks for; RFC 9110 would have 400.
            Refusal::PayloadExpected | Refusal::BrokenJson | Refusal::CallbackRequired | Refusal::InvalidCallback => {
                500
            }
            Refusal::TooLarge | Refusal::TooManyMessages => 413,
            Refusal::NoUpgrade | Refusal::NotConnected => 400,
            Refusal::UnknownSession => 404,
        }
    }

    /// With which code a WebSocket is closed for it (RFC 6455 §7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Refusal::PayloadExpected | Refusal::BrokenJson => 1007,
            Refusal::TooLarge | Refusal::TooManyMessages => 1009,
            _ => 1008,
        }
    }

    /// The body of the answer.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::PayloadExpected => "Payload expected.",
            Refusal::BrokenJson => "Broken JSON encoding.",
            Refusal::TooLarge => "Payload too large.",
            Refusal::TooManyMessages => "Too many messages.",
            Refusal::CallbackRequired => "\"callback\" parameter required",
            Refusal::InvalidCallback => "invalid \"callback\" parameter",
            Refusal::NoUpgrade => "Can \"Upgrade\" only to \"WebSocket\".",
            Refusal::NotConnected => "\"Connection\" must be \"Upgrade\".",
            Refusal::UnknownSession => "Unknown session.",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Refusal {}
