//! A session as it is written down, for a successor.
//!
//! A version never changes: the next one is another variant behind it. Times are what is left of them.

use crate::session::{Receiver, State};
use crate::{Callback, Close, Form, Session, Settings};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A session that is written down, in one of the versions that are read. It is for a `serde` format without names, such as
/// postcard: the first byte is then the version, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Saved {
    /// The first version.
    V1(SavedSession),
}

/// Version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSession {
    /// How far it is.
    pub state: SavedState,
    /// Messages that no receiver was handed yet.
    pub queue: Vec<String>,
    /// Who holds it.
    pub receiver: Option<SavedReceiver>,
    /// Who comes next.
    pub waiting: Option<SavedReceiver>,
    /// Milliseconds until the deadline.
    pub left: u64,
}

/// How far a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedState {
    /// Nobody has come yet.
    New,
    /// It was opened.
    Open,
    /// It is closed.
    Closing {
        /// With this code,
        code: u16,
        /// and in words.
        reason: String,
        /// Whether a receiver was told.
        said: bool,
    },
    /// It is over.
    Gone,
}

/// A receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedReceiver {
    /// Its name where it was saved; see [`Session::rename`].
    pub id: u64,
    /// What it gets frames in.
    pub form: SavedForm,
    /// Bytes of frames that it was handed.
    pub sent: u64,
    /// Whether some of them are not written yet.
    pub in_flight: bool,
    /// Whether its response ends with those.
    pub ending: bool,
    /// Whether it was asked to come again.
    pub asked_again: bool,
}

/// A form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedForm {
    /// See [`Form::Xhr`].
    Xhr,
    /// See [`Form::XhrStreaming`].
    XhrStreaming,
    /// See [`Form::EventSource`].
    EventSource,
    /// See [`Form::HtmlFile`].
    HtmlFile(String),
    /// See [`Form::Jsonp`].
    Jsonp(String),
    /// See [`Form::WebSocket`].
    WebSocket,
}

/// What is no session that was saved: its pieces do not fit together, or it was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSaved;

impl fmt::Display for BadSaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is damaged, or no session of this version")
    }
}

impl std::error::Error for BadSaved {}

impl Saved {
    /// As bytes, by postcard.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a vector takes all, and each list knows its length")
    }

    /// What such bytes say.
    ///
    /// # Errors
    /// What is cut, has more behind it, or is of a version that this program does not know.
    pub fn from_bytes(bytes: &[u8]) -> Result<Saved, BadSaved> {
        match postcard::take_from_bytes(bytes) {
            Ok((saved, [])) => Ok(saved),
            _ => Err(BadSaved),
        }
    }
}

impl Session {
    /// Writes down all that it is, at any moment; `now` is in milliseconds, as everywhere.
    pub fn save(&self, now: u64) -> Saved {
        let state = match &self.state {
            State::New => SavedState::New,
            State::Open => SavedState::Open,
            State::Closing { close: Close { code, reason }, said } => {
                SavedState::Closing { code: *code, reason: reason.clone(), said: *said }
            }
            State::Gone => SavedState::Gone,
        };
        Saved::V1(SavedSession {
            state,
            queue: self.queue.clone(),
            receiver: self.receiver.as_ref().map(SavedReceiver::from),
            waiting: self.waiting.as_ref().map(SavedReceiver::from),
            left: self.deadline.saturating_sub(now),
        })
    }

    /// Goes on with what was written down. Receivers have the names that they had there; whoever did not come along has to be
    /// [lost](Session::lost). More may wait than the settings allow: it is not lost by the move.
    ///
    /// # Errors
    /// What no session would write.
    pub fn restore(saved: Saved, settings: Settings, now: u64) -> Result<Session, BadSaved> {
        let Saved::V1(SavedSession { state, queue, receiver, waiting, left }) = saved;
        let session = Session {
            settings,
            state: match state {
                SavedState::New => State::New,
                SavedState::Open => State::Open,
                SavedState::Closing { code, reason, said } => State::Closing { close: Close::new(code, &reason), said },
                SavedState::Gone => State::Gone,
            },
            queued: queue.iter().map(String::len).sum(),
            queue,
            receiver: receiver.map(Receiver::try_from).transpose()?,
            waiting: waiting.map(Receiver::try_from).transpose()?,
            // No deadline is later than one that would be set now.
            deadline: now.saturating_add(left.min(settings.heartbeat.max(settings.disconnect))),
        };
        if session.is_sound() { Ok(session) } else { Err(BadSaved) }
    }

