//! A directory of files as a [`Handler`].

use super::answer::{self, About, Representation, refuse};
use super::cache::{Cache, CachedFile};
use super::content::{Content, wall_clock};
use super::content_type::MediaTypes;
use super::current::{Current, Held};
use super::fields::{Fields, SiteShared};
use super::listing::{self, Place};
use super::path::{self, ENCODED, Name};
use super::root::Root;
use super::source::{Found, Source};
use crate::Error;
use crate::api::{Body, Handler, IntoResponse, READ_ONLY, Request, Response, known_header, refuse_unless_read};
use crate::clock::Millis;
use crate::config::DEFAULT_FILE_CACHE;
use crate::config::site::{CacheRule, DirectoryOptions};
use crate::logging::rate_limit::log_rate_limited;
use http1::accept::{Coding, Ranking, accepts_html};
use http1::response::encode_headers;
use percent_encoding::percent_encode;
use rustix::io::Errno;
use std::borrow::Cow;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use tiny_http::StatusCode;

/// What answers for a directory.
const INDEX: &[u8] = b"index.html";

/// Serves the files below a directory to GET and HEAD.
///
/// ```
/// use handover::{Files, Router};
///
/// # fn main() -> Result<(), handover::Error> {
/// let files = Files::open("examples/site".as_ref())?.with_precompressed().with_listing().with_fallback("index.html")?;
/// let site = Router::new().get("/hello", |_: &mut handover::Request| "hello\n").fallback(files);
/// # let _ = site; Ok(()) }
/// ```
///
/// - A path never leads out of the directory, whatever it says and wherever symbolic links point; links within it are
///   followed, absolute ones if they begin with the directory's own path, as it was named or without its links. Names that
///   begin with a dot are not served, except `/.well-known`.
/// - A directory is answered with its `index.html`, after a redirect to the path with a slash at the end; without one it
///   is 404, or what [`with_listing`](Files::with_listing) shows.
/// - Preconditions and ranges are those of RFC 9110 §13 and §14, up to 8 ranges a request.
/// - A file that does not know its length, as most of /proc, is sent as far as it can be read, without ETag and ranges.
/// - Only regular files are served: anything else is 404, like what does not exist, and so is what a name that is too
///   long or a link that goes in circles stands for. What this user may not read is 403; 503 means that descriptors ran
///   out.
///
/// Compressed variants of files are sent to clients that accept them if [`with_precompressed`](Files::with_precompressed)
/// says so.
///
/// What is asked for often is kept, open or in memory, and looked up anew at most once a second: so what replaces a file
/// is served within a second, and an ETag is of the bytes that it was sent with, also where length and time were kept
/// (`cp -p`, `tar`, builds that are to be the same each time). Two things escape that. A large file that is written in
/// place while it is being sent leaves as it is read, old bytes and new ones: replace it by a rename instead. And what is
/// written through a mapping (mmap) has its new time when the kernel writes it back.
///
/// Where the path of the directory leads is looked at anew at most once a second too, so that a symbolic link on it can
/// be swapped: all of the new directory is then served at once, and what is being sent goes on as it began. If it cannot
/// be opened, the old one stays. A relative path is one below the working directory at the first start.
pub struct Files {
    current: Current,
    precompressed: Vec<Coding>,
    /// Files that are asked for often, of each root under its number.
    kept: Arc<Cache>,
    types: Arc<MediaTypes>,
    cache: Arc<[CacheRule]>,
    listing: bool,
    /// Its name below the root.
    fallback: Option<String>,
}

impl Files {
    /// Opens the directory.
    ///
    /// # Errors
    /// One that [`is_usage`](Error::is_usage) where there is no such directory or it may not be read and searched.
    pub fn open(root: &Path) -> Result<Files, Error> {
        Ok(Files {
            current: Current::open(root)?,
            precompressed: Vec::new(),
            kept: Arc::new(Cache::new(DEFAULT_FILE_CACHE)),
            types: Arc::default(),
            cache: Arc::default(),
            listing: false,
            fallback: None,
        })
    }

    /// Sends `app.js.br`, `app.js.zst` or `app.js.gz` for `app.js` to clients that accept it. Off by default, since each
    /// request then looks for them: up to three system calls more where there are none.
    ///
    /// Accept-Encoding decides (RFC 9110 §12.5.3), and among what it likes equally the order above. The file itself must
    /// be there too; a variant that is older than it, by the second, is left alone. A variant has a Content-Encoding and
    /// an ETag of its own; ranges are of its bytes. All answers for a file that has variants say
    /// `Vary: Accept-Encoding`.
    pub fn with_precompressed(mut self) -> Files {
        self.precompressed = Coding::ALL.to_vec();
        self
    }

    /// Shows what is in a directory that has no `index.html`: names that would be served, directories first. A page has up to
    /// 64 KiB, some 450 of them, and a link to the next one; a click sorts by name, size or time, without a script. Off by
    /// default: what is in a directory is then known only to whom it was told.
    ///
    /// The query says what is shown: `sort` is `name`, `size` or `modified`, `order` is `asc` or `desc`, `after` (with `at`,
    /// if it is not sorted by name) where the page before has ended. What else it says, or with another value, is ignored.
    /// 100,000 names are read, and up to 10,000 sorted by size or time.
    pub fn with_listing(self) -> Files {
        Files { listing: true, ..self }
    }

