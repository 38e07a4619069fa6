//! A WebSocket: parked until its client says something, somebody has something for it, or its time comes.
//!
//! A turn sends what waits, then hears what has come, until neither has anything. What a client says goes to the
//! application on this thread; so where others wait behind it for the same thread ([`Turn::is_delivery`]) it is only sent to,
//! and what has come waits for a turn of its own. A client that does not take what it is sent is not heard meanwhile.

use super::close_reason::CloseReason;
use super::closing::Expiry;
use super::context::WorkerContext;
use super::exchange::{Answer, End, Exchange};
use super::pace::{Pace, Window};
use super::shared::Shared;
use super::subscribed::{Blocked, messages, next_heartbeat};
use super::transport::Moved;
use super::turn::Turn;
use super::{Connection, Flow, State, close};
use crate::api::{Closed, Conversations, Converse, Framed, Listener, Side, topics_of};
use crate::clock::Millis;
use crate::lifecycle::state::{SavedFragments, SavedFrames, SavedSide, SavedWebSocket};
use http1::response::{HeadOptions, ResponseFraming, finish_head};
use pubsub::{Hub, Joined, Pulled, Subscription};
use std::mem;
use std::sync::Arc;
use std::time::Duration;
use websocket::{CloseCode, Decoder, Event, Frame, Limits, Message, SavedMessage};

/// A client that has been silent for so long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(25);
/// How long it has to answer that, or to close after it was told to.
const PATIENCE: Duration = Duration::from_secs(10);
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// The same where the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are sent together.
const BYTES: usize = 64 << 10;
/// What is shorter is sent as it is, whatever was agreed.
#[cfg(feature = "deflate")]
const COMPRESSED: usize = 128;
/// The client misses messages and can only be told by this.
const MISSED: u16 = 4001;
/// What let it listen is over.
const EXPIRED: u16 = 4002;

/// A WebSocket as it waits.
pub(super) struct Conversing {
    side: Side,
    decoder: Decoder,
    state: websocket::State,
    /// While it is not in a worker's hands, unless it was cut.
    pub(super) exchange: Option<Exchange>,
    pub(super) answer: Answer,
    /// While its client has to read before anything else.
    pub(super) blocked: Option<Box<Blocked>>,
    /// Whether a ping was sent and not answered.
    asked: bool,
    /// When to ask, or to go without what was asked for.
    due: Millis,
    /// What its end was, as far as it is known: what its client has said, or why it was failed.
    closed: Option<Box<Closed>>,
    /// It is to be closed for that reason by the next worker that has it.
    ends: Option<CloseReason>,
}

impl Conversing {
    /// Bytes that it keeps on the heap, itself included.
    pub(super) fn held(&self) -> usize {
        size_of::<Conversing>()
            + self.side.held()
            + self.decoder.held()
            + self.blocked.as_ref().map_or(0, |blocked| size_of::<Blocked>() + blocked.unsent.capacity())
            + self.exchange.as_ref().map_or(0, Exchange::held)
    }

    /// When something is due.
    pub(super) fn until(&self) -> Millis {
        // To whom nothing is said any more, neither of that can be.
        let said = match &self.side {
            _ if !self.state.may_send() => Millis::NEVER,
            Side::Listener(listener) => listener.beat.min(listener.expires),
            Side::Framed(framed) => framed.beat,
            Side::Talker(_) => Millis::NEVER,
        };
        self.due.min(said).min(self.wake_time())
    }

    fn listener(&self) -> Option<&Listener> {
        match &self.side {
            Side::Listener(listener) => Some(listener),
            Side::Talker(_) | Side::Framed(_) => None,
        }
    }

    /// Whether its messages are frames of SockJS.
    fn speaks_sockjs(&self) -> bool {
        matches!(self.side, Side::Framed(_))
    }

    fn unsent(&self) -> &[u8] {
        self.blocked.as_ref().map_or(&[], |blocked| &blocked.unsent)
    }

    /// The client has sent something: it is there.
    fn hears(&mut self, now: Millis) {
        if self.state.may_send() {
            self.asked = false;
            // On whole seconds, so that one wake serves many.
            self.due = Millis((now.after(SILENCE).0 / 1000 + 1) * 1000);
        }
    }