    /// What holds between any two calls.
    pub(crate) fn is_sound(&self) -> bool {
        let receivers = self.receiver.iter().chain(&self.waiting);
        let each = receivers.clone().all(|one| {
            // What ends is in flight, a poll ends with what it gets, and who is idle ends at once when asked.
            let ends_rightly = !one.ending || one.in_flight;
            let polls_rightly = !(one.in_flight && one.form.transport().is_polling()) || one.ending;
            ends_rightly && polls_rightly
        });
        // Nobody waits but for a response that ends, and who waits got nothing.
        let waits = match (&self.receiver, &self.waiting) {
            (Some(one), Some(other)) => one.ending && one.id != other.id && !other.in_flight && other.sent == 0,
            (None, Some(_)) => false,
            (_, None) => true,
        };
        let is_idle = self.receiver.as_ref().is_some_and(|one| !one.in_flight);
        let asked = self.receiver.as_ref().is_some_and(|one| one.asked_again && !one.in_flight);
        let fits = match &self.state {
            State::New => self.receiver.is_none(),
            State::Open => true,
            State::Closing { said: false, .. } => !is_idle,
            State::Closing { said: true, .. } => {
                self.queue.is_empty() && self.waiting.is_none() && self.receiver.as_ref().is_none_or(|one| one.ending)
            }
            State::Gone => self.queue.is_empty() && self.receiver.is_none(),
        };
        let is_websocket = |one: &Receiver| one.form == Form::WebSocket;
        let says = matches!(&self.state, State::Closing { said: true, .. });
        let websockets = receivers.clone().all(|one| !is_websocket(one) || (!one.asked_again && one.ending <= says));
        each && waits && fits && !asked && websockets
    }
}

impl From<&Receiver> for SavedReceiver {
    fn from(receiver: &Receiver) -> SavedReceiver {
        let form = match &receiver.form {
            Form::Xhr => SavedForm::Xhr,
            Form::XhrStreaming => SavedForm::XhrStreaming,
            Form::EventSource => SavedForm::EventSource,
            Form::HtmlFile(callback) => SavedForm::HtmlFile(callback.to_string()),
            Form::Jsonp(callback) => SavedForm::Jsonp(callback.to_string()),
            Form::WebSocket => SavedForm::WebSocket,
        };
        let Receiver { id, form: _, sent, in_flight, ending, asked_again } = *receiver;
        SavedReceiver { id, form, sent, in_flight, ending, asked_again }
    }
}

impl TryFrom<SavedReceiver> for Receiver {
    type Error = BadSaved;

