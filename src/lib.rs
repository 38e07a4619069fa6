//! handover: in progress
mod cli;
mod clock;
mod config;
mod error;
mod handler;
mod http;
mod logging;
pub use cli::Parsed;
pub use config::{Config, Limits};
pub use error::Error;
pub use handler::*;
pub use logging::{Log, init_logging};
pub use tiny_http::{HTTPVersion, Header, HeaderField, Method, StatusCode};
mod connection {}
mod listener {
    //! Stands in until the listener is there.

    /// Where to listen.
    #[derive(Clone, Debug)]
    pub struct Address(String);

    impl std::str::FromStr for Address {
        type Err = crate::Error;
        fn from_str(text: &str) -> Result<Address, crate::Error> {
            match text.contains(':') {
                true => Ok(Address(text.to_owned())),
                false => Err(crate::Error::usage(format!("{text:?} is no address"))),
            }
        }
    }

    impl std::fmt::Display for Address {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&self.0)
        }
    }
}
