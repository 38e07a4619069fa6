//! Reads what a client sends (RFC 6455 §5), and can stop and be written down at every byte.

#[cfg(feature = "deflate")]
use crate::deflate::inflate;
use crate::failure::Failure;
use crate::frame::{COMPRESSED, CONTROL_LIMIT, CloseCode, FINISHED, Opcode, RESERVED};
use crate::mask;

/// Reads a client's frames, and puts its messages together.
///
/// One that waits between messages is a few words and holds nothing else.
///
/// ```
/// use websocket::{Decoder, Event, Limits, Message, Step};
///
/// let mut decoder = Decoder::new(Limits { max_message: 65_536, deflate: false });
/// let input = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x89\x80abcd";
/// let hello = Event::Message(Message::Text("Hello".to_owned()));
/// assert_eq!(decoder.decode(input), Ok(Step { consumed: 11, event: Some(hello) }));
/// assert_eq!(decoder.decode(&input[11..]), Ok(Step { consumed: 6, event: Some(Event::Ping(vec![])) }));
/// ```
#[derive(Debug)]
pub struct Decoder {
    /// The two of [`Limits`], each for itself: so the second takes no room of its own.
    max_message: usize,
    deflate: bool,
    /// What there is of a frame or of a message.
    progress: Option<Box<Progress>>,
    /// A close frame has come, or the client was failed.
    ended: bool,
}

/// What a client may do. There is no default: what a message may be depends on what is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message in bytes, all fragments of it: as it comes, and as it is behind the decompression. A control
    /// frame is no part of one. What is longer is failed with 1009, at the header that says so.
    pub max_message: usize,
    /// Whether permessage-deflate was negotiated (RFC 7692). Without the feature `deflate` it never is, whatever stands
    /// here.
    pub deflate: bool,
}

impl Limits {
    fn deflates(&self) -> bool {
        cfg!(feature = "deflate") && self.deflate
    }
}

/// What one call of [`Decoder::decode`] learned.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// What they said; without it all of the input is consumed.
    pub event: Option<Event>,
}

/// What a client said (RFC 6455 §5.5 and §5.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message, all of it.
    Message(Message),
    /// A question whether somebody is there, to be answered by a pong with the same payload: at most 125 bytes.
    Ping(Vec<u8>),
    /// An answer to a ping, or one that nobody asked for (RFC 6455 §5.5.3).
    Pong(Vec<u8>),
    /// The client ends the connection, and may say why.
    Close(Option<Close>),
}

/// A message of a client, of at most [`Limits::max_message`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

/// Why a client ends the connection (RFC 6455 §7.1.5 and §7.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The status.
    pub code: CloseCode,
    /// Words for a log, nothing for a program: at most 123 bytes, often none.
    pub reason: String,
}

/// A [`Decoder`] as it is written down: what it has read and not yet answered.
///
/// How it is laid out for another process, and in which version, is for whoever sends it there. What follows from the
/// bytes is not in it: the mask and where in it the payload stands are in the header and `received`, how much of a text has
/// been looked at is in its payload. What contradicts itself nevertheless is refused by [`Decoder::restore`].
///
/// ```
/// use websocket::{Decoder, Event, Limits, Message};
///
/// let limits = Limits { max_message: 65_536, deflate: false };
/// let (before, behind) = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".split_at(8);
/// let mut decoder = Decoder::new(limits);
/// decoder.decode(before)?;
/// let saved = decoder.save();
/// assert_eq!((&saved.header[..], saved.received), (&before[..6], 2));
///
/// let mut successor = Decoder::restore(saved, limits).expect("the same limits");
/// assert_eq!(successor.decode(behind)?.event, Some(Event::Message(Message::Text("Hello".to_owned()))));
/// # Ok::<(), websocket::Failure>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The header of the frame that is being read, as it came, as far as it came: up to 14 bytes.
    pub header: Vec<u8>,
    /// How much of its payload has come.
    pub received: u64,
    /// What has come of it, unmasked, if it is a control frame: these may stand between the fragments of a message.
    pub control: Vec<u8>,
    /// What has come of a message.
    pub message: Option<SavedMessage>,
    /// A close frame has come, or the client was failed: nothing more is read.
    pub ended: bool,
}

/// A message that is not complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedMessage {
    /// Text, or bytes.
    pub text: bool,
    /// Whether the payload is compressed.
    pub compressed: bool,
    /// What has come, unmasked, of all its fragments.
    pub payload: Vec<u8>,
}

impl Decoder {
    /// One that has read nothing.
    pub fn new(limits: Limits) -> Decoder {
        let Limits { max_message, deflate } = limits;
        Decoder { max_message, deflate, progress: None, ended: false }
    }

