//! The whole of what a configuration serves: which site answers a request, by the name that it is for, and push before that.

use super::allowed::allowed;
use super::cache::Cache;
use super::guards::{self, Guards, Passwords};
use super::names::Names;
use super::push::PushRoute;
use super::routes::Routes;
use crate::api::{Handler, Request, Response};
use crate::config::push::NamespaceConfig;
use crate::push::{Hub, TokenKeys};
use crate::{AllowedPaths, Config, Error};
use std::sync::Arc;

/// Serves what a configuration says: its routes, its root or the welcome site, with its header fields, media types and
/// error pages.
///
/// ```
/// use handover::{Config, Server, Site};
///
/// let config = Config { root: Some(".".into()), ..Config::default() };
/// let builder = Server::builder().service(Site::open(&config)?).config(config);
/// # let _ = builder; Ok::<(), handover::Error>(())
/// ```
///
/// - A request for a name that a `[[host]]` has is answered by that one's routes and root, and every other by those at the
///   top of the file. The name is that of an absolute target, else of Host (RFC 9112 §3.3), without its port. What has it
///   exactly goes before what has it below a `*`, and of those the longest.
/// - The route with the longest prefix answers; a prefix matches whole segments of the path, after decoding and without
///   its dot segments. Where none matches the root answers, and without a root the welcome site.
/// - A directory is served as by [`Files`](crate::Files), below the prefix of its route.
/// - Header fields go onto every answer of the site, errors and 304 included. A route's own field replaces one of that
///   name for all, and both one that the site would have sent. The Cache-Control of a rule stays, unless the route says
///   its own, and so does Vary, beside what is configured.
/// - A route with `auth` lets in who is in its file of users, by HTTP's Basic authentication, whatever the method is, and
///   before anything of it is looked at. So do the routes below it, and `[[push]]`, unless they say something else. Its
///   answers are `private` to caches, where the route itself says nothing of them.
/// - An error page replaces the text of an error that the site answers with, and keeps its status and its fields. What
///   the server itself refuses (a malformed request, a limit) and the text that a route was given stay as they are.
///
/// Error pages and files of users are read once, when the site is opened. Roots are opened then too, and again when their paths lead elsewhere,
/// as [`Files`](crate::Files) says.
pub struct Site {
    /// For the names that no host has.
    top: Routes,
    hosts: Vec<Routes>,
    /// Which of the hosts has a name.
    names: Names,
    /// The longest prefix first.
    push: Vec<PushRoute>,
    hub: Option<Hub>,
    /// For its figures.
    kept: Arc<Cache>,
}

impl Site {
    /// Opens the roots, the directories of routes and the error pages.
    ///
    /// # Errors
    /// A root that cannot be served is a usage error if an argument named it. What the configuration file names is a
    /// configuration error with its place there.
    pub fn open(config: &Config) -> Result<Site, Error> {
        Site::keeping(config, Cache::new(config.file_cache()))
    }

    fn keeping(config: &Config, kept: Cache) -> Result<Site, Error> {
        let kept = Arc::new(kept);
        let mut passwords = Passwords::new(config);
        let mut sites = config.sites();
        let first = sites.next().expect("the top of the file is always there");
        let guards = Guards::open(&mut passwords, first)?;
        let top = Routes::open(config, first, &kept, &guards, None)?;
        let mut hosts = Vec::new();
        for site in sites {
            let guards = Guards::open(&mut passwords, site)?;
            hosts.push(Routes::open(config, site, &kept, &guards, Some(&top))?);
        }
        let hub = (top.shows_figures() || !config.push.namespaces.is_empty()).then(Hub::new);
        let mut namespaces = Vec::new();
        for (number, namespace) in config.push.namespaces.iter().enumerate() {
            namespaces.push((namespace, token_keys(config, number, namespace)?));
        }
        namespaces.sort_by_key(|(namespace, _)| std::cmp::Reverse(namespace.prefix.len()));
        let push = hub.iter().flat_map(|hub| {
            let bare = !config.site.headers.is_empty();
            namespaces.iter().map(move |(namespace, keys)| PushRoute::new(hub, namespace, keys.as_ref(), bare))
        });
        let mut push: Vec<PushRoute> = push.collect();
        if top.shows_figures()
            && let Some(hub) = &hub
        {
            push.push(PushRoute::figures(hub));
        }
        for route in &mut push {
            route.guard = guards.of(route.prefix());
        }
        let names = Names::new(config.hosts.iter().map(|host| host.names.as_slice()));
        Ok(Site { top, hosts, names, push, hub, kept })
    }

    /// What its `[[push]]` publish to, for [`Builder::hub`](crate::Builder::hub); `None` without one.
    pub fn hub(&self) -> Option<&Hub> {
        self.hub.as_ref()
    }

    /// What requests for files have to open, for [`Builder::confine`](crate::Builder::confine).
    pub fn allowed_paths(config: &Config) -> AllowedPaths {
        allowed(config)
    }

    fn push_route(&self, request: &Request) -> Option<(&PushRoute, usize)> {
        let path = request.path_bytes();
        self.push.iter().find_map(|route| Some((route, route.rest(path)?)))
    }