    /// Appends a close frame, unless one was sent, and waits for the client's.
    fn say_close(&mut self, out: &mut Vec<u8>, code: u16, reason: &str, now: Millis) {
        if self.speaks_sockjs() && self.state.may_send() {
            push_sockjs_close(out, CloseCode::new(code).unwrap_or(CloseCode::NORMAL), reason);
        }
        self.say_plain_close(out, code, reason, now);
    }

    /// The same without a word of SockJS, which its client does not speak.
    fn say_plain_close(&mut self, out: &mut Vec<u8>, code: u16, reason: &str, now: Millis) {
        let code = CloseCode::new(code).unwrap_or(CloseCode::NORMAL);
        if let Some(frame) = self.state.close(code, reason) {
            frame.push_to(out);
            self.shut();
            self.due = now.after(if code == CloseCode::RESTART { STOP_PATIENCE } else { CLOSE_PATIENCE });
            self.closed.get_or_insert_with(|| Box::new(Closed::new(code.get(), reason)));
        }
    }

    /// A close frame is sent, or stands behind all that is: the application is told so, and has no time of its own any more.
    fn shut(&self) {
        self.side.talker().into_iter().for_each(|talker| talker.inbox.shut());
    }

    /// What is known of its end.
    fn take_closed(&mut self) -> Closed {
        self.closed.take().map_or_else(Closed::lost, |closed| *closed)
    }

    /// What a process says for it that knows no WebSockets: its end.
    pub(super) fn last_words(&self) -> Vec<u8> {
        let mut words = self.unsent().to_vec();
        if self.state.may_send() {
            if self.speaks_sockjs() {
                push_sockjs_close(&mut words, CloseCode::RESTART, "");
            }
            Frame::Close(Some((CloseCode::RESTART, ""))).push_to(&mut words);
        }
        words
    }

    pub(super) fn line(&self) -> String {
        self.exchange.as_ref().map_or_else(String::new, |exchange| exchange.moved_line(self.answer))
    }

    /// What a talker's topics or a listener's have, and the cursor before that.
    fn pull(&mut self, joined: &mut Joined) -> (Pulled, u64) {
        match &mut self.side {
            Side::Listener(listener) => {
                let before = listener.subscription.cursor();
                (listener.subscription.pull(joined), before)
            }
            Side::Talker(talker) => talker.inbox.pull(joined),
            Side::Framed(framed) => framed.talker.inbox.pull(joined),
        }
    }

    fn go_back(&mut self, cursor: u64) {
        match &mut self.side {
            Side::Listener(listener) => listener.subscription.go_back(cursor),
            Side::Talker(talker) => talker.inbox.go_back(cursor),
            Side::Framed(framed) => framed.talker.inbox.go_back(cursor),
        }
    }

    /// What is for it alone, as much as is sent together. Answers whether there is more.
    fn take_messages(&mut self, work: &mut WorkerContext) -> bool {
        let Some(talker) = self.side.talker().cloned() else { return false };
        if self.speaks_sockjs() {
            let (mut texts, mut bytes) = (Vec::new(), 0);
            while bytes < BYTES
                && let Some(Message::Text(text)) = talker.inbox.take()
            {
                bytes += text.len();
                texts.push(text);
            }
            work.delivers(&mut self.answer, texts.len());
            push_sockjs(&mut work.out, sockjs::Frame::Messages(&texts));
            return bytes >= BYTES;
        }
        while work.out.len() < BYTES {
            let Some(message) = talker.inbox.take() else { return false };
            work.delivers(&mut self.answer, 1);
            if !(self.decoder.limits().deflate && push_compressed(work, &message)) {
                match &message {
                    Message::Text(text) => Frame::Text(text).push_to(&mut work.out),
                    Message::Binary(bytes) => Frame::Binary(bytes).push_to(&mut work.out),
                }
            }
        }
        true
    }
}

/// Appends a frame of SockJS; none for no messages.
fn push_sockjs(out: &mut Vec<u8>, frame: sockjs::Frame<'_>) {
    if !matches!(frame, sockjs::Frame::Messages([])) {
        Frame::Text(&frame.text()).push_to(out);
    }
}

