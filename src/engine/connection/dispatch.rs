//! From a complete head to the handler: what is called, on which thread, and what it may wait for.

use super::close_reason::CloseReason;
use super::context::Role;
use super::context::WorkerContext;
use super::exchange::{Answer, Exchange};
use super::pace::Pace;
use super::receive::Collecting;
use super::stream::{BodySource, Delimiter, Incoming, SharedBody, StreamWriter};
use super::turn::Turn;
use super::writing::ResponseBody;
use super::{Connection, Flow, close};
use crate::api::{IntoResponse, Request, RequestBody, Response, StreamFn};
use crate::clock::Millis;
use crate::logging::panic_text;
use crate::logging::rate_limit::log_rate_limited;
use crate::pages;
use http1::Reject;
use http1::framing::BodyFraming;
use http1::head::Scanner;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use tiny_http::StatusCode;

/// A response that its handler pushes, its head already encoded.
pub(super) struct Push {
    pub(super) request: Request,
    /// None once it was cut.
    pub(super) exchange: Option<Exchange>,
    pub(super) answer: Answer,
    pub(super) head: Vec<u8>,
    pub(super) pushed: Pushed,
    /// Since when it waits.
    pub(super) since: Millis,
}

impl Push {
    pub(super) fn held(&self) -> usize {
        let body = self.pushed.body.as_ref().map_or(0, SharedBody::held);
        let line = self.exchange.as_ref().map_or(0, Exchange::held);
        size_of::<Push>() + self.request.held() + self.head.capacity() + line + body
    }
}

/// A pushed response behind its head.
pub(super) struct Pushed {
    pub(super) push: StreamFn,
    pub(super) delimiter: Delimiter,
    pub(super) keep_alive: bool,
    pub(super) body: Option<SharedBody>,
}

impl Connection {
    /// A complete head: decide how its body comes.
    pub(super) fn dispatch(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        parsed: Result<(), Reject>,
    ) -> Flow {
        turn.request();
        self.scanner = Scanner::default();
        let since = *self.begun.get_or_insert(work.now);
        work.begin_exchange(since);
        work.head_ended(parsed.is_ok());
        let (framing, expects_continue) = match parsed.and_then(|()| work.request.expected_body()) {
            Ok(decided) => decided,
            Err(reject) => return self.refuse_it(work, turn, reject),
        };
        if framing == BodyFraming::None {
            return self.run(work, turn);
        }
        let limit = work.shared.body_limit(&work.request);
        let declared = match framing {
            BodyFraming::Length(length) => Some(length),
            BodyFraming::None | BodyFraming::Chunked => None,
        };
        if declared.is_some_and(|declared| declared > limit) {
            return self.refuse_it(work, turn, Reject::BodyTooLarge);
        }
        if let Some(length) = declared.and_then(|declared| usize::try_from(declared).ok())
            && let Some(body) = work.input().get(..length)
        {
            // Most bodies that are small come with their heads.
            let body = body.to_vec();
            work.consume(length);
            work.request.set_body(RequestBody::buffered(body), declared);
            return self.run(work, turn);
        }
        let collecting = Collecting::new(Incoming::new(framing), since, limit, declared, expects_continue);
        self.read_body(work, turn, Box::new(collecting))
    }

    /// Calls a handler that reads its body while it arrives, on a thread that may wait for the client.
    pub(super) fn stream_body(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        collecting: Collecting,
    ) -> Flow {
        let Collecting { incoming, body, limit, declared, expects_continue, .. } = collecting;
        let rest = work.take_input();
        // The time it waited for the thread is not the client's.
        let body = BodySource::new(self.socket.clone(), incoming, Millis::now(), limit, &work.shared.limits)
            .starting_with(body, rest)
            .expecting_continue(expects_continue);
        let body = SharedBody::from(body);
        work.request.set_body(RequestBody::streamed(body.clone()), declared);
        let response = self.run_handler(work);
        work.request.release_body();
        // If the body failed, what the handler made of that is less true than the reason itself.
        if let Some(reject) = body.failure() {
            drop(response);
            return self.refuse_it(work, turn, reject);
        }
        self.start_response(work, turn, response, Some(body))
    }

