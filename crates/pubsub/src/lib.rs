//! Messages in one order, bounded, and subscribers that are a cursor into them: what push is made of.
//!
//! There is no queue for each subscriber. A [`Log`] has every message in the order of its publication, and a subscriber is
//! topics and a cursor: to deliver, to resume, to poll, to wait for a slow reader and to move to another process are all the
//! same operation, *go on after this position*. So memory is bounded by the log, and not by how many are slow.
//!
//! What is missing is said: a subscriber that comes back with a [`Position`] hears everything since then, or is told that
//! something has gone. A [`Hub`] is a log that threads share, with the subscribers that wait for each topic. No I/O and no
//! clock: times arrive as arguments, and who has to be woken is told by a closure.
//!
//! ```
//! use pubsub::{Limits, Log, Message, MessageLog, Resume, Start, Topic};
//!
//! let mut log = Log::new(7, Limits::default());
//! let news = Topic::new("public", "news")?;
//! let first = log.append(&news, Message::new("hello"), 0)?;
//! let topics = [news.clone()];
//!
//! // Who was there hears what comes behind its cursor.
//! let cursor = log.start(&topics, Start::Now);
//! log.append(&news, Message::new("world"), 10)?;
//! let batch = log.after(cursor, &topics, 64, 65_536);
//! assert_eq!(batch.messages[0].message.data(), b"world");
//!
//! // Who comes back says where it was.
//! assert_eq!(first.to_string(), "7-1");
//! assert_eq!(log.resume(first, &topics), Resume::Complete { cursor: 1 });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod encoding;
mod follow;
mod hub;
mod idempotency;
mod inbox;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
mod log;
mod message;
mod position;
mod subscription;
mod ticket;
mod topic;
mod written;

pub use encoding::RETRY;
pub use follow::{Begun, Bus, BusFigures, Followed, Publication, Read, Rebase};
pub use hub::{BUS_PATIENCE, Full, Hub, HubLimits, Key, PublishError, Published, TopicFigures};
pub use idempotency::{KEY_LENGTH, KEYS, LIFETIME as KEY_LIFETIME};
pub use inbox::{ForClient, Inbox, SavedInbox, SendError};
pub use log::{AppendError, Batch, Delivery, Limits, Log, MessageLog, Resume, Retention, Start, TopicInfo};
pub use message::{BadEvent, Message};
pub use position::{BadPosition, Position};
pub use subscription::{Begin, End, Form, Joined, Pulled, Saved, Subscription, lost_answer, push_farewell};
pub use ticket::{Outcome, Ticket};
pub use topic::{BadTopic, Topic};
pub use written::BadWritten;