/// What the client says with one message: itself, or what SockJS has in it.
fn messages_of(message: Message, one: &Conversing) -> Result<Vec<Message>, sockjs::Refusal> {
    if !one.speaks_sockjs() {
        return Ok(vec![message]);
    }
    let Message::Text(text) = message else { return Err(sockjs::Refusal::BrokenJson) };
    let limits = sockjs::payload::Limits { bytes: one.decoder.limits().max_message, ..Default::default() };
    let messages = sockjs::payload::websocket_message(&text, limits)?;
    Ok(messages.into_iter().map(Message::Text).collect())
}

/// Appends why it is closed, as clients of SockJS are told.
fn push_sockjs_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    let close = match code {
        CloseCode::RESTART => sockjs::Close::go_away(),
        code => sockjs::Close::new(code.get(), reason),
    };
    push_sockjs(out, sockjs::Frame::Close { code: close.code, reason: &close.reason });
}

/// Appends a message compressed, if that is shorter (RFC 7692 §6.1: a sender may choose for each).
#[cfg(feature = "deflate")]
fn push_compressed(work: &mut WorkerContext, message: &Message) -> bool {
    let (opcode, bytes) = match message {
        Message::Text(text) => (websocket::Opcode::Text, text.as_bytes()),
        Message::Binary(bytes) => (websocket::Opcode::Binary, &bytes[..]),
    };
    if bytes.len() < COMPRESSED {
        return false;
    }
    let mut compressed = Vec::new();
    work.deflater.get_or_insert_with(websocket::Deflater::new).deflate(bytes, &mut compressed);
    let shorter = compressed.len() < bytes.len();
    if shorter {
        work.out.extend_from_slice(&websocket::frame_header(opcode, true, compressed.len()));
        work.out.extend_from_slice(&compressed);
    }
    shorter
}

#[cfg(not(feature = "deflate"))]
fn push_compressed(_: &mut WorkerContext, _: &Message) -> bool {
    false
}

/// How far sending has come.
enum Said {
    /// All is out.
    All,
    /// The client has to read first.
    Blocked,
    /// It is the others' turn, and there is more.
    TurnOver,
    /// It has gone.
    Failed(CloseReason),
}

/// What hearing has brought.
enum Heard {
    /// Something that may have to be answered.
    Some,
    /// Nothing more has come.
    Nothing,
    /// Something has come for which a turn of its own is needed.
    Later,
    /// The client has gone, or somebody has cut what it said.
    Gone(CloseReason),
}

impl Connection {
    /// A response that is a WebSocket begins, its head not yet finished.
    pub(super) fn converse(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        converse: Converse,
        start: usize,
    ) -> Flow {
        let Converse { mut side, limits } = converse;
        let framing = ResponseFraming::Upgrade("websocket");
        finish_head(&mut work.out, &HeadOptions { framing, keep_alive: true, client_minor: 1 });
        work.answer.begins(101, work.out.len() - start);
        work.answer.delivers(0);
        if let Side::Framed(framed) = &mut side {
            push_sockjs(&mut work.out, sockjs::Frame::Open);
            framed.beat = next_heartbeat(work.now, framed.heartbeat, work.token);
        }
        work.answer.begins_to_last();
        let Some(exchange) = work.put_off_without_request() else { return close(CloseReason::Cut) };
        if let Side::Listener(listener) = &mut side {
            listener.beat = next_heartbeat(work.now, listener.heartbeat, work.token);
        }
        let (exchange, answer, blocked) = (Some(exchange), work.answer, None);
        let (decoder, state) = (Decoder::new(limits), websocket::State::Open);
        let mut conversing = Box::new(Conversing {
            side,
            decoder,
            state,
            exchange,
            answer,
            blocked,
            asked: false,
            due: Millis::NEVER,
            closed: None,
            ends: None,
        });
        conversing.hears(work.now);
        conversing.side.enter(work.token);
        self.serve_conversation(work, turn, conversing)
    }

    /// Sends what waits, hears what has come, and does what is due.
    pub(super) fn serve_conversation(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        mut one: Box<Conversing>,
    ) -> Flow {
        if let Some(reason) = one.ends {
            return self.leave_conversation(work, turn, one, reason);
        }
        loop {
            if let Err(reason) = self.keep_time(work, turn, &mut one) {
                return match reason {
                    Some(reason) => self.leave_conversation(work, turn, one, reason),
                    None => self.wait_to_converse(work, one, Flow::Requeue),
                };
            }
            match self.say(work, turn, &mut one) {
                Said::All => {}
                Said::Blocked => return self.wait_to_converse(work, one, Flow::Park),
                Said::TurnOver => {
                    turn.more = true;
                    return self.wait_to_converse(work, one, Flow::Park);
                }
                Said::Failed(reason) => return self.leave_conversation(work, turn, one, reason),
            }
            if one.state.is_over() {
                return self.end_conversation(work, turn, one);
            }
            match self.hear(work, turn, &mut one) {
                Heard::Some => {}
                Heard::Nothing => return self.wait_to_converse(work, one, Flow::Park),
                Heard::Later => return self.wait_to_converse(work, one, Flow::Requeue),
                Heard::Gone(reason) => return self.leave_conversation(work, turn, one, reason),
            }
        }
    }