    /// Answers with this file, by its path below the directory, where a document is not there: for an application in the
    /// browser that reads the path itself.
    ///
    /// A document is what a person could have typed: its last segment has no dot, and Accept, if there is one, allows
    /// HTML. So a script or image that is missing is 404, and so is what an application asks for as JSON. The status is
    /// 200, the validators are those of the file.
    ///
    /// # Errors
    /// A usage error if there is no such file.
    pub fn with_fallback(self, name: &str) -> Result<Files, Error> {
        let wrong = |what: &str| Err(Error::usage(format_args!("fallback is {name:?}, {what}")));
        if name.split('/').any(|segment| segment.is_empty() || segment.starts_with('.')) {
            return wrong("allowed is the path of a file below the directory, without segments that begin with a dot");
        }
        let served = self.current.get();
        match self.source(&served.root).find(name.as_bytes(), Ranking::default()) {
            Ok(Found::File(_) | Found::Unmeasured(_)) => Ok(Files { fallback: Some(name.to_owned()), ..self }),
            Ok(Found::Directory | Found::Nothing) => wrong("which is not a regular file"),
            Err(Errno::ACCESS) => wrong("which this user may not read"),
            Err(errno) if status_for(errno) == 404 => wrong("and there is no such file below the directory"),
            Err(errno) => wrong(&format!("which cannot be opened: {}", std::io::Error::from(errno))),
        }
    }

    /// The same with these media types and rules, served in that way; its files are kept with those of other roots.
    pub(super) fn configured(mut self, shared: &SiteShared, options: &DirectoryOptions) -> Files {
        self.precompressed = options.precompressed.clone();
        let (kept, types, cache) = (shared.kept.clone(), shared.types.clone(), shared.rules.clone());
        Files { kept, types, cache, listing: options.listing, ..self }
    }

    /// What the first rule says that is for the file. `above` is the path that the root stands for.
    fn cache_control(&self, above: &[u8], file_name: &[u8]) -> Option<&str> {
        if self.cache.is_empty() {
            return None;
        }
        let path = match above.strip_suffix(b"/").unwrap_or(above) {
            b"" => Cow::Borrowed(file_name),
            above => [above, b"/", file_name].concat().into(),
        };
        self.cache.iter().find(|rule| rule.is_for(&path)).map(|rule| rule.control.as_str())
    }

    /// Answers for the whole `name`, with what is in the directory under `below`, the end of that name. What every
    /// answer gets is `fields`, if there are any: then an answer that is finished has them.
    pub(super) fn answer(&self, request: &Request, name: &Name<'_>, below: &[u8], fields: Option<&Fields>) -> Answer {
        if let Some(refusal) = refuse_unless_read(request.method()) {
            return Answer::Bare(refusal);
        }
        // What stands for the directory itself and does not say so has a last segment all the same: of the prefix.
        if below.is_empty() && !name.directory {
            return Answer::Bare(redirect(name, request));
        }
        let now = Millis::now();
        if let Some(gone) = self.current.look_again(now) {
            self.kept.forget(gone);
        }
        let file_name = match name.directory {
            true => index_of(below),
            false => Cow::Borrowed(below),
        };
        let ranking = self.ranking(request);
        let mut held = Held::new(&self.current);
        let mut found = self.find(&held, &file_name, ranking, now);
        if let Err(LookupError::Root) = found {
            held = held.renewed();
            found = self.find(&held, &file_name, ranking, now);
        }
        let wanted = Wanted { request, name, below, held: &held, now };
        Answer::Bare(match found {
            Ok(entry) => return self.serve_usual(&entry, &file_name, &wanted, fields),
            Err(LookupError::Length(file)) => self.serve_unmeasured(file, &file_name, &wanted),
            Err(LookupError::Directory) if !name.directory => redirect(name, request),
            // An index.html that is a directory, a FIFO. 404 and not 403, since no permission would change it (RFC 9110
            // §15.5.5).
            Err(LookupError::Directory | LookupError::Nothing) => refuse(404),
            Err(LookupError::Failed(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG)) => self.without(&wanted),
            // A directory that may be searched but not listed (mode 711) still has its index.
            Err(LookupError::Failed(Errno::ACCESS))
                if !name.directory && held.root().is_some_and(|root| root.has_directory(below)) =>
            {
                redirect(name, request)
            }
            // It has been got once, and is held since.
            Err(LookupError::Root) => refuse(503),
            Err(LookupError::Failed(errno)) => failed(errno.into(), &file_name),
        })
    }

    /// The file of that name below the root, as it is, or was up to a second ago.
    fn find(
        &self,
        held: &Held<'_>,
        name: &[u8],
        ranking: Ranking,
        now: Millis,
    ) -> Result<Arc<CachedFile>, LookupError> {
        let found = self.kept.find(held.number, name, ranking, now, || {
            match self.source(held.root().ok_or(LookupError::Root)?).find(name, ranking)? {
                Found::File(selected) => Ok(selected),
                Found::Unmeasured(file) => Err(LookupError::Length(file)),
                Found::Directory => Err(LookupError::Directory),
                Found::Nothing => Err(LookupError::Nothing),
            }
        });
        // Whoever replaced the root has had its files forgotten, but this one came after that.
        if held.is_outdated() {
            self.kept.forget(held.number);
        }
        found
    }

    fn source<'s>(&'s self, root: &'s Root) -> Source<'s> {
        Source { root, precompressed: &self.precompressed }
    }

