//! One site, that of the top of a file or of a `[[host]]`: which route answers a path, and what every answer gets.

use super::answer::refuse;
use super::cache::Cache;
use super::content_type::MediaTypes;
use super::fields::{Fields, SiteShared, has};
use super::files::{Answer, Files};
use super::guards::{self, Guards};
use super::path::{self, ENCODED, Name};
use super::welcome::WelcomeSite;
use crate::access::{BasicAuth, Refusal};
use crate::api::{Body, IntoResponse, READ_ONLY, Request, Response, known_header, refuse_unless_read};
use crate::config::site::{
    ConfiguredSite, DirectoryOptions, MISDIRECTED, Prefix, RedirectTarget, RouteAction, RouteConfig,
};
use crate::sys::regular_file;
use crate::{Config, Error, StatusAccess};
use percent_encoding::{AsciiSet, percent_encode};
use std::path::Path;
use std::sync::Arc;
use tiny_http::{Header, StatusCode};

/// The largest error page: each answer has a copy of it, as long as its client takes to read it.
const MAX_PAGE: u64 = 64 * 1024;

/// The routes of a site, with its error pages.
pub(super) struct Routes {
    /// The longest prefix first; the last one matches everything.
    routes: Vec<Route>,
    /// For paths that name nothing, and for what is no path of the site's.
    pub fields: Fields,
    pages: Vec<(u16, Arc<Page>)>,
    shared: SiteShared,
}

struct Route {
    prefix: Prefix,
    action: Action,
    fields: Fields,
    guard: Option<Arc<BasicAuth>>,
    /// Says it in `--check`.
    shown: String,
}

enum Action {
    Files(Files),
    Welcome(WelcomeSite),
    /// For what is not there: a name, or a path where there is no root.
    Refuse(u16),
    Redirect {
        status: u16,
        target: RedirectTarget,
    },
    Fixed {
        status: u16,
        body: Option<(String, String)>,
    },
}

struct Page {
    content_type: String,
    bytes: Vec<u8>,
}

/// What all routes of a site are opened with.
struct OfAll<'s> {
    headers: &'s [Header],
    shared: &'s SiteShared,
    guards: &'s Guards,
}

impl Routes {
    /// Opens the root, the directories of the routes and the error pages. A host has header fields, media types, rules for
    /// caches and error pages from the top of the file, behind its own.
    pub fn open(
        config: &Config,
        site: ConfiguredSite<'_>,
        kept: &Arc<Cache>,
        guards: &Guards,
        top: Option<&Routes>,
    ) -> Result<Routes, Error> {
        let shared = shared(config, site, kept, top);
        let mut headers = site.site.headers.clone();
        if top.is_some() {
            headers.extend(config.site.headers.iter().filter(|header| !has(&site.site.headers, header)).cloned());
        }
        let of_all = OfAll { headers: &headers, shared: &shared, guards };
        let mut routes = vec![Route::behind_all(config, site, &of_all)?];
        // Where there are hosts it is no site of its own, and behind a route for everything it never answers.
        let covered = site.site.routes.iter().any(|route| route.prefix.is_everything());
        routes.retain(|route| !(covered && matches!(route.action, Action::Refuse(_))));
        for (number, route) in site.site.routes.iter().enumerate() {
            // What stands for everything in the file comes before the fallback.
            let at = routes.partition_point(|other| other.prefix.len() > route.prefix.len());
            routes.insert(at, Route::open(config, site, number, route, &of_all)?);
        }
        let mut pages = Vec::new();
        for (status, path) in &site.site.error_pages {
            let key = site.key(&format!("error_pages.{status}"));
            let page = read_page(path).map_err(|what| {
                config.error(&key, format_args!("error page {status} cannot be read from {path:?}: {what}"))
            })?;
            let content_type = shared.types.of(path.as_os_str().as_encoded_bytes()).to_owned();
            pages.push((*status, Arc::new(Page { content_type, bytes: page })));
        }
        for (status, page) in top.iter().flat_map(|top| &top.pages) {
            if !pages.iter().any(|(own, _)| own == status) {
                pages.push((*status, page.clone()));
            }
        }
        Ok(Routes { routes, fields: Fields::new(&headers, &[]), pages, shared })
    }