    /// Does what is due. The error is an end, or that it needs a turn of its own.
    fn keep_time(
        &mut self,
        work: &mut WorkerContext,
        turn: &Turn<'_>,
        one: &mut Conversing,
    ) -> Result<(), Option<CloseReason>> {
        if let Some(talker) = one.side.talker().filter(|talker| talker.waits()).cloned() {
            if turn.is_delivery() {
                return Err(None);
            }
            let mut goes_on = false;
            let restores = || -> Result<(), ()> {
                goes_on = talker.restore();
                Ok(())
            };
            self.call(work, one, restores).map_err(Some)?;
            if !goes_on {
                // So that it comes back and begins anew.
                one.say_close(&mut work.out, CloseCode::RESTART.get(), "", work.now);
            }
        }
        if work.now >= one.due {
            let stops = work.shared.is_draining();
            match one.state {
                // What is asked for, or its close, stands behind what it has to read first: the window is its time.
                _ if one.blocked.is_some() && !stops => one.due = work.now.after(PATIENCE),
                // Its answer may be there: this server was late, and not the client.
                websocket::State::Open if one.asked && self.has_come() => one.due = work.now.after(PATIENCE),
                websocket::State::Open if !one.asked => {
                    Frame::Ping(b"").push_to(&mut work.out);
                    (one.asked, one.due) = (true, work.now.after(PATIENCE));
                }
                websocket::State::Open => return Err(Some(CloseReason::IdleTimeout)),
                // It was told to close, and has had its time.
                _ => return Err(Some(CloseReason::Finished)),
            }
        }
        if let Some(talker) = one.side.talker().filter(|_| one.wake_time() <= work.now).cloned() {
            if turn.is_delivery() {
                return Err(None);
            }
            if talker.inbox.take_wake(work.now.0) {
                self.call(work, one, || talker.wake()).map_err(Some)?;
            }
        }
        Ok(())
    }

    /// Whether something has come that was not heard yet.
    fn has_come(&self) -> bool {
        matches!(self.socket.peek(), Ok(Some(Moved::Bytes(_))))
    }

    /// Calls the application. What it does when it panics is the end of this client.
    fn call<E>(
        &self,
        work: &mut WorkerContext,
        one: &mut Conversing,
        what: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), CloseReason> {
        work.resume_exchange(one.exchange.take(), one.answer);
        work.begin_flight(&self.socket);
        // What it says to its own client is sent by this thread, in this turn or the next one.
        let outcome = match one.side.talker() {
            Some(talker) => talker.inbox.attended(what),
            None => what(),
        };
        let now = work.refresh_clock();
        one.exchange = work.put_off_exchange();
        if outcome.is_err() {
            work.shared.stats.panicked();
            one.say_close(&mut work.out, CloseCode::INTERNAL_ERROR.get(), "", now);
        }
        if one.exchange.is_some() { Ok(()) } else { Err(CloseReason::Cut) }
    }

