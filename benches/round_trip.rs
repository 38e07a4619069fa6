//! What a request costs end to end, over a real socket: `cargo bench`.
//!
//! One server in this process, one client; each workload in turn, several times over, and the median of each.

use handover::{Request, Router, Server};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(200);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let router = Router::new()
        .get("/hello", |_| "hello world")
        .get("/item/{name}", |request: &mut Request| request.param("name").unwrap_or_default().to_owned())
        .post("/echo", |request: &mut Request| request.body_bytes());
    let server = Server::builder().bind("127.0.0.1:0")?.signals(false).service(router).build()?;
    let handle = server.stop_handle();
    let handover::Bound::Tcp(address) = server.listening()[0].clone() else { unreachable!("it is bound to TCP") };
    let serving = std::thread::spawn(move || server.run());

    let get = b"GET /hello HTTP/1.1\r\nHost: bench\r\n\r\n".to_vec();
    let browser = b"GET /item/a%20b?c=d HTTP/1.1\r\nHost: bench\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
        Accept: text/html,application/xhtml+xml\r\nAccept-Language: en\r\nAccept-Encoding: gzip, br\r\n\
        Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nSec-Fetch-Mode: navigate\r\n\r\n"
        .to_vec();
    let post =
        [b"POST /echo HTTP/1.1\r\nHost: bench\r\nContent-Length: 1024\r\n\r\n".to_vec(), vec![b'x'; 1024]].concat();
    let chunked = [
        b"POST /echo HTTP/1.1\r\nHost: bench\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n".to_vec(),
        vec![b'x'; 1024],
        b"\r\n0\r\n\r\n".to_vec(),
    ]
    .concat();
    let workloads = [
        ("GET, one at a time", get.clone(), 1),
        ("GET, 16 pipelined", get, 16),
        ("GET as a browser", browser, 1),
        ("POST 1 KiB, Content-Length", post, 1),
        ("POST 1 KiB, chunked", chunked, 1),
    ];
    let mut rates = vec![Vec::new(); workloads.len()];
    for _ in 0..ROUNDS {
        for (rates, (_, request, batch)) in rates.iter_mut().zip(&workloads) {
            rates.push(measure(address, request, *batch)?);
        }
    }
    for (rates, (name, ..)) in rates.iter_mut().zip(&workloads) {
        rates.sort_by(f64::total_cmp);
        println!("{name:28} {:8.2} us a request", 1e6 / rates[ROUNDS / 2]);
    }
    handle.stop();
    serving.join().map_err(|_| "the server panicked")??;
    Ok(())
}

/// Requests a second of one connection that always has `batch` under way.
fn measure(address: SocketAddr, request: &[u8], batch: usize) -> std::io::Result<f64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(request)?;
    let mut answer = vec![0; 64 * 1024];
    // Every answer to the same request has the same length, the date included.
    let length = stream.read(&mut answer)?;
    let batched = request.repeat(batch);
    let (began, mut requests) = (Instant::now(), 0);
    while began.elapsed() < ROUND {
        stream.write_all(&batched)?;
        let mut left = length * batch;
        while left > 0 {
            let room = left.min(answer.len());
            let read = stream.read(&mut answer[..room])?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            left -= read;
        }
        requests += batch;
    }
    Ok(requests as f64 / began.elapsed().as_secs_f64())
}
