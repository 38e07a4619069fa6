//! The load for push: N subscribers that check every delivery, a publisher, and the server's CPU and memory from /proc.
//!
//! `push-client WORKLOAD --address A --subscribe PATH --publish PATH [--pid PID] …`; answers with a line of JSON, times
//! in microseconds where nothing else is said. Every workload ends by itself.

mod answer;
mod description;
mod figures;
mod message;
mod posts;
mod process;
mod publisher;
mod stream;
mod subscribers;
mod tally;
mod workloads;

use description::Description;
use lexopt::{Arg, Parser, ValueExt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use stream::Format;
use workloads::Plan;

fn main() -> ExitCode {
    match arguments().and_then(|(workload, plan)| {
        raise_descriptors()?;
        Ok(workloads::run(&plan, &workload)?)
    }) {
        Ok(figures) => {
            figures.print();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("push-client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(String, Plan), Box<dyn Error>> {
    let nowhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let description = Description {
        address: nowhere,
        publish_address: nowhere,
        format: Format::EventStream,
        subscribe: String::new(),
        publish: String::new(),
        body: "{data}".to_owned(),
        get: "/hello".to_owned(),
        size: 100,
        retry: 1000,
        connecting: 400,
    };
    let mut plan = Plan {
        description,
        subscribers: 10_000,
        topics: 1,
        sources: 8,
        rate: 10,
        messages: 10,
        window: 1,
        seconds: 3.0,
        connections: 32,
        pid: std::process::id(),
        reload: None,
        reloads: 0,
        every: 4.0,
        patience: 60.0,
        nap: 0,
    };
    let mut workload = None;
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        let Arg::Long(name) = argument else {
            workload = match argument {
                Arg::Value(name) => Some(name.string()?),
                other => return Err(other.unexpected().into()),
            };
            continue;
        };
        let name = name.to_owned();
        if name == "pauses" {
            workload = Some(name);
            continue;
        }
        let value = parser.value()?;
        let description = &mut plan.description;
        match name.as_str() {
            "address" => description.address = value.parse()?,
            "publish-address" => description.publish_address = value.parse()?,
            "format" => {
                description.format = match value.string()?.as_str() {
                    "event-stream" => Format::EventStream,
                    "websocket" => Format::WebSocket,
                    "sockjs" => Format::SockJs,
                    other => return Err(format!("no format {other:?}: event-stream, websocket, sockjs").into()),
                }
            }
            "subscribe" => description.subscribe = value.string()?,
            "publish" => description.publish = value.string()?,
            "body" => description.body = value.string()?,
            "get" => description.get = value.string()?,
            "size" => description.size = value.parse()?,
            "retry" => description.retry = value.parse()?,
            "connecting" => description.connecting = value.parse()?,
            "subscribers" => plan.subscribers = value.parse()?,
            "topics" => plan.topics = value.parse()?,
            "sources" => plan.sources = value.parse()?,
            "rate" => plan.rate = value.parse()?,
            "messages" => plan.messages = value.parse()?,
            "window" => plan.window = value.parse()?,
            "seconds" => plan.seconds = value.parse()?,
            "connections" => plan.connections = value.parse()?,
            "pid" => plan.pid = value.parse()?,
            "reload" => plan.reload = Some(value.into()),
            "reloads" => plan.reloads = value.parse()?,
            "every" => plan.every = value.parse()?,
            "nap" => plan.nap = value.parse()?,
            "patience" => plan.patience = value.parse()?,
            _ => return Err(format!("no flag --{name}").into()),
        }
    }
    let description = &mut plan.description;
    let publishes = !matches!(workload.as_deref(), Some("echo" | "idle"));
    if description.address.port() == 0
        || description.subscribe.is_empty()
        || (publishes && description.publish.is_empty())
    {
        return Err("--address, --subscribe and mostly --publish are needed".into());
    }
    if description.publish_address.port() == 0 {
        description.publish_address = description.address;
    }
    if description.size < message::HEAD || plan.topics == 0 || plan.sources == 0 || plan.rate == 0 {
        return Err("a message has 39 bytes or more; topics, sources and rate are at least 1".into());
    }
    Ok((workload.ok_or("a workload is needed")?, plan))
}

/// As many as there may be; each subscriber takes one.
fn raise_descriptors() -> std::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(setrlimit(Resource::Nofile, raised)?)
}