    /// Sends what stands in the worker's buffer, and what waits.
    fn say(&self, work: &mut WorkerContext, turn: &mut Turn<'_>, one: &mut Conversing) -> Said {
        loop {
            let (mut window, mut was_blocked) = (Window::default(), false);
            if let Some(blocked) = one.blocked.take() {
                (window, was_blocked) = (blocked.window, true);
                let behind = mem::replace(&mut work.out, blocked.unsent);
                work.out.extend_from_slice(&behind);
            }
            let (mut more, mut before) = (false, None);
            work.joined.clear();
            if one.listener().is_some_and(|listener| work.now >= listener.expires) {
                one.say_close(&mut work.out, EXPIRED, "its time is over", work.now);
            }
            if one.state.may_send() {
                more = one.take_messages(work);
                let (pulled, cursor) = one.pull(&mut work.joined);
                before = Some(cursor);
                if one.speaks_sockjs() {
                    let texts: Vec<String> = work.joined.texts().collect();
                    push_sockjs(&mut work.out, sockjs::Frame::Messages(&texts));
                    work.delivers(&mut one.answer, texts.len());
                    work.joined.clear();
                    // One frame has all of them, and is kept as a whole.
                    before = None;
                }
                more |= pulled.more;
                if let Side::Listener(listener) = &mut one.side
                    && work.now >= listener.beat
                {
                    if !pulled.some {
                        listener.subscription.push_heartbeat(&mut work.out);
                    }
                    listener.beat = next_heartbeat(work.now, listener.heartbeat, work.token);
                }
                if let Side::Framed(framed) = &mut one.side
                    && work.now >= framed.beat
                {
                    if work.out.is_empty() {
                        push_sockjs(&mut work.out, sockjs::Frame::Heartbeat);
                    }
                    framed.beat = next_heartbeat(work.now, framed.heartbeat, work.token);
                }
                if pulled.gap {
                    work.joined.clear();
                    one.say_close(&mut work.out, MISSED, "messages are missing", work.now);
                }
            }
            let ahead = work.out.len();
            work.out.extend_from_slice(work.joined.bytes());
            if !more && one.state.may_send() {
                let asked = one.side.talker().and_then(|talker| talker.inbox.close_asked());
                if let Some((code, reason)) = asked {
                    one.say_close(&mut work.out, code, &reason, work.now);
                } else if work.shared.is_draining() || self.last {
                    one.say_close(&mut work.out, CloseCode::RESTART.get(), "", work.now);
                }
            }
            if work.out.is_empty() {
                return Said::All;
            }
            let sent = match self.socket.send(&work.out, false) {
                Ok(Moved::Bytes(sent)) => sent,
                Ok(Moved::WouldBlock) => 0,
                Ok(Moved::End) => return Said::Failed(CloseReason::Reset),
                Err(error) => return Said::Failed(CloseReason::from_error(&error)),
            };
            one.answer.sent(sent as u64);
            window.handed(sent as u64);
            turn.moved(sent as u64);
            if sent < work.out.len() {
                // Of what others have as well, what its client has no part of waits in the hub's log. A close frame stands
                // behind everything, so that everything before it is kept.
                let mut end = work.out.len();
                let mut delivered = messages(work.joined.ends());
                if one.state.may_send()
                    && let Some(before) = before
                {
                    let ends = work.joined.ends().iter().map(|end| (ahead + end.at, end.cursor));
                    let first = (ahead, before);
                    if let Some((cut, cursor)) = [first].into_iter().chain(ends).find(|(end, _)| *end > sent) {
                        end = cut;
                        one.go_back(cursor);
                        delivered = messages(work.joined.ends().iter().take_while(|end| ahead + end.at <= cut));
                    }
                }
                work.delivers(&mut one.answer, delivered);
                let unsent = work.out[sent..end].to_vec();
                work.out.clear();
                let (now, pace) = (work.refresh_clock(), Pace::of(&work.shared.limits));
                if window.wait(now, pace, || self.socket.unsent().unwrap_or(0)).is_none() {
                    self.socket.reset_on_close();
                    return Said::Failed(CloseReason::WriteTimeout);
                }
                one.blocked = Some(Box::new(Blocked { unsent, window }));
                return Said::Blocked;
            }
            work.delivers(&mut one.answer, messages(work.joined.ends()));
            work.out.clear();
            if was_blocked && one.asked && one.state.may_send() {
                one.due = work.now.after(PATIENCE);
            } else if was_blocked && !one.state.may_send() && !work.shared.is_draining() {
                one.due = work.now.after(CLOSE_PATIENCE);
            }
            if !more {
                return Said::All;
            }
            if turn.is_over() {
                return Said::TurnOver;
            }
        }
    }

