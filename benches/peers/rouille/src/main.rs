//! rouille as its documentation starts it: a thread for each connection, and one for each request.

use rouille::{Request, Response};
use std::env;
use std::io::Read;
use std::thread;
use std::time::Duration;

fn main() {
    let mut arguments = env::args().skip(1);
    let (Some(address), Some(root)) = (arguments.next(), arguments.next()) else { panic!("ADDRESS ROOT") };
    rouille::start_server(address, move |request| match request.raw_url() {
        "/hello" => Response::text("hello world"),
        "/echo" => echo(request),
        path => match path.strip_prefix("/block/").map(|ms| ms.parse().unwrap_or(0)) {
            Some(ms) => {
                thread::sleep(Duration::from_millis(ms));
                Response::text("blocked")
            }
            None => rouille::match_assets(request, &root),
        },
    })
}

fn echo(request: &Request) -> Response {
    let mut body = Vec::new();
    match request.data().map(|mut data| data.read_to_end(&mut body)) {
        Some(Ok(_)) => Response::from_data("application/octet-stream", body),
        _ => Response::empty_400(),
    }
}
