//! The line of the request log that says how an exchange ended.

use super::close_reason::CloseReason;
use super::exchange::{End, Ended};
use crate::api::without_token;
use crate::clock::wall_clock;
use crate::generation::generation;
use crate::logging::requests::{Format, RequestLog, common_time, json_second};
use http1::Reject;
use requestlog::{Line, Second};
use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

/// What a thread keeps of the room that one line took.
const KEPT: usize = 4 << 10;

thread_local! {
    static WRITTEN: RefCell<Written> = RefCell::default();
}

/// What a thread has written of lines.
#[derive(Default)]
struct Written {
    line: Vec<u8>,
    common: Second,
    json: Second,
}

impl Ended<'_> {
    /// Adds its line to that log. It is written before others have to wait for it.
    pub(super) fn log_to(&self, log: &RequestLog) {
        WRITTEN.with(|written| {
            let mut written = written.borrow_mut();
            self.write(log.format(), &mut written);
            log.add(&written.line);
            written.line.clear();
            written.line.shrink_to(KEPT);
        });
    }

    fn write(&self, format: Format, Written { line: out, common, json }: &mut Written) {
        let request = self.exchange.line(self.request);
        let [referer, agent, id, user] = self.exchange.fields(self.request);
        let (request, referer) = (shown(request), shown(referer));
        let how = match (self.end, self.refusal()) {
            (End::Closed(reason), _) => Some(How::Closed(reason)),
            (End::Answered, Some(refusal)) => Some(How::Refused(refusal)),
            (End::Answered, None) => None,
        };
        let line = Line {
            peer: self.peer,
            user,
            request: &request,
            minor: self.exchange.minor(),
            status: self.status(),
            bytes: self.bytes(),
            messages: self.messages(),
            took: self.took,
            referer: &referer,
            agent,
            id,
            generation: generation(),
            end: how.as_ref().map(|how| how as &dyn fmt::Display),
        };
        let now = wall_clock();
        match format {
            Format::Combined => line.push_combined(out, common.at(now.as_secs(), |_| common_time(now))),
            Format::Json => line.push_json(out, json.at(now.as_secs(), |_| json_second(now)), now.subsec_millis()),
        }
        out.push(b'\n');
    }
}

/// How one ended that was not answered by its handler.
enum How {
    Closed(CloseReason),
    Refused(Reject),
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Closed(reason) => write!(f, "{reason}"),
            How::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}

/// Method and target without what lets somebody in.
fn shown(line: &[u8]) -> Cow<'_, [u8]> {
    if !line.contains(&b'?') {
        return line.into();
    }
    match String::from_utf8_lossy(line) {
        Cow::Borrowed(line) => match without_token(line) {
            Cow::Borrowed(line) => line.as_bytes().into(),
            Cow::Owned(line) => line.into_bytes().into(),
        },
        Cow::Owned(line) => without_token(&line).into_owned().into_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_left_out() {
        assert_eq!(&*shown(b"GET /a?token=secret&b"), b"GET /a?token=...&b");
        assert_eq!(&*shown(b"GET /a?b=\xff&token=secret"), "GET /a?b=\u{fffd}&token=...".as_bytes());
        assert_eq!(&*shown(b"GET /token=x"), b"GET /token=x");
    }
}
