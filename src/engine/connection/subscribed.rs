//! A subscriber: parked until the hub has something for it, and then as long as it takes to send that.
//!
//! A turn sends what lies behind its cursor, joined, and parks again. Where the client takes only a part, the event in
//! progress is kept and the cursor stands behind it: what follows waits in the hub's log, and not here. One that waits for
//! its client to read is not woken by the hub. What the client sends meanwhile stays in the socket: it is its next request,
//! if this response ends.

use super::close_reason::CloseReason;
use super::closing::Expiry;
use super::context::WorkerContext;
use super::exchange::{self, Answer, Exchange};
use super::pace::{Pace, Window};
use super::respond::remove_date;
use super::shared::Shared;
use super::stream::SharedBody;
use super::transport::Moved;
use super::turn::Turn;
use super::writing::{After, ResponseBody, Writing};
use super::{Connection, Flow, State, close};
use crate::api::Subscribe;
use crate::clock::{DateCache, Millis};
use http1::response::{HeadOptions, ResponseFraming, finish_head};
use pubsub::{End, Form, Pulled, Subscription};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// As good as never, and still near enough for a deadline.
const LONG: Duration = Duration::from_secs(20 * 24 * 60 * 60);
/// Between what the ends of two streams tell their clients to wait, in milliseconds: all at once would be a stampede.
const RETRIES: std::ops::Range<u32> = 1000..5000;

/// A subscriber as it waits.
pub(super) struct Subscribed {
    pub(super) subscription: Subscription,
    /// While it is not in a worker's hands, unless it was cut.
    pub(super) exchange: Option<Exchange>,
    pub(super) answer: Answer,
    /// While its client has to read before anything else.
    pub(super) blocked: Option<Box<Blocked>>,
    /// Seconds between heartbeats; 0 for none.
    pub(super) heartbeat: u16,
    /// Of a stream the next heartbeat; of a poll when it is answered in any case.
    pub(super) until: Millis,
    /// When a stream ends whatever there is to be heard.
    pub(super) ends: Millis,
    /// The head of a poll's answer, as far as it is known.
    pub(super) head: Box<[u8]>,
    /// Whether the connection may live on behind it.
    pub(super) keep_alive: bool,
    /// The minor version that the client speaks.
    pub(super) minor: u8,
}

/// What a client has to take that does not read fast enough.
#[derive(Default)]
pub(super) struct Blocked {
    /// Of an event that it has a part of.
    pub(super) unsent: Vec<u8>,
    /// In which it has to take its share of that.
    pub(super) window: Window,
}

impl Blocked {
    /// If there is anything.
    pub(super) fn new(unsent: Vec<u8>) -> Option<Box<Blocked>> {
        (!unsent.is_empty()).then(|| Box::new(Blocked { unsent, ..Blocked::default() }))
    }
}

impl Subscribed {
    /// Bytes that it keeps on the heap, itself included.
    pub(super) fn held(&self) -> usize {
        size_of::<Subscribed>()
            + self.subscription.held()
            + self.blocked.as_ref().map_or(0, |blocked| size_of::<Blocked>() + blocked.unsent.capacity())
            + self.head.len()
            + self.exchange.as_ref().map_or(0, Exchange::held)
    }

    /// Method and target of what it answers.
    pub(super) fn line(&self) -> String {
        self.exchange.as_ref().map_or_else(String::new, |exchange| exchange.moved_line(self.answer))
    }

    /// What a process says for it that knows no subscribers: its end.
    pub(super) fn last_words(&self) -> Vec<u8> {
        let mut words = self.unsent().to_vec();
        let answer = self.subscription.empty_answer();
        push_end(&mut words, self.subscription.form(), &self.head, self.minor, &answer);
        words
    }

    /// Whether it may hear nothing more: a stream that has begun, whose time is over.
    fn is_over(&self, now: Millis) -> bool {
        now >= self.ends && self.subscription.has_begun()
    }

    /// Whether its client has to read before it can go on.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Of an event that the client has a part of.
    pub(super) fn unsent(&self) -> &[u8] {
        self.blocked.as_ref().map_or(&[], |blocked| &blocked.unsent)
    }
}

/// How many messages these events have.
pub(super) fn messages<'e>(ends: impl IntoIterator<Item = &'e End>) -> usize {
    ends.into_iter().map(|end| end.messages as usize).sum()
}

/// When the next heartbeat is due: on a whole second, so that one wake serves all of that second, and each connection on
/// its own ones, or those that came together would be due together for ever.
pub(super) fn next_heartbeat(now: Millis, heartbeat: u16, token: usize) -> Millis {
    if heartbeat == 0 {
        return now.after(LONG);
    }
    let (period, second) = (u64::from(heartbeat), now.0 / 1000 + 1);
    let phase = token as u64 % period;
    let wait = (period + phase - second % period) % period;
    Millis((second + wait) * 1000)
}