    /// Reads up to the end of the input, or of what it says first.
    ///
    /// Behind a close frame everything is consumed and means nothing (RFC 6455 §5.5.1).
    ///
    /// # Errors
    /// What the client may not send, at the first byte that shows it. Nothing is read after that (RFC 6455 §7.1.7): all
    /// that comes is consumed.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Failure> {
        if self.ended {
            return Ok(Step { consumed: input.len(), event: None });
        }
        // Read on the stack: what comes whole, as most does, needs no place to wait in.
        let mut progress = self.progress.take().map_or_else(Progress::default, |progress| *progress);
        let step = progress.read(input, &self.limits());
        match &step {
            Err(_) | Ok(Step { event: Some(Event::Close(_)), .. }) => self.ended = true,
            Ok(_) if progress.is_at_rest() => {}
            Ok(_) => self.progress = Some(Box::new(progress)),
        }
        step
    }

    /// What its client may do.
    pub fn limits(&self) -> Limits {
        Limits { max_message: self.max_message, deflate: self.deflate }
    }

    /// Whether nothing more is read: a close frame has come, or the client was failed.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether it stands between messages.
    pub fn is_idle(&self) -> bool {
        self.progress.is_none()
    }

    /// Bytes that it holds besides itself, for who has a budget of them: none between messages.
    pub fn held(&self) -> usize {
        let message = |progress: &Progress| progress.message.as_ref().map_or(0, |message| message.payload.capacity());
        self.progress
            .as_ref()
            .map_or(0, |progress| size_of::<Progress>() + progress.control.capacity() + message(progress))
    }

    /// Where it is, for [`restore`](Decoder::restore).
    pub fn save(&self) -> Saved {
        let Some(progress) = &self.progress else { return Saved { ended: self.ended, ..Saved::default() } };
        let message = progress.message.as_ref().map(|message| SavedMessage {
            text: message.text,
            compressed: message.compressed,
            payload: message.payload.clone(),
        });
        Saved {
            header: progress.header.bytes().to_vec(),
            received: progress.received as u64,
            control: progress.control.clone(),
            message,
            ended: self.ended,
        }
    }

    /// One that goes on there; `None` if no decoder with these limits could be there: what was written down contradicts
    /// itself, has more than the limit now is, or is compressed where that is not negotiated. So it may come from anybody.
    pub fn restore(saved: Saved, limits: Limits) -> Option<Decoder> {
        let ended = saved.ended;
        if ended && saved != (Saved { ended, ..Saved::default() }) {
            return None;
        }
        let progress = Progress::restore(saved, &limits)?;
        let progress = (!progress.is_at_rest()).then(|| Box::new(progress));
        Some(Decoder { progress, ended, ..Decoder::new(limits) })
    }
}

/// What is there only within a frame or a message.
#[derive(Debug, Default)]
struct Progress {
    header: Header,
    /// Bytes of the frame's payload.
    received: usize,
    /// They, if it is a control frame.
    control: Vec<u8>,
    /// Begun by a data frame's header.
    message: Option<Assembly>,
}

/// A message as it is put together.
#[derive(Debug)]
struct Assembly {
    text: bool,
    compressed: bool,
    payload: Vec<u8>,
    /// How much of it is known to be UTF-8.
    checked: usize,
}

impl Progress {
    fn is_at_rest(&self) -> bool {
        self.header.have == 0 && self.message.is_none()
    }

    fn read(&mut self, input: &[u8], limits: &Limits) -> Result<Step, Failure> {
        let mut at = 0;
        loop {
            let within = self.message.as_ref().map(|message| message.payload.len());
            let mut frame = self.header.frame();
            while frame.is_none() {
                let Some(&byte) = input.get(at) else { return self.pause(at) };
                at += 1;
                self.header.push(byte, within, limits)?;
                frame = self.header.frame();
                if let Some(frame) = &frame {
                    self.begin(frame);
                }
            }
            let Some(frame) = frame else { return self.pause(at) };
            let piece = &input[at..];
            let piece = &piece[..piece.len().min(frame.length - self.received)];
            self.take(&frame, piece, limits);
            at += piece.len();
            if self.received < frame.length {
                return self.pause(at);
            }
            if let Some(event) = self.end(&frame, limits)? {
                return Ok(Step { consumed: at, event: Some(event) });
            }
        }
    }

    /// Behind the header.
    fn begin(&mut self, frame: &FrameHead) {
        if matches!(frame.opcode, Opcode::Text | Opcode::Binary) {
            let (text, compressed) = (frame.opcode == Opcode::Text, frame.compressed);
            self.message = Some(Assembly { text, compressed, payload: Vec::new(), checked: 0 });
        }
    }