    /// Of the host that has the name, or of the top.
    fn routes(&self, request: &Request) -> &Routes {
        if self.names.is_empty() {
            return &self.top;
        }
        let number = request.host().and_then(|authority| self.names.find(authority));
        number.and_then(|number| self.hosts.get(number)).unwrap_or(&self.top)
    }

    /// A topic's, if whoever asks is let in.
    fn answer_topic(&self, route: &PushRoute, request: &mut Request, rest: usize) -> Response {
        if let Some(guard) = &route.guard {
            let visitor = guard.visitor(request);
            if let Some(name) = visitor.name {
                request.set_user(&name);
            }
            if let Some(refusal) = visitor.refusal {
                return self.top.refused(refusal, guard, &self.top.fields);
            }
        }
        self.top.fields.onto(route.handle(request, rest))
    }
}

impl Handler for Site {
    fn handle(&self, request: &mut Request) -> Response {
        if let Some((route, rest)) = self.push_route(request) {
            return self.answer_topic(route, request, rest);
        }
        let (response, user) = self.routes(request).answer(request);
        if let Some(user) = user {
            request.set_user(&user);
        }
        response
    }

    fn allow(&self, head: &Request) -> Option<String> {
        match self.push_route(head) {
            Some((route, _)) if route.guard.is_some() => None,
            Some((route, _)) => route.service().allow(head),
            None => self.routes(head).allow(head),
        }
    }

    fn body_limit(&self, head: &Request) -> Option<u64> {
        self.push_route(head)?.0.service().body_limit(head)
    }

    /// What hosts serve stands below their names.
    fn describe(&self) -> Vec<String> {
        let push = self.push.iter().filter(|route| route.is_configured());
        let push = push.map(|route| route.describe() + &guards::shown(route.guard.as_deref()));
        let hosts = self.hosts.iter().zip(0..).flat_map(|(routes, number)| {
            let names = format!("host {}", self.names.of(number));
            std::iter::once(names).chain(routes.describe().map(|line| format!("  {line}")))
        });
        push.chain(self.top.describe()).chain(hosts).collect()
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let (hits, misses) = self.kept.counted();
        [("handover_file_cache_hits_total", hits), ("handover_file_cache_misses_total", misses)]
            .map(|(name, count)| (name.to_owned(), count))
            .into()
    }
}

/// Of the tokens that it wants, if it does.
fn token_keys(config: &Config, number: usize, namespace: &NamespaceConfig) -> Result<Option<TokenKeys>, Error> {
    let Some(path) = &namespace.token_key_file else { return Ok(None) };
    let keys = TokenKeys::read_file(path).map_err(|what| {
        config.error(&format!("push[{number}].token_key_file"), format_args!("token_key_file {path:?}: {what}"))
    });
    keys.map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{TempDir, read, request};
    use super::*;

    fn config(dir: &TempDir, text: &str) -> Config {
        Config::from_file(dir.write("handover.toml", text)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn site(dir: &TempDir, text: &str) -> Site {
        Site::open(&config(dir, text)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn get(site: &Site, target: &str) -> (u16, String) {
        let response = site.handle(&mut request("GET", target, &[]));
        (response.status_code().0, String::from_utf8(read(response).1).expect("UTF-8"))
    }

    /// What hosts keep is taken from the one budget, and belongs to the host that has it.
    #[test]
    fn hosts_keep_their_files_together() {
        let dir = TempDir::new();
        for (name, content) in [("a/x", "of a"), ("b/x", "of b")] {
            dir.write(name, content);
        }
        let config = config(
            &dir,
            "[[host]]\nname = 'a'\nroot = 'a'\n[[host]]\nname = 'b'\nroot = 'b'\n[[host]]\nname = 'c'\nroot = 'a'\n",
        );
        // Of an entry each with its name and the file, two have room.
        for (room, kept) in [(1 << 20, 3), (1600, 2), (0, 0)] {
            let site = Site::keeping(&config, Cache::settled(room)).unwrap_or_else(|error| panic!("{error}"));
            for _ in 0..2 {
                for (target, text) in [("http://a/x", "of a"), ("http://b/x", "of b"), ("http://c/x", "of a")] {
                    assert_eq!(get(&site, target), (200, text.to_owned()), "{target} {room}");
                }
            }
            assert_eq!(site.kept.len(), kept, "{room}");
        }
    }

    #[test]
    fn what_allow_says_is_of_the_host() {
        let dir = TempDir::new();
        dir.write("a/x", "x");
        dir.write("users", "ada:$2y$04$8YnDNuxBysrqH1iWMpIPl.J6gFovuxzG1MAbhUl0OkfVdw4L649I2\n");
        let site = site(
            &dir,
            "[[host]]\nname = 'a'\nroot = 'a'\n[[host]]\nname = 'b'\n[[host.route]]\nprefix = '/'\ndirectory = 'a'\n\
             auth = { realm = 'b', file = 'users' }\n[[host]]\nname = 'c'\n[[host.route]]\nprefix = '/'\nredirect = '/x'\n",
        );
        let allow = |target: &str| site.allow(&request("TRACE", target, &[]));
        assert_eq!(allow("http://a/x").as_deref(), Some("GET, HEAD, OPTIONS"));
        for target in ["http://b/x", "http://c/x", "http://d/x", "/x"] {
            assert_eq!(allow(target), None, "{target}");
        }
    }
}