/// Until when a client is to stay away, in milliseconds: another time for each.
fn retry(token: usize, now: Millis) -> u32 {
    let mixed = (token as u64 ^ now.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    RETRIES.start + (mixed % u64::from(RETRIES.end - RETRIES.start)) as u32
}

impl Connection {
    /// A response whose body is a subscription begins, its head not yet finished. Whoever has it here is told of news from
    /// now on.
    pub(super) fn subscribe(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        subscribe: Subscribe,
        body: Option<SharedBody>,
        keep_alive: bool,
    ) -> Flow {
        let Subscribe { mut subscription, heartbeat, wait, lasts } = subscribe;
        let minor = work.request.head().0.minor;
        let poll = subscription.form().poll;
        // What is left of a body that nobody reads any more stands in the way of a next request.
        let keep_alive = keep_alive && body.is_none();
        let (now, mut head) = (work.now, Vec::new());
        if poll {
            head = std::mem::take(&mut work.out);
            // It is said when it is answered.
            remove_date(&mut head);
        } else {
            let framing = if minor == 0 { ResponseFraming::Close } else { ResponseFraming::Chunked };
            let keep_alive = keep_alive && minor > 0;
            finish_head(&mut work.out, &HeadOptions { framing, keep_alive, client_minor: minor });
            work.answer.begins(200, work.out.len());
            subscription = subscription.chunked(minor > 0);
        }
        subscription.enter(work.token);
        work.answer.begins_to_last();
        let Some(exchange) = work.put_off_without_request() else { return close(CloseReason::Cut) };
        work.answer.delivers(0);
        let ends = lasts.map_or(Millis::NEVER, |lasts| now.after(lasts));
        let until = if poll { now.after(wait).min(ends) } else { next_heartbeat(now, heartbeat, work.token) };
        let subscribed = Subscribed {
            subscription,
            exchange: Some(exchange),
            answer: work.answer,
            // A head is in the worker's buffer, and leaves with what is behind it.
            blocked: None,
            heartbeat,
            until,
            ends,
            head: head.into(),
            keep_alive,
            minor,
        };
        self.serve_subscriber(work, turn, Box::new(subscribed))
    }

    /// What the hub has for it, and what is due.
    pub(super) fn serve_subscriber(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        mut subscribed: Box<Subscribed>,
    ) -> Flow {
        if !subscribed.subscription.has_entered() {
            subscribed.subscription.enter(work.token);
        }
        if subscribed.subscription.form().poll {
            return self.serve_poll(work, turn, subscribed);
        }
        loop {
            // What its client has a part of is finished, and nothing else begins.
            let over = subscribed.is_over(work.now);
            let mut window = Window::default();
            if let Some(blocked) = subscribed.blocked.take() {
                window = blocked.window;
                work.out.extend_from_slice(&blocked.unsent);
            }
            // A head is one with the opening behind it, which is not said twice.
            let mut first = Some(subscribed.subscription.cursor()).filter(|_| subscribed.subscription.has_begun());
            let pulled = if over { Pulled::default() } else { subscribed.subscription.pull(&mut work.joined) };
            let (joined, ends) = if over { (&[][..], &[][..]) } else { (work.joined.bytes(), work.joined.ends()) };
            let messages_until = |at| messages(ends.iter().take_while(|end| end.at <= at));
            if work.now >= subscribed.until && !over {
                if !pulled.some && work.out.is_empty() {
                    subscribed.subscription.push_heartbeat(&mut work.out);
                    first = Some(subscribed.subscription.cursor());
                }
                subscribed.until = next_heartbeat(work.now, subscribed.heartbeat, work.token);
            }
            let ahead = work.out.len();
            if ahead > 0 {
                work.out.extend_from_slice(joined);
            }
            let bytes = if ahead > 0 { &work.out[..] } else { joined };
            if bytes.is_empty() {
                break;
            }
            let sent = match self.socket.send(bytes, false) {
                Ok(Moved::Bytes(sent)) => sent,
                Ok(Moved::WouldBlock) => 0,
                Ok(Moved::End) => return self.leave(work, *subscribed, CloseReason::Reset),
                Err(error) => return self.leave(work, *subscribed, CloseReason::from_error(&error)),
            };
            subscribed.answer.sent(sent as u64);
            window.handed(sent as u64);
            turn.moved(sent as u64);
            if sent < bytes.len() {
                // The event in progress is kept, and the cursor stands behind it.
                let first = first.map(|cursor| (ahead, cursor));
                let joined = ends.iter().map(|end| (ahead + end.at, end.cursor));
                let in_progress = first.into_iter().chain(joined).find(|(end, _)| *end > sent);
                debug_assert!(in_progress.is_some(), "every byte is of an event");
                let (end, cursor) = in_progress.unwrap_or((bytes.len(), subscribed.subscription.cursor()));
                subscribed.subscription.go_back(cursor);
                work.delivers(&mut subscribed.answer, messages_until(end.saturating_sub(ahead)));
                let unsent = bytes[sent..end].to_vec();
                work.out.clear();
                let (now, pace) = (work.refresh_clock(), Pace::of(&work.shared.limits));
                if window.wait(now, pace, || self.socket.unsent().unwrap_or(0)).is_none() {
                    self.socket.reset_on_close();
                    return self.leave(work, *subscribed, CloseReason::WriteTimeout);
                }
                subscribed.blocked = Some(Box::new(Blocked { unsent, window }));
                self.wait_for_news(subscribed);
                return Flow::Park;
            }
            work.delivers(&mut subscribed.answer, messages(ends));
            work.out.clear();
            if !pulled.more {
                break;
            }
            if turn.is_over() {
                turn.more = true;
                self.wait_for_news(subscribed);
                return Flow::Park;
            }
        }
        if turn.peer_closed {
            return self.leave(work, *subscribed, CloseReason::PeerClosed);
        }
        let over = subscribed.is_over(work.now);
        if over || work.shared.is_draining() || self.last {
            // One that began in the last moment ends as all others do, and so does one whose time is over.
            let reason = if over { CloseReason::Finished } else { CloseReason::Stopping };
            let retry = retry(work.token, work.now);
            subscribed.subscription.push_farewell(&mut work.out, retry);
            work.resume_exchange(subscribed.exchange.take(), subscribed.answer);
            drop(subscribed);
            return self.write(work, turn, Writing::new(ResponseBody::None, After::Linger(reason)));
        }
        self.wait_for_news(subscribed);
        Flow::Park
    }

    /// Answers a poll if there is something to say, or if it has waited for as long as it wants.
    fn serve_poll(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, mut subscribed: Box<Subscribed>) -> Flow {
        // A client that has said all that it has to say may still read.
        let ends = work.now >= subscribed.until || work.shared.is_draining() || self.last || turn.peer_closed;
        let Some((answer, messages)) = subscribed.subscription.answer(ends) else {
            self.wait_for_news(subscribed);
            return Flow::Park;
        };
        work.delivers(&mut subscribed.answer, messages);
        work.resume_exchange(subscribed.exchange.take(), subscribed.answer);
        let keep_alive = subscribed.keep_alive && work.shared.keeps_connections() && !self.last;
        work.out.extend_from_slice(&subscribed.head);
        work.out.extend_from_slice(work.date.field());
        let framing = ResponseFraming::Length(answer.len() as u64);
        finish_head(&mut work.out, &HeadOptions { framing, keep_alive, client_minor: subscribed.minor });
        work.answer.begins(200, work.out.len());
        work.out.extend_from_slice(&answer);
        drop(subscribed);
        turn.request();
        let after = if keep_alive { After::Head } else { After::Linger(CloseReason::Finished) };
        self.write(work, turn, Writing::new(ResponseBody::None, after))
    }

    /// It is closed while its worker has it.
    fn leave(&mut self, work: &mut WorkerContext, subscribed: Subscribed, reason: CloseReason) -> Flow {
        work.out.clear();
        work.resume_exchange(subscribed.exchange, subscribed.answer);
        close(reason)
    }

    /// A subscriber waits: for news, for its client, or for its time.
    fn wait_for_news(&mut self, subscribed: Box<Subscribed>) {
        debug_assert!(subscribed.exchange.is_some(), "who ends it ends that");
        debug_assert!(subscribed.subscription.has_entered(), "nobody would wake it");
        debug_assert!(!subscribed.is_blocked() || !subscribed.unsent().is_empty(), "it waits to send something");
        debug_assert!(matches!(self.state, State::ReadingHead), "a state is left before another is entered");
        self.state = State::Subscribed(subscribed);
    }

    /// Whether it is a subscriber, a WebSocket or a session's: what another thread has something for.
    pub fn is_subscribed(&self) -> bool {
        matches!(self.state, State::Subscribed(_) | State::Conversing(_) | State::Attached(_))
    }

    /// From here on news reach it under that token. Answers whether there is some.
    pub fn enter_hub(&mut self, token: usize) -> bool {
        match &mut self.state {
            State::Subscribed(subscribed) => {
                subscribed.subscription.enter(token);
                subscribed.subscription.form().poll || subscribed.subscription.is_behind()
            }
            State::Conversing(conversing) => conversing.enter(token),
            State::Attached(attached) => attached.enter(token),
            _ => false,
        }
    }

    /// Ends a stream at the boundary of an event, and tells its client to come back in a while; a poll is answered. For
    /// the thread that may not wait: what the client does not take of that is lost with it.
    pub(super) fn end_subscription(&mut self, shared: &Shared, now: Millis, date: &[u8]) -> Expiry {
        let State::Subscribed(subscribed) = &mut self.state else { return Expiry::Park };
        let mut last = Vec::new();
        match subscribed.subscription.form().poll {
            true => {
                let (answer, messages) = subscribed.subscription.answer(true).unwrap_or_default();
                subscribed.answer.delivers(messages);
                shared.stats.delivered(None, messages as u64);
                last.extend_from_slice(&subscribed.head);
                last.extend_from_slice(date);
                let framing = ResponseFraming::Length(answer.len() as u64);
                finish_head(&mut last, &HeadOptions { framing, keep_alive: false, client_minor: subscribed.minor });
                subscribed.answer.begins(200, last.len());
                last.extend_from_slice(&answer);
            }
            false => {
                let token = subscribed.subscription.token().unwrap_or_default();
                subscribed.subscription.push_farewell(&mut last, retry(token, now));
            }
        }
        let (exchange, mut answer) = (subscribed.exchange.take(), subscribed.answer);
        let sent = if subscribed.is_blocked() { Some(0) } else { self.socket.answer_at_once(&last) };
        let reason = CloseReason::Stopping;
        let (Some(sent), Some(exchange)) = (sent, exchange) else {
            let State::Subscribed(subscribed) = self.let_go() else { return Expiry::Park };
            let mut writing = Writing::new(ResponseBody::None, After::Linger(reason));
            (writing.unsent, writing.exchange, writing.answer) = (last, subscribed.exchange, answer);
            self.wait_to_write(writing);
            return Expiry::HandOver;
        };
        answer.sent(sent);
        self.end_waiting(exchange, answer, exchange::End::Closed(reason), shared, now);
        self.linger_now(reason, shared, now).0
    }
}

/// Appends the end of a stream or, behind its head, that answer to a poll; for where no worker does it.
pub(super) fn push_end(out: &mut Vec<u8>, form: Form, head: &[u8], minor: u8, answer: &[u8]) {
    if !form.poll {
        // It has no token here.
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        let ended = ENDED.fetch_add(1, Ordering::Relaxed);
        return pubsub::push_farewell(out, retry(ended, Millis::now()), form.chunked);
    }
    out.extend_from_slice(head);
    out.extend_from_slice(DateCache::new().field());
    let framing = ResponseFraming::Length(answer.len() as u64);
    finish_head(out, &HeadOptions { framing, keep_alive: false, client_minor: minor });
    out.extend_from_slice(answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_are_on_whole_seconds_spread_and_never_late() {
        for heartbeat in [1, 2, 15, 60] {
            let mut seconds = std::collections::BTreeSet::new();
            for token in 0..100 {
                for now in (0..200_000).step_by(777) {
                    let next = next_heartbeat(Millis(now), heartbeat, token);
                    assert!(next.0 > now && next.0 <= now + u64::from(heartbeat) * 1000, "{heartbeat} {token} {now}");
                    assert!(next.0.is_multiple_of(1000));
                    assert_eq!(next_heartbeat(Millis(next.0 - 1), heartbeat, token), next, "one after the other");
                }
                seconds.insert(next_heartbeat(Millis(5000), heartbeat, token));
            }
            assert_eq!(seconds.len(), usize::from(heartbeat));
        }
        assert!(next_heartbeat(Millis(5), 0, 1).0 > 1_000_000_000);
    }

    #[test]
    fn clients_are_told_to_come_back_at_different_times() {
        let all: std::collections::BTreeSet<u32> = (0..1000).map(|token| retry(token, Millis(7))).collect();
        assert!(all.len() > 700 && all.iter().all(|retry| RETRIES.contains(retry)), "{}", all.len());
        // Those as well that end because a successor has no place for them.
        let ends = (0..100).map(|_| {
            let mut out = Vec::new();
            push_end(&mut out, Form::default(), b"", 1, b"");
            String::from_utf8(out).expect("text")
        });
        assert!(ends.collect::<std::collections::BTreeSet<_>>().len() > 90);
    }
}