    /// Answers with a file that is there. The fields of the usual answer are encoded once for as long as it is kept.
    fn serve_usual(
        &self,
        entry: &CachedFile,
        file_name: &[u8],
        wanted: &Wanted<'_>,
        fields: Option<&Fields>,
    ) -> Answer {
        let Some(fields) = fields.filter(|_| entry.is_kept() && wanted.request.is_plain_get()) else {
            return Answer::Bare(self.serve(entry, file_name, wanted, false));
        };
        if let Some(prepared) = entry.fields.get() {
            let mut body = match &entry.content {
                Content::Bytes(bytes) => Body::from(bytes.clone()),
                Content::File(file) => Body::shared_file_range(file.clone(), 0, entry.version.length),
            };
            body.fields = Some(prepared.clone());
            return Answer::Finished(body.into_response_with(200, Vec::new()));
        }
        let response = fields.onto(self.serve(entry, file_name, wanted, false));
        let mut prepared = Vec::new();
        if response.status_code() == StatusCode(200)
            && encode_headers(&mut prepared, response.headers()).is_ok_and(|said| !said.date)
        {
            // Another worker may have been as fast, with the same.
            let _ = entry.fields.set(prepared.into());
        }
        Answer::Finished(response)
    }

    /// Answers where there is no such file, and no index in a directory.
    fn without(&self, wanted: &Wanted<'_>) -> Response {
        let Wanted { request, name, below, held, now } = *wanted;
        if let Some(root) = held.root().filter(|_| self.listing && name.directory) {
            let place = Place { path: &name.bytes, below };
            match root.list(below) {
                Ok(directory) => {
                    let page = listing::answer(request, root, &directory, &place);
                    return page.unwrap_or_else(|error| failed(error, below));
                }
                Err(errno) if status_for(errno) == 404 => {}
                Err(errno) => return failed(errno.into(), below),
            }
        }
        let last = below.rsplit(|&byte| byte == b'/').next().unwrap_or(below);
        let Some(fallback) = self.fallback.as_ref().filter(|_| !last.contains(&b'.')) else { return refuse(404) };
        if !accepts_html(request.header_values("Accept")) {
            // For a cache that keeps this: who accepts HTML gets another answer.
            return refuse(404).with_header(known_header("Vary", "Accept"));
        }
        match self.find(held, fallback.as_bytes(), self.ranking(request), now) {
            Ok(entry) => self.serve(&entry, fallback.as_bytes(), wanted, true),
            Err(LookupError::Length(file)) => self.serve_unmeasured(file, fallback.as_bytes(), wanted),
            Err(LookupError::Directory | LookupError::Nothing | LookupError::Root) => refuse(404),
            Err(LookupError::Failed(errno)) => failed(errno.into(), fallback.as_bytes()),
        }
    }

    fn ranking(&self, request: &Request) -> Ranking {
        match self.precompressed.as_slice() {
            [] => Ranking::default(),
            offered => Ranking::of(request.header_values("Accept-Encoding"), offered),
        }
    }

    /// Answers with the file of that name below the root; `by_accept` if Accept had a part in its selection.
    fn serve(&self, entry: &CachedFile, file_name: &[u8], wanted: &Wanted<'_>, by_accept: bool) -> Response {
        let now = wall_clock();
        let about = About {
            length: entry.version.length,
            // Of the file, also for a variant: the coding is no part of the type (RFC 9110 §8.4).
            content_type: self.types.of(file_name),
            coding: entry.coding,
            etag: &entry.etag,
            modified: Some(entry.version.modified(now)),
            is_dated: entry.version.is_dated(),
            vary: match (by_accept, entry.varies) {
                (false, false) => None,
                (false, true) => Some("Accept-Encoding"),
                (true, false) => Some("Accept"),
                (true, true) => Some("Accept, Accept-Encoding"),
            },
            cache_control: self.cache_control(wanted.above(), file_name),
        };
        let representation = Representation { content: entry.content.clone(), about };
        representation.answer(wanted.request, now).unwrap_or_else(|error| failed(error, file_name))
    }

    fn serve_unmeasured(&self, file: File, file_name: &[u8], wanted: &Wanted<'_>) -> Response {
        let control = self.cache_control(wanted.above(), file_name);
        answer::answer_unmeasured(wanted.request, file, self.types.of(file_name), control)
    }
}

/// A response, and whether it is all that is to be said.
pub(super) enum Answer {
    /// With the fields that every answer of the route has.
    Finished(Response),
    /// Without them.
    Bare(Response),
}

/// Why there is no file that could be kept.
enum LookupError {
    Directory,
    Nothing,
    /// There is one, but nobody knows how long it is.
    Length(File),
    /// The root was replaced between two looks at it.
    Root,
    Failed(Errno),
}

impl From<Errno> for LookupError {
    fn from(errno: Errno) -> LookupError {
        LookupError::Failed(errno)
    }
}

/// What was asked for.
struct Wanted<'w> {
    request: &'w Request,
    name: &'w Name<'w>,
    /// The end of the name: what lies below the root.
    below: &'w [u8],
    /// Which root that is.
    held: &'w Held<'w>,
    now: Millis,
}

impl Wanted<'_> {
    /// The beginning of the name: what the root stands for.
    fn above(&self) -> &[u8] {
        &self.name.bytes[..self.name.bytes.len() - self.below.len()]
    }
}