    /// Whether the welcome site is a part of it, and shows live figures of the server.
    pub fn shows_figures(&self) -> bool {
        self.routes.iter().any(|route| matches!(&route.action, Action::Welcome(welcome) if welcome.tells))
    }

    /// What a path is answered, and who has asked for it, if somebody had to say so.
    pub fn answer(&self, request: &Request) -> (Response, Option<String>) {
        let name = match path::name(request.path()) {
            Ok(name) => name,
            Err(refusal) => return (self.fields.onto(self.dress(refuse(refusal.status()))), None),
        };
        let Some((route, below)) = self.route(&name) else { return (self.dress(refuse(404)), None) };
        let Some(guard) = &route.guard else { return (self.answer_as(route, request, &name, below), None) };
        let visitor = guard.visitor(request);
        let refused = visitor.refusal.map(|refusal| self.refused(refusal, guard, &route.fields));
        (refused.unwrap_or_else(|| self.answer_as(route, request, &name, below)), visitor.name)
    }

    fn answer_as(&self, route: &Route, request: &Request, name: &Name<'_>, below: &[u8]) -> Response {
        let response = match &route.action {
            Action::Files(files) => match files.answer(request, name, below, Some(&route.fields)) {
                Answer::Finished(response) => return response,
                Answer::Bare(response) => response,
            },
            Action::Welcome(welcome) => welcome.answer(request, name),
            Action::Refuse(status) => refuse(*status),
            Action::Redirect { status, target } => redirect(*status, target, request, name, below),
            Action::Fixed { status, body } => match fixed(*status, body.as_ref(), request) {
                // What the configuration says in so many words is no error to be dressed.
                response if body.is_some() && response.status_code().0 == *status => {
                    return route.fields.onto(response);
                }
                response => response,
            },
        };
        route.fields.onto(self.dress(response))
    }

    /// What is said to who does not come in.
    pub fn refused(&self, refusal: Refusal, guard: &BasicAuth, fields: &Fields) -> Response {
        guards::refused(fields.onto(self.dress(refuse(refusal.status()))), refusal, guard)
    }

    /// The page in place of the text of an error.
    fn dress(&self, response: Response) -> Response {
        let status = response.status_code().0;
        match self.pages.iter().find(|(of, _)| *of == status) {
            Some((_, page)) => {
                let mut headers = response.headers().to_vec();
                headers.retain(|header| !header.field.equiv("Content-Type"));
                headers.push(known_header("X-Content-Type-Options", "nosniff"));
                let dressed = Body::from(page.bytes.clone()).into_response_with(status, headers);
                dressed.with_header(known_header("Content-Type", &page.content_type))
            }
            _ => response,
        }
    }

    /// The route for a name, and what of the name is below its prefix.
    fn route<'n>(&self, name: &'n Name<'_>) -> Option<(&Route, &'n [u8])> {
        self.routes.iter().find_map(|route| Some((route, route.prefix.rest(&name.bytes)?)))
    }

    /// A redirect or an error is the answer to every method, so there the field says nothing narrower; nor where who asks
    /// may not know what is there.
    pub fn allow(&self, head: &Request) -> Option<String> {
        let name = path::name(head.path()).ok()?;
        let (route, _) = self.route(&name)?;
        let reads = match &route.action {
            Action::Files(_) | Action::Welcome(_) => true,
            Action::Fixed { status, .. } => *status < 300,
            Action::Redirect { .. } | Action::Refuse(_) => false,
        };
        (reads && route.guard.is_none()).then(|| READ_ONLY.to_owned())
    }

    /// A line for each route, then for each error page.
    pub fn describe(&self) -> impl Iterator<Item = String> {
        let guarded = |guard: &Option<Arc<BasicAuth>>| guards::shown(guard.as_deref());
        let routes = self.routes.iter().map(move |it| format!("{} {}{}", it.prefix, it.shown, guarded(&it.guard)));
        let pages = self.pages.iter().map(|(status, page)| format!("error {status}: {} bytes", page.bytes.len()));
        routes.chain(pages)
    }
}

