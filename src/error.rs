//! The error at the library's edge.

use std::fmt;
use std::io;

/// Why a server could not be built or could not run.
///
/// ```
/// let error = handover::Server::builder().bind("no-port").err().expect("no port");
/// assert!(error.is_usage() && !error.is_bind() && !error.is_config());
/// assert_eq!(error.exit_code(), 2);
/// ```
pub struct Error(Box<Inner>);

/// Boxed, so that a result is as small as what it is about, and who passes an error on moves and drops a pointer.
struct Inner {
    kind: Kind,
    message: String,
    source: Option<io::Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Usage,
    Bind,
    Config,
    Runtime,
}

impl Error {
    fn new(kind: Kind, message: fmt::Arguments<'_>, source: Option<io::Error>) -> Error {
        Error(Box::new(Inner { kind, message: message.to_string(), source }))
    }

    pub(crate) fn usage(message: fmt::Arguments<'_>) -> Error {
        Error::new(Kind::Usage, message, None)
    }

    pub(crate) fn config(message: fmt::Arguments<'_>) -> Error {
        Error::new(Kind::Config, message, None)
    }

    pub(crate) fn bind(message: fmt::Arguments<'_>, source: io::Error) -> Error {
        Error::new(Kind::Bind, message, Some(source))
    }

    /// `what`, and then what the source says.
    pub(crate) fn runtime(what: fmt::Arguments<'_>, source: io::Error) -> Error {
        let said = source.to_string();
        Error::new(Kind::Runtime, format_args!("{what}: {said}"), Some(source))
    }

    /// Whether the caller asked for something impossible: an unknown flag, a malformed address, a missing ROOT.
    pub fn is_usage(&self) -> bool {
        self.0.kind == Kind::Usage
    }

    /// Whether a listener could not be bound, or the pid file is a running server's.
    pub fn is_bind(&self) -> bool {
        self.0.kind == Kind::Bind
    }

    /// Whether the settings contradict each other or are out of range.
    pub fn is_config(&self) -> bool {
        self.0.kind == Kind::Config
    }

    /// The exit code for it: 1 runtime failure, 2 usage, 69 cannot bind, 78 bad configuration
    /// (the latter two as in `sysexits.h`).
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            Kind::Runtime => 1,
            Kind::Usage => 2,
            Kind::Bind => 69,
            Kind::Config => 78,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, source } = &*self.0;
        f.debug_struct("Error").field("kind", kind).field("message", message).field("source", source).finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}
