//! What messages are about.

use std::fmt;
use std::sync::Arc;

/// The most bytes of a name.
const LONGEST: usize = 128;

/// A name in a namespace. One in one namespace cannot be read through another.
///
/// UTF-8 without control characters, 1 to 128 bytes, compared byte by byte. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    namespace: Arc<str>,
    name: Arc<str>,
}

/// Why a text is no topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTopic {
    /// It has no bytes, or more than 128.
    Length,
    /// There is a control character in it.
    Control,
}

impl fmt::Display for BadTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadTopic::Length => "a topic has 1 to 128 bytes",
            BadTopic::Control => "a topic has no control characters",
        })
    }
}

impl std::error::Error for BadTopic {}

impl Topic {
    /// A topic of that namespace.
    ///
    /// # Errors
    /// A name that is empty, too long, or has control characters.
    pub fn new(namespace: impl Into<Arc<str>>, name: &str) -> Result<Topic, BadTopic> {
        check_name(name)?;
        Ok(Topic { namespace: namespace.into(), name: name.into() })
    }

    /// Whether it is this very one; the same names elsewhere are not.
    pub(crate) fn is(&self, other: &Topic) -> bool {
        Arc::ptr_eq(&self.name, &other.name) && Arc::ptr_eq(&self.namespace, &other.namespace)
    }

    /// Where its name counts.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name there.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same in every process, for what is known of one that is forgotten: FNV-1a of both names.
    pub(crate) fn fingerprint(&self) -> u64 {
        let names = self.namespace.bytes().chain([0]).chain(self.name.bytes());
        names.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// Bytes of the names.
    pub(crate) fn bytes(&self) -> usize {
        self.namespace.len() + self.name.len()
    }
}

/// Whether it is a name: of a topic, and in the same way of an event.
pub(crate) fn check_name(name: &str) -> Result<(), BadTopic> {
    if name.is_empty() || name.len() > LONGEST {
        return Err(BadTopic::Length);
    }
    match name.chars().any(char::is_control) {
        true => Err(BadTopic::Control),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_length_and_no_controls() {
        assert!(Topic::new("n", "a/b c ü").is_ok());
        assert!(Topic::new("n", &"x".repeat(128)).is_ok());
        for (name, why) in [
            ("", BadTopic::Length),
            (&*"x".repeat(129), BadTopic::Length),
            ("a\nb", BadTopic::Control),
            ("a\u{85}", BadTopic::Control),
            ("\u{7f}", BadTopic::Control),
        ] {
            assert_eq!(Topic::new("n", name), Err(why), "{name:?}");
        }
        assert_ne!(Topic::new("a", "x"), Topic::new("b", "x"));
    }
}