impl Handler for Files {
    fn handle(&self, request: &mut Request) -> Response {
        if let Some(refusal) = refuse_unless_read(request.method()) {
            return refusal;
        }
        match path::name(request.path()) {
            Ok(name) => match self.answer(request, &name, &name.bytes, None) {
                Answer::Finished(response) | Answer::Bare(response) => response,
            },
            Err(refusal) => refuse(refusal.status()),
        }
    }

    fn allow(&self, _: &Request) -> Option<String> {
        Some(READ_ONLY.to_owned())
    }
}

fn index_of(directory: &[u8]) -> Cow<'static, [u8]> {
    match directory {
        b"" => INDEX.into(),
        directory => [directory, b"/", INDEX].concat().into(),
    }
}

/// From `/a/b?c` to `/a/b/?c`, so that the relative links of the index start in the directory.
///
/// 301, not 308: both are permanent, and what 308 adds, that the method stays (RFC 9110 §15.4.9), is no matter for GET
/// and HEAD, while every client knows 301. The location is relative to the request (§10.2.2) and begins with `./`: so it
/// names no other host whatever the path looks like (`//host`, `/\host`, `/x:y`), and it is right behind a proxy that
/// takes a prefix off the path.
fn redirect(name: &Name<'_>, request: &Request) -> Response {
    let last = name.bytes.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let mut location = format!("./{}/", percent_encode(last, ENCODED));
    if let Some(query) = request.query() {
        location.push('?');
        location.push_str(query);
    }
    StatusCode(301).into_response().with_header(known_header("Location", &location))
}

/// The answer where a file could not be opened or read.
fn failed(error: std::io::Error, name: &[u8]) -> Response {
    let status = Errno::from_io_error(&error).map_or(500, status_for);
    match status {
        500 => log_rate_limited!(error, "cannot serve {:?}: {error}", String::from_utf8_lossy(name)),
        503 => log_rate_limited!(warn, "cannot serve {:?} now: {error}", String::from_utf8_lossy(name)),
        _ => {}
    }
    refuse(status)
}