    /// Calls the handler for a request whose body is complete.
    pub(super) fn run(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>) -> Flow {
        let response = self.run_handler(work);
        self.start_response(work, turn, response, None)
    }

    pub(super) fn run_handler(&mut self, work: &mut WorkerContext) -> Response {
        work.handler_begins();
        if let Some(response) = work.shared.own_route(&work.request, work.role == Role::Status) {
            work.answer.handler_ended(work.now);
            return response;
        }
        work.begin_flight(&self.socket);
        let terms = work.request.terms();
        // A handler that panics leaves its own data as its own locks say; ours it only had by `&mut Request`, which
        // the next parse overwrites.
        let response = catch_unwind(AssertUnwindSafe(|| {
            let response = work.shared.handler.handle(&mut work.request);
            // Not when this thread has its next request: what is in there may be something that others wait for.
            work.request.release_extensions();
            response
        }));
        let now = work.refresh_clock();
        work.answer.handler_ended(now);
        let response = response.unwrap_or_else(|panic| {
            work.shared.stats.panicked();
            let (method, url) = (work.request.method(), work.request.shown_url());
            let text = panic_text(&*panic).unwrap_or("no message");
            log_rate_limited!(error, "handler panicked: {text} ({method} {url})");
            // Whose drop may panic as well, or be what has.
            let _ = catch_unwind(AssertUnwindSafe(|| work.request.release_extensions()));
            StatusCode(500).into_response()
        });
        work.request.hold_to(terms);
        pages::for_people(&work.request, response)
    }

    /// Pushes at once where a thread may wait for the client; else parks with the encoded head until one is free.
    pub(super) fn stream_or_wait(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, pushed: Pushed) -> Flow {
        if work.role == Role::Streamer {
            return self.run_stream(work, turn, pushed);
        }
        let head = std::mem::take(&mut work.out);
        let Some(exchange) = work.put_off_exchange() else { return close(CloseReason::Cut) };
        let mut request = work.take_request();
        request.shrink();
        self.wait_for_permit(Push {
            request,
            exchange: Some(exchange),
            answer: work.answer,
            head,
            pushed,
            since: work.now,
        });
        Flow::Park
    }

    /// A response to push has got its thread.
    pub(super) fn acquire_permit(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, push: Box<Push>) -> Flow {
        let Push { request, exchange, answer, head, pushed, .. } = *push;
        work.request = request;
        work.resume_exchange(exchange, answer);
        work.out.extend_from_slice(&head);
        self.stream_or_wait(work, turn, pushed)
    }

    /// Runs a handler that pushes, on this thread, until it has ended.
    pub(super) fn run_stream(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, pushed: Pushed) -> Flow {
        let Pushed { push, delimiter, keep_alive, body } = pushed;
        work.begin_flight(&self.socket);
        let pace = Pace::of(&work.shared.limits);
        let mut writer = StreamWriter::new(&self.socket, &mut work.out, delimiter, pace, work.in_flight.pushed());
        let outcome = catch_unwind(AssertUnwindSafe(|| push(&mut writer)));
        let sent = match outcome {
            Ok(pushed) => pushed.and_then(|()| writer.end()).map_err(|error| {
                log::debug!("pushed response ended early: {error}");
                CloseReason::from_error(&error)
            }),
            Err(panic) => {
                work.shared.stats.panicked();
                let (method, url) = (work.request.method(), work.request.shown_url());
                let text = panic_text(&*panic).unwrap_or("no message");
                log_rate_limited!(error, "handler panicked while pushing: {text} ({method} {url})");
                Err(CloseReason::Internal)
            }
        };
        let now = work.refresh_clock();
        work.answer.handler_ended(now);
        work.answer.sent(work.in_flight.pushed().load(Ordering::Relaxed));
        work.out.clear();
        match sent {
            Ok(()) => self.finish_head(work, turn, ResponseBody::None, keep_alive, body),
            Err(CloseReason::WriteTimeout) => self.too_slow(),
            Err(reason) => close(reason),
        }
    }
}
