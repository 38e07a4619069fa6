//! What a configuration says of push.

use super::bus::BusConfig;
use super::site::Auth;
use std::num::NonZeroU32;
use std::path::PathBuf;

/// The most that one hub may keep, and the largest message: above is a slip.
pub const PUSH_MEMORY: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 34;
pub const MAX_MESSAGE: std::ops::RangeInclusive<u64> = 1..=64 << 20;
/// What messages take unless it is said: of the memory for everything, and without that.
const DEFAULT_MEMORY: usize = 4 << 20;
const SHARE: u64 = 8;
/// Of the connections so many may be subscribers, and the others are left for requests.
const SUBSCRIBERS: (usize, usize) = (3, 4);

/// How much a [`Hub`](crate::Hub) may hold, and what the program publishes. An application makes its own namespaces.
#[derive(Clone, Debug, Default)]
pub struct PushConfig {
    /// Bytes that messages may take, the forms in which they leave included; the oldest go first. Default what the hub
    /// was made with, which is 4 MiB, or an eighth of [`memory`](crate::Config::memory).
    pub memory: Option<usize>,
    /// Bytes of one message. Default what the hub was made with, which is 64 KiB.
    pub max_message: Option<usize>,
    /// Subscribers at a time. Default three quarters of the connections.
    pub max_subscribers: Option<NonZeroU32>,
    /// Where a graceful stop writes the messages that are kept, for the next start.
    pub history_file: Option<PathBuf>,
    /// Through what messages go, where several hosts serve them.
    pub bus: BusConfig,
    pub(crate) namespaces: Vec<NamespaceConfig>,
    /// Whether there is a hub.
    pub(crate) used: bool,
}

/// `[[push]]`
#[derive(Clone, Debug)]
pub(crate) struct NamespaceConfig {
    /// A path of unreserved characters without a slash at its end.
    pub prefix: String,
    pub publish: Publish,
    pub subscribe: Subscribe,
    /// Of the keys of tokens.
    pub token_key_file: Option<PathBuf>,
    pub origins: Vec<String>,
    pub history: usize,
    /// In seconds.
    pub history_age: u64,
    pub retain: bool,
    /// In seconds; 0 for none.
    pub heartbeat: u16,
    /// Whom it lets in, besides its tokens; without it, whom the route above it does.
    pub auth: Option<Auth>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publish {
    Nobody,
    Local,
    Token,
    Anyone,
}

impl Publish {
    pub const ALL: [(&'static str, Publish); 4] = [
        ("nobody", Publish::Nobody),
        ("local", Publish::Local),
        ("token", Publish::Token),
        ("anyone", Publish::Anyone),
    ];

    pub fn name(self) -> &'static str {
        Publish::ALL.iter().find(|(_, publish)| *publish == self).map_or("", |(name, _)| name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscribe {
    Anyone,
    Token,
}

impl PushConfig {
    /// What messages may take at the most, the default filled in, if there is a hub.
    pub(crate) fn room(&self, memory: Option<u64>) -> usize {
        if self.used { self.memory(memory).unwrap_or(DEFAULT_MEMORY) } else { 0 }
    }

    /// What messages may take, of so much for everything.
    pub(crate) fn memory(&self, memory: Option<u64>) -> Option<usize> {
        self.memory.or(memory.map(|memory| ((memory / SHARE) as usize).min(DEFAULT_MEMORY)))
    }

    /// The size of a message, if it may be larger than all that is kept, with what that is as far as it is known here.
    pub(crate) fn message_beyond_room(&self, memory: Option<u64>) -> Option<(u64, u64)> {
        // An application's hub may have been made with more.
        let room = self.memory(memory).or((!self.namespaces.is_empty()).then_some(DEFAULT_MEMORY))?;
        let message = self.max_message.filter(|message| *message > room)?;
        Some((message as u64, room as u64))
    }

    /// The most of so many connections that may subscribe, if more are asked for.
    pub(crate) fn subscribers_beyond(&self, connections: usize) -> Option<usize> {
        let most = self.max_subscribers?.get() as usize;
        let allowed = PushConfig { max_subscribers: None, ..PushConfig::default() }.subscribers(connections);
        (most > allowed).then_some(allowed)
    }

    /// How many may subscribe, of so many connections.
    pub(crate) fn subscribers(&self, connections: usize) -> usize {
        let share =
            connections / SUBSCRIBERS.1 * SUBSCRIBERS.0 + connections % SUBSCRIBERS.1 * SUBSCRIBERS.0 / SUBSCRIBERS.1;
        self.max_subscribers.map_or(share, |most| most.get() as usize).min(share).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quarters_of_the_connections_may_be_subscribers() {
        let config = PushConfig::default();
        assert_eq!([1, 4, 5, 1024].map(|connections| config.subscribers(connections)), [1, 3, 3, 768]);
        let config = PushConfig { max_subscribers: NonZeroU32::new(100), ..config };
        assert_eq!([16, 1024].map(|connections| config.subscribers(connections)), [12, 100]);
    }

    #[test]
    fn messages_have_an_eighth_of_what_there_is() {
        let config = PushConfig::default();
        assert_eq!(config.memory(None), None);
        assert_eq!((config.memory(Some(8 << 20)), config.memory(Some(1 << 30))), (Some(1 << 20), Some(4 << 20)));
        let config = PushConfig { memory: Some(1 << 16), ..config };
        assert_eq!(config.memory(Some(8 << 20)), Some(1 << 16));
    }
}
