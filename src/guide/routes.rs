//! Paths, bodies, answers, layers.
//!
//! # Paths
//!
//! A [`Router`](crate::Router) finds the handler by path and method. `{name}` is one segment, `{*name}` is all that is left.
//!
//! ```
//! use handover::{Rejection, Request, Router, test::Client};
//!
//! fn item(request: &mut Request) -> Result<String, Rejection> {
//!     let id: u64 = request.param_as("id")?;
//!     Ok(format!("item {id}\n"))
//! }
//!
//! let router = Router::new()
//!     .get("/", |_: &mut Request| "welcome\n")
//!     .get("/items/{id}", item)
//!     .delete("/items/{id}", |_: &mut Request| ());
//!
//! let client = Client::new(router);
//! assert_eq!(client.get("/items/7").send().text(), "item 7\n");
//! assert_eq!(client.get("/items/seven").send().status(), 400);
//! assert_eq!(client.put("/items/7").send().status(), 405);
//! assert_eq!(client.get("/nowhere").send().status(), 404);
//! ```
//!
//! # Bodies
//!
//! [`Request::json`](crate::Request::json), [`form`](crate::Request::form) and [`query_as`](crate::Request::query_as) read what
//! came as a type. What is wrong is a [`Rejection`](crate::Rejection), which is an answer: `?` is all there is to write.
//! [`body_bytes`](crate::Request::body_bytes) is the body as it is, and [`as_reader`](crate::Request::as_reader) reads one that
//! is too large to be kept; [`max_body`](crate::Router::max_body) allows it.
//!
//! ```
//! use handover::{Json, Rejection, Request, Router, StatusCode, test::Client};
//!
//! #[derive(serde::Deserialize, serde::Serialize)]
//! struct Item { name: String, price: u32 }
//!
//! fn add(request: &mut Request) -> Result<(StatusCode, Json<Item>), Rejection> {
//!     let item: Item = request.json()?;
//!     if item.price == 0 {
//!         return Err(Rejection::new(422, "nothing is free"));
//!     }
//!     Ok((StatusCode(201), Json(item)))
//! }
//!
//! let client = Client::new(Router::new().post("/items", add));
//! let bolt = Item { name: "bolt".into(), price: 2 };
//! assert_eq!(client.post("/items").json(&bolt).send().status(), 201);
//! let answer = client.post("/items").header("Content-Type", "application/json").body(r#"{"name": 5}"#).send();
//! assert_eq!(answer.status(), 400);
//! assert!(answer.text().contains("name: invalid type: integer `5`, expected a string at line 1 column 10"));
//! ```
//!
//! # Answers
//!
//! Whatever is [`IntoResponse`](crate::IntoResponse): text, bytes, a status, `()` for 204, an `Option` that is 404 where there
//! is nothing, a `Result` whose error is an answer too, [`Json`](crate::Json), [`Html`](crate::Html),
//! [`Redirect`](crate::Redirect), a [`Body`](crate::Body) of a file, a reader, or one that is pushed. A tuple puts a status or
//! header fields before it.
//!
//! ```
//! use handover::{IntoResponse, Request, Response, StatusCode};
//!
//! fn answer(request: &mut Request) -> Response {
//!     match request.query_param("as").as_deref() {
//!         Some("csv") => ([("Content-Type", "text/csv")], "a,b\n").into_response(),
//!         Some(other) => (StatusCode(400), format!("as is {other:?}, allowed is csv\n")).into_response(),
//!         None => "a b\n".into_response(),
//!     }
//! }
//! # let mut request = Request::from_head(b"GET /?as=csv HTTP/1.1\r\nHost: test\r\n\r\n").expect("a head");
//! # assert_eq!(answer(&mut request).headers().len(), 1);
//! ```
//!
//! # Layers
//!
//! [`Router::layer`](crate::Router::layer) puts something around all that a router answers. The first written sees a request
//! first. What it knows it leaves with the request.
//!
//! ```
//! use handover::{Next, Rejection, Request, Response, Router, test::Client};
//!
//! struct User(String);
//!
//! fn authenticate(request: &mut Request, next: Next<'_>) -> Result<Response, Rejection> {
//!     // A real one looks a session up.
//!     let user = request.cookie("session").map(|session| User(session.to_owned()));
//!     request.extensions_mut().insert(user.ok_or_else(|| Rejection::new(403, "log in first"))?);
//!     Ok(next.run(request))
//! }
//!
//! let greet = |request: &mut Request| request.extensions().get::<User>().map(|User(name)| format!("hello {name}\n"));
//! let client = Client::new(Router::new().get("/", greet).layer(authenticate));
//! assert_eq!(client.get("/").send().status(), 403);
//! assert_eq!(client.get("/").header("Cookie", "session=ada").send().text(), "hello ada\n");
//! ```
//!
//! A 401 says how to log in, in WWW-Authenticate (RFC 9110 §15.5.2): `([("WWW-Authenticate", "Bearer")], StatusCode(401))`. Where
//! no scheme of HTTP asks, as here, it is 403.
//!
//! Next: [`state`](super::state).