    /// In the payload.
    fn take(&mut self, frame: &FrameHead, piece: &[u8], limits: &Limits) {
        let left = frame.length - self.received;
        let payload = match &mut self.message {
            Some(message) if !frame.opcode.is_control() => &mut message.payload,
            _ => &mut self.control,
        };
        let (from, needed) = (payload.len(), payload.len() + piece.len());
        if needed > payload.capacity() {
            // Only for what has come, whatever the header says; and twice the room, so that not each fragment of a byte
            // moves all that came before it; but none that the last frame or the message cannot fill.
            let most = if frame.finished { from + left } else { limits.max_message };
            let room = needed.max(2 * payload.capacity()).min(most);
            debug_assert!(room >= needed, "what the header was refused for: {needed} of {most}");
            payload.reserve_exact(room - from);
        }
        payload.extend_from_slice(piece);
        mask::apply(&mut payload[from..], mask::rotated(frame.mask, self.received));
        self.received += piece.len();
    }

    /// Behind the payload.
    fn end(&mut self, frame: &FrameHead, limits: &Limits) -> Result<Option<Event>, Failure> {
        self.header = Header::default();
        self.received = 0;
        match frame.opcode {
            Opcode::Ping => Ok(Some(Event::Ping(std::mem::take(&mut self.control)))),
            Opcode::Pong => Ok(Some(Event::Pong(std::mem::take(&mut self.control)))),
            Opcode::Close => close(&self.control).map(|close| Some(Event::Close(close))),
            _ if frame.finished => {
                let message = self.message.take().map(|message| message.finish(limits)).transpose()?;
                Ok(message.map(Event::Message))
            }
            _ => self.check().map(|()| None),
        }
    }

    /// At the end of the input.
    fn pause(&mut self, at: usize) -> Result<Step, Failure> {
        self.check()?;
        Ok(Step { consumed: at, event: None })
    }

    /// Whether what has come of a text can become UTF-8. To be asked before anything else is looked at that comes behind
    /// it, so that the first byte that is wrong decides, however the bytes are cut.
    fn check(&mut self) -> Result<(), Failure> {
        self.message.as_mut().map_or(Ok(()), Assembly::check)
    }

    fn restore(saved: Saved, limits: &Limits) -> Option<Progress> {
        let Saved { header: bytes, received, control, message, ended: _ } = saved;
        let received = usize::try_from(received).ok()?;
        let mut message = message.map(|SavedMessage { text, compressed, payload }| Assembly {
            text,
            compressed,
            payload,
            checked: 0,
        });
        let length = message.as_ref().map(|message| message.payload.len());

        // The header, held against what there was of the message when it came.
        let frame = Header::of(&bytes)?.frame();
        let within = match &frame {
            Some(frame) if frame.opcode == Opcode::Continuation => Some(length?.checked_sub(received)?),
            Some(frame) if !frame.opcode.is_control() => (length? == received).then_some(None)?,
            _ => length,
        };
        let mut header = Header::default();
        for byte in bytes {
            if header.frame().is_some() {
                return None;
            }
            header.push(byte, within, limits).ok()?;
        }
        match &frame {
            // It would have ended.
            Some(frame) if received >= frame.length => return None,
            Some(frame) if frame.opcode.is_control() => (control.len() == received).then_some(())?,
            Some(frame) => {
                let message = message.as_ref()?;
                let begun = frame.opcode != Opcode::Continuation;
                let same = frame.compressed == message.compressed && (frame.opcode == Opcode::Text) == message.text;
                (control.is_empty() && (same || !begun)).then_some(())?;
            }
            None => (control.is_empty() && received == 0).then_some(())?,
        }
        if let Some(message) = &mut message {
            let fits = message.payload.len() <= limits.max_message && (limits.deflates() || !message.compressed);
            (fits && message.check().is_ok()).then_some(())?;
        }
        Some(Progress { header, received, control, message })
    }
}

impl Assembly {
    fn check(&mut self) -> Result<(), Failure> {
        // Compressed it says nothing yet.
        if !self.text || self.compressed {
            return Ok(());
        }
        match str::from_utf8(&self.payload[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            // The beginning of a character. What none can begin with is an error at once.
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Failure::BadUtf8),
        }
        Ok(())
    }

    fn finish(self, limits: &Limits) -> Result<Message, Failure> {
        let payload = if self.compressed { inflate(self.payload, limits.max_message)? } else { self.payload };
        Ok(if self.text {
            Message::Text(String::from_utf8(payload).map_err(|_| Failure::BadUtf8)?)
        } else {
            Message::Binary(payload)
        })
    }
}

/// Without the feature no header is taken that says so.
#[cfg(not(feature = "deflate"))]
fn inflate(_: Vec<u8>, _: usize) -> Result<Vec<u8>, Failure> {
    Err(Failure::BadDeflate)
}

/// What stands in a close frame (RFC 6455 §5.5.1).
fn close(payload: &[u8]) -> Result<Option<Close>, Failure> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Failure::CloseLength) };
    };
    let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(Failure::CloseCode)?;
    let reason = str::from_utf8(reason).map_err(|_| Failure::CloseReason)?.to_owned();
    Ok(Some(Close { code, reason }))
}

