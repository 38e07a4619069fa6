//! From a handler's response, or a refusal, to bytes that leave as the client makes room.

use super::close_reason::CloseReason;
use super::context::INLINE_BODY;
use super::context::WorkerContext;
use super::dispatch::Pushed;
use super::exchange::{End, head_length};
use super::pace::Pace;
use super::stream::{Delimiter, SharedBody};
use super::turn::Turn;
use super::writing::{After, Progress, ResponseBody, Writing};
use super::{Connection, Flow, close};
use crate::api::{Body, IntoResponse, Kind, Response, Side, StreamFn};
use crate::logging::rate_limit::log_rate_limited;
use http1::Reject;
use http1::is_same_name;
use http1::response::{self, HeadOptions, InvalidResponse, ResponseFraming, encode_fields, finish_head};
use std::fmt;
use std::io::{self, Read};
use tiny_http::{Method, StatusCode};

/// Takes Date out of encoded fields, whoever has said it: behind a wait it is another.
pub(super) fn remove_date(fields: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(length) = fields[at..].iter().position(|&byte| byte == b'\n') {
        let end = at + length + 1;
        match fields[at..end].split(|&byte| byte == b':').next() {
            Some(name) if is_same_name(name, b"date") => drop(fields.drain(at..end)),
            _ => at = end,
        }
    }
}

impl Connection {
    /// Encodes the head, and goes on to the body.
    pub(super) fn start_response(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        response: Response,
        body: Option<SharedBody>,
    ) -> Flow {
        let (status, start) = (response.status_code(), work.out.len());
        if status.0 == 101 {
            return self.start_upgrade(work, turn, response, body);
        }
        let said = match encode_fields(&mut work.out, status, response.headers(), work.date.field()) {
            Ok(said) => said,
            Err(invalid) => return self.cannot_send(work, turn, &invalid, body),
        };
        let content: Body = response.into_reader();
        // Nobody would write what its head has announced, and the client would take the next response for that.
        if let Some(only) = content.only_status().filter(|only| *only != status.0) {
            work.out.truncate(start);
            let wrong = format!("what a hub or a conversation has to say has the status {only}, and not {}", status.0);
            return self.cannot_send(work, turn, &wrong, body);
        }
        content.push_fields(&mut work.out, said);
        let (head, _) = work.request.head();
        let (minor, is_head) = (head.minor, head.method == Method::Head);
        // What is known later has a length then.
        let length = if matches!(content.kind, Kind::Later(_)) { Some(0) } else { content.len() };
        let framing = response::framing(status.0, length, minor);
        let keep_alive = head.keep_alive
            && !content.close
            && framing != ResponseFraming::Close
            && work.shared.keeps_connections()
            && !self.last
            && work.shared.limits.requests.is_none_or(|most| self.served + 1 < most.get())
            // A body that was not read, and that nobody can read any more, stands in the way of the next request.
            && body.as_ref().is_none_or(|body| body.is_finished() || body.is_shared());
        if let (Kind::Subscription(subscribe), false, 200) = (&content.kind, is_head, status.0) {
            if !work.shared.has_hub(subscribe.subscription.hub()) {
                log_rate_limited!(error, "a subscription of a hub that is not the server's: see Builder::hub");
                work.out.truncate(start);
                return self.start_response(work, turn, StatusCode(500).into_response(), body);
            }
            let Kind::Subscription(subscribe) = content.kind else { return close(CloseReason::Internal) };
            return self.subscribe(work, turn, *subscribe, body, keep_alive);
        }
        if let (Kind::Session(_), false, 200) = (&content.kind, is_head, status.0) {
            let Kind::Session(attach) = content.kind else { return close(CloseReason::Internal) };
            if !attach.hub().is_some_and(|hub| work.shared.has_hub(hub)) {
                log_rate_limited!(error, "a session of a hub that is not the server's: see Builder::hub");
                work.out.truncate(start);
                return self.start_response(work, turn, StatusCode(500).into_response(), body);
            }
            return self.attach(work, turn, *attach, body, (start, keep_alive));
        }
        if let Kind::Later(later) = content.kind {
            return self.await_outcome(work, turn, *later, body, (start, keep_alive));
        }
        finish_head(&mut work.out, &HeadOptions { framing, keep_alive, client_minor: minor });
        work.answer.begins(status.0, work.out.len() - start);
        if let Some(messages) = content.messages {
            work.answer.delivers(messages as usize);
            work.shared.stats.delivered(Some(work.index), messages.into());
        }
        if is_head || status.0 == 205 || framing == ResponseFraming::None {
            return self.finish_head(work, turn, ResponseBody::None, keep_alive, body);
        }
        let delimiter = match framing {
            ResponseFraming::Length(length) => Delimiter::Length(length),
            ResponseFraming::Chunked => Delimiter::Chunks,
            ResponseFraming::None | ResponseFraming::Close | ResponseFraming::Upgrade(_) => Delimiter::EndOfConnection,
        };
        let source = match content.kind {
            Kind::Stream(push) => {
                return self.stream_or_wait(work, turn, Pushed { push, delimiter, keep_alive, body });
            }
            // A reader over a request body that is still coming waits for the client: it is bound like a push.
            Kind::Reader { mut reader, length } if body.as_ref().is_some_and(SharedBody::is_shared) => {
                let push: StreamFn = Box::new(move |writer| {
                    let mut bounded = (&mut reader).take(length.unwrap_or(u64::MAX));
                    io::copy(&mut bounded, writer).map(drop)
                });
                return self.stream_or_wait(work, turn, Pushed { push, delimiter, keep_alive, body });
            }
            Kind::Bytes { bytes, at } if (bytes.len() - at) as u64 <= INLINE_BODY => {
                work.out.extend_from_slice(&bytes[at..]);
                ResponseBody::None
            }
            Kind::Bytes { bytes, at } => ResponseBody::Bytes { bytes, at },
            Kind::File { file, offset, end } => ResponseBody::file(file, offset, end),
            // To HEAD, which was answered above.
            Kind::Subscription(_) | Kind::Conversation(_) | Kind::Session(_) | Kind::Later(_) => ResponseBody::None,
            Kind::Reader { reader, length } => ResponseBody::Reader { reader, left: length, delimiter, ended: false },
        };
        self.finish_head(work, turn, source, keep_alive, body)
    }

