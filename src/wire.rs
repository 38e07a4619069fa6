//! Values as bytes, for a successor: numbers as varints, text and lists with their length first, fields in their order.
//!
//! It is postcard's format, since the first version was written by postcard; see its specification. A derived
//! `Serialize` and `Deserialize` for what is written here would be 12 KB more of program.

use std::net::{IpAddr, SocketAddr};

/// What can be written and read again.
pub trait Wire: Sized {
    /// Appends the value.
    fn put(&self, bytes: &mut Vec<u8>);

    /// Takes a value from the front.
    fn take(bytes: &mut &[u8]) -> Result<Self, Malformed>;

    /// Appends values, without saying how many.
    fn put_all(values: &[Self], bytes: &mut Vec<u8>) {
        values.iter().for_each(|value| value.put(bytes));
    }

    /// Takes that many values.
    fn take_all(count: usize, bytes: &mut &[u8]) -> Result<Vec<Self>, Malformed> {
        // Without room for them all at once: who wrote that many has to have written them.
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(Self::take(bytes)?);
        }
        Ok(values)
    }
}

/// Why bytes are not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    CutShort,
    /// A number that its type cannot hold.
    Number,
    /// Of the kinds that there are of something it is none.
    Kind,
    Text,
}

impl Malformed {
    pub fn reason(self) -> &'static str {
        match self {
            Malformed::CutShort => "it is cut short",
            Malformed::Number => "a number in it is too large",
            Malformed::Kind => "something in it is of no known kind",
            Malformed::Text => "a text in it is not UTF-8",
        }
    }
}

/// Writes and reads a type by its fields, or by its kinds, each with the number that stands for it.
macro_rules! wire {
    // Those behind the semicolon are of a later version, which writes them elsewhere.
    (struct $type:ident { $($field:ident),+ $(,)? $(; $($later:ident),+)? }) => {
        impl $crate::wire::Wire for $type {
            fn put(&self, bytes: &mut Vec<u8>) {
                $(self.$field.put(bytes);)+
            }

            fn take(bytes: &mut &[u8]) -> Result<$type, $crate::wire::Malformed> {
                Ok($type { $($field: $crate::wire::Wire::take(bytes)?),+ $(, $($later: Default::default()),+)? })
            }
        }
    };
    (enum $type:ident {
        $($number:literal => $kind:ident $(($value:ident))? $({ $($field:ident),+ })?),+ $(,)?
    }) => {
        impl $type {
            /// The name of its kind, for a message: what else it says may be long, and private.
            #[allow(dead_code, reason = "not all of them are spoken of")]
            pub fn kind(&self) -> &'static str {
                match self {
                    $($type::$kind { .. } => stringify!($kind)),+
                }
            }
        }

        impl $crate::wire::Wire for $type {
            fn put(&self, bytes: &mut Vec<u8>) {
                match self {
                    $($type::$kind $(($value))? $({ $($field),+ })? => {
                        u8::put(&$number, bytes);
                        $($value.put(bytes);)?
                        $($($field.put(bytes);)+)?
                    })+
                }
            }

            fn take(bytes: &mut &[u8]) -> Result<$type, $crate::wire::Malformed> {
                Ok(match u32::take(bytes)? {
                    $($number => {
                        $(let $value = $crate::wire::Wire::take(bytes)?;)?
                        $($(let $field = $crate::wire::Wire::take(bytes)?;)+)?
                        $type::$kind $(($value))? $({ $($field),+ })?
                    })+
                    _ => return Err($crate::wire::Malformed::Kind),
                })
            }
        }
    };
}
pub(crate) use wire;

/// The first bytes, that many. Like the other parts that are never inlined, it would be compiled anew for each field.
#[inline(never)]
fn front<'b>(count: usize, bytes: &mut &'b [u8]) -> Result<&'b [u8], Malformed> {
    bytes.split_off(..count).ok_or(Malformed::CutShort)
}

fn octets<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (octets, rest) = bytes.split_first_chunk().ok_or(Malformed::CutShort)?;
    *bytes = rest;
    Ok(*octets)
}

impl Wire for u64 {
    fn put(&self, bytes: &mut Vec<u8>) {
        let mut left = *self;
        while left > 0x7f {
            (left as u8 | 0x80).put(bytes);
            left >>= 7;
        }
        (left as u8).put(bytes);
    }

    fn take(bytes: &mut &[u8]) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = u8::take(bytes)?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if number >> shift != bits {
                break;
            }
            if byte <= 0x7f {
                return Ok(number);
            }
        }
        Err(Malformed::Number)
    }
}

/// Numbers that are written as a larger one.
macro_rules! narrow {
    ($($type:ident)+) => {
        $(impl Wire for $type {
            fn put(&self, bytes: &mut Vec<u8>) {
                (*self as u64).put(bytes);
            }

            fn take(bytes: &mut &[u8]) -> Result<$type, Malformed> {
                u64::take(bytes)?.try_into().map_err(|_| Malformed::Number)
            }
        })+
    };
}
narrow! { u16 u32 usize }

impl Wire for i32 {
    /// Zigzag: those near zero are short, also below it.
    fn put(&self, bytes: &mut Vec<u8>) {
        (self.wrapping_shl(1) ^ (self >> 31)).cast_unsigned().put(bytes);
    }

    fn take(bytes: &mut &[u8]) -> Result<i32, Malformed> {
        let number = u32::take(bytes)?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }
}

