//! permessage-deflate (RFC 7692) with nothing kept from message to message, in either direction: so a connection at rest
//! has no window, and what many connections get is compressed once.

use crate::Failure;
use miniz_oxide::DataFormat;
use miniz_oxide::deflate::CompressionLevel;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// How the empty stored block ends that a flush writes; it is left out of the message (RFC 7692 §7.2.1).
const FLUSH: [u8; 4] = [0, 0, 0xff, 0xff];

/// The same, put back (RFC 7692 §7.2.2), and a stored block that says it is the last. Only where the message ended between
/// two blocks this is read as what it is, so that one that was cut is not taken for a shorter one.
const END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// Takes a message apart that was compressed.
///
/// # Errors
/// It is no DEFLATE, or becomes longer than `limit`: whatever it would become, no more than that is written.
pub(crate) fn inflate(mut payload: Vec<u8>, limit: usize) -> Result<Vec<u8>, Failure> {
    // No compressor makes nothing, but some leave an empty message as it is.
    if payload.is_empty() {
        return Ok(payload);
    }
    let end = payload.len();
    payload.extend_from_slice(&END);
    // One byte more than it may have, to see that it has it.
    let most = limit.saturating_add(1);
    let mut out = vec![0; most.min(end.max(64).saturating_mul(4))];
    let mut inflater = Box::<DecompressorOxide>::default();
    let (mut at, mut filled) = (0, 0);
    loop {
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, read, written) = decompress(&mut inflater, &payload[at..], &mut out, filled, flags);
        (at, filled) = (at + read, filled + written);
        if filled > limit {
            return Err(Failure::TooLarge);
        }
        match status {
            // At its end, or a client says itself which block is the last: at the end of what was sent, or of what it left
            // out, if that block is an empty stored one.
            TINFLStatus::Done if at == payload.len() || at == end || at == end + FLUSH.len() => break,
            // And may send more behind it (RFC 7692 §7.2.3.4), a byte at least.
            TINFLStatus::Done if at < end && read > 0 => inflater.init(),
            TINFLStatus::HasMoreOutput if out.len() < most => out.resize(most.min(2 * out.len()), 0),
            _ => return Err(Failure::BadDeflate),
        }
    }
    out.truncate(filled);
    out.shrink_to_fit();
    Ok(out)
}

/// Compresses messages, each by itself.
///
/// It is some 300 KB, so that one serves many connections. A message that does not become shorter is better sent as it is.
///
/// ```
/// use websocket::{Deflater, Opcode, frame_header};
///
/// let mut payload = Vec::new();
/// Deflater::new().deflate(b"Hello", &mut payload);
/// let mut frame = frame_header(Opcode::Text, true, payload.len()).to_vec();
/// frame.extend_from_slice(&payload);
/// assert_eq!(frame, b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00");
/// ```
pub struct Deflater {
    compressor: Box<CompressorOxide>,
}

impl Default for Deflater {
    fn default() -> Deflater {
        Deflater::new()
    }
}

impl Deflater {
    /// One that has compressed nothing.
    pub fn new() -> Deflater {
        let compressor = CompressorOxide::with_format_and_level(DataFormat::Raw, CompressionLevel::DefaultLevel);
        Deflater { compressor: Box::new(compressor) }
    }

    /// Appends the payload of a compressed message.
    pub fn deflate(&mut self, message: &[u8], out: &mut Vec<u8>) {
        // RFC 7692 §7.2.3.6.
        if message.is_empty() {
            return out.push(0);
        }
        self.compressor.reset();
        let (status, read) = compress_to_output(&mut self.compressor, message, TDEFLFlush::Sync, |bytes| {
            out.extend_from_slice(bytes);
            true
        });
        debug_assert!(status == TDEFLStatus::Okay && read == message.len(), "a vector takes all: {status:?}");
        debug_assert!(out.ends_with(&FLUSH), "what a flush ends with");
        out.truncate(out.len() - FLUSH.len());
    }
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deflater")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http1::invariants::Random;

    fn deflated(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Deflater::new().deflate(message, &mut out);
        out
    }

    /// RFC 7692 §7.2.3: one block, two, a last one and more behind it, stored, empty; and what ends with the last one.
    #[test]
    fn the_examples_of_the_rfc_inflate() {
        let examples: [&[u8]; 7] = [
            b"\xf2\x48\xcd\xc9\xc9\x07\x00",
            b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
            b"\xf3\x48\xcd\xc9\xc9\x07\x00",
            b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
            b"\xf3\x48\x05\x00\xca\xc9\xc9\x07\x00",
            // The last block is the empty stored one whose end is left out.
            b"\xf2\x48\xcd\xc9\xc9\x07\x04",
        ];
        for example in examples {
            assert_eq!(inflate(example.to_vec(), 5).as_deref(), Ok(&b"Hello"[..]), "{}", example.escape_ascii());
            assert_eq!(inflate(example.to_vec(), 4), Err(Failure::TooLarge));
        }
        for empty in [&b""[..], b"\x00", b"\x01", b"\x02\x00", b"\x03\x00", b"\x03\x00\x00"] {
            assert_eq!(inflate(empty.to_vec(), 0), Ok(vec![]), "{}", empty.escape_ascii());
        }
    }

    #[test]
    fn what_is_cut_or_damaged_is_refused() {
        let message = b"a message that says a message says a message".repeat(3);
        let whole = deflated(&message);
        for cut in 1..whole.len() {
            let outcome = inflate(whole[..cut].to_vec(), 1000);
            assert_eq!(outcome, Err(Failure::BadDeflate), "cut at {cut} of {}", whole.len());
        }
        // A block of the kind that there is not; a distance that reaches before the beginning; a length that is not its
        // own complement.
        for bad in [&b"\x06"[..], b"\xff\xff", b"\x4b\x04\x12\x00", b"\x00\x05\x00\xfa\xfeHello\x00"] {
            assert_eq!(inflate(bad.to_vec(), 1000), Err(Failure::BadDeflate), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let mut random = Random(3);
        let mut deflater = Deflater::new();
        for round in 0..if cfg!(miri) { 2 } else { 200 } {
            let (length, letters) = (random.below(if cfg!(miri) { 50 } else { 70_000 }), 1 + random.below(256));
            let message: Vec<u8> = (0..length).map(|_| random.below(letters) as u8).collect();
            let mut out = b"in front".to_vec();
            deflater.deflate(&message, &mut out);
            let payload = out.split_off(8);
            assert_eq!(out, b"in front");
            // Nothing of the messages before is in it.
            assert_eq!(payload, deflated(&message), "round {round}");
            assert_eq!(inflate(payload.clone(), length).as_ref(), Ok(&message), "round {round}");
            if let Some(limit) = length.checked_sub(1) {
                assert_eq!(inflate(payload, limit), Err(Failure::TooLarge), "round {round}");
            }
        }
    }

    /// A thousand bytes for one.
    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = deflated(&vec![0; if cfg!(miri) { 10_000 } else { 16 << 20 }]);
        for limit in [0, 1, 5000] {
            assert_eq!(inflate(bomb.clone(), limit), Err(Failure::TooLarge));
        }
    }
}
