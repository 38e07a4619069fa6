//! axum on tokio's default runtime, a worker for each core; files by tower-http's ServeDir.

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use std::env;
use std::thread;
use std::time::Duration;
use tower_http::services::ServeDir;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(address), Some(root)) = (arguments.next(), arguments.next()) else { panic!("ADDRESS ROOT") };
    let app = Router::new()
        .route("/hello", get(|| async { "hello world" }))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/block/{ms}", get(block_on_the_loop))
        .route("/block-in-pool/{ms}", get(block_in_the_pool))
        .fallback_service(ServeDir::new(root));
    // As `axum::serve` documents it: a server without this may wait for delayed acknowledgements.
    let listener = tokio::net::TcpListener::bind(address).await?.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, app).await
}

/// What a library that blocks does when nobody thought of it.
async fn block_on_the_loop(Path(ms): Path<u64>) -> &'static str {
    thread::sleep(Duration::from_millis(ms));
    "blocked"
}

async fn block_in_the_pool(Path(ms): Path<u64>) -> &'static str {
    match tokio::task::spawn_blocking(move || thread::sleep(Duration::from_millis(ms))).await {
        Ok(()) => "blocked",
        Err(_) => "failed",
    }
}
