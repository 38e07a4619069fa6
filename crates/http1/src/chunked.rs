//! The chunked coding (RFC 9112 §7.1), one state a byte, so that it can stop anywhere.

use super::{Reject, is_token_byte};
use std::ops::Range;

/// Bytes of extensions beyond those that the data of earlier chunks has paid for, one for one; and bytes of the whole
/// trailer section. RFC 9112 §7.1.1 asks for a limit on all extensions of a request together: with one for each chunk,
/// a body of small chunks would be thousands of times its size.
const OVERHEAD_LIMIT: u16 = 4096;

/// Decodes a chunked body.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    overhead: u16,
}

/// What one call of [`Decoder::decode`] learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with, `data` included.
    pub consumed: usize,
    /// Where in the input the next bytes of the body stand; empty when there are none.
    pub data: Range<usize>,
    /// Whether the body and its trailers are over.
    pub done: bool,
}

/// Where a decoder is, for whoever writes it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Reading hexadecimal digits.
    Size {
        /// What they say so far.
        size: u64,
        /// How many they are so far.
        digits: u8,
    },
    /// In the extensions of a chunk.
    Extension {
        /// The chunk's size.
        size: u64,
        /// Where in them.
        at: Within,
    },
    /// After the CR that ends the chunk header.
    SizeLf {
        /// The chunk's size.
        size: u64,
    },
    /// In a chunk's data.
    Data {
        /// Bytes of it that are still to come.
        left: u64,
    },
    /// Before the CR behind a chunk's data.
    DataCr,
    /// Behind that CR.
    DataLf,
    /// At the beginning of a line of the trailer section.
    TrailerStart,
    /// In a trailer's name.
    TrailerName,
    /// In its value.
    TrailerValue,
    /// Behind the CR of its line.
    TrailerLf,
    /// Behind the CR of the last line.
    EndLf,
    /// Behind the body.
    Done,
}

/// Inside `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112 §7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// White space was seen, which only a `;` may follow.
    BeforeSemicolon,
    /// Behind a quoted value.
    AfterQuoted,
    /// Behind a `;`.
    BeforeName,
    /// In a name.
    Name,
    /// Behind a name.
    AfterName,
    /// Behind a `=`.
    BeforeValue,
    /// In a value without quotes.
    Token,
    /// In a value with quotes.
    Quoted,
    /// Behind a `\\` in it.
    QuotedPair,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { state: State::Size { size: 0, digits: 0 }, overhead: 0 }
    }
}

impl Decoder {
    /// One that goes on there, after so many bytes of extensions and trailers that no data has paid for. Whatever it is
    /// told, it reads on or refuses.
    pub fn resume(state: State, overhead: u16) -> Decoder {
        Decoder { state, overhead }
    }

    /// Where it is, and the bytes of extensions and trailers: what [`resume`](Decoder::resume) goes on with.
    pub fn saved(&self) -> (State, u16) {
        (self.state, self.overhead)
    }

