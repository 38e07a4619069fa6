//! tiny_http's own server, with handover's channel and pool: its requests go to four workers.

use std::env;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tiny_http::{Request, Response, Server};

const WORKERS: usize = 4;

fn main() {
    let mut arguments = env::args().skip(1);
    let (Some(address), Some(root)) = (arguments.next(), arguments.next()) else { panic!("ADDRESS ROOT") };
    let server = Server::http(address).expect("an address that is free");
    let root: Arc<Path> = Path::new(&root).into();
    let (sender, receiver) = crossbeam_channel::bounded::<Request>(1024);
    for _ in 0..WORKERS {
        let (receiver, root) = (receiver.clone(), root.clone());
        thread::spawn(move || {
            for request in receiver {
                // A client that is gone concerns nobody.
                let _ = answer(request, &root);
            }
        });
    }
    for request in server.incoming_requests() {
        sender.send(request).expect("the workers live as long as the process");
    }
}

fn answer(mut request: Request, root: &Path) -> io::Result<()> {
    let path = request.url().to_owned();
    match path.as_str() {
        "/hello" => request.respond(Response::from_string("hello world")),
        "/echo" => {
            let mut body = Vec::new();
            request.as_reader().read_to_end(&mut body)?;
            request.respond(Response::from_data(body))
        }
        path => match path.strip_prefix("/block/").map(|ms| ms.parse().unwrap_or(0)) {
            Some(ms) => {
                thread::sleep(Duration::from_millis(ms));
                request.respond(Response::from_string("blocked"))
            }
            None => match File::open(root.join(path.trim_start_matches('/'))) {
                Ok(file) if !path.contains("..") => request.respond(Response::from_file(file)),
                _ => request.respond(Response::from_string("not found\n").with_status_code(404)),
            },
        },
    }
}
