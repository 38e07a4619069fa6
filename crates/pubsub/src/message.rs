//! What is published.

use crate::topic::{BadTopic, check_name};
use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// A message: data, and perhaps the name of an event. It never changes, so every subscriber shares it, and what each
/// transport makes of it is made once.
#[derive(Debug)]
pub struct Message {
    event: Option<Box<str>>,
    data: Box<[u8]>,
    /// By a number of the transport's; see [`Message::frame`].
    frames: [OnceLock<Arc<[u8]>>; FRAMES],
}

/// Forms in which a message leaves.
const FRAMES: usize = 4;

/// Why a text is no name of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEvent {
    /// It has no bytes, more than 128, or a control character.
    Name,
    /// It begins with `@`, as the server's own do.
    Ours,
    /// It is one that a browser sends itself.
    Browsers,
}

impl fmt::Display for BadEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadEvent::Name => "the name of an event has 1 to 128 bytes and no control characters",
            BadEvent::Ours => "the name of an event does not begin with @: those are the server's",
            BadEvent::Browsers => "an event is not called error or open: browsers send those themselves",
        })
    }
}

impl std::error::Error for BadEvent {}

impl Message {
    /// One with this data.
    pub fn new(data: impl Into<Vec<u8>>) -> Message {
        Message { event: None, data: data.into().into(), frames: Default::default() }
    }

    /// The same, with the name of an event: as a topic's, and neither `error` nor `open`, nor one that begins with `@`.
    ///
    /// # Errors
    /// Another name.
    pub fn with_event(self, event: &str) -> Result<Message, BadEvent> {
        match check_name(event) {
            Err(BadTopic::Length | BadTopic::Control) => return Err(BadEvent::Name),
            Ok(()) if event.starts_with('@') => return Err(BadEvent::Ours),
            Ok(()) if matches!(event, "error" | "open") => return Err(BadEvent::Browsers),
            Ok(()) => {}
        }
        Ok(Message { event: Some(event.into()), ..self })
    }

    /// With an event that was checked before.
    pub(crate) fn of_parts(event: Option<String>, data: Vec<u8>) -> Message {
        Message { event: event.map(Into::into), ..Message::new(data) }
    }

    /// The name of its event, if it has one.
    pub fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// What it says.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The same for what carries text alone: what is no UTF-8 is replaced by U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        // Mostly it is right, which is seen faster than what to replace.
        std::str::from_utf8(&self.data).map_or_else(|_| String::from_utf8_lossy(&self.data), Cow::Borrowed)
    }

    /// The form of that number, made by `encode` when it is first asked for; and whether that was now.
    ///
    /// # Panics
    /// For a number of 4 or more: there are so many forms.
    pub(crate) fn frame(&self, form: usize, encode: impl FnOnce(&Message) -> Arc<[u8]>) -> (&Arc<[u8]>, bool) {
        let mut made = false;
        let frame = self.frames[form].get_or_init(|| {
            made = true;
            encode(self)
        });
        (frame, made)
    }

    /// Bytes that it takes, without its forms.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Message>() + self.data.len() + self.event.as_ref().map_or(0, |event| event.len())
    }

    /// Bytes of the forms that were made.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.frames.iter().filter_map(OnceLock::get).map(|frame| frame.len()).sum()
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        Message::new(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::new(text)
    }
}

impl From<Vec<u8>> for Message {
    fn from(data: Vec<u8>) -> Message {
        Message::new(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_names_that_no_browser_and_no_server_uses() {
        assert!(Message::new("x").with_event("a b/ü").is_ok_and(|message| message.event() == Some("a b/ü")));
        for (name, why) in [
            ("", BadEvent::Name),
            ("a\nb", BadEvent::Name),
            ("@gap", BadEvent::Ours),
            ("error", BadEvent::Browsers),
            ("open", BadEvent::Browsers),
        ] {
            assert_eq!(Message::new("x").with_event(name).err(), Some(why), "{name:?}");
        }
        assert!(Message::new("x").with_event(&"x".repeat(129)).is_err());
    }

    #[test]
    fn a_form_is_made_once() {
        let message = Message::new("data");
        for first in [true, false, false] {
            let (frame, made) = message.frame(1, |message| message.data().into());
            assert_eq!((&frame[..], made), (&b"data"[..], first));
        }
        assert_eq!(message.frame_bytes(), 4);
    }
}