    /// Decodes up to the end of the next piece of data, of the input, or of the body.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, Reject> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                let left = left - length as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                return Ok(Step { consumed: at + length, data: at..at + length, done: false });
            }
            self.state = self.after(input[at])?;
            at += 1;
        }
        Ok(Step { consumed: at, data: at..at, done: self.is_done() })
    }

    /// Whether the body and its trailers are over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn after(&mut self, byte: u8) -> Result<State, Reject> {
        use State::*;
        Ok(match (self.state, byte) {
            (Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                // 16 digits fill a u64; leading zeros beyond that are nobody's honest chunk. A decoder that a predecessor
                // wrote down may say more.
                if digits >= 16 {
                    return Err(Reject::BadChunk);
                }
                Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Size { digits: 0, .. }, _) => return Err(Reject::BadChunk),
            (Size { size, .. }, b'\r') => SizeLf { size },
            (Size { size, .. }, byte) => self.extension(size, Within::BeforeSemicolon, byte)?,
            (Extension { size, at }, byte) => self.extension(size, at, byte)?,
            (SizeLf { size: 0 }, b'\n') => {
                self.overhead = 0;
                TrailerStart
            }
            (SizeLf { size }, b'\n') => {
                self.overhead = self.overhead.saturating_sub(u16::try_from(size).unwrap_or(u16::MAX));
                Data { left: size }
            }
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => Size { size: 0, digits: 0 },
            (SizeLf { .. } | DataCr | DataLf, _) => return Err(Reject::BadChunk),
            (TrailerStart, b'\r') => EndLf,
            (TrailerStart | TrailerName, byte) if is_token_byte(byte) => {
                self.count_overhead()?;
                TrailerName
            }
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, byte) if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => {
                self.count_overhead()?;
                TrailerValue
            }
            (TrailerLf, b'\n') => TrailerStart,
            (EndLf, b'\n') => Done,
            (TrailerStart | TrailerName | TrailerValue | TrailerLf | EndLf, _) => return Err(Reject::BadTrailer),
            (Data { .. } | Done, _) => unreachable!("decode() handles data and the end itself"),
        })
    }

    fn extension(&mut self, size: u64, at: Within, byte: u8) -> Result<State, Reject> {
        use Within::*;
        self.count_overhead()?;
        let blank = byte == b' ' || byte == b'\t';
        let next = match (at, byte) {
            (BeforeSemicolon | AfterQuoted | AfterName | Name | Token, b';') => BeforeName,
            (BeforeSemicolon | AfterQuoted | Token, _) if blank => BeforeSemicolon,
            (BeforeName, _) if blank => BeforeName,
            (BeforeName | Name, byte) if is_token_byte(byte) => Name,
            (Name | AfterName, _) if blank => AfterName,
            (Name | AfterName, b'=') => BeforeValue,
            (BeforeValue, _) if blank => BeforeValue,
            (BeforeValue, b'"') => Quoted,
            (BeforeValue | Token, byte) if is_token_byte(byte) => Token,
            (Quoted, b'"') => AfterQuoted,
            (Quoted, b'\\') => QuotedPair,
            (Quoted | QuotedPair, byte) if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => Quoted,
            (Name | Token | AfterQuoted, b'\r') => return Ok(State::SizeLf { size }),
            _ => return Err(Reject::BadChunk),
        };
        Ok(State::Extension { size, at: next })
    }

    fn count_overhead(&mut self) -> Result<(), Reject> {
        self.overhead = self.overhead.saturating_add(1);
        match self.overhead > OVERHEAD_LIMIT {
            true => Err(Reject::ChunkOverhead),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, usize), Reject> {
        let mut decoder = Decoder::default();
        let (mut body, mut used) = (Vec::new(), 0);
        for piece in input.chunks(step) {
            let mut at = 0;
            while at < piece.len() && !decoder.is_done() {
                let progress = decoder.decode(&piece[at..])?;
                body.extend_from_slice(&piece[at..][progress.data]);
                at += progress.consumed;
            }
            used += at;
        }
        assert!(decoder.is_done(), "never ends: {:?}", String::from_utf8_lossy(input));
        Ok((body, used))
    }

    fn everywhere(input: &[u8]) -> Result<(Vec<u8>, usize), Reject> {
        let whole = decode(input, input.len());
        for step in 1..input.len() {
            assert_eq!(decode(input, step), whole, "in steps of {step}");
        }
        whole
    }

    #[test]
    fn bodies_that_are_right() {
        for (input, body) in [
            (&b"0\r\n\r\n"[..], &b""[..]),
            (b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n", b"hello world"),
            (b"00A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", b"0123456789"),
            (b"1 ; a ; b = \"c\\\" ;\" ;d\r\nx\r\n0\r\n\r\n", b"x"),
        ] {
            assert_eq!(everywhere(input), Ok((body.to_vec(), input.len())));
            let followed = [input, b"GET /"].concat();
            assert_eq!(decode(&followed, followed.len()), Ok((body.to_vec(), input.len())));
        }
    }

    #[test]
    fn bodies_that_are_wrong() {
        for input in [
            &b"\r\n"[..],
            b"+5\r\nhello\r\n",
            b"0x5\r\n",
            b"-1\r\n",
            b"g\r\n",
            b" 5\r\n",
            b"5\n",
            b"5\rx",
            b"5\r\nhelloX",
            b"5\r\nhello\rX",
            b"5\r\nhello\n",
            b"10000000000000000\r\n",
            b"5;\r\n",
            b"5;a=\r\n",
            b"5 \r\n",
            b"5;a b\r\n",
            b"5;a=\"\n\"\r\n",
            b"5;\x01\r\n",
        ] {
            assert_eq!(everywhere(input), Err(Reject::BadChunk), "{:?}", String::from_utf8_lossy(input));
        }
        for input in
            [&b"0\r\n :\r\n"[..], b"0\r\nA b: c\r\n", b"0\r\nA: b\n", b"0\r\nA: \0\r\n", b"0\r\n\n", b"0\r\n\rX"]
        {
            assert_eq!(everywhere(input), Err(Reject::BadTrailer), "{:?}", String::from_utf8_lossy(input));
        }
        let long = [b"5;", &[b'a'; 5000][..]].concat();
        assert_eq!(decode(&long, 100), Err(Reject::ChunkOverhead));
        let together = [&[b'a'; 300][..], b"\r\nx\r\n"].concat();
        let together = [b"1;", &together[..]].concat().repeat(14);
        assert_eq!(decode(&together, 100), Err(Reject::ChunkOverhead));
        let paid = [b"12c;", &[b'a'; 300][..], b"\r\n", &[b'x'; 300][..], b"\r\n"].concat().repeat(30);
        let paid = [&paid[..], b"0\r\n\r\n"].concat();
        assert_eq!(decode(&paid, 100).map(|(body, _)| body.len()), Ok(9000));
        let long = [b"0\r\nA: ", &[b'a'; 5000][..]].concat();
        assert_eq!(decode(&long, 100), Err(Reject::ChunkOverhead));
    }
}