/// A frame's header (RFC 6455 §5.2), as far as it has come.
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    bytes: [u8; 14],
    have: u8,
}

/// What a whole one says.
#[derive(Clone, Copy, Debug)]
struct FrameHead {
    finished: bool,
    compressed: bool,
    opcode: Opcode,
    length: usize,
    mask: [u8; 4],
}

/// Says that a frame is masked, beside the length.
const MASKED: u8 = 0x80;

impl Header {
    /// Without a look at them; `None` if they are more than any header has.
    fn of(bytes: &[u8]) -> Option<Header> {
        let mut header = Header { have: u8::try_from(bytes.len()).ok()?, ..Header::default() };
        header.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(header)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.have)]
    }

    /// One more byte, behind a header that is not whole. `within` is how long the unfinished message is.
    fn push(&mut self, byte: u8, within: Option<usize>, limits: &Limits) -> Result<(), Failure> {
        self.bytes[usize::from(self.have)] = byte;
        self.have += 1;
        match self.have {
            1 => self.check_first(within.is_some(), limits)?,
            2 => self.check_second()?,
            // RFC 6455 §5.2: the most significant bit must be 0.
            3 if self.short_length() == 127 && byte & 0x80 != 0 => return Err(Failure::LengthTopBit),
            _ => {}
        }
        if self.have >= 2 && self.have == self.end_of_length() { self.check_length(within, limits) } else { Ok(()) }
    }

    fn check_first(&self, within: bool, limits: &Limits) -> Result<(), Failure> {
        let first = self.bytes[0];
        let opcode = Opcode::of(first);
        // RFC 7692 §6: on the first frame of a message alone, and only if it was negotiated.
        let may_compress = limits.deflates() && matches!(opcode, Some(Opcode::Text | Opcode::Binary));
        if first & RESERVED != 0 || (first & COMPRESSED != 0 && !may_compress) {
            return Err(Failure::ReservedBits);
        }
        match opcode.ok_or(Failure::ReservedOpcode)? {
            // RFC 6455 §5.5.
            opcode if opcode.is_control() && first & FINISHED == 0 => Err(Failure::FragmentedControl),
            // RFC 6455 §5.4, both.
            Opcode::Continuation if !within => Err(Failure::NothingToContinue),
            Opcode::Text | Opcode::Binary if within => Err(Failure::MessageInMessage),
            _ => Ok(()),
        }
    }

    fn check_second(&self) -> Result<(), Failure> {
        // RFC 6455 §5.1.
        if self.bytes[1] & MASKED == 0 {
            return Err(Failure::Unmasked);
        }
        // RFC 6455 §5.5.
        let control = Opcode::of(self.bytes[0]).is_some_and(Opcode::is_control);
        if control && usize::from(self.short_length()) > CONTROL_LIMIT { Err(Failure::ControlTooLong) } else { Ok(()) }
    }

    fn check_length(&self, within: Option<usize>, limits: &Limits) -> Result<(), Failure> {
        let length = self.length();
        let shortest = match self.short_length() {
            127 => length > 0xffff,
            126 => length > 125,
            _ => true,
        };
        if !shortest {
            return Err(Failure::LengthNotMinimal);
        }
        // What a message has had already counts, and a control frame is no part of it.
        let control = Opcode::of(self.bytes[0]).is_some_and(Opcode::is_control);
        let left = limits.max_message.saturating_sub(within.unwrap_or(0));
        if !control && length > left as u64 { Err(Failure::TooLarge) } else { Ok(()) }
    }

    /// The length, or that it follows in two or eight bytes.
    fn short_length(&self) -> u8 {
        self.bytes[1] & !MASKED
    }

    /// Where the length ends, from the second byte on.
    fn end_of_length(&self) -> u8 {
        match self.short_length() {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn length(&self) -> u64 {
        let [_, _, a, b, c, d, e, f, g, h, ..] = self.bytes;
        match self.short_length() {
            126 => u16::from_be_bytes([a, b]).into(),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => short.into(),
        }
    }

    /// What it says, if it is whole.
    fn frame(&self) -> Option<FrameHead> {
        let first = self.bytes[0];
        let end = usize::from(self.end_of_length());
        if self.have < 2 || usize::from(self.have) != end + 4 {
            return None;
        }
        Some(FrameHead {
            finished: first & FINISHED != 0,
            compressed: first & COMPRESSED != 0,
            opcode: Opcode::of(first)?,
            // What is above the limit was refused, so that it fits.
            length: usize::try_from(self.length()).ok()?,
            mask: *self.bytes[end..].first_chunk()?,
        })
    }
}

#[cfg(test)]
mod tests;