    fn try_from(saved: SavedReceiver) -> Result<Receiver, BadSaved> {
        let callback = |name: String| Callback::new(&name).map_err(|_| BadSaved);
        let SavedReceiver { id, form, sent, in_flight, ending, asked_again } = saved;
        let form = match form {
            SavedForm::Xhr => Form::Xhr,
            SavedForm::XhrStreaming => Form::XhrStreaming,
            SavedForm::EventSource => Form::EventSource,
            SavedForm::HtmlFile(name) => Form::HtmlFile(callback(name)?),
            SavedForm::Jsonp(name) => Form::Jsonp(callback(name)?),
            SavedForm::WebSocket => Form::WebSocket,
        };
        Ok(Receiver { id, form, sent, in_flight, ending, asked_again })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(session: &Session, bytes: &[u8]) {
        assert_eq!(session.save(1000).to_bytes(), bytes);
        let saved = Saved::from_bytes(bytes).expect("what was saved");
        let other = Session::restore(saved, session.settings, 1000).expect("what was saved");
        assert_eq!(&other, session);
    }

    /// Version 1, byte for byte: what was written by it is read by every later program.
    #[test]
    fn golden_bytes() {
        let mut session = Session::new(Settings::default(), 1000);
        round(&session, &[0, 0, 0, 0, 0, 0x88, 0x27]);
        session.send("hi".to_owned()).expect("room");
        round(&session, &[0, 0, 1, 2, b'h', b'i', 0, 0, 0x88, 0x27]);
        let callback = Callback::new("cb").expect("a name");
        assert_eq!(session.arrive(300, Form::Jsonp(callback), 1000).writes.len(), 1);
        round(&session, b"\0\x01\x01\x02hi\x01\xac\x02\x04\x02cb\x0e\x01\x01\x00\x00\xa8\xc3\x01");
        assert!(session.arrive(7, Form::XhrStreaming, 1000).writes.is_empty());
        let waiting = b"\0\x01\x01\x02hi\x01\xac\x02\x04\x02cb\x0e\x01\x01\x00\x01\x07\x01\x00\x00\x00\x00\xa8\xc3\x01";
        round(&session, waiting);
        let _ = session.close(Close::new(3000, "x"));
        round(&session, &[&b"\0\x02\xb8\x17\x01x\0"[..], &waiting[2..]].concat());
        let _ = session.lost(7, 1000);
        let _ = session.lost(300, 1000);
        let interrupted = b"\0\x02\xea\x07\x16Connection interrupted\0\0\0\0\x88\x27";
        round(&session, interrupted);
        assert!(session.arrive(9, Form::XhrStreaming, 1000).writes[0].ends);
        round(&session, b"\0\x02\xea\x07\x16Connection interrupted\x01\0\x01\x09\x01\x21\x01\x01\0\0\xa8\xc3\x01");
        let _ = session.written(9, 1000);
        let _ = session.tick(9000);
        assert_eq!(session.save(9000).to_bytes(), [0, 3, 0, 0, 0, 0]);
    }

    /// The other forms, by their numbers.
    #[test]
    fn golden_forms() {
        let name = Callback::new("f").expect("a name");
        for (form, bytes) in [
            (Form::Xhr, &b"\0"[..]),
            (Form::XhrStreaming, b"\x01"),
            (Form::EventSource, b"\x02"),
            (Form::HtmlFile(name.clone()), b"\x03\x01f"),
            (Form::Jsonp(name), b"\x04\x01f"),
            (Form::WebSocket, b"\x05"),
        ] {
            let mut session = Session::new(Settings::default(), 0);
            assert!(session.arrive(1, form, 0).opened);
            let saved = session.save(0).to_bytes();
            assert_eq!(saved[..4], [0, 1, 0, 1]);
            assert_eq!(saved[4..][..1 + bytes.len()], [&[1], bytes].concat());
        }
    }

    #[test]
    fn what_no_session_would_write() {
        let refused = |change: &dyn Fn(&mut SavedSession)| {
            let mut session = Session::new(Settings::default(), 0);
            assert!(session.arrive(1, Form::Xhr, 0).opened);
            assert!(session.arrive(2, Form::Xhr, 0).writes.is_empty());
            let Saved::V1(mut saved) = session.save(0);
            change(&mut saved);
            Session::restore(Saved::V1(saved), Settings::default(), 0) == Err(BadSaved)
        };
        let receiver = |saved: &mut SavedSession| saved.receiver.take().expect("it is there");
        assert!(!refused(&|_| {}));
        assert!(refused(&|saved| saved.state = SavedState::New));
        assert!(refused(&|saved| saved.state = SavedState::Gone));
        assert!(refused(&|saved| saved.receiver = None));
        assert!(refused(&|saved| saved.receiver = Some(SavedReceiver { ending: false, ..receiver(saved) })));
        assert!(refused(&|saved| saved.receiver = Some(SavedReceiver { in_flight: false, ..receiver(saved) })));
        assert!(refused(&|saved| saved.receiver = Some(SavedReceiver { id: 2, ..receiver(saved) })));
        let form = || SavedForm::Jsonp("a(b".to_owned());
        assert!(refused(&|saved| saved.receiver = Some(SavedReceiver { form: form(), ..receiver(saved) })));
        assert_eq!(Saved::from_bytes(&[1, 0, 0, 0, 0, 0]), Err(BadSaved));
        assert_eq!(Saved::from_bytes(&[0, 0, 0, 0, 0, 0, 0]), Err(BadSaved));
        assert_eq!(Saved::from_bytes(&[]), Err(BadSaved));
    }
}
