//! How far the close of a connection has come (RFC 6455 §7), and so what is answered.

use crate::{CloseCode, Event, Failure, Frame};

/// Where a connection stands. What it answers with is to be sent; behind a close frame nothing is.
///
/// ```
/// use websocket::{Close, CloseCode, Event, Frame, State};
///
/// // A server stops: it says so, and waits for the answer.
/// let mut state = State::Open;
/// let close = state.close(CloseCode::GOING_AWAY, "");
/// assert_eq!(close, Some(Frame::Close(Some((CloseCode::GOING_AWAY, "")))));
/// assert!(!state.may_send() && !state.is_over());
///
/// let answer = Event::Close(Some(Close { code: CloseCode::GOING_AWAY, reason: String::new() }));
/// assert_eq!(state.answer(&answer), None);
/// assert!(state.is_over());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Messages go both ways.
    #[default]
    Open,
    /// A close frame was sent, and the client's is waited for. Its messages still come: it may have sent them before it
    /// saw the close.
    CloseSent,
    /// The client's close frame has come, and was answered unless it is the answer itself. The server closes the
    /// connection, as soon as what it had to send is sent (RFC 6455 §7.1.1).
    CloseReceived,
    /// The client has broken the protocol. Nothing more is read, and no close frame waited for (RFC 6455 §7.1.7).
    Failed,
}

impl State {
    /// Whether messages may be sent: nothing follows a close frame (RFC 6455 §5.5.1).
    pub fn may_send(self) -> bool {
        self == State::Open
    }

    /// Whether nothing more is waited for: the connection is closed when all is sent.
    pub fn is_over(self) -> bool {
        matches!(self, State::CloseReceived | State::Failed)
    }

    /// What has to be sent because of this: a pong for a ping, with the same payload (RFC 6455 §5.5.3), and for a close
    /// its own status (RFC 6455 §5.5.1), unless a close frame was sent already.
    pub fn answer<'e>(&mut self, event: &'e Event) -> Option<Frame<'e>> {
        let answer = match (*self, event) {
            (State::Open, Event::Ping(payload)) => Some(Frame::Pong(payload)),
            // The status comes back, the reason does not: it is the client's own.
            (State::Open, Event::Close(close)) => Some(Frame::Close(close.as_ref().map(|close| (close.code, "")))),
            _ => None,
        };
        if matches!(event, Event::Close(_)) && *self != State::Failed {
            *self = State::CloseReceived;
        }
        answer
    }

    /// The close frame of a server that ends the connection; `None` if there is nothing to be sent any more.
    pub fn close<'r>(&mut self, code: CloseCode, reason: &'r str) -> Option<Frame<'r>> {
        let open = self.may_send();
        if open {
            *self = State::CloseSent;
        }
        open.then_some(Frame::Close(Some((code, reason))))
    }

    /// The close frame that tells a client why it is failed; `None` if one was sent already.
    pub fn fail(&mut self, failure: Failure) -> Option<Frame<'static>> {
        let open = self.may_send();
        *self = State::Failed;
        open.then_some(Frame::Close(Some((failure.code(), failure.name()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Close, Message};

    fn closing(code: Option<u16>) -> Event {
        Event::Close(code.and_then(CloseCode::new).map(|code| Close { code, reason: "why".to_owned() }))
    }

    #[test]
    fn a_ping_is_answered_while_the_connection_is_open() {
        let ping = Event::Ping(b"x".to_vec());
        let mut state = State::Open;
        assert_eq!(state.answer(&ping), Some(Frame::Pong(b"x")));
        state.close(CloseCode::NORMAL, "");
        assert_eq!((state.answer(&ping), state), (None, State::CloseSent));
        for event in [Event::Pong(Vec::new()), Event::Message(Message::Binary(Vec::new()))] {
            let mut state = State::Open;
            assert_eq!((state.answer(&event), state), (None, State::Open));
        }
    }

    #[test]
    fn a_close_is_answered_once_with_its_own_status() {
        let mut state = State::Open;
        assert_eq!(state.answer(&closing(Some(4001))), CloseCode::new(4001).map(|code| Frame::Close(Some((code, "")))));
        assert_eq!((state, state.answer(&closing(Some(4001)))), (State::CloseReceived, None));
        assert_eq!((state.close(CloseCode::NORMAL, ""), state.fail(Failure::BadUtf8)), (None, None));
        let mut state = State::Open;
        assert_eq!(state.answer(&closing(None)), Some(Frame::Close(None)));
    }

    #[test]
    fn who_fails_behind_a_close_hears_nothing_more() {
        let mut state = State::Open;
        assert!(state.close(CloseCode::NORMAL, "").is_some() && state.close(CloseCode::NORMAL, "").is_none());
        assert_eq!((state.fail(Failure::Unmasked), state), (None, State::Failed));
        assert!(state.is_over() && state.answer(&closing(None)).is_none() && state == State::Failed);
        let mut state = State::Open;
        let close = Frame::Close(Some((CloseCode::PROTOCOL_ERROR, "frame without a mask")));
        assert_eq!(state.fail(Failure::Unmasked), Some(close));
    }
}
