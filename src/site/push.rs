//! `[[push]]`: which namespace answers a path.

use super::welcome::FIGURES;
use crate::access::BasicAuth;
use crate::api::{Handler, Request, Response};
use crate::config::push::{NamespaceConfig, Publish, Subscribe};
use crate::push::{Hub, Publishers, Subscribers, TokenKeys};
use percent_encoding::percent_decode;
use std::sync::Arc;
use std::time::Duration;

/// A namespace at its prefix.
pub(super) struct PushRoute {
    prefix: String,
    service: Box<dyn Handler>,
    /// Whom it lets in at all.
    pub guard: Option<Arc<BasicAuth>>,
    shown: String,
}

impl PushRoute {
    /// With these keys for its tokens. `bare`: the site puts fields of its own onto each answer.
    pub fn new(hub: &Hub, config: &NamespaceConfig, keys: Option<&TokenKeys>, bare: bool) -> PushRoute {
        let publishers = match config.publish {
            Publish::Nobody => Publishers::Nobody,
            Publish::Local => Publishers::Local,
            Publish::Token => Publishers::Token,
            Publish::Anyone => Publishers::Anyone,
        };
        let subscribers = match config.subscribe {
            Subscribe::Anyone => Subscribers::Anyone,
            Subscribe::Token => Subscribers::Token,
        };
        let mut namespace = hub
            .namespace(&config.prefix)
            .history(config.history)
            .history_age(Duration::from_secs(config.history_age))
            .retain(config.retain)
            .heartbeat(config.heartbeat)
            .publishers(publishers)
            .subscribers(subscribers)
            .origins(config.origins.clone());
        if let Some(keys) = keys {
            namespace = namespace.tokens(keys);
        }
        let publishers = match config.publish {
            Publish::Token => "who has a token",
            other => other.name(),
        };
        let subscribers = match config.subscribe {
            Subscribe::Token => "who has a token may subscribe, ",
            Subscribe::Anyone => "",
        };
        let mut shown = format!(
            "push, {publishers} may publish, {subscribers}history {} messages and {} s",
            config.history, config.history_age
        );
        if config.retain {
            shown.push_str(", the last retained");
        }
        let service: Box<dyn Handler> =
            if bare { Box::new(namespace.bare_service()) } else { Box::new(namespace.service()) };
        PushRoute { prefix: config.prefix.clone(), service, guard: None, shown }
    }

    /// What the welcome page listens to.
    pub fn figures(hub: &Hub) -> PushRoute {
        let namespace = hub.namespace(FIGURES).history(1).history_age(Duration::from_secs(2));
        let service = Box::new(namespace.bare_service());
        PushRoute { prefix: format!("/-/{FIGURES}"), service, guard: None, shown: String::new() }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether somebody has asked for it.
    pub fn is_configured(&self) -> bool {
        !self.shown.is_empty()
    }

    /// Where behind the prefix the rest of a path begins, if it lies there: whole segments, decoded. Dots are no segments
    /// of their own here, since a topic is no file.
    pub fn rest(&self, path: &[u8]) -> Option<usize> {
        if let Some([] | [b'/', ..]) = path.strip_prefix(self.prefix.as_bytes()) {
            return Some(self.prefix.len());
        }
        // Hardly anybody writes it in another way.
        if !path.contains(&b'%') {
            return None;
        }
        let mut at = 0;
        for segment in self.prefix.split('/').skip(1) {
            let rest = path.get(at..)?.strip_prefix(b"/")?;
            let length = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
            let decoded = percent_decode(&rest[..length]).decode_utf8().ok()?;
            if decoded != segment {
                return None;
            }
            at += 1 + length;
        }
        Some(at)
    }

    pub fn handle(&self, request: &mut Request, rest: usize) -> Response {
        request.set_rest_of_path(rest);
        self.service.handle(request)
    }

    pub fn service(&self) -> &dyn Handler {
        &*self.service
    }

    pub fn describe(&self) -> String {
        format!("{} {}", self.prefix, self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_whole_segments_however_they_are_written() {
        let config = NamespaceConfig {
            prefix: "/a/events".into(),
            publish: Publish::Nobody,
            subscribe: Subscribe::Anyone,
            token_key_file: None,
            origins: Vec::new(),
            history: 1,
            history_age: 1,
            retain: false,
            heartbeat: 0,
            auth: None,
        };
        let route = PushRoute::new(&Hub::new(), &config, None, false);
        for (path, rest) in [
            ("/a/events", Some("")),
            ("/a/events/", Some("/")),
            ("/a/%65vents/x/y", Some("/x/y")),
            ("/a/events/../x", Some("/../x")),
            ("/a/eventsx", None),
            ("/a", None),
            ("/b/events", None),
            ("*", None),
        ] {
            assert_eq!(route.rest(path.as_bytes()).map(|at| &path[at..]), rest, "{path}");
        }
    }
}
