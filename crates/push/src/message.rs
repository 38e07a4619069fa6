//! What is published.

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

impl Message {
    /// One with this data.
    pub fn new(data: impl Into<Vec<u8>>) -> Message {
        Message { event: None, data: data.into().into(), frames: Default::default() }
    }

    /// The same, with the name of an event.
    #[must_use]
    pub fn with_event(self, event: impl Into<Box<str>>) -> Message {
        Message { event: Some(event.into()), ..self }
    }

    /// The name of its event, if it has one.
    pub fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// What it says.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The form of that number, made by `encode` when it is first asked for.
    ///
    /// # Panics
    /// For a number of 4 or more: there are so many forms.
    pub fn frame(&self, form: usize, encode: impl FnOnce(&Message) -> Arc<[u8]>) -> &Arc<[u8]> {
        self.frames[form].get_or_init(|| encode(self))
    }

    /// Bytes that it takes, forms included: for each that may be made as much as it would be.
    pub(crate) fn bytes(&self) -> usize {
        let own = self.data.len() + self.event.as_ref().map_or(0, |event| event.len());
        // Twice: most are sent in one form.
        size_of::<Message>() + 2 * own
    }
}