/// What the directories of a site share, with each other or with those of all sites.
fn shared(config: &Config, site: ConfiguredSite<'_>, kept: &Arc<Cache>, top: Option<&Routes>) -> SiteShared {
    let above = top.map(|top| &top.shared);
    let own = site.site;
    let types = match above {
        Some(above) if own.mime.is_empty() => above.types.clone(),
        _ => {
            let mut mime = own.mime.clone();
            let is_own = |extension: &String| own.mime.iter().any(|(other, _)| other == extension);
            let inherited = config.site.mime.iter().filter(|(extension, _)| above.is_some() && !is_own(extension));
            mime.extend(inherited.cloned());
            Arc::new(MediaTypes::new(mime))
        }
    };
    let rules = match above {
        Some(above) if own.cache.is_empty() => above.rules.clone(),
        // The first that matches counts.
        Some(above) => own.cache.iter().chain(&*above.rules).cloned().collect(),
        None => own.cache.clone().into(),
    };
    SiteShared { kept: kept.clone(), types, rules }
}

impl Route {
    fn open(
        config: &Config,
        site: ConfiguredSite<'_>,
        number: usize,
        route: &RouteConfig,
        of_all: &OfAll<'_>,
    ) -> Result<Route, Error> {
        let prefix = route.prefix.clone();
        let place = |key: &str| site.key(&format!("route[{number}].{key}"));
        if prefix.is_everything()
            && let Some(root) = site.root
        {
            let key = place("prefix");
            return Err(config.error(&key, format_args!("prefix / leaves nothing for root {root:?}; take out one")));
        }
        let (action, shown) = match &route.action {
            RouteAction::Directory { path: directory, options } => {
                let key = place("directory");
                let files = Files::open(directory)
                    .map_err(|error| config.error(&key, format_args!("directory of route {prefix}: {error}")))?;
                let files = files.configured(of_all.shared, options);
                let key = place("fallback");
                (Action::Files(with_fallback(files, config, &key, options)?), shown_directory(directory, options))
            }
            RouteAction::Redirect { status, target } => {
                let shown = format!("redirect {status} to {target}");
                (Action::Redirect { status: *status, target: target.clone() }, shown)
            }
            RouteAction::Fixed { status, body } => {
                let shown = match body {
                    Some((content_type, text)) => format!("status {status}, {} bytes of {content_type}", text.len()),
                    None => format!("status {status}"),
                };
                (Action::Fixed { status: *status, body: body.clone() }, shown)
            }
        };
        let guard = of_all.guards.of(&prefix.to_string());
        let fields = Fields::new(of_all.headers, &route.headers);
        let fields = if guard.is_some() { fields.guarded() } else { fields };
        Ok(Route { prefix, action, fields, guard, shown })
    }

    /// What answers where no route of the site does.
    fn behind_all(config: &Config, site: ConfiguredSite<'_>, of_all: &OfAll<'_>) -> Result<Route, Error> {
        let options = &site.site.root;
        let (action, shown) = match site.root {
            None => {
                for key in DirectoryOptions::KEYS {
                    let place = site.key(key);
                    if config.line(&place).is_some() {
                        return Err(config.error(&place, format_args!("{key} is for root, which is not set")));
                    }
                }
                // The file does not say it, so a flag does.
                if options.listing {
                    return Err(Error::usage(format_args!(
                        "--listing is for a ROOT, which is missing: handover --listing ./public"
                    )));
                }
                match (config.hosts.is_empty(), site.host, site.site.routes.is_empty()) {
                    (true, ..) => {
                        let tells = config.status_routes
                            && (config.status != StatusAccess::Nobody || config.status_token_file.is_some());
                        (Action::Welcome(WelcomeSite::new(tells)), "welcome site".to_owned())
                    }
                    (false, None, true) => {
                        let shown = format!("status {MISDIRECTED}, for every name that no host has");
                        (Action::Refuse(MISDIRECTED), shown)
                    }
                    (false, ..) => (Action::Refuse(404), "status 404".to_owned()),
                }
            }
            Some(root) => {
                let place = site.key("root");
                let files = Files::open(root).map_err(|error| match config.line(&place) {
                    Some(_) => config.error(&place, format_args!("root: {error}")),
                    None => error,
                })?;
                let files = files.configured(of_all.shared, options);
                let files = with_fallback(files, config, &site.key("fallback"), options)?;
                (Action::Files(files), shown_directory(root, options))
            }
        };
        let fields = Fields::new(of_all.headers, &[]);
        Ok(Route { prefix: Prefix::everything(), action, fields, guard: None, shown })
    }
}

