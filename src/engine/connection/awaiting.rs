//! A response that is known later: of a publication that is on its way through a bus. Parked until that has an outcome, with
//! no thread: a bus that stands still costs whoever publishes its answer, and nobody else anything.
//!
//! It moves as the answer that it has become. Until then it stays, in a hold as well, which is no longer than a bus takes;
//! one is waited for some seconds at most, and then its publisher is told that nobody knows.

use super::close_reason::CloseReason;
use super::context::WorkerContext;
use super::exchange::{Answer, Exchange};
use super::respond::remove_date;
use super::stream::SharedBody;
use super::turn::Turn;
use super::writing::{After, ResponseBody, Writing};
use super::{Connection, Flow, State, close};
use crate::api::{AnswerTo, Body, Later, Response};
use crate::clock::{DateCache, Millis};
use crate::lifecycle::state::{RemainingBody, SavedState};
use http1::response::{HeadOptions, ResponseFraming, encode_fields, finish_head};
use pubsub::{BUS_PATIENCE, Hub, Outcome, Ticket};
use std::io::Read;
use std::sync::Arc;

/// A response as it waits.
pub(super) struct Awaiting {
    ticket: Arc<Ticket>,
    hub: Hub,
    answer_to: AnswerTo,
    /// While it is not in a worker's hands, unless it was cut.
    pub(super) exchange: Option<Exchange>,
    pub(super) answer: Answer,
    /// Fields of the response that others have put onto it, encoded.
    fields: Box<[u8]>,
    keep_alive: bool,
    minor: u8,
    pub(super) until: Millis,
}

impl Awaiting {
    /// Bytes that it keeps on the heap, itself included.
    pub(super) fn held(&self) -> usize {
        size_of::<Awaiting>() + self.fields.len() + self.exchange.as_ref().map_or(0, Exchange::held)
    }

    pub(super) fn line(&self) -> &str {
        self.exchange.as_ref().map_or("", Exchange::kept_line)
    }

    /// Appends what is answered to that outcome. Answers the status, and how long the head is.
    fn encode(&self, out: &mut Vec<u8>, outcome: Outcome, date: &[u8], keep_alive: bool) -> (u16, usize) {
        let start = out.len();
        let response: Response = (self.answer_to)(outcome);
        let status = response.status_code();
        let said = encode_fields(out, status, response.headers(), date).unwrap_or_default();
        let mut content: Body = response.into_reader();
        content.push_fields(out, said);
        out.extend_from_slice(&self.fields);
        let mut body = Vec::new();
        // It is bytes in memory, which are read whole.
        let _ = content.read_to_end(&mut body);
        let framing = ResponseFraming::Length(body.len() as u64);
        finish_head(out, &HeadOptions { framing, keep_alive, client_minor: self.minor });
        let head = out.len() - start;
        out.extend_from_slice(&body);
        (status.0, head)
    }

    /// It as its answer is written down, as soon as there is one.
    pub(super) fn save(&self) -> Option<SavedState> {
        let outcome = match self.ticket.outcome() {
            None if Millis::now() >= self.until => self.ticket.give_up(),
            outcome => outcome?,
        };
        let (mut unsent, mut answer) = (Vec::new(), self.answer);
        let (status, head) = self.encode(&mut unsent, outcome, DateCache::new().field(), self.keep_alive);
        answer.begins(status, head);
        let line = self.exchange.as_ref().map_or_else(String::new, |exchange| exchange.moved_line(answer));
        Some(SavedState::Writing { unsent, remaining: RemainingBody::None, keep_alive: self.keep_alive, line })
    }
}

impl Connection {
    /// A response that is known later begins: nothing of it is said yet. What its handler put onto it stands in the
    /// worker's buffer from `start` on.
    pub(super) fn await_outcome(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        Later { ticket, hub, answer_to }: Later,
        body: Option<SharedBody>,
        (start, keep_alive): (usize, bool),
    ) -> Flow {
        let mut fields = work.out.split_off(start);
        // Without its first line, which says a status that is not known.
        let line = fields.iter().position(|&byte| byte == b'\n').map_or(fields.len(), |at| at + 1);
        fields.drain(..line);
        remove_date(&mut fields);
        let minor = work.request.head().0.minor;
        let Some(exchange) = work.put_off_without_request() else { return close(CloseReason::Cut) };
        let awaiting = Awaiting {
            ticket,
            hub,
            answer_to,
            exchange: Some(exchange),
            answer: work.answer,
            fields: fields.into(),
            // What is left of a body that nobody reads any more stands in the way of a next request.
            keep_alive: keep_alive && body.is_none(),
            minor,
            until: work.now.after(BUS_PATIENCE),
        };
        self.serve_awaiting(work, turn, Box::new(awaiting))
    }

    /// Answers, if it is known what.
    pub(super) fn serve_awaiting(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        mut awaiting: Box<Awaiting>,
    ) -> Flow {
        let outcome = match awaiting.ticket.enter(&awaiting.hub, work.token) {
            None if turn.peer_closed => {
                work.resume_exchange(awaiting.exchange.take(), awaiting.answer);
                return close(CloseReason::PeerClosed);
            }
            None if work.now < awaiting.until => {
                self.wait_for_outcome(awaiting);
                return Flow::Park;
            }
            None => awaiting.ticket.give_up(),
            Some(outcome) => outcome,
        };
        work.resume_exchange(awaiting.exchange.take(), awaiting.answer);
        let keep_alive = awaiting.keep_alive && work.shared.keeps_connections() && !self.last;
        let date = work.date.field().to_vec();
        let (status, head) = awaiting.encode(&mut work.out, outcome, &date, keep_alive);
        work.answer.begins(status, head);
        drop(awaiting);
        turn.request();
        let after = if keep_alive { After::Head } else { After::Linger(CloseReason::Finished) };
        self.write(work, turn, Writing::new(ResponseBody::None, after))
    }

    fn wait_for_outcome(&mut self, awaiting: Box<Awaiting>) {
        debug_assert!(awaiting.exchange.is_some(), "who ends it ends that");
        debug_assert!(matches!(self.state, State::ReadingHead), "a state is left before another is entered");
        self.state = State::Awaiting(awaiting);
    }
}