    /// Hears what has come, as far as this is its turn.
    fn hear(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, one: &mut Conversing) -> Heard {
        loop {
            if work.input().is_empty() {
                match self.read(work, turn) {
                    Ok(Some(_)) => one.hears(work.now),
                    Ok(None) => return Heard::Nothing,
                    Err(reason) => return Heard::Gone(reason),
                }
            }
            // What the application does may take long.
            if (turn.is_delivery() && one.side.talker().is_some()) || turn.is_over() {
                return Heard::Later;
            }
            let event = match one.decoder.decode(work.input()) {
                Ok(step) => {
                    work.consume(step.consumed);
                    match step.event {
                        Some(event) => event,
                        None => continue,
                    }
                }
                Err(failure) => {
                    work.clear_input();
                    one.closed.get_or_insert_with(|| Box::new(Closed::new(failure.code().get(), failure.name())));
                    if let Some(frame) = one.state.fail(failure) {
                        frame.push_to(&mut work.out);
                    }
                    return Heard::Some;
                }
            };
            turn.request();
            if let Some(frame) = one.state.answer(&event) {
                frame.push_to(&mut work.out);
            }
            match (event, &one.side) {
                // It may have sent that before it saw the close.
                (Event::Message(_), _) if !one.state.may_send() => {}
                (Event::Message(_), Side::Listener(_)) => {
                    one.say_close(&mut work.out, CloseCode::POLICY.get(), "nothing is heard here", work.now);
                }
                (Event::Message(message), side @ (Side::Talker(_) | Side::Framed(_))) => {
                    let Some(talker) = side.talker().cloned() else { continue };
                    let messages = match messages_of(message, one) {
                        Ok(messages) => messages,
                        Err(refusal) => {
                            one.say_plain_close(&mut work.out, refusal.close_code(), refusal.text(), work.now);
                            Vec::new()
                        }
                    };
                    for message in messages {
                        if let Err(reason) = self.call(work, one, || talker.message(&message)) {
                            return Heard::Gone(reason);
                        }
                    }
                    // Before what is said of what the client sends next, be it the end.
                    if one.state.may_send() {
                        one.take_messages(work);
                    }
                }
                (Event::Close(said), _) => {
                    let said =
                        said.map_or_else(|| Closed::new(1005, ""), |said| Closed::new(said.code.get(), said.reason));
                    one.closed.get_or_insert_with(|| Box::new(said));
                }
                (Event::Ping(_) | Event::Pong(_), _) => {}
            }
            // What is answered together leaves together, but not late, and not so late that there is no room for it.
            let fills =
                work.out.len() >= BYTES / 4 || one.side.talker().is_some_and(|talker| talker.inbox.is_filling());
            if work.input().is_empty() || fills || !one.state.may_send() {
                return Heard::Some;
            }
        }
    }

    /// It waits: for its client, for what is for it, or for its time.
    fn wait_to_converse(&mut self, work: &mut WorkerContext, mut one: Box<Conversing>, flow: Flow) -> Flow {
        debug_assert!(one.exchange.is_some(), "who ends it ends that");
        debug_assert!(matches!(self.state, State::ReadingHead), "a state is left before another is entered");
        if !work.out.is_empty() {
            // It goes first in the next turn.
            let unsent = mem::take(&mut work.out);
            match &mut one.blocked {
                Some(blocked) => blocked.unsent.extend_from_slice(&unsent),
                none => *none = Blocked::new(unsent),
            }
        }
        self.state = State::Conversing(one);
        flow
    }

    /// Both sides have said that it ends, or the client was failed, and all is sent.
    fn end_conversation(&mut self, work: &mut WorkerContext, turn: &Turn<'_>, mut one: Box<Conversing>) -> Flow {
        if let Some(talker) = one.side.talker().cloned() {
            if turn.is_delivery() {
                return self.wait_to_converse(work, one, Flow::Requeue);
            }
            let closed = one.take_closed();
            if let Err(reason) = self.call(work, &mut one, || -> Result<(), ()> {
                talker.close(&closed);
                Ok(())
            }) {
                return close(reason);
            }
        }
        work.out.clear();
        work.resume_exchange(one.exchange.take(), one.answer);
        drop(one);
        self.begun = None;
        self.served += 1;
        work.end_exchange(End::Answered);
        // The server closes first (RFC 6455 §7.1.1), and its client gets to read why.
        self.socket.finish();
        work.clear_input();
        let reason = if work.shared.is_draining() { CloseReason::Stopping } else { CloseReason::Finished };
        self.start_linger(reason, &work.shared.limits, work.now);
        Flow::Continue
    }