fn status_for(errno: Errno) -> u16 {
    match errno {
        Errno::ACCESS => 403,
        // XDEV: a link leads out of the root. NXIO, NODEV: a socket, or a device that has no driver.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV | Errno::NXIO | Errno::NODEV => {
            404
        }
        // AGAIN: another process holds a lease on the file, and O_NONBLOCK does not wait for it.
        Errno::MFILE | Errno::NFILE | Errno::AGAIN => 503,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Resolver;
    use super::super::testing::{TempDir, next_tick, read, request, value};
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    /// A site with a bit of everything.
    struct Site {
        dir: TempDir,
        files: Files,
    }

    impl Site {
        fn new() -> Site {
            Site::with_resolver(Resolver::Kernel)
        }

        fn with_resolver(resolver: Resolver) -> Site {
            let dir = TempDir::new();
            let outside = dir.write("outside/secret.txt", "secret");
            for (name, content) in [
                ("index.html", "<p>root"),
                ("a.txt", "0123456789"),
                ("empty.txt", ""),
                ("dir/index.html", "<p>dir"),
                ("dir/b.css", "b{}"),
                ("bare/c", "c"),
                ("a b:c\\ü/index.html", "odd"),
                ("evil.com/index.html", "evil"),
                (".env", "secret"),
                (".git/config", "secret"),
                (".well-known/security.txt", "well known"),
                (".well-known/.htaccess", "secret"),
                ("odd/index.html/x", "x"),
            ] {
                dir.write(&format!("root/{name}"), content);
            }
            let root = dir.path().join("root");
            for (name, target) in [
                ("inside", "dir/b.css"),
                ("inside-dir", "dir"),
                ("up", "../outside/secret.txt"),
                ("up-dir", "../outside"),
                ("loop", "loop"),
                ("dangling", "nothing"),
                ("dir/back", "../a.txt"),
            ] {
                symlink(target, root.join(name)).expect("symlink");
            }
            symlink(&outside, root.join("absolute")).expect("symlink");
            symlink(root.join("a.txt"), root.join("absolute-inside")).expect("symlink");
            mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("mkfifo");
            let files = Files::open(&root).expect("a root");
            let current = files.current.with_root(|root| root.with_resolver(resolver));
            Site { dir, files: Files { current, ..files } }
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) -> std::path::PathBuf {
            self.dir.write(&format!("root/{name}"), content)
        }

        fn send(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Response {
            self.files.handle(&mut request(method, target, fields))
        }

        fn get(&self, target: &str) -> (u16, Vec<u8>) {
            let response = self.send("GET", target, &[]);
            (response.status_code().0, read(response).1)
        }

        fn status(&self, target: &str) -> u16 {
            self.send("GET", target, &[]).status_code().0
        }
    }

    #[test]
    fn a_file() {
        let response = Site::new().send("GET", "/dir/b.css", &[]);
        assert_eq!(response.status_code(), StatusCode(200));
        assert_eq!(value(&response, "Content-Type"), Some("text/css; charset=utf-8"));
        assert_eq!(value(&response, "X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(value(&response, "Accept-Ranges"), Some("bytes"));
        let etag = value(&response, "ETag").expect("a tag");
        assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
        assert!(value(&response, "Last-Modified").is_some());
        assert_eq!(read(response), (Some(3), b"b{}".to_vec()));
    }

    #[test]
    fn files_of_every_size_are_whole() {
        let site = Site::new();
        for size in [0, 1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 100_000] {
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            site.write("big", &content);
            let response = site.send("GET", "/big", &[]);
            assert_eq!(read(response), (Some(size as u64), content));
        }
    }

    /// What must come of each path, whoever resolves it.
    const PATHS: &[(&str, u16)] = &[
        ("/", 200),
        ("/index.html", 200),
        ("/a.txt", 200),
        ("/empty.txt", 200),
        ("/%61.txt?query", 200),
        ("//a.txt", 200),
        ("/dir/", 200),
        ("/dir/.", 200),
        ("/dir/../a.txt", 200),
        ("/dir", 301),
        ("/inside", 200),
        ("/inside-dir", 301),
        ("/inside-dir/", 200),
        ("/inside-dir/b.css", 200),
        ("/inside-dir/back", 200),
        ("/dir/back", 200),
        ("/.well-known/security.txt", 200),
        ("/.well-known", 301),
        // Traversal.
        ("/../outside/secret.txt", 404),
        ("/dir/../../outside/secret.txt", 404),
        ("/%2e%2e/outside/secret.txt", 404),
        ("/%2e%2e%2foutside%2fsecret.txt", 404),
        ("/..%2foutside/secret.txt", 404),
        ("/..%5coutside%5csecret.txt", 404),
        ("/..\\outside\\secret.txt", 404),
        ("/....//outside/secret.txt", 404),
        ("/.%2e/.%2e/etc/passwd", 404),
        ("/%252e%252e/outside/secret.txt", 404),
        ("//etc/passwd", 404),
        ("/dir%2fb.css", 404),
        ("/a.txt%00.html", 404),
        ("/%00", 404),
        ("/%c0%ae%c0%ae/outside/secret.txt", 404),
        ("/%", 400),
        ("/%zz", 400),
        ("/%2", 400),
        // Links.
        ("/up", 404),
        ("/up-dir", 404),
        ("/up-dir/secret.txt", 404),
        ("/absolute", 404),
        ("/absolute-inside", 200),
        ("/loop", 404),
        ("/loop/x", 404),
        ("/dangling", 404),
        // Hidden names.
        ("/.env", 404),
        ("/%2eenv", 404),
        ("/.git/config", 404),
        ("/.git", 404),
        ("/.well-known/.htaccess", 404),
        ("/dir/.well-known/x", 404),
        // Nothing there, or nothing to be served.
        ("/nothing", 404),
        ("/nothing/", 404),
        ("/a.txt/", 404),
        ("/a.txt/x", 404),
        ("/bare/", 404),
        ("/odd/", 404),
        ("/fifo", 404),
        ("/fifo/", 404),
    ];

    #[test]
    fn paths() {
        for resolver in [Resolver::Kernel, Resolver::Walk] {
            let site = Site::with_resolver(resolver);
            for (path, status) in PATHS {
                let (answered, body) = site.get(path);
                assert_eq!(answered, *status, "{path} by {resolver:?}");
                assert!(!body.windows(6).any(|part| part == b"secret"), "{path} by {resolver:?}");
            }
        }
    }

    #[test]
    fn names_that_are_too_long_are_not_found() {
        for resolver in [Resolver::Kernel, Resolver::Walk] {
            let site = Site::with_resolver(resolver);
            assert_eq!(site.status(&format!("/{}", "x".repeat(300))), 404);
            assert_eq!(site.status(&format!("/{}", "dir/../".repeat(900))), 200);
            assert_eq!(site.status(&format!("/{}", "x/".repeat(4000))), 404);
        }
    }

    #[test]
    fn a_socket_or_device_is_not_found() {
        let site = Site::new();
        let _socket = std::os::unix::net::UnixListener::bind(site.dir.path().join("root/socket")).expect("a socket");
        assert_eq!(site.status("/socket"), 404);
    }

    #[test]
    fn directories_are_redirected_to_their_slash() {
        let site = Site::new();
        for (target, location) in [
            ("/dir", "./dir/"),
            ("/dir?a=b&c=//x", "./dir/?a=b&c=//x"),
            ("/dir?", "./dir/?"),
            ("//dir", "./dir/"),
            ("//evil.com", "./evil.com/"),
            ("//evil.com?x", "./evil.com/?x"),
            ("///evil.com", "./evil.com/"),
            ("/%65vil.com", "./evil.com/"),
            ("http://test/dir?x", "./dir/?x"),
            ("/a%20b:c\\%C3%BC", "./a%20b%3Ac%5C%C3%BC/"),
        ] {
            let response = site.send("GET", target, &[]);
            assert_eq!(response.status_code(), StatusCode(301), "{target}");
            assert_eq!(value(&response, "Location"), Some(location), "{target}");
            assert_eq!(site.send("HEAD", target, &[]).status_code(), StatusCode(301), "{target}");
        }
        assert_eq!(site.get("/a%20b:c\\%C3%BC/"), (200, b"odd".to_vec()));
    }

    #[test]
    fn methods() {
        let site = Site::new();
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
            let response = site.send(method, "/a.txt", &[]);
            assert_eq!(response.status_code(), StatusCode(405), "{method}");
            assert_eq!(value(&response, "Allow"), Some("GET, HEAD, OPTIONS"), "{method}");
        }
        for method in ["BREW", "get"] {
            let response = site.send(method, "/a.txt", &[]);
            assert_eq!((response.status_code(), value(&response, "Allow")), (StatusCode(501), None), "{method}");
        }
        for target in ["/a.txt", "*"] {
            let response = site.send("OPTIONS", target, &[]);
            assert_eq!(response.status_code(), StatusCode(204));
            assert_eq!(value(&response, "Allow"), Some("GET, HEAD, OPTIONS"));
        }
    }

    #[test]
    fn head_is_get_without_reading() {
        let site = Site::new();
        for target in ["/a.txt", "/empty.txt", "/dir/", "/dir", "/nothing", "/.env", "/%"] {
            let (head, get) = (site.send("HEAD", target, &[]), site.send("GET", target, &[]));
            assert_eq!(head.status_code(), get.status_code(), "{target}");
            let fields = |response: &Response| response.headers().iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(fields(&head), fields(&get), "{target}");
            assert_eq!(head.into_reader().len(), get.into_reader().len(), "{target}");
        }
        let ranged = site.send("HEAD", "/a.txt", &[("Range", "bytes=2-3")]);
        assert_eq!(ranged.status_code(), StatusCode(200));
        assert_eq!(ranged.into_reader().len(), Some(10));
    }

    #[test]
    fn ranges() {
        let site = Site::new();
        for (range, content_range, content) in [
            ("bytes=2-4", "bytes 2-4/10", "234"),
            ("bytes=7-", "bytes 7-9/10", "789"),
            ("bytes=-2", "bytes 8-9/10", "89"),
            ("bytes=0-99999999999999999999999", "bytes 0-9/10", "0123456789"),
            ("bytes=20-,3-3", "bytes 3-3/10", "3"),
        ] {
            let response = site.send("GET", "/a.txt", &[("Range", range)]);
            assert_eq!(response.status_code(), StatusCode(206), "{range}");
            assert_eq!(value(&response, "Content-Range"), Some(content_range));
            assert_eq!(value(&response, "Content-Type"), Some("text/plain; charset=utf-8"));
            assert!(value(&response, "ETag").is_some());
            assert_eq!(read(response), (Some(content.len() as u64), content.as_bytes().to_vec()));
        }
        for range in ["bytes=10-", "bytes=-0", "bytes=18446744073709551616-"] {
            let response = site.send("GET", "/a.txt", &[("Range", range)]);
            assert_eq!(response.status_code(), StatusCode(416), "{range}");
            assert_eq!(value(&response, "Content-Range"), Some("bytes */10"));
        }
        for range in ["bytes=4-2", "bytes=x", "lines=1-2", "bytes=0-5,5-9"] {
            let response = site.send("GET", "/a.txt", &[("Range", range)]);
            assert_eq!(response.status_code(), StatusCode(200), "{range}");
            assert_eq!(value(&response, "Content-Range"), None);
        }
    }

    #[test]
    fn a_range_of_a_large_file_is_sent_by_sendfile() {
        let site = Site::new();
        let content: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
        site.write("big", &content);
        let response = site.send("GET", "/big", &[("Range", "bytes=1000-150000")]);
        assert_eq!(value(&response, "Content-Range"), Some("bytes 1000-150000/200000"));
        let body = response.into_reader();
        assert!(matches!(body.kind, crate::api::Kind::File { offset: 1000, end: 150_001, .. }));
        let response = site.send("GET", "/big", &[("Range", "bytes=0-9,100000-199999")]);
        let (length, body) = read(response);
        assert_eq!(length, Some(body.len() as u64));
        assert!(body.windows(100_000).any(|part| part == &content[100_000..]));
    }

    #[test]
    fn preconditions() {
        let site = Site::new();
        let first = site.send("GET", "/a.txt", &[]);
        let etag = value(&first, "ETag").expect("a tag");
        let modified = value(&first, "Last-Modified").expect("a date");
        let weak = format!("W/{etag}");
        let status = |fields: &[(&str, &str)]| site.send("GET", "/a.txt", fields).status_code().0;
        assert_eq!(status(&[("If-None-Match", etag)]), 304);
        assert_eq!(status(&[("If-None-Match", &weak)]), 304);
        assert_eq!(status(&[("If-None-Match", "\"x\""), ("If-Modified-Since", modified)]), 200);
        assert_eq!(status(&[("If-Modified-Since", modified)]), 304);
        assert_eq!(status(&[("If-Match", "\"x\"")]), 412);
        assert_eq!(status(&[("If-Match", &weak)]), 412);
        assert_eq!(status(&[("If-Match", etag), ("If-None-Match", etag)]), 304);
        assert_eq!(status(&[("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")]), 412);
        assert_eq!(status(&[("Range", "bytes=0-1"), ("If-Range", etag)]), 206);
        assert_eq!(status(&[("Range", "bytes=0-1"), ("If-Range", &weak)]), 200);
        assert_eq!(status(&[("Range", "bytes=0-1"), ("If-Range", "\"x\"")]), 200);
        // An If-Range that does not hold makes a Range disappear that could not be satisfied (RFC 9110 §13.2.2).
        assert_eq!(status(&[("Range", "bytes=99-"), ("If-Range", "\"x\"")]), 200);
        assert_eq!(status(&[("Range", "bytes=99-"), ("If-None-Match", etag)]), 304);
        // Where there would be no 200, preconditions do not count (§13.2.1).
        assert_eq!(site.send("GET", "/nothing", &[("If-Match", "\"x\"")]).status_code(), StatusCode(404));
        assert_eq!(site.send("GET", "/dir", &[("If-None-Match", "*")]).status_code(), StatusCode(301));

        let cached = site.send("HEAD", "/a.txt", &[("If-None-Match", etag)]);
        assert_eq!(cached.status_code(), StatusCode(304));
        assert_eq!(value(&cached, "ETag"), Some(etag));
        assert_eq!(value(&cached, "Content-Type"), None);
    }

    fn set_modified(path: &Path, time: SystemTime) {
        let file = fs::File::options().write(true).open(path).expect("a file");
        file.set_modified(time).expect("a time");
    }

    #[test]
    fn a_file_from_the_future_was_modified_now() {
        let site = Site::new();
        let path = site.write("future", "f");
        set_modified(&path, SystemTime::now() + Duration::from_secs(86_400 * 365));
        let response = site.send("GET", "/future", &[]);
        let modified = httpdate::parse_http_date(value(&response, "Last-Modified").expect("a date")).expect("a date");
        assert!(modified <= SystemTime::now());
        // Such a date says nothing about the state, so it does not hold an If-Range.
        let date = httpdate::fmt_http_date(modified);
        let ranged = site.send("GET", "/future", &[("Range", "bytes=0-0"), ("If-Range", &date)]);
        assert_eq!(ranged.status_code(), StatusCode(200));
    }

    #[test]
    fn a_file_from_before_1970_has_the_first_date() {
        let site = Site::new();
        let path = site.write("old", "o");
        set_modified(&path, UNIX_EPOCH - Duration::from_secs(86_400));
        let response = site.send("GET", "/old", &[]);
        assert_eq!(value(&response, "Last-Modified"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
    }

    #[test]
    fn every_change_changes_the_tag() {
        let mut site = Site::new();
        site.files.kept = Arc::new(Cache::new(0));
        let time = UNIX_EPOCH + Duration::new(1_000_000_000, 5);
        let tag = |content: &str, time: SystemTime, replace: bool| {
            let path = site.write(if replace { "new" } else { "tagged" }, content);
            set_modified(&path, time);
            if replace {
                fs::rename(path, site.dir.path().join("root/tagged")).expect("rename");
            }
            value(&site.send("GET", "/tagged", &[]), "ETag").expect("a tag").to_owned()
        };
        let first = tag("a", time, false);
        next_tick(&site.dir);
        assert_ne!(tag("b", time, false), first, "the same length and a time that was set");
        assert_ne!(tag("ab", time, false), first, "length");
        assert_ne!(tag("a", time + Duration::from_nanos(1), false), first, "time");
        assert_ne!(tag("a", time, true), first, "inode");
    }

    #[test]
    fn a_date_that_was_set_resumes_nothing() {
        let site = Site::new();
        let path = site.write("dated", "0123456789");
        // Last changed when it says that it was written, and a second ago, for a client with a clock like ours.
        let resumed = |date: &str| {
            let fields = [("Range", "bytes=1-2"), ("If-Range", date)];
            site.send("GET", "/dated", &fields).status_code().0
        };
        set_modified(&path, UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        let response = site.send("GET", "/dated", &[]);
        let date = value(&response, "Last-Modified").expect("a date");
        assert_eq!(date, "Sun, 09 Sep 2001 01:46:40 GMT");
        // Another file may be there by the same date, so the rest of one might not fit the beginning of the other.
        assert_eq!(resumed(date), 200);
        assert_eq!(resumed(value(&response, "ETag").expect("a tag")), 206);
    }

    #[test]
    fn a_file_of_proc_that_says_it_is_empty_is_sent() {
        let files = Files::open(Path::new("/proc/self")).expect("a root");
        let send = |method: &str, fields: &[(&str, &str)]| files.handle(&mut request(method, "/status", fields));
        let response = send("GET", &[("Range", "bytes=0-1")]);
        assert_eq!(response.status_code(), StatusCode(200));
        for absent in ["ETag", "Last-Modified", "Accept-Ranges"] {
            assert_eq!(value(&response, absent), None);
        }
        let (length, body) = read(response);
        assert!(length.is_none() && body.starts_with(b"Name:"), "{length:?}");
        assert_eq!(send("GET", &[("If-Match", "\"x\"")]).status_code(), StatusCode(412));
        assert_eq!(send("GET", &[("If-None-Match", "\"x\"")]).status_code(), StatusCode(200));
        assert_eq!(send("HEAD", &[]).status_code(), StatusCode(200));
    }

    /// As a deployment does.
    fn swap(dir: &TempDir, target: &str) {
        let new = dir.path().join("new");
        symlink(target, &new).expect("symlink");
        fs::rename(new, dir.path().join("current")).expect("a rename");
    }

    #[test]
    fn a_root_that_is_swapped_is_served_within_a_second_all_of_it_at_once() {
        let dir = TempDir::new();
        for name in ["v1/a", "v1/sub/b", "v1/only", "v2/a", "v2/sub/b"] {
            dir.write(name, name);
        }
        swap(&dir, "v1");
        let mut files = Files::open(&dir.path().join("current")).expect("a root").with_listing();
        files.kept = Arc::new(Cache::settled(1 << 20));
        let get = |target: &str| {
            let response = files.handle(&mut request("GET", target, &[]));
            (response.status_code().0, String::from_utf8(read(response).1).expect("UTF-8"))
        };
        let ok = |text: &str| (200, text.to_owned());
        assert_eq!((get("/a"), get("/sub/b"), get("/only")), (ok("v1/a"), ok("v1/sub/b"), ok("v1/only")));
        swap(&dir, "v2");
        assert_eq!((get("/a"), get("/sub/b")), (ok("v1/a"), ok("v1/sub/b")), "not yet");
        files.current.wait();
        assert_eq!((get("/a"), get("/sub/b"), get("/only").0), (ok("v2/a"), ok("v2/sub/b"), 404));
        assert!(!get("/").1.contains("only"));
        assert_eq!(files.kept.len(), 2, "nothing of the old one is kept");

        // It leads nowhere, or to what is no directory: what was there is served on, and then what there is.
        fs::remove_file(dir.path().join("current")).expect("a link");
        files.current.wait();
        assert_eq!(get("/a"), ok("v2/a"));
        swap(&dir, "v1/a");
        files.current.wait();
        assert_eq!(get("/a"), ok("v2/a"));
        swap(&dir, "v1");
        files.current.wait();
        assert_eq!((get("/a"), get("/only")), (ok("v1/a"), ok("v1/only")));

        // The same by a rename, to the same name.
        fs::rename(dir.path().join("v1"), dir.path().join("gone")).expect("a rename");
        dir.write("v1/a", "anew");
        files.current.wait();
        assert_eq!(get("/a"), ok("anew"));
    }

    #[test]
    fn a_request_keeps_its_root() {
        let dir = TempDir::new();
        dir.write("v1/a", "1");
        dir.write("v2/a", "2");
        swap(&dir, "v1");
        let mut files = Files::open(&dir.path().join("current")).expect("a root");
        files.kept = Arc::new(Cache::settled(1 << 20));
        let now = Millis::now();
        let text = |held: &Held<'_>| match files.find(held, b"a", Ranking::default(), now) {
            Ok(entry) => match &entry.content {
                Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Content::File(_) => panic!("in memory"),
            },
            Err(LookupError::Root) => "another root".to_owned(),
            Err(_) => panic!("a file"),
        };
        let (early, late) = (Held::new(&files.current), Held::new(&files.current));
        assert!(early.root().is_some());
        swap(&dir, "v2");
        files.current.wait();
        let gone = files.current.look_again(Millis::now());
        assert_eq!(gone, Some(early.number));
        // What it looked up it has, and nobody else will get it.
        assert_eq!(text(&early), "1");
        assert_eq!(files.kept.len(), 0);
        // What has not looked anything up goes on with the new one.
        assert_eq!(text(&late), "another root");
        assert_eq!(text(&late.renewed()), "2");
        assert_eq!(files.kept.len(), 1);
    }

    #[test]
    fn a_file_that_grows_is_sent_as_long_as_it_was() {
        let site = Site::new();
        for size in [10, 100_000] {
            let path = site.write("log", vec![b'a'; size]);
            let response = site.send("GET", "/log", &[]);
            let mut file = fs::File::options().append(true).open(path).expect("a file");
            std::io::Write::write_all(&mut file, b"more").expect("written");
            assert_eq!(read(response), (Some(size as u64), vec![b'a'; size]));
        }
    }

    #[test]
    fn a_file_that_shrinks_ends_before_its_length() {
        let site = Site::new();
        let path = site.write("log", vec![b'a'; 100_000]);
        let whole = site.send("GET", "/log", &[]);
        let parts = site.send("GET", "/log", &[("Range", "bytes=0-9,50000-99999")]);
        fs::File::options().write(true).open(path).expect("a file").set_len(60_000).expect("shorter");
        let (length, body) = read(whole);
        assert_eq!((length, body.len()), (Some(100_000), 60_000));
        let (length, body) = read(parts);
        assert!(length.is_some_and(|length| (body.len() as u64) < length));
        assert!(body.ends_with(b"aaa"), "the boundaries behind the cut must not follow");
    }

    #[test]
    fn errors_have_their_status() {
        for (errno, status) in [
            (Errno::ACCESS, 403),
            (Errno::NOENT, 404),
            (Errno::NOTDIR, 404),
            (Errno::LOOP, 404),
            (Errno::NAMETOOLONG, 404),
            (Errno::XDEV, 404),
            (Errno::MFILE, 503),
            (Errno::NFILE, 503),
            (Errno::AGAIN, 503),
            (Errno::IO, 500),
            (Errno::NOMEM, 500),
        ] {
            assert_eq!(failed(errno.into(), b"name").status_code(), StatusCode(status), "{errno}");
        }
    }

    #[test]
    fn a_file_that_may_not_be_read_is_forbidden() {
        use std::os::unix::fs::PermissionsExt;
        let site = Site::new();
        let root = site.dir.path().join("root");
        fs::set_permissions(root.join("a.txt"), fs::Permissions::from_mode(0o000)).expect("chmod");
        fs::set_permissions(root.join("dir"), fs::Permissions::from_mode(0o111)).expect("chmod");
        // Permissions do not hold root back, so as root only the redirect is certain.
        if !rustix::process::geteuid().is_root() {
            assert_eq!(site.status("/a.txt"), 403);
        }
        assert_eq!(site.status("/dir"), 301);
        assert_eq!(site.status("/dir/"), 200);
        fs::set_permissions(root.join("dir"), fs::Permissions::from_mode(0o755)).expect("chmod");
    }
}