    /// Encodes the head of a WebSocket, and goes on to that. Nothing else switches to another protocol.
    fn start_upgrade(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        response: Response,
        body: Option<SharedBody>,
    ) -> Flow {
        let (start, headers) = (work.out.len(), response.headers().to_vec());
        let (minor, is_own) = (work.request.head().0.minor, |side: &Side| work.shared.has_hub(side.hub()));
        let wrong = match response.into_reader().kind {
            Kind::Conversation(converse) if minor == 0 || body.is_some() => {
                drop(converse);
                "a WebSocket begins behind a request of HTTP/1.1 with no large body".to_owned()
            }
            Kind::Conversation(converse) if !is_own(&converse.side) => {
                "a WebSocket of a hub that is not the server's: see Builder::hub".to_owned()
            }
            Kind::Conversation(converse) => match response::encode_switch(&mut work.out, &headers, work.date.field()) {
                Ok(_) => return self.converse(work, turn, *converse, start),
                Err(invalid) => invalid.to_string(),
            },
            _ => InvalidResponse::Status(101).to_string(),
        };
        self.cannot_send(work, turn, &wrong, body)
    }

    /// What a handler has answered is no response: 500 instead.
    fn cannot_send(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        wrong: &dyn fmt::Display,
        body: Option<SharedBody>,
    ) -> Flow {
        let (method, url) = (work.request.method(), work.request.shown_url());
        log_rate_limited!(error, "the handler's response cannot be sent: {wrong} ({method} {url})");
        self.start_response(work, turn, StatusCode(500).into_response(), body)
    }

    /// The head is in the worker's buffer: writes it and the rest, and decides what comes after it.
    pub(super) fn finish_head(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        source: ResponseBody,
        keep_alive: bool,
        body: Option<SharedBody>,
    ) -> Flow {
        let rest = match body {
            None => Some(Vec::new()),
            Some(body) => body.into_rest(),
        };
        let after = match rest {
            Some(rest) if keep_alive => {
                work.put_back(rest);
                After::Head
            }
            // The client itself asked for the end and has sent nothing more: closing cannot reset anything.
            Some(rest) if rest.is_empty() && work.input().is_empty() && !work.request.head().0.keep_alive => {
                After::Close(CloseReason::Finished)
            }
            _ => After::Linger(CloseReason::Finished),
        };
        self.write(work, turn, Writing::new(source, after))
    }

