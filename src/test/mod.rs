//! Tests of an application: [`Client`] asks a [`Handler`](crate::Handler) without any socket, [`Server`] is a real one on a
//! free port that stops when it is dropped.
//!
//! ```
//! use handover::{Request, Router, test::Client};
//!
//! let router = Router::new()
//!     .get("/hello/{name}", |request: &mut Request| request.param("name").map(|name| format!("hello {name}\n")));
//! let client = Client::new(router);
//! assert_eq!(client.get("/hello/ada").send().text(), "hello ada\n");
//! assert_eq!(client.post("/hello/ada").send().status(), 405);
//! ```

mod client;
mod exchange;
mod request;
mod response;
mod server;

pub use client::Client;
pub use request::RequestBuilder;
pub use response::Response;
pub use server::Server;