/// The file is looked for now, so that a mistake has its place in the configuration.
fn with_fallback(files: Files, config: &Config, key: &str, options: &DirectoryOptions) -> Result<Files, Error> {
    match &options.fallback {
        Some(name) => files.with_fallback(name).map_err(|error| config.error(key, format_args!("{error}"))),
        None => Ok(files),
    }
}

/// The directory, and what is not said of every one.
fn shown_directory(path: &Path, options: &DirectoryOptions) -> String {
    let mut shown = format!("directory {path:?}");
    let codings: Vec<&str> = options.precompressed.iter().map(|coding| coding.name()).collect();
    if !codings.is_empty() {
        shown = format!("{shown}, precompressed {}", codings.join(", "));
    }
    if options.listing {
        shown.push_str(", listing");
    }
    if let Some(fallback) = &options.fallback {
        shown = format!("{shown}, fallback {fallback:?}");
    }
    shown
}

fn read_page(path: &Path) -> Result<Vec<u8>, String> {
    let too_large = format!("it has more than {MAX_PAGE} bytes; let it link to what is large");
    regular_file::read(path, MAX_PAGE, "it is not a regular file", &too_large)
}

/// The rest of a path in a Location: segments stay segments.
const ENCODED_PATH: &AsciiSet = &ENCODED.remove(b'/');

fn redirect(status: u16, target: &RedirectTarget, request: &Request, name: &Name<'_>, below: &[u8]) -> Response {
    let mut location = target.before.clone();
    if let Some(after) = &target.after {
        location.extend(percent_encode(below, ENCODED_PATH));
        if name.directory && !below.is_empty() {
            location.push('/');
        }
        // A query stands before a fragment.
        let (tail, fragment) = after.find('#').map_or((after.as_str(), ""), |at| after.split_at(at));
        location.push_str(tail);
        if let Some(query) = request.query() {
            location.push(if tail.contains('?') { '&' } else { '?' });
            location.push_str(query);
        }
        location.push_str(fragment);
    }
    StatusCode(status).into_response().with_header(known_header("Location", &location))
}

/// A success answers what asks for something; an error, "gone" or "in maintenance", is the answer to everything.
fn fixed(status: u16, body: Option<&(String, String)>, request: &Request) -> Response {
    if status < 300
        && let Some(refusal) = refuse_unless_read(request.method())
    {
        return refusal;
    }
    match body {
        Some((content_type, text)) => {
            let headers = vec![known_header("Content-Type", content_type)];
            Body::from(text.clone()).into_response_with(status, headers)
        }
        None if matches!(status, 204 | 205) => Body::empty().into_response_with(status, Vec::new()),
        None => refuse(status),
    }
}

#[cfg(test)]
mod tests {
    use super::super::hosts::Site;
    use super::super::testing::{TempDir, read, request, value};
    use super::*;
    use crate::api::Handler;
    use base64::prelude::{BASE64_STANDARD, Engine};

    struct Fixture {
        dir: TempDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = TempDir::new();
            for (name, content) in [
                ("public/index.html", "root"),
                ("public/docs/hidden", "behind the route"),
                ("manual/index.html", "manual"),
                ("manual/a.md", "# a"),
                ("manual/deep/index.html", "deep"),
                ("special/x.txt", "special"),
                ("404.html", "<p>nothing here"),
                ("503.txt", "later"),
            ] {
                dir.write(name, content);
            }
            Fixture { dir }
        }

        fn config(&self, text: &str) -> Config {
            let path = self.dir.write("handover.toml", text);
            Config::from_file(path).unwrap_or_else(|error| panic!("{error}"))
        }