    /// Refuses the worker's request.
    pub(super) fn refuse_it(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, reject: Reject) -> Flow {
        let method = work.request.method().clone();
        self.refuse(work, turn, reject, &method)
    }

    /// Answers a refused request, and closes so that the client gets to read the answer.
    pub(super) fn refuse(
        &mut self,
        work: &mut WorkerContext,
        turn: &mut Turn<'_>,
        reject: Reject,
        method: &Method,
    ) -> Flow {
        let start = work.out.len();
        // RFC 9110 §15.5.6: what this target allows. TRACE is refused when the whole head has been read.
        let traced = reject == Reject::MethodNotAllowed && *method == Method::Trace;
        let allow = if traced { work.shared.allow(&work.request) } else { None };
        let own = allow.as_ref().map(|allow| [("Allow", allow.as_str())]);
        let fields = own.as_ref().map_or(reject.fields(), |own| own);
        response::encode_plain(&mut work.out, reject.status(), reject.name(), fields, work.date.field());
        if *method == Method::Head {
            // RFC 9110 §9.3.2: no content, whatever the status.
            work.out.truncate(start + head_length(&work.out[start..]));
        }
        work.answer.refuses(reject, &work.out[start..]);
        self.write(work, turn, Writing::new(ResponseBody::None, After::Linger(CloseReason::Refused(reject))))
    }

    /// Goes on with a response that had to wait.
    pub(super) fn resume_write(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, mut writing: Writing) -> Flow {
        work.out.append(&mut writing.unsent);
        work.resume_exchange(writing.exchange.take(), writing.answer);
        if writing.expired {
            return self.too_slow();
        }
        work.resume_flight(&self.socket, self.begun.unwrap_or(work.now));
        self.write(work, turn, writing)
    }

    pub(super) fn too_slow(&self) -> Flow {
        self.socket.reset_on_close();
        close(CloseReason::WriteTimeout)
    }

    pub(super) fn write(&mut self, work: &mut WorkerContext, turn: &mut Turn<'_>, mut writing: Writing) -> Flow {
        let mut sent = 0;
        let progress = writing.advance(&self.socket, &mut work.out, &mut work.scratch, turn, &mut sent);
        writing.window.handed(sent);
        work.answer.sent(sent);
        work.end_flight();
        match progress {
            Progress::Done => {}
            Progress::Failed(reason) => {
                work.out.clear();
                return close(reason);
            }
            Progress::TurnOver => return self.suspend(work, writing, Flow::Requeue),
            Progress::Blocked => {
                let (now, pace) = (work.refresh_clock(), Pace::of(&work.shared.limits));
                if writing.window.wait(now, pace, || self.socket.unsent().unwrap_or(0)).is_none() {
                    work.out.clear();
                    return self.too_slow();
                }
                return self.suspend(work, writing, Flow::Park);
            }
        }
        self.begun = None;
        self.served += 1;
        work.end_exchange(End::Answered);
        match writing.after {
            After::Head => Flow::Continue,
            After::Close(reason) if !self.has_unread() => close(reason),
            After::Close(reason) | After::Linger(reason) => {
                self.socket.finish();
                work.clear_input();
                self.start_linger(reason, &work.shared.limits, work.now);
                Flow::Continue
            }
        }
    }

    /// Keeps a response that is not out for a later turn, and ends this one so.
    fn suspend(&mut self, work: &mut WorkerContext, mut writing: Writing, flow: Flow) -> Flow {
        // Who has cut it meanwhile has ended it.
        let Some(exchange) = work.put_off_without_request() else { return close(CloseReason::Cut) };
        (writing.exchange, writing.answer) = (Some(exchange), work.answer);
        writing.unsent = std::mem::take(&mut work.out);
        writing.unsent.shrink_to_fit();
        self.wait_to_write(writing);
        flow
    }
}
