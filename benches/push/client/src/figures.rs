//! Figures as they are said: a line of JSON, latencies in microseconds.

use crate::publisher::Published;
use crate::subscribers::Subscribers;
use serde_json::{Map, Value, json};

#[derive(Default)]
pub struct Figures(Map<String, Value>);

impl Figures {
    pub fn say(&mut self, name: &str, value: impl Into<Value>) -> &mut Figures {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// What decides whether the others count.
    pub fn checked(&mut self, subscribers: &Subscribers) -> &mut Figures {
        let counts = subscribers.counts;
        self.say("subscribers", subscribers.count());
        self.say("deliveries", counts.deliveries);
        self.say("missing", counts.missing);
        self.say("gapped", counts.gapped);
        self.say("doubled", counts.doubled);
        self.say("misordered", counts.misordered);
        self.say("foreign", counts.foreign);
        self.say("gaps", counts.gaps);
        self.say("reconnects", subscribers.reconnects);
        self.say("strange", subscribers.strange);
        self.say("first_strange", subscribers.first_strange.clone())
    }

    pub fn published(&mut self, published: &Published) -> &mut Figures {
        let mut times: Vec<u64> = published.times.iter().map(|(_, nanos)| nanos / 1000).collect();
        self.say("posts", published.posts);
        self.say("posts_failed", published.failed);
        self.say("post_error", published.error.clone());
        self.say("stalled", published.stalled);
        self.say("post", summary(&mut times))
    }

    pub fn print(&self) {
        println!("{}", Value::Object(self.0.clone()));
    }
}

/// First, median, p99 and last, in the unit of what is given.
pub fn summary<T: Copy + Ord + Into<u64>>(values: &mut [T]) -> Value {
    values.sort_unstable();
    let at = |share: f64| -> u64 {
        let index = (values.len() as f64 * share) as usize;
        values.get(index.min(values.len().max(1) - 1)).map_or(0, |&value| value.into())
    };
    json!({ "count": values.len(), "first": at(0.0), "median": at(0.5), "p99": at(0.99), "last": at(1.0) })
}
