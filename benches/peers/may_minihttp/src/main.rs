//! may_minihttp, a coroutine for each connection on may's default number of workers. It has no streamed bodies: a file
//! is read whole.

use may_minihttp::{HttpServer, HttpService, Request, Response};
use std::env;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

#[derive(Clone)]
struct Site {
    root: PathBuf,
}

impl HttpService for Site {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        match request.path() {
            "/hello" => {
                response.header("Content-Type: text/plain").body("hello world");
            }
            "/echo" => {
                let mut body = Vec::new();
                request.body().read_to_end(&mut body)?;
                response.body_vec(body);
            }
            path => match path.strip_prefix("/block/").map(|ms| ms.parse().unwrap_or(0)) {
                Some(ms) => {
                    thread::sleep(Duration::from_millis(ms));
                    response.body("blocked");
                }
                None => self.file(path, response),
            },
        }
        Ok(())
    }
}

impl Site {
    fn file(&self, path: &str, response: &mut Response) {
        let relative = Path::new(path.trim_start_matches('/'));
        match std::fs::read(self.root.join(relative)) {
            Ok(bytes) if !path.contains("..") => response.header("Content-Type: text/plain").body_vec(bytes),
            _ => response.status_code(404, "Not Found").body("not found\n"),
        }
    }
}

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(address), Some(root)) = (arguments.next(), arguments.next()) else { panic!("ADDRESS ROOT") };
    let server = HttpServer(Site { root: root.into() }).start(address)?;
    server.join().map_err(|_| io::Error::other("the server panicked"))
}
