//! What the welcome site shows of the server that serves it: live, once a second, while somebody looks.

use super::Background;
use super::status::{ACCEPTED, CUT, MOVED, REQUESTS, Status};
use crate::generation::generation;
use crate::push::Hub;
use crate::site::FIGURES;
use serde::Serialize;
use std::time::{Duration, Instant};

const EACH: Duration = Duration::from_secs(1);

/// All but the first three are of all generations so far.
#[derive(Serialize)]
struct Figures {
    pid: u32,
    generation: u64,
    /// Seconds that this generation has served.
    uptime: u64,
    requests: u64,
    connections: u64,
    /// Connections that have moved to a successor.
    moved: u64,
    /// Requests that were cut, by a stop or a reload that took too long, and their connections with them.
    cut: u64,
}

/// A thread that publishes them, if there is anybody who could ask.
pub fn publisher(hub: &Hub, status: &Status) -> Option<impl Fn(&Background) + use<>> {
    // What this host does is nothing for the others of a bus.
    if !hub.inner().has_namespace(FIGURES) || hub.inner().follows() {
        return None;
    }
    let (hub, status, began) = (hub.clone(), status.clone(), Instant::now());
    Some(move |background: &Background| {
        let own = hub.existing(FIGURES);
        while background.sleep(EACH) {
            if own.listeners(FIGURES) == 0 {
                continue;
            }
            let Some(totals) = status.totals() else { continue };
            let figures = Figures {
                pid: std::process::id(),
                generation: generation(),
                uptime: began.elapsed().as_secs(),
                requests: totals.sum(REQUESTS),
                connections: totals.get(ACCEPTED),
                moved: totals.get(MOVED),
                cut: totals.get(CUT),
            };
            // Numbers can be written; and who stops publishes no more.
            let _ = own.publish(FIGURES, serde_json::to_string(&figures).unwrap_or_default());
        }
    })
}
