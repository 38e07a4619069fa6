//! handover: in progress
mod clock;
mod config;
mod error;
mod handler;
mod http;
mod site;
pub use error::Error;
pub use handler::*;
pub use site::{Files, Welcome};
pub use tiny_http::{HTTPVersion, Header, HeaderField, Method, StatusCode};
mod connection {}
mod listener {
    #[derive(Clone, Debug)]
    pub struct Address;
    impl std::str::FromStr for Address {
        type Err = crate::Error;
        fn from_str(_: &str) -> Result<Address, crate::Error> {
            Ok(Address)
        }
    }
}
