//! What the welcome site shows of the server that serves it: live, once a second, while somebody looks.

use super::Background;
use crate::engine::connection::Shared;
use crate::generation::generation;
use crate::lifecycle::state::Counters;
use crate::push::Hub;
use crate::site::FIGURES;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EACH: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Figures {
    pid: u32,
    generation: u64,
    /// Seconds that this generation has served.
    uptime: u64,
    requests: u64,
    connections: u64,
    subscribers: usize,
}

/// A thread that publishes them, if there is anybody who could ask.
pub fn publisher(hub: &Hub, shared: &Arc<Shared>, before: Counters) -> Option<impl Fn(&Background) + use<>> {
    if !hub.inner().has_namespace(FIGURES) {
        return None;
    }
    let (hub, shared, began) = (hub.clone(), shared.clone(), Instant::now());
    Some(move |background: &Background| {
        let own = hub.existing(FIGURES);
        while background.sleep(EACH) {
            if own.listeners(FIGURES) == 0 {
                continue;
            }
            let figures = Figures {
                pid: std::process::id(),
                generation: generation(),
                uptime: began.elapsed().as_secs(),
                requests: before.served + shared.stats.total_served(),
                connections: before.connections + shared.stats.total_accepted(),
                subscribers: hub.subscribers(),
            };
            // Numbers can be written; and who stops publishes no more.
            let _ = own.publish(FIGURES, serde_json::to_string(&figures).unwrap_or_default());
        }
    })
}