        fn site(&self, text: &str) -> Site {
            Site::open(&self.config(text)).unwrap_or_else(|error| panic!("{error}"))
        }
    }

    fn get(site: &Site, target: &str) -> (u16, String) {
        let response = site.handle(&mut request("GET", target, &[]));
        let status = response.status_code().0;
        (status, String::from_utf8(read(response).1).expect("UTF-8"))
    }

    #[test]
    fn the_longest_prefix_answers() {
        let fixture = Fixture::new();
        let site = fixture.site(
            "root = 'public'\n[[route]]\nprefix = '/docs'\ndirectory = 'manual'\n\
             [[route]]\nprefix = '/docs/special'\ndirectory = 'special'\n[[route]]\nprefix = '/ä b'\nbody = 'umlaut'\n",
        );
        for (target, status, body) in [
            ("/", 200, "root"),
            ("/docs/", 200, "manual"),
            ("/docs/a.md", 200, "# a"),
            ("//docs/./a.md", 200, "# a"),
            ("/x/../docs/a.md", 200, "# a"),
            ("/%64ocs/%61.md", 200, "# a"),
            ("/docs/special/x.txt", 200, "special"),
            ("/docs/special/../a.md", 200, "# a"),
            ("/docs/hidden", 404, "404 Not Found\n"),
            ("/docs/special/a.md", 404, "404 Not Found\n"),
            ("/docs%2fa.md", 404, "404 Not Found\n"),
            ("/docs/../../manual/a.md", 404, "404 Not Found\n"),
            ("/docsa.md", 404, "404 Not Found\n"),
            ("/%C3%A4%20b", 200, "umlaut"),
            ("/%C3%A4%20b/below", 200, "umlaut"),
            ("/%zz", 400, "400 Bad Request\n"),
        ] {
            assert_eq!(get(&site, target), (status, body.to_owned()), "{target}");
        }
    }

    #[test]
    fn directories_are_redirected_to_their_slash_also_at_the_prefix() {
        let fixture = Fixture::new();
        let site = fixture.site("[[route]]\nprefix = '/a/docs'\ndirectory = 'manual'\n");
        for (target, location) in
            [("/a/docs", "./docs/"), ("/a/docs?q", "./docs/?q"), ("/a/docs/deep", "./deep/"), ("//a//docs", "./docs/")]
        {
            let response = site.handle(&mut request("GET", target, &[]));
            assert_eq!((response.status_code().0, value(&response, "Location")), (301, Some(location)), "{target}");
        }
        assert_eq!(get(&site, "/a/docs/deep/").1, "deep");
    }

    #[test]
    fn redirects() {
        let fixture = Fixture::new();
        let site = fixture.site(
            "[[route]]\nprefix = '/old'\nredirect = '/new/{path}'\nstatus = 308\n\
             [[route]]\nprefix = '/home'\nredirect = 'https://example.org/'\n\
             [[route]]\nprefix = '/q'\nredirect = '/to/{path}?a=b#c'\n",
        );
        for (target, status, location) in [
            ("/old", 308, "/new/"),
            ("/old/", 308, "/new/"),
            ("/old/a/b?c=d", 308, "/new/a/b?c=d"),
            ("/old/a/", 308, "/new/a/"),
            ("/old//evil.com/", 308, "/new/evil.com/"),
            ("/old/%5Cevil.com%0d%0aX:y", 308, "/new/%5Cevil.com%0D%0AX%3Ay"),
            ("/old/../old/%C3%A4", 308, "/new/%C3%A4"),
            ("/home", 302, "https://example.org/"),
            ("/home/a?b", 302, "https://example.org/"),
            ("/q/x?y", 302, "/to/x?a=b&y#c"),
        ] {
            for method in ["GET", "POST"] {
                let response = site.handle(&mut request(method, target, &[]));
                let said = (response.status_code().0, value(&response, "Location"));
                assert_eq!(said, (status, Some(location)), "{method} {target}");
            }
        }
    }

    #[test]
    fn fixed_answers() {
        let fixture = Fixture::new();
        let site = fixture.site(
            "[[route]]\nprefix = '/robots.txt'\nbody = 'all'\n[[route]]\nprefix = '/gone'\nstatus = 410\n\
             [[route]]\nprefix = '/down'\nstatus = 503\nbody = '{}'\ncontent_type = 'application/json'\n\
             [[route]]\nprefix = '/none'\nstatus = 204\n[error_pages]\n410 = '404.html'\n503 = '503.txt'\n",
        );
        assert_eq!(get(&site, "/robots.txt"), (200, "all".to_owned()));
        assert_eq!(site.handle(&mut request("POST", "/robots.txt", &[])).status_code(), StatusCode(405));
        assert_eq!(get(&site, "/gone/x"), (410, "<p>nothing here".to_owned()));
        assert_eq!(get(&site, "/none"), (204, String::new()));
        let response = site.handle(&mut request("POST", "/down", &[]));
        assert_eq!(value(&response, "Content-Type"), Some("application/json"));
        assert_eq!((response.status_code().0, read(response).1), (503, b"{}".to_vec()));
    }

    #[test]
    fn error_pages_keep_the_status_and_its_fields() {
        let fixture = Fixture::new();
        let site = fixture.site("root = 'public'\n[error_pages]\n404 = '404.html'\n405 = '404.html'\n");
        let response = site.handle(&mut request("GET", "/nothing", &[]));
        assert_eq!(value(&response, "Content-Type"), Some("text/html; charset=utf-8"));
        assert_eq!(response.headers().iter().filter(|header| header.field.equiv("Content-Type")).count(), 1);
        assert_eq!((response.status_code().0, read(response).1), (404, b"<p>nothing here".to_vec()));
        assert_eq!(get(&site, "/.git").0, 404);
        let response = site.handle(&mut request("POST", "/", &[]));
        assert_eq!((response.status_code().0, value(&response, "Allow")), (405, Some("GET, HEAD, OPTIONS")));
        assert_eq!(get(&site, "/%zz"), (400, "400 Bad Request\n".to_owned()));
    }

    #[test]
    fn fields_are_added_once() {
        let fixture = Fixture::new();
        let site = fixture.site(
            "root = 'public'\n[headers]\nCache-Control = 'no-cache'\nX-Frame-Options = 'DENY'\n\
             x-content-type-options = 'mine'\n\
             [[route]]\nprefix = '/docs'\ndirectory = 'manual'\nheaders = { cache-control = 'max-age=60' }\n",
        );
        for (target, cache) in
            [("/", "no-cache"), ("/nothing", "no-cache"), ("/%zz", "no-cache"), ("/docs/", "max-age=60")]
        {
            let response = site.handle(&mut request("GET", target, &[]));
            let all = |name: &'static str| {
                let headers = response.headers().iter().filter(move |header| header.field.equiv(name));
                headers.map(|header| header.value.as_str()).collect::<Vec<_>>()
            };
            assert_eq!(all("Cache-Control"), [cache], "{target}");
            assert_eq!(all("X-Frame-Options"), ["DENY"], "{target}");
            assert_eq!(all("X-Content-Type-Options"), ["mine"], "{target}");
            // A file's is a field, an error's goes with its text.
            let types = all("Content-Type").len();
            assert_eq!(types + usize::from(response.into_reader().content_type.is_some()), 1, "{target}");
        }
    }

    #[test]
    fn media_types_of_the_file() {
        let fixture = Fixture::new();
        let site = fixture
            .site("root = 'manual'\n[[route]]\nprefix = '/m'\ndirectory = 'manual'\n[mime]\nMD = 'text/x-mine'\n");
        for target in ["/a.md", "/m/a.md"] {
            let response = site.handle(&mut request("GET", target, &[]));
            assert_eq!(value(&response, "Content-Type"), Some("text/x-mine"), "{target}");
        }
    }

    #[test]
    fn what_cannot_be_opened_is_named_with_its_place() {
        let fixture = Fixture::new();
        fixture.dir.write("large.html", vec![b' '; MAX_PAGE as usize + 1]);
        for (text, says) in [
            ("\nroot = 'nowhere'\n", ":2:8: root: cannot serve"),
            ("[[route]]\nprefix = '/a'\ndirectory = '404.html'\n", ":3:13: directory of route /a: cannot serve"),
            ("[error_pages]\n404 = 'nothing.html'\n", ":2:7: error page 404 cannot be read from"),
            ("[error_pages]\n404 = 'public'\n", "it is not a regular file"),
            ("[error_pages]\n404 = 'large.html'\n", "more than 65536 bytes"),
            ("root = 'public'\n[[route]]\nprefix = '/'\nstatus = 503\n", ":3:10: prefix / leaves nothing for root"),
        ] {
            let error = Site::open(&fixture.config(text)).err().expect(text);
            let message = error.to_string();
            assert!(error.is_config() && message.contains(says) && !message.contains('\n'), "{text}: {message}");
        }
        let argument = Config { root: Some("/nowhere/at/all".into()), ..Config::default() };
        assert!(Site::open(&argument).err().expect("no root").is_usage());
    }

    /// `ada` has the password "horse"; the cost is the least.
    const USERS: &str = "ada:$2y$04$8YnDNuxBysrqH1iWMpIPl.J6gFovuxzG1MAbhUl0OkfVdw4L649I2\n";

    fn basic(credentials: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(credentials))
    }

    /// The status, and what is said of the user, of caches and of who may come in.
    fn told(site: &Site, method: &str, target: &str, credentials: &str) -> (u16, [Option<String>; 3]) {
        let authorization = basic(credentials);
        let fields = [("Authorization", &*authorization)];
        let mut request = request(method, target, if credentials.is_empty() { &[] } else { &fields });
        let response = site.handle(&mut request);
        let field = |name| value(&response, name).map(str::to_owned);
        (
            response.status_code().0,
            [request.user().map(str::to_owned), field("Cache-Control"), field("WWW-Authenticate")],
        )
    }

    #[test]
    fn a_guarded_route_lets_in_who_has_the_password_whatever_the_method() {
        let fixture = Fixture::new();
        fixture.dir.write("users", USERS);
        let guard = "auth = { realm = 'the house', file = 'users' }\n";
        let site = fixture.site(&format!(
            "root = 'public'\n[headers]\nCache-Control = 'public, max-age=60'\nWWW-Authenticate = 'mine'\n\
             [[cache]]\nmatch = '*.md'\ncontrol = 'public, max-age=9, s-maxage=9'\n\
             [error_pages]\n401 = '404.html'\n429 = '503.txt'\n\
             [[route]]\nprefix = '/docs'\ndirectory = 'manual'\nlisting = true\nheaders = {{ X-A = 'b' }}\n{guard}\
             [[route]]\nprefix = '/old'\nredirect = '/new'\n{guard}\
             [[route]]\nprefix = '/fixed'\nbody = 'all'\nheaders = {{ cache-control = 'public' }}\n{guard}\
             [[push]]\nprefix = '/events'\npublish = 'anyone'\n{guard}"
        ));
        let challenge = Some("Basic realm=\"the house\", charset=\"UTF-8\"".to_owned());
        let no_store = Some("no-store".to_owned());
        for target in
            ["/docs/a.md", "/docs/", "/docs", "/docs/none", "/old/x", "/fixed", "/events/a", "/events?topic=a"]
        {
            for method in ["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PROPFIND"] {
                for (credentials, user) in [("", None), ("ada:wrong", Some("ada")), ("eve:horse", Some("eve"))] {
                    let expected = (401, [user.map(str::to_owned), no_store.clone(), challenge.clone()]);
                    assert_eq!(told(&site, method, target, credentials), expected, "{method} {target} {credentials}");
                }
            }
            assert_ne!(told(&site, "GET", target, "ada:horse").0, 401, "{target}");
            assert_eq!(site.allow(&request("TRACE", target, &[])), None, "{target}");
        }
        let (mine, ada) = (Some("mine".to_owned()), Some("ada".to_owned()));
        let said = |text: &str| Some(text.to_owned());
        for (method, target, status, control) in [
            ("GET", "/docs/a.md", 200, "max-age=9, private"),
            ("GET", "/docs/a.md", 200, "max-age=9, private"),
            ("HEAD", "/docs/a.md", 200, "max-age=9, private"),
            ("GET", "/docs/none", 404, "max-age=60, private"),
            ("GET", "/old/x", 302, "max-age=60, private"),
            ("POST", "/fixed", 405, "public"),
            ("GET", "/fixed", 200, "public"),
        ] {
            let expected = (status, [ada.clone(), said(control), mine.clone()]);
            assert_eq!(told(&site, method, target, "ada:horse"), expected, "{method} {target}");
        }
        assert_eq!(told(&site, "GET", "/", "").0, 200, "what is beside it is for everybody");
        assert_eq!(get(&site, "/docs/a.md"), (401, "<p>nothing here".to_owned()));
        let twice = [("Authorization", "Basic YTpi"), ("Authorization", "Basic YTpi")];
        assert_eq!(site.handle(&mut request("GET", "/docs/", &twice)).status_code(), StatusCode(400));
        let shown = site.describe().join("\n");
        assert_eq!(shown.matches("for users of").count(), 4, "{shown}");
        assert!(shown.contains("users\" (1)"), "{shown}");
    }

    #[test]
    fn what_lies_below_a_guarded_route_is_guarded_unless_it_says_false() {
        let fixture = Fixture::new();
        fixture.dir.write("users", USERS);
        fixture.dir.write("others", USERS.replace("ada", "bob"));
        let site = fixture.site(
            "[[route]]\nprefix = '/'\ndirectory = 'public'\nauth = { realm = 'all', file = 'users' }\n\
             [[route]]\nprefix = '/docs'\ndirectory = 'manual'\n\
             [[route]]\nprefix = '/docs/special'\ndirectory = 'special'\nauth = { realm = 'few', file = 'others' }\n\
             [[route]]\nprefix = '/docs/special/more'\nbody = 'more'\n\
             [[route]]\nprefix = '/open'\nbody = 'open'\nauth = false\n\
             [[route]]\nprefix = '/open/too'\nbody = 'open'\n\
             [[push]]\nprefix = '/events'\npublish = 'anyone'\n\
             [[push]]\nprefix = '/news'\npublish = 'anyone'\nauth = false\n",
        );
        for (target, none, ada, bob) in [
            ("/", 401, 200, 401),
            ("/nothing", 401, 404, 401),
            ("/docs/", 401, 200, 401),
            ("/docsx", 401, 404, 401),
            ("/docs/special/x.txt", 401, 401, 200),
            ("/docs/special/more", 401, 401, 200),
            ("/open", 200, 200, 200),
            ("/open/too/x", 200, 200, 200),
            ("/events", 401, 400, 401),
            // The figures of the server are below / as well.
            ("/-/figures", 401, 400, 401),
        ] {
            for (credentials, status) in [("", none), ("ada:horse", ada), ("bob:horse", bob)] {
                assert_eq!(told(&site, "GET", target, credentials).0, status, "{target} {credentials}");
            }
        }
        // Dots are no segments in a topic.
        for target in ["/news/a?wait=0", "/news/../docs/special/x.txt"] {
            assert_eq!(told(&site, "GET", target, "").0, 200, "{target}");
        }
        // However the path is written.
        for target in [
            "/docs/special/x.txt",
            "//docs/special/x.txt",
            "/docs//special/x.txt",
            "/./docs/special/./x.txt",
            "/x/../docs/special/x.txt",
            "/open/../docs/special/x.txt",
            "/open/too/%2e%2e/../docs/special/x.txt",
            "/%64ocs/speci%61l/x.txt",
            "/docs/special/x.txt?open",
            "/docs/special/x.txt/",
            "/docs/special/",
            "/docs/special",
            "http://test/docs/special/x.txt",
            "/open%2f../docs/special/x.txt",
            "/open\\..\\docs/special/x.txt",
            "/docs/special%00/x.txt",
            "/docs%2fspecial/x.txt",
        ] {
            let response = site.handle(&mut request("GET", target, &[]));
            let status = response.status_code().0;
            let body = String::from_utf8(read(response).1).expect("UTF-8");
            assert!(matches!(status, 400 | 401 | 403 | 404) && body != "special", "{target}: {status} {body}");
        }
    }

    #[test]
    fn a_file_of_users_that_is_wrong_is_named_with_its_place_and_line() {
        let fixture = Fixture::new();
        fixture.dir.write("md5", "# old\nada:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00\n");
        for (file, says) in [
            ("nowhere", ":3:8: file of users"),
            ("nowhere", "there is no such file"),
            ("public", "it is not a regular file"),
            ("md5", "line 2: the password of \"ada\" is MD5, allowed is bcrypt, or SHA-256 or SHA-512 crypt"),
        ] {
            let text = format!("[[route]]\nprefix = '/a'\nauth = {{ realm = 'x', file = '{file}' }}\nbody = 'b'\n");
            let error = Site::open(&fixture.config(&text)).err().expect(file);
            let message = error.to_string();
            assert!(error.is_config() && message.contains(says) && !message.contains('\n'), "{file}: {message}");
        }
    }

    #[test]
    fn without_a_root_there_is_the_welcome_site() {
        let fixture = Fixture::new();
        let site = fixture.site("[[route]]\nprefix = '/docs'\ndirectory = 'manual'\n");
        assert!(get(&site, "/").1.contains("handover ./public"));
        assert_eq!(get(&site, "/docs/a.md").1, "# a");
        let routes = site.describe();
        assert!(routes[0].starts_with("/docs directory ") && routes[1] == "/ welcome site", "{routes:?}");
    }
}