    /// It is closed while its worker has it.
    fn leave_conversation(
        &mut self,
        work: &mut WorkerContext,
        turn: &Turn<'_>,
        mut one: Box<Conversing>,
        reason: CloseReason,
    ) -> Flow {
        work.out.clear();
        if let Some(talker) = one.side.talker().cloned() {
            if turn.is_delivery() && one.exchange.is_some() {
                one.ends = Some(reason);
                return self.wait_to_converse(work, one, Flow::Requeue);
            }
            let closed = one.take_closed();
            // Whoever has cut it has ended its exchange.
            let _ = self.call(work, &mut one, || -> Result<(), ()> {
                talker.close(&closed);
                Ok(())
            });
            work.out.clear();
        }
        work.resume_exchange(one.exchange.take(), one.answer);
        close(reason)
    }

    /// When its application wants to be woken, if it is a WebSocket that can be.
    pub fn wake_time(&self) -> Millis {
        match &self.state {
            State::Conversing(one) if one.blocked.is_none() => one.wake_time(),
            _ => Millis::NEVER,
        }
    }

    /// Whether its application has still to go on with it.
    pub fn waits_for_application(&self) -> bool {
        match &self.state {
            State::Conversing(one) => one.side.talker().is_some_and(|talker| talker.waits()),
            _ => false,
        }
    }

    /// Whether it is a WebSocket.
    pub fn converses(&self) -> bool {
        matches!(self.state, State::Conversing(_))
    }

    /// Its deadline has passed, on the acceptor.
    pub(super) fn expire_conversation(&mut self, shared: &Shared, now: Millis) -> Expiry {
        let State::Conversing(one) = &mut self.state else { return Expiry::Park };
        if shared.is_draining() || self.last {
            return self.end_conversation_at_once(shared, now);
        }
        if let Some(blocked) = &mut one.blocked {
            let pace = Pace::of(&shared.limits);
            if blocked.window.wait(now, pace, || self.socket.unsent().unwrap_or(0)).is_some() {
                return Expiry::Park;
            }
            self.socket.reset_on_close();
            one.ends = Some(CloseReason::WriteTimeout);
            return Expiry::Enqueue;
        }
        let wakes = one.side.talker().and_then(|talker| talker.inbox.wake_time()).is_some_and(|wake| wake <= now.0);
        if wakes { Expiry::Enqueue } else { Expiry::Deliver }
    }

    /// Says that the server starts again, and closes, for the thread that may not wait: what the client does not take of
    /// that is lost with it.
    pub(super) fn end_conversation_at_once(&mut self, shared: &Shared, now: Millis) -> Expiry {
        let State::Conversing(one) = &mut self.state else { return Expiry::Park };
        let sent = self.socket.answer_at_once(&one.last_words()).unwrap_or(0);
        one.answer.sent(sent);
        let (exchange, answer) = (one.exchange.take(), one.answer);
        if let Some(exchange) = exchange {
            self.end_waiting(exchange, answer, End::Closed(CloseReason::Stopping), shared, now);
        }
        self.begun = None;
        self.let_talker_go(shared, Some(Closed::new(CloseCode::RESTART.get(), "")));
        self.linger_now(CloseReason::Stopping, shared, now).0
    }

    /// Whoever closes it here is no worker: its application hears of that on one; `None`, and it goes on elsewhere.
    pub(super) fn let_talker_go(&mut self, shared: &Shared, closed: Option<Closed>) {
        if let State::Conversing(one) = &mut self.state
            && let Some(talker) = one.side.talker()
        {
            shared.conversations.has_ended(talker.clone(), closed);
        }
    }

    /// It is written down with what its application has saved meanwhile, and what has come for it.
    pub fn refresh(saved: &mut SavedWebSocket, shared: &Shared) {
        if let SavedSide::Talker(client) = &mut saved.side
            && let Some(talker) = shared.conversations.client(client.id)
        {
            **client = talker.saved();
        }
    }
}