/// A byte is written as it is, and many at once.
impl Wire for u8 {
    #[inline(never)]
    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.push(*self);
    }

    fn take(bytes: &mut &[u8]) -> Result<u8, Malformed> {
        Ok(front(1, bytes)?[0])
    }

    fn put_all(values: &[u8], bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(values);
    }

    fn take_all(count: usize, bytes: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
        front(count, bytes).map(<[u8]>::to_vec)
    }
}

impl Wire for bool {
    fn put(&self, bytes: &mut Vec<u8>) {
        u8::from(*self).put(bytes);
    }

    fn take(bytes: &mut &[u8]) -> Result<bool, Malformed> {
        match u8::take(bytes)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Kind),
        }
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, bytes: &mut Vec<u8>) {
        self.is_some().put(bytes);
        if let Some(value) = self {
            value.put(bytes);
        }
    }

    #[inline(never)]
    fn take(bytes: &mut &[u8]) -> Result<Option<T>, Malformed> {
        bool::take(bytes)?.then(|| T::take(bytes)).transpose()
    }
}

impl<T: Wire> Wire for Vec<T> {
    #[inline(never)]
    fn put(&self, bytes: &mut Vec<u8>) {
        self.len().put(bytes);
        T::put_all(self, bytes);
    }

    #[inline(never)]
    fn take(bytes: &mut &[u8]) -> Result<Vec<T>, Malformed> {
        T::take_all(usize::take(bytes)?, bytes)
    }
}

impl Wire for String {
    fn put(&self, bytes: &mut Vec<u8>) {
        self.len().put(bytes);
        bytes.extend_from_slice(self.as_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Result<String, Malformed> {
        String::from_utf8(Vec::take(bytes)?).map_err(|_| Malformed::Text)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, bytes: &mut Vec<u8>) {
        self.0.put(bytes);
        self.1.put(bytes);
    }

    fn take(bytes: &mut &[u8]) -> Result<(A, B), Malformed> {
        Ok((A::take(bytes)?, B::take(bytes)?))
    }
}

/// The kind, the address as it stands in a packet, and the port. The scope of an address of version 6 is not written.
impl Wire for SocketAddr {
    fn put(&self, bytes: &mut Vec<u8>) {
        match self.ip() {
            IpAddr::V4(ip) => {
                bytes.push(0);
                bytes.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                bytes.push(1);
                bytes.extend_from_slice(&ip.octets());
            }
        }
        self.port().put(bytes);
    }

    fn take(bytes: &mut &[u8]) -> Result<SocketAddr, Malformed> {
        let ip = match bool::take(bytes)? {
            false => IpAddr::from(octets::<4>(bytes)?),
            true => IpAddr::from(octets::<16>(bytes)?),
        };
        Ok(SocketAddr::new(ip, u16::take(bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is<T: Wire + PartialEq + std::fmt::Debug>(value: T, written: &[u8]) {
        let mut bytes = Vec::new();
        value.put(&mut bytes);
        assert_eq!(bytes, written, "{value:?}");
        let mut rest = written;
        assert_eq!((T::take(&mut rest), rest), (Ok(value), &[][..]));
        for cut in 0..written.len() {
            assert_eq!(T::take(&mut &written[..cut]), Err(Malformed::CutShort), "cut at {cut}");
        }
    }

    #[track_caller]
    fn is_not<T: Wire + PartialEq + std::fmt::Debug>(mut bytes: &[u8], why: Malformed) {
        assert_eq!(T::take(&mut bytes), Err(why));
    }

    #[test]
    fn values_are_written_as_postcard_writes_them() {
        is(0u64, &[0]);
        is(127u32, &[127]);
        is(128u16, &[0x80, 1]);
        is(u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        is(200u8, &[200]);
        is(-1i32, &[1]);
        is(1i32, &[2]);
        is(i32::MIN, &[255, 255, 255, 255, 15]);
        is(i32::MAX, &[254, 255, 255, 255, 15]);
        is(true, &[1]);
        is(None::<u64>, &[0]);
        is(Some((300u64, "é".to_owned())), &[1, 0xac, 2, 2, 0xc3, 0xa9]);
        is(vec![1u8, 200], &[2, 1, 200]);
        is(vec![1u64, 200], &[2, 1, 200, 1]);
        is(SocketAddr::from(([127, 0, 0, 1], 1)), &[0, 127, 0, 0, 1, 1]);
        let version_6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 8080));
        is(version_6, &[1, 32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x90, 63]);
    }

    #[test]
    fn what_nobody_wrote_is_refused() {
        assert_eq!(u64::take(&mut &[0x80, 0][..]), Ok(0), "longer than need be, which postcard reads too");
        is_not::<u16>(&[255, 255, 4], Malformed::Number);
        is_not::<u64>(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 2], Malformed::Number);
        is_not::<u64>(&[128; 11], Malformed::Number);
        is_not::<bool>(&[2], Malformed::Kind);
        is_not::<SocketAddr>(&[2, 0, 0, 0, 0, 0], Malformed::Kind);
        is_not::<String>(&[1, 0xff], Malformed::Text);
        // It says how many there are, and there are none: nothing of that size may be asked for.
        is_not::<Vec<u64>>(&[255, 255, 255, 255, 255, 255, 255, 255, 127], Malformed::CutShort);
        is_not::<Vec<u8>>(&[255, 255, 255, 255, 255, 255, 255, 255, 127], Malformed::CutShort);
    }
}
