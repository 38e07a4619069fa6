//! Testing an application, with and without sockets.
//!
//! Write the routes as a function; `main` and the tests both call it.
//!
//! # Without sockets
//!
//! [`test::Client`](crate::test::Client) asks the router in the thread of the test. The request is read by the server's own
//! parser, and its limits hold; a panic is 500, as it would be.
//!
//! ```
//! use handover::{Rejection, Request, Router, test::Client};
//!
//! fn routes() -> Router {
//!     fn add(request: &mut Request) -> Result<String, Rejection> {
//!         let numbers: Vec<u64> = request.json()?;
//!         Ok(format!("{}\n", numbers.iter().sum::<u64>()))
//!     }
//!     Router::new().post("/add", add).max_body(100)
//! }
//!
//! let client = Client::new(routes());
//! assert_eq!(client.post("/add").json(&[1, 2, 3]).send().text(), "6\n");
//! assert_eq!(client.post("/add").body("[1]").send().status(), 415, "no Content-Type");
//! assert_eq!(client.post("/add").json(&vec![1; 1000]).send().status(), 413);
//! assert_eq!(client.raw(b"POST /add HTTP/1.1\r\nHost: test\r\nContent-Length: +1\r\n\r\n1").status(), 400);
//! ```
//!
//! # With a server
//!
//! [`test::Server`](crate::test::Server) is a real one on a free port, for push, streams, and clients of other libraries. It
//! stops when it is dropped, and takes no signals of the test program's. Several may run at once.
//!
//! ```
//! use handover::{Body, Request, Router, Server};
//!
//! let slow = |_: &mut Request| Body::stream(|writer| {
//!     writer.write_all(b"one ")?;
//!     writer.flush()?;
//!     writer.write_all(b"two")
//! });
//! let server = handover::test::Server::start(Server::builder().service(Router::new().get("/", slow)))?;
//! assert_eq!(server.get("/").send().text(), "one two");
//! assert_eq!(server.stop()?, handover::Ended::Clean);
//! # Ok::<(), handover::Error>(())
//! ```
//!
//! What a reload does to an application is best tried as it happens: start the program, ask it, run `NAME reload --pid-file FILE
//! --wait`, and ask it again on the same connection.
//!
//! Next: [`deployment`](super::deployment).
