//! khttp with its epoll loop and its default number of threads; files as its README serves them.

use khttp::{Headers, Method, Server, Status};
use std::env;
use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(address), Some(root)) = (arguments.next(), arguments.next()) else { panic!("ADDRESS ROOT") };
    let mut app = Server::builder(address)?;
    app.route(Method::Get, "/hello", |_, response| response.ok(Headers::empty(), "hello world"));
    app.route(Method::Post, "/echo", |mut request, response| {
        let body = request.body().vec()?;
        response.ok(Headers::empty(), body)
    });
    app.route(Method::Get, "/block/:ms", |request, response| {
        let ms = request.params.get("ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
        thread::sleep(Duration::from_millis(ms));
        response.ok(Headers::empty(), "blocked")
    });
    app.route(Method::Get, "/**", move |request, response| {
        let relative = request.uri.path().trim_start_matches('/');
        let path = Path::new(&root).join(relative);
        let file = match File::open(&path) {
            Ok(file) if !relative.contains("..") => file,
            _ => return response.send(&Status::NOT_FOUND, Headers::empty(), "not found\n"),
        };
        let mut headers = Headers::new();
        headers.add(Headers::CONTENT_TYPE, b"text/plain");
        headers.set_content_length(Some(file.metadata()?.len()));
        response.okr(&headers, file)
    });
    app.build().serve_epoll()
}
