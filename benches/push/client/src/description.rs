//! How a server is spoken to.

use crate::message::{Message, now};
use crate::stream::Format;
use std::net::SocketAddrV4;

#[derive(Clone, Debug)]
pub struct Description {
    pub address: SocketAddrV4,
    /// Where it is published, mostly the same.
    pub publish_address: SocketAddrV4,
    pub format: Format,
    /// Paths, with `{topic}`, and `{number}` for what has to differ between subscribers and runs.
    pub subscribe: String,
    pub publish: String,
    /// Around the data of a message: `{data}` alone where the body is the data.
    pub body: String,
    /// What an ordinary request asks for.
    pub get: String,
    /// Bytes of a message's data.
    pub size: usize,
    /// Milliseconds until a lost subscriber comes back, where the server has said none.
    pub retry: u64,
    /// So many ask at once at most, below what servers let wait to be accepted.
    pub connecting: usize,
}

impl Description {
    pub fn subscription(&self, number: usize, topic: u32, last: &[u8]) -> Vec<u8> {
        let path = self
            .subscribe
            .replace("{topic}", &topic_name(topic))
            .replace("{number}", &format!("{}-{number}", std::process::id()));
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        match self.format {
            // The key of RFC 6455's example; what it is answered with is the server's own affair here.
            Format::WebSocket => request.push_str(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ),
            Format::EventStream | Format::SockJs => request.push_str("Accept: text/event-stream\r\n"),
        }
        if !last.is_empty() {
            request.push_str(&format!("Last-Event-ID: {}\r\n", String::from_utf8_lossy(last)));
        }
        request.push_str("\r\n");
        request.into_bytes()
    }

    /// A POST that carries the message; its time is that of the message, or now.
    pub fn post(&self, topic: u32, sequence: u64, nanos: Option<u64>, into: &mut Vec<u8>) {
        let (before, after) = self.body.split_once("{data}").unwrap_or(("", ""));
        let name = topic_name(topic);
        let (path, before) = (self.publish.replace("{topic}", &name), before.replace("{topic}", &name));
        let length = before.len() + self.size + after.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{before}",
            self.publish_address,
        );
        into.extend_from_slice(head.as_bytes());
        Message { topic, sequence, nanos: nanos.unwrap_or_else(now) }.write(self.size, into);
        into.extend_from_slice(after.as_bytes());
    }

    pub fn ordinary(&self) -> Vec<u8> {
        format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", self.get, self.address).into_bytes()
    }
}

fn topic_name(topic: u32) -> String {
    format!("t{topic}")
}