/// A WebSocket as it is written down; `None` before anything was said.
pub(super) fn save(one: &Conversing) -> Option<SavedWebSocket> {
    let side = match &one.side {
        Side::Listener(listener) => {
            let saved = listener.subscription.save()?;
            let json = saved.form.json;
            SavedSide::Listener { subscription: saved.into(), json }
        }
        Side::Talker(talker) => SavedSide::Talker(Box::new(talker.saved())),
        Side::Framed(framed) => SavedSide::Talker(Box::new(framed.talker.saved())),
    };
    let (heartbeat, until) = match &one.side {
        Side::Listener(listener) => (listener.heartbeat, listener.expires),
        Side::Framed(framed) => (framed.heartbeat, Millis::NEVER),
        Side::Talker(_) => (0, Millis::NEVER),
    };
    let websocket::Saved { header, received, control, message, ended } = one.decoder.save();
    let message =
        message.map(|SavedMessage { text, compressed, payload }| SavedFragments { text, compressed, payload });
    Some(SavedWebSocket {
        decoder: SavedFrames { header, received, control, message, ended },
        unsent: one.unsent().to_vec(),
        asked: one.asked,
        close_sent: matches!(one.state, websocket::State::CloseSent),
        close_received: one.state.is_over(),
        due: one.due.0,
        heartbeat,
        until: until.0,
        deflate: one.decoder.limits().deflate,
        max_message: one.decoder.limits().max_message as u64,
        line: one.line(),
        side,
    })
}

/// A WebSocket that goes on, which began and was parked until then. One of which nobody here knows is closed, so that its client comes back.
pub(super) fn restore(
    saved: SavedWebSocket,
    (began, deadline): (Millis, Millis),
    hub: Option<&Hub>,
    conversations: &Arc<Conversations>,
) -> Result<Box<Conversing>, (Vec<u8>, Exchange)> {
    let SavedWebSocket { decoder, unsent, asked, close_sent, close_received, due, heartbeat, until, .. } = saved;
    let SavedWebSocket { deflate, max_message, line, side, .. } = saved;
    let sockjs = matches!(&side, SavedSide::Talker(client) if client.sockjs);
    let (exchange, mut answer) = Exchange::of_moved_line(began, line);
    answer.begins_to_last();
    // One whose messages are compressed has no place where nobody reads that.
    let hub = hub.filter(|_| cfg!(feature = "deflate") || !deflate);
    let had = Limits { max_message: max_message.try_into().unwrap_or(usize::MAX), deflate };
    // No later than what it was parked for; too early does no harm where there is one.
    let beat = if heartbeat > 0 { deadline } else { next_heartbeat(Millis::now(), 0, 0) };
    let side = hub.and_then(|hub| match side {
        SavedSide::Listener { subscription, json } => {
            let subscription = Subscription::restore(hub, topics_of(subscription, json))?;
            let expires = Millis(until);
            Some(Side::Listener(Box::new(Listener { subscription, heartbeat, beat, expires })))
        }
        SavedSide::Talker(client) => {
            let talker = conversations.restore(hub, *client)?;
            Some(if sockjs { Side::Framed(Box::new(Framed { talker, heartbeat, beat })) } else { Side::Talker(talker) })
        }
    });
    let SavedFrames { header, received, control, message, ended } = decoder;
    let message =
        message.map(|SavedFragments { text, compressed, payload }| SavedMessage { text, compressed, payload });
    let decoder = Decoder::restore(websocket::Saved { header, received, control, message, ended }, had);
    let state = match (close_received, close_sent) {
        (true, _) => websocket::State::CloseReceived,
        (false, true) => websocket::State::CloseSent,
        (false, false) => websocket::State::Open,
    };
    let (Some(side), Some(decoder)) = (side, decoder) else {
        let mut unsent = unsent;
        if state.may_send() {
            if sockjs {
                push_sockjs_close(&mut unsent, CloseCode::RESTART, "");
            }
            Frame::Close(Some((CloseCode::RESTART, ""))).push_to(&mut unsent);
        }
        return Err((unsent, exchange));
    };
    let one = Conversing {
        side,
        decoder,
        state,
        exchange: Some(exchange),
        answer,
        blocked: Blocked::new(unsent),
        asked,
        due: Millis(due),
        closed: None,
        ends: None,
    };
    if !state.may_send() {
        one.shut();
    }
    Ok(Box::new(one))
}

impl Conversing {
    /// When its application wants to be woken.
    pub(super) fn wake_time(&self) -> Millis {
        self.side.talker().and_then(|talker| talker.inbox.wake_time()).map_or(Millis::NEVER, Millis)
    }

    /// News reach it under that token from now on. Answers whether there is something to look at.
    pub(super) fn enter(&mut self, token: usize) -> bool {
        self.side.enter(token)
    }
}
