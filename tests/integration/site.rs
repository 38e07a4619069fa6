//! Static files over the wire: the program with a configuration file, real files and raw requests. Which name is which
//! file is in the unit tests of `src/site`; here is what the fields say to each other.

use crate::common::{Answer, Mode, PATIENCE, Program, RawClient, Scratch, TestServer};
use handover::{Header, IntoResponse, Request, Router, Server, StatusCode};
use rustix::fs::{Nsecs, Timespec, Timestamps, futimens};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A directory with a configuration file and, in `public`, files.
struct Site(Scratch);

impl Site {
    fn new(files: &[(&str, &str)]) -> Site {
        let site = Site(Scratch::new());
        for (name, content) in files {
            site.write(name, content);
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(&format!("public/{name}"))
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(&path, content).expect("a file");
        path
    }

    /// Says when a file was changed, in seconds after a time that is long over.
    fn modified(&self, name: &str, seconds: f64) {
        // The standard library's own way has 32 bits for it where a processor has.
        let since = Duration::from_secs(1_600_000_000) + Duration::from_secs_f64(seconds);
        let time = Timespec { tv_sec: since.as_secs() as i64, tv_nsec: since.subsec_nanos() as Nsecs };
        let file = File::options().write(true).open(self.path(name)).expect("a file");
        futimens(file, &Timestamps { last_access: time, last_modification: time }).expect("a time");
    }

    /// Waits until these are old enough to be kept.
    fn settle(&self, names: &[&str]) {
        names.iter().for_each(|name| self.0.settle(&format!("public/{name}")));
    }

    /// Serves `public`, with these lines in the configuration.
    fn serve(&self, config: &str) -> Served {
        let file = self.0.path("handover.toml");
        fs::write(&file, format!("listen = ['127.0.0.1:0']\nroot = 'public'\n{config}")).expect("a file");
        let program = Program::start(Program::handover_command().arg("-c").arg(file));
        let client = program.client();
        Served { program, client }
    }
}

struct Served {
    program: Program,
    client: RawClient,
}

impl Served {
    #[track_caller]
    fn send(&mut self, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.client.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
        match method {
            "HEAD" => self.client.answer_to_head(),
            _ => self.client.answer(),
        }
    }

    #[track_caller]
    fn get(&mut self, target: &str, fields: &[(&str, &str)]) -> Answer {
        self.send("GET", target, fields)
    }

    fn stop(self) {
        drop(self.client);
        self.program.signal(rustix::process::Signal::TERM);
        assert_eq!(self.program.exit().code, Some(0));
    }
}

/// Status, body, and the values of the fields that are named, `-` for one that is missing.
fn said<'a>(answer: &'a Answer, fields: &[&str]) -> (u16, &'a str, Vec<&'a str>) {
    (answer.status, answer.text(), fields.iter().map(|name| answer.header(name).unwrap_or("-")).collect())
}

const ALL: &str = "gzip, deflate, br, zstd";

#[test]
fn the_variant_is_the_one_that_the_client_likes_best() {
    let site = Site::new(&[
        ("a.js", "plain"),
        ("a.js.gz", "as gzip"),
        ("a.js.br", "as br"),
        ("a.js.zst", "as zstd"),
        ("index.html", "<p>plain"),
        ("index.html.gz", "page as gzip"),
        ("none.js", "none"),
        ("b.tar.gz", "archive"),
        ("b.tar.gz.br", "archive as br"),
        ("alone.js.gz", "alone"),
        ("in.d/c.css", "c"),
        ("in.d/c.css.zst", "c as zstd"),
    ]);
    let mut served = site.serve("precompressed = true\n");
    let plain = served.get("/a.js", &[]);
    assert_eq!(said(&plain, &["Content-Encoding", "Vary"]), (200, "plain", vec!["-", "Accept-Encoding"]));
    for (target, accepts, coding, body, vary) in [
        ("/a.js", ALL, "br", "as br", "Accept-Encoding"),
        ("/a.js", "zstd, gzip", "zstd", "as zstd", "Accept-Encoding"),
        ("/a.js", "gzip", "gzip", "as gzip", "Accept-Encoding"),
        ("/a.js", "X-GZIP", "gzip", "as gzip", "Accept-Encoding"),
        ("/a.js", "br;q=0.5, gzip;q=0.501", "gzip", "as gzip", "Accept-Encoding"),
        ("/a.js", "*;q=0.1, br;q=0", "zstd", "as zstd", "Accept-Encoding"),
        ("/a.js", "identity, *;q=0.9", "-", "plain", "Accept-Encoding"),
        ("/a.js", "", "-", "plain", "Accept-Encoding"),
        ("/a.js", "deflate", "-", "plain", "Accept-Encoding"),
        // Nothing that there is would be acceptable; it is sent all the same.
        ("/a.js", "identity;q=0, deflate", "-", "plain", "Accept-Encoding"),
        ("/none.js", "identity;q=0, br", "-", "none", "-"),
        ("/none.js", ALL, "-", "none", "-"),
        // The index has variants too, and what is there in one coding is varied for those who know another.
        ("/", ALL, "gzip", "page as gzip", "Accept-Encoding"),
        ("/", "br", "-", "<p>plain", "Accept-Encoding"),
        ("/in.d/c.css", ALL, "zstd", "c as zstd", "Accept-Encoding"),
        // By its own name a variant is a file like others.
        ("/a.js.gz", ALL, "-", "as gzip", "-"),
        ("/b.tar.gz", ALL, "-", "archive", "-"),
        ("/alone.js.gz", ALL, "-", "alone", "-"),
    ] {
        let accepts = [("Accept-Encoding", accepts)];
        let answer = served.get(target, &accepts);
        let wanted = (200, body, vec![coding, vary]);
        assert_eq!(said(&answer, &["Content-Encoding", "Vary"]), wanted, "{target} {accepts:?}");
        let head = served.send("HEAD", target, &accepts);
        let fields = |answer: &Answer| answer.headers.iter().filter(|(name, _)| name != "Date").cloned().collect();
        let (of_head, of_get): (Vec<_>, Vec<_>) = (fields(&head), fields(&answer));
        assert_eq!(of_head, of_get, "{target} {accepts:?}");
    }
    // A variant has the type of what it is a variant of.
    let answer = served.get("/a.js", &[("Accept-Encoding", "br")]);
    assert_eq!(answer.header("Content-Type"), plain.header("Content-Type"));
    assert_eq!(served.get("/a.js.gz", &[]).header("Content-Type"), Some("application/gzip"));
    let missing = served.get("/alone.js", &[("Accept-Encoding", ALL)]);
    assert_eq!((missing.status, missing.header("Vary")), (404, Some("Accept")));
    served.stop();
}

#[test]
fn variants_are_looked_for_only_where_the_file_says_so() {
    let site = Site::new(&[("a.js", "plain"), ("a.js.gz", "as gzip"), ("a.js.br", "as br")]);
    let mut served = site.serve(
        "[[route]]\nprefix = '/one'\ndirectory = 'public'\nprecompressed = ['gzip', 'br']\n\
         [[route]]\nprefix = '/two'\ndirectory = 'public'\nprecompressed = ['br']\n\
         [[route]]\nprefix = '/three'\ndirectory = 'public'\nprecompressed = false\nheaders = { Vary = 'Origin' }\n\
         [[route]]\nprefix = '/four'\ndirectory = 'public'\nprecompressed = true\nheaders = { Vary = 'Origin' }\n",
    );
    for (target, body) in [
        ("/a.js", "plain"),
        ("/one/a.js", "as gzip"),
        ("/two/a.js", "as br"),
        ("/three/a.js", "plain"),
        ("/four/a.js", "as br"),
    ] {
        assert_eq!(served.get(target, &[("Accept-Encoding", ALL)]).text(), body, "{target}");
    }
    let answer = served.get("/two/a.js", &[("Accept-Encoding", "gzip")]);
    assert_eq!(said(&answer, &["Content-Encoding", "Vary"]), (200, "plain", vec!["-", "Accept-Encoding"]));
    // A field of the configuration does not take away what a cache must know.
    let answer = served.get("/four/a.js", &[]);
    let vary: Vec<&str> =
        answer.headers.iter().filter(|(name, _)| name == "Vary").map(|(_, value)| value.as_str()).collect();
    assert_eq!(vary, ["Accept-Encoding", "Origin"]);
    served.stop();
}

#[test]
fn each_coding_has_its_validators() {
    let site = Site::new(&[("a.js", "0123456789"), ("a.js.gz", "gzipped"), ("a.js.br", "brotli!")]);
    // The same time, as compressors leave it.
    for name in ["a.js", "a.js.gz", "a.js.br"] {
        site.modified(name, 0.0);
    }
    let mut served = site.serve("precompressed = true\n");
    let (gzip, br) = (("Accept-Encoding", "gzip"), ("Accept-Encoding", "br"));
    let tag = |answer: Answer| answer.header("ETag").expect("a tag").to_owned();
    let (plain_tag, gzip_tag, br_tag) =
        (tag(served.get("/a.js", &[])), tag(served.get("/a.js", &[gzip])), tag(served.get("/a.js", &[br])));
    assert!(plain_tag != gzip_tag && gzip_tag != br_tag && plain_tag != br_tag);
    for strong in [&plain_tag, &gzip_tag, &br_tag] {
        assert!(strong.starts_with('"'), "{strong}");
    }

    // A cache that has one coding is not told that it has another.
    for (accepts, tag, status) in
        [(gzip, &gzip_tag, 304), (gzip, &br_tag, 200), (gzip, &plain_tag, 200), (br, &br_tag, 304)]
    {
        let answer = served.get("/a.js", &[accepts, ("If-None-Match", tag)]);
        assert_eq!((answer.status, answer.header("Vary")), (status, Some("Accept-Encoding")), "{accepts:?} {tag}");
        assert_eq!(answer.header("Content-Encoding").is_some(), status == 200);
    }
    let answer = served.get("/a.js", &[gzip, ("If-Match", &plain_tag)]);
    assert_eq!(said(&answer, &["Vary", "Content-Encoding"]).2, ["Accept-Encoding", "-"]);
    assert_eq!(answer.status, 412);

    // Ranges are of the bytes that are sent, and If-Range of their tag.
    let range = |value| ("Range", value);
    let answer = served.get("/a.js", &[gzip, range("bytes=4-")]);
    assert_eq!(
        said(&answer, &["Content-Range", "Content-Encoding", "Vary", "ETag"]),
        (206, "ped", vec!["bytes 4-6/7", "gzip", "Accept-Encoding", &gzip_tag])
    );
    assert_eq!(served.get("/a.js", &[gzip, range("bytes=4-"), ("If-Range", &gzip_tag)]).status, 206);
    for other in [&br_tag, &plain_tag] {
        let answer = served.get("/a.js", &[gzip, range("bytes=4-"), ("If-Range", other)]);
        assert_eq!(said(&answer, &[]), (200, "gzipped", vec![]));
    }
    let answer = served.get("/a.js", &[gzip, range("bytes=7-")]);
    assert_eq!(answer.status, 416);
    assert_eq!(said(&answer, &["Content-Range", "Vary", "Content-Encoding"]).2, ["bytes */7", "Accept-Encoding", "-"]);

    // Several ranges of coded bytes have no form that is read in one way, so they are the whole; of the file they are
    // several parts as ever.
    let answer = served.get("/a.js", &[gzip, range("bytes=0-1,4-5")]);
    assert_eq!(said(&answer, &["Content-Encoding", "Content-Range"]), (200, "gzipped", vec!["gzip", "-"]));
    let answer = served.get("/a.js", &[range("bytes=0-1,4-5")]);
    assert_eq!((answer.status, answer.header("Vary")), (206, Some("Accept-Encoding")));
    assert!(answer.header("Content-Type").is_some_and(|value| value.starts_with("multipart/byteranges; boundary=")));
    assert!(answer.text().contains("\r\nContent-Range: bytes 4-5/10\r\n\r\n45\r\n"), "{}", answer.text());
    served.stop();
}

#[test]
fn a_variant_that_must_not_be_served_does_not_exist() {
    let site = Site::new(&[
        ("stale.js", "new"),
        ("stale.js.gz", "old"),
        ("cut.js", "new"),
        ("cut.js.gz", "of the same second"),
        ("half.js", "new"),
        ("half.js.br", "old"),
        ("half.js.gz", "fresh"),
        ("directory.js", "plain"),
        ("directory.js.gz/x", "x"),
        ("fifo.js", "plain"),
        ("link.js", "plain"),
        ("inside.js", "plain"),
        ("inside.gzip", "linked"),
    ]);
    for (name, seconds) in [
        ("stale.js", 10.0),
        ("stale.js.gz", 9.999),
        ("cut.js", 10.9),
        ("cut.js.gz", 10.0),
        ("half.js", 10.0),
        ("half.js.br", 1.0),
        ("half.js.gz", 11.0),
    ] {
        site.modified(name, seconds);
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        site.path("fifo.js.gz"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .expect("mkfifo");
    fs::write(site.0.path("secret"), "secret").expect("a file");
    symlink("../secret", site.path("link.js.gz")).expect("a link");
    symlink("inside.gzip", site.path("inside.js.gz")).expect("a link");
    let mut served = site.serve("precompressed = true\n");
    for (target, body, vary) in [
        ("/stale.js", "new", "-"),
        ("/cut.js", "of the same second", "Accept-Encoding"),
        ("/half.js", "fresh", "Accept-Encoding"),
        ("/directory.js", "plain", "-"),
        ("/fifo.js", "plain", "-"),
        ("/link.js", "plain", "-"),
        ("/inside.js", "linked", "Accept-Encoding"),
    ] {
        let answer = served.get(target, &[("Accept-Encoding", ALL)]);
        assert_eq!(said(&answer, &["Vary"]), (200, body, vec![vary]), "{target}");
    }
    // A name that leaves no room for an ending has no variants.
    let long = format!("{}.js", "x".repeat(252));
    site.write(&long, "long");
    assert_eq!(served.get(&format!("/{long}"), &[("Accept-Encoding", ALL)]).text(), "long");
    served.stop();
}

#[test]
fn the_first_rule_for_a_name_says_cache_control() {
    let site = Site::new(&[
        ("index.html", "home"),
        ("app.js", "app"),
        ("app.js.gz", "app as gzip"),
        ("style.css", "style"),
        ("assets/app.js", "hashed"),
        ("assets/deep/x.png", "x"),
        ("assets/index.html", "assets"),
        ("docs/a.js", "shadowed"),
        ("other", "other"),
        ("manual/a.js", "manual"),
        ("manual/b.txt", "manual"),
    ]);
    let mut served = site.serve(
        "precompressed = true\n\
         [headers]\nCache-Control = 'no-store'\n\
         [[cache]]\nmatch = '/assets/*.js'\ncontrol = 'immutable'\n\
         [[cache]]\nmatch = ['*.js', '*.css']\ncontrol = 'max-age=60, public'\n\
         [[cache]]\nmatch = '*.html'\ncontrol = 'no-cache'\n\
         [[cache]]\nmatch = '/docs/*'\ncontrol = 'max-age=5'\n\
         [[cache]]\nmatch = '/assets/*'\ncontrol = 'max-age=7'\n\
         [[route]]\nprefix = '/docs'\ndirectory = 'public/manual'\n\
         [[route]]\nprefix = '/own'\ndirectory = 'public/manual'\nheaders = { cache-control = 'private' }\n",
    );
    for (target, control) in [
        ("/", "no-cache"),
        ("/index.html", "no-cache"),
        ("/app.js", "max-age=60, public"),
        ("/style.css", "max-age=60, public"),
        ("/assets/app.js", "immutable"),
        ("/assets/deep/x.png", "max-age=7"),
        ("/assets/", "no-cache"),
        // Rules are about paths of the site, not of the disk.
        ("/docs/a.js", "max-age=60, public"),
        ("/docs/b.txt", "max-age=5"),
        ("/%61ssets/x/../app.js", "immutable"),
        // A field for all is for what no rule is for, and one of a route for all of it.
        ("/other", "no-store"),
        ("/own/a.js", "private"),
        ("/own/b.txt", "private"),
    ] {
        for (method, fields) in [("GET", &[][..]), ("HEAD", &[]), ("GET", &[("Accept-Encoding", "gzip")])] {
            let answer = served.send(method, target, fields);
            assert_eq!((answer.status, answer.header("Cache-Control")), (200, Some(control)), "{method} {target}");
            let named = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("Cache-Control");
            assert_eq!(answer.headers.iter().filter(named).count(), 1, "{target}");
        }
    }
    // What confirms or completes a copy says it too, what fails does not.
    let tag = served.get("/app.js", &[]).header("ETag").expect("a tag").to_owned();
    for (fields, status, control) in [
        (("If-None-Match", tag.as_str()), 304, "max-age=60, public"),
        (("Range", "bytes=0-0"), 206, "max-age=60, public"),
        (("Range", "bytes=0-0,2-2"), 206, "max-age=60, public"),
        (("Range", "bytes=99-"), 416, "no-store"),
        (("If-Match", "\"other\""), 412, "no-store"),
    ] {
        let answer = served.get("/app.js", &[fields]);
        assert_eq!((answer.status, answer.header("Cache-Control")), (status, Some(control)), "{fields:?}");
    }
    for (target, status) in [("/nothing.js", 404), ("/assets", 301), ("/.git/a.js", 404)] {
        let answer = served.get(target, &[]);
        assert_eq!((answer.status, answer.header("Cache-Control")), (status, Some("no-store")), "{target}");
    }
    served.stop();
}

#[test]
fn without_a_rule_nothing_is_said_of_caches() {
    let site = Site::new(&[("index.html", "home"), ("a.js", "a")]);
    let mut served = site.serve("[[cache]]\nmatch = '*.css'\ncontrol = 'no-cache'\n");
    for target in ["/", "/a.js", "/nothing.css"] {
        assert_eq!(served.get(target, &[]).header("Cache-Control"), None, "{target}");
    }
    served.stop();
}

#[test]
fn a_directory_without_an_index_shows_what_is_in_it() {
    let site = Site::new(&[
        ("with/index.html", "the index"),
        ("with/a", "a"),
        ("without/a <b>.txt", "0123456789"),
        ("without/deep/c", "c"),
        ("without/.env", "secret"),
        ("file", "file"),
        ("404.html", "<p>not here"),
    ]);
    symlink("../../secret", site.path("without/up")).expect("a link");
    fs::write(site.0.path("secret"), "secret").expect("a file");
    let mut served = site.serve(
        "listing = true\n[error_pages]\n404 = 'public/404.html'\n[headers]\nCache-Control = 'max-age=9'\n\
         [[route]]\nprefix = '/closed'\ndirectory = 'public'\n",
    );
    let answer = served.get("/without/", &[]);
    assert_eq!(
        said(&answer, &["Content-Type", "Cache-Control", "X-Content-Type-Options"]).2,
        ["text/html; charset=utf-8", "no-cache", "nosniff"]
    );
    assert!(answer.header("Content-Security-Policy").is_some_and(|policy| policy.starts_with("default-src 'none';")));
    let page = answer.text();
    assert_eq!(answer.status, 200);
    assert!(page.contains("<h1>Index of <a href=\"../\">/</a>without/</h1>"), "{page}");
    let link = |href: &str, icon: &str, text: &str| {
        page.contains(&format!("<a href=\"{href}\"><svg><use href=\"#{icon}\"/></svg>{text}</a><td>"))
    };
    assert!(link("../", "u", "Parent directory") && link("deep/", "d", "deep/"), "{page}");
    assert!(link("a%20%3Cb%3E.txt", "f", "a &lt;b&gt;.txt") && page.contains("</a><td>10 B<td>20"), "{page}");
    assert!(!page.contains(".env") && !page.contains("\"up\"") && !page.contains("<b>"), "{page}");
    // A link of the page leads where it says.
    assert_eq!(served.get("/without/a%20%3Cb%3E.txt", &[]).text(), "0123456789");
    let head = served.send("HEAD", "/without/", &[]);
    assert_eq!((head.status, head.header("Content-Length")), (200, answer.header("Content-Length")));
    // Its tag is of its bytes; it has no date, since that of the directory says nothing of its files.
    let tag = answer.header("ETag").expect("a tag");
    for (field, status) in [
        (("If-None-Match", tag), 304),
        (("If-None-Match", "\"x\""), 200),
        (("If-Match", "\"x\""), 412),
        (("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"), 200),
        (("Range", "bytes=0-14"), 206),
    ] {
        assert_eq!(served.get("/without/", &[field]).status, status, "{field:?}");
    }
    let again = served.send("HEAD", "/without/", &[("If-None-Match", tag)]);
    assert_eq!((again.status, again.header("ETag"), answer.header("Last-Modified")), (304, Some(tag), None));
    site.write("without/a <b>.txt", "01234567890");
    assert_eq!(served.get("/without/", &[("If-None-Match", tag)]).status, 200);
    site.write("without/a <b>.txt", "0123456789");
    for (target, status, body) in [
        ("/with/", 200, "the index"),
        ("/file/", 404, "<p>not here"),
        ("/nothing/", 404, "<p>not here"),
        ("/closed/without/", 404, "<p>not here"),
        ("/without/.env", 404, "<p>not here"),
        ("/without/up", 404, "<p>not here"),
    ] {
        assert_eq!(said(&served.get(target, &[]), &[]), (status, body, vec![]), "{target}");
    }
    let answer = served.get("/without?a=b", &[]);
    assert_eq!((answer.status, answer.header("Location")), (301, Some("./without/?a=b")));
    assert!(!served.get("/", &[]).text().contains("../"), "nothing is above the root");
    assert_eq!(served.send("POST", "/without/", &[]).status, 405);
    served.stop();
}

#[test]
fn a_large_listing_goes_on_and_says_of_how_many() {
    let site = Site::new(&[]);
    fs::create_dir(site.path("")).expect("a directory");
    for number in 0..1200 {
        fs::write(site.path(&format!("{}-{number:04}", "x".repeat(100))), "").expect("a file");
    }
    let mut served = site.serve("listing = true\n");
    let (mut target, mut shown, mut pages) = ("/".to_owned(), 0, 0);
    loop {
        let answer = served.get(&target, &[]);
        let (page, before) = (answer.text(), shown);
        shown += page.matches("<tr><td><a href=").count();
        pages += 1;
        assert!(answer.body.len() <= 64 * 1024, "{} bytes", answer.body.len());
        assert!(page.contains(&format!("-{before:04}<")) && page.contains(&format!("-{:04}<", shown - 1)), "{target}");
        assert!(page.contains("<p class=\"soft\">1,200 names</p>"));
        let Some((link, more)) = page.split_once("\">The next of ") else { break };
        assert!(more.starts_with(&match 1200 - shown {
            left @ 1000.. => format!("1,{:03} more", left - 1000),
            left => format!("{left} more"),
        }));
        target = format!("/{}", link.rsplit("href=\"").next().expect("a link").replace("&amp;", "&"));
    }
    assert_eq!((shown, pages > 2), (1200, true));
    // The connection lives, so it had the length that it said.
    served.client.expect_alive("/");
    served.stop();
}

const BROWSER: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

#[test]
fn who_prefers_html_is_told_of_errors_by_a_page() {
    let site = Site::new(&[("index.html", "home"), ("app.html", "app"), ("own.html", "<p>own")]);
    let mut served = site.serve(
        "[headers]\nX-Site = 'mine'\n[error_pages]\n410 = 'public/own.html'\n\
         [[route]]\nprefix = '/gone'\nstatus = 410\n[[route]]\nprefix = '/down'\nstatus = 503\n\
         [[route]]\nprefix = '/said'\nstatus = 503\nbody = 'in so many words'\n\
         [[route]]\nprefix = '/app'\ndirectory = 'public'\nfallback = 'app.html'\n",
    );
    let fields = ["Content-Type", "Vary", "X-Site"];
    for (method, target, status, phrase) in [
        ("GET", "/nothing", 404, "Not Found"),
        ("GET", "/.env", 404, "Not Found"),
        ("GET", "/%zz", 400, "Bad Request"),
        ("GET", "/app/missing.js", 404, "Not Found"),
        ("POST", "/", 405, "Method Not Allowed"),
        ("BREW", "/", 501, "Not Implemented"),
        ("GET", "/down", 503, "Service Unavailable"),
    ] {
        let (vary, text) = ("Accept", format!("{status} {phrase}\n"));
        let page = served.send(method, target, &[BROWSER]);
        let (found, body, said_of_it) = said(&page, &fields);
        assert_eq!((found, said_of_it), (status, vec!["text/html; charset=utf-8", vary, "mine"]), "{method} {target}");
        assert!(body.contains(&format!("<title>{status} {phrase}</title>")), "{body}");
        assert!(!body.contains("src=") && !body.contains("<script") && body.len() < 4096, "{body}");
        assert!(page.header("Content-Security-Policy").is_some_and(|policy| policy.starts_with("default-src 'none';")));
        for accept in
            [None, Some("*/*"), Some("application/json"), Some("text/plain, text/html;q=0.9"), Some("image/*")]
        {
            let fields_sent: Vec<_> = accept.map(|accept| ("Accept", accept)).into_iter().collect();
            let answer = served.send(method, target, &fields_sent);
            let wanted = (status, &*text, vec!["text/plain; charset=utf-8", vary, "mine"]);
            assert_eq!(said(&answer, &fields), wanted, "{method} {target} {accept:?}");
            assert_eq!(answer.header("Content-Security-Policy"), None);
        }
    }
    // To HEAD all is said but the page.
    for accept in [BROWSER, ("Accept", "*/*")] {
        let (get, head) = (served.get("/nothing", &[accept]), served.send("HEAD", "/nothing", &[accept]));
        let of = |answer: &Answer| {
            let fields = answer.headers.iter().filter(|(name, _)| name != "Date").cloned();
            fields.collect::<Vec<_>>()
        };
        assert_eq!((head.status, of(&head)), (404, of(&get)));
    }
    // What was configured stands for itself, and so does what is no error.
    for (target, status, body) in
        [("/gone", 410, "<p>own"), ("/said", 503, "in so many words"), ("/app", 301, "301 Moved Permanently\n")]
    {
        let answer = served.get(target, &[BROWSER]);
        assert_eq!(said(&answer, &[]), (status, body, vec![]), "{target}");
    }
    served.stop();
}

/// Two policies stood there, of which both hold: by that of the site the page had no look.
#[test]
fn an_error_page_has_one_policy_also_where_the_site_has_its_own() {
    let site = Site::new(&[("index.html", "home")]);
    let mut served = site.serve("[headers]\nContent-Security-Policy = \"default-src 'self'\"\n");
    let policies = |answer: &Answer| {
        let all = answer.headers.iter().filter(|(name, _)| name == "Content-Security-Policy");
        all.map(|(_, policy)| policy.split(';').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(policies(&served.get("/nothing", &[BROWSER])), ["default-src 'none'"]);
    assert_eq!(policies(&served.get("/nothing", &[])), ["default-src 'self'"]);
    assert_eq!(policies(&served.get("/", &[BROWSER])), ["default-src 'self'"]);
    served.stop();
}

#[test]
fn an_application_that_says_no_more_than_a_status_has_the_same_pages() {
    let router = Router::new()
        .get("/none", |_: &mut Request| None::<String>)
        .get("/strange", |_: &mut Request| StatusCode(422))
        .get("/typed", |_: &mut Request| {
            StatusCode(404).into_response().with_header("Content-Type: text/x-mine".parse::<Header>().expect("a field"))
        })
        .get("/said", |_: &mut Request| (StatusCode(404), "no such job\n"))
        .get("/panic", |_: &mut Request| -> &str { panic!("as asked for") });
    let server = TestServer::start(Server::builder().service(router));
    let mut client = server.client();
    let accept = format!("{}: {}\r\n", BROWSER.0, BROWSER.1);
    for (method, target, status, page) in [
        ("GET", "/none", 404, "<h1><span>404</span> Not Found</h1>"),
        ("GET", "/nowhere", 404, "<h1><span>404</span> Not Found</h1>"),
        ("POST", "/none", 405, "<h1><span>405</span> Method Not Allowed</h1>"),
        ("GET", "/strange", 422, "<h1><span>422</span> Unprocessable Entity</h1>"),
        ("GET", "/panic", 500, "what, is in its log"),
        ("GET", "/said", 404, "no such job\n"),
    ] {
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{accept}Content-Length: 0\r\n\r\n"));
        let answer = client.answer();
        assert!(answer.status == status && answer.text().contains(page), "{target}: {}", answer.text());
        let kind = if target == "/said" { "text/plain; charset=utf-8" } else { "text/html; charset=utf-8" };
        assert_eq!(answer.header("Content-Type"), Some(kind), "{target}");
    }
    client.send(format!("GET /typed HTTP/1.1\r\nHost: test\r\n{accept}\r\n"));
    assert_eq!(said(&client.answer(), &["Content-Type"]), (404, "404 Not Found\n", vec!["text/x-mine"]));
    // What is refused before there is a whole request has one line for everybody.
    let answer = client.send(format!("GET / HTTP/9.9\r\nHost: test\r\n{accept}\r\n")).answer();
    assert_eq!((answer.status, answer.header("Content-Type")), (505, Some("text/plain; charset=utf-8")));
}

#[test]
fn the_fallback_answers_for_documents_only() {
    let site = Site::new(&[
        ("index.html", "home"),
        ("app.html", "the application"),
        ("app.html.gz", "the application as gzip"),
        ("a.js", "script"),
        ("empty/x", "x"),
        (".env", "secret"),
        ("404.html", "<p>not here"),
    ]);
    symlink("../handover.toml", site.path("up")).expect("a link");
    symlink("circle", site.path("circle")).expect("a link");
    let mut served = site.serve(
        "fallback = 'app.html'\nprecompressed = ['gzip']\n[error_pages]\n404 = 'public/404.html'\n\
         [[cache]]\nmatch = '/app.html'\ncontrol = 'no-cache'\n[[cache]]\nmatch = '/deep/app/*'\ncontrol = 'no-store'\n\
         [[route]]\nprefix = '/deep/app'\ndirectory = 'public'\nfallback = 'index.html'\n\
         [[route]]\nprefix = '/closed'\ndirectory = 'public'\n\
         [[route]]\nprefix = '/listed'\ndirectory = 'public'\nlisting = true\nfallback = 'index.html'\n",
    );
    let long = format!("/{}", "x".repeat(300));
    for target in ["/users", "/users/", "/users/5/edit?a=b.c", "/a.js/x", "/v1.2/users", "/empty/", &long] {
        for method in ["GET", "HEAD"] {
            let answer = served.send(method, target, &[]);
            let wanted = (200, vec!["no-cache", "Accept, Accept-Encoding", "text/html; charset=utf-8"]);
            let (status, body, fields) = said(&answer, &["Cache-Control", "Vary", "Content-Type"]);
            assert_eq!((status, fields), wanted, "{method} {target}");
            assert_eq!(body, if method == "GET" { "the application" } else { "" }, "{method} {target}");
        }
    }
    for (target, status, body) in [
        // What is there, and what must not be.
        ("/", 200, "home"),
        ("/a.js", 200, "script"),
        ("/empty", 301, "301 Moved Permanently\n"),
        ("/b.js", 404, "<p>not here"),
        ("/users/photo.png", 404, "<p>not here"),
        ("/v1.2", 404, "<p>not here"),
        ("/.env", 404, "<p>not here"),
        ("/.git/config", 404, "<p>not here"),
        ("/a%2fb", 404, "<p>not here"),
        ("/up", 404, "<p>not here"),
        ("/circle", 404, "<p>not here"),
        ("/%zz", 400, "400 Bad Request\n"),
        // Each route has its own, or none.
        ("/deep/app/users", 200, "home"),
        ("/closed/users", 404, "<p>not here"),
        ("/listed/users/", 200, "home"),
    ] {
        assert_eq!(said(&served.get(target, &[]), &[]), (status, body, vec![]), "{target}");
    }
    assert_eq!(served.get("/deep/app/users", &[]).header("Cache-Control"), Some("no-store"));
    assert!(served.get("/listed/empty/", &[]).text().contains("<h1>Index of <a href=\"../\">/listed/</a>empty/</h1>"));
    assert_eq!(served.send("POST", "/users", &[]).status, 405);

    for (accept, status) in [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 200),
        ("*/*", 200),
        ("application/json", 404),
        ("text/html;q=0, */*", 404),
        ("image/avif, image/*", 404),
    ] {
        let answer = served.get("/users", &[("Accept", accept)]);
        let vary = if status == 200 { "Accept, Accept-Encoding" } else { "Accept" };
        assert_eq!((answer.status, answer.header("Vary")), (status, Some(vary)), "{accept}");
    }
    // It is a file: with variants, validators and ranges.
    let gzip = ("Accept-Encoding", "gzip");
    let answer = served.get("/users", &[gzip]);
    assert_eq!(said(&answer, &["Content-Encoding"]), (200, "the application as gzip", vec!["gzip"]));
    let tag = answer.header("ETag").expect("a tag").to_owned();
    assert_eq!(served.get("/else", &[gzip, ("If-None-Match", &tag)]).status, 304);
    assert_eq!(served.get("/else", &[("Range", "bytes=0-2")]).text(), "the");
    // If it goes while the server runs, what is not there is not there.
    fs::remove_file(site.path("app.html")).expect("removed");
    assert_eq!(served.get("/users", &[]).status, 404);
    served.stop();
}

#[test]
fn conditions_and_ranges_as_they_arrive() {
    const OLD: &str = "Sun, 13 Sep 2020 12:26:39 GMT";
    const SAME: &str = "Sun, 13 Sep 2020 12:26:40 GMT";
    const HUGE: &str = "99999999999999999999999999";
    let site = Site::new(&[("a.txt", "0123456789"), ("written.txt", "0123456789"), ("empty.txt", "")]);
    site.modified("a.txt", 0.0);
    site.settle(&["written.txt"]);
    let mut served = site.serve("");
    let tag = served.get("/a.txt", &[]).header("ETag").expect("a tag").to_owned();
    let many = (0..9).map(|at| format!("{at}-{at}")).collect::<Vec<_>>().join(",");
    let eight = (0..8).map(|at| format!("{at}-{at}")).collect::<Vec<_>>().join(",");
    let whole = "0123456789";
    for (fields, status, content_range, body) in [
        (&[][..], 200, "-", whole),
        // Conditions (RFC 9110 §13).
        (&[("If-Modified-Since", SAME)], 304, "-", ""),
        (&[("If-Modified-Since", OLD)], 200, "-", whole),
        (&[("If-Modified-Since", SAME), ("If-Modified-Since", SAME)], 200, "-", whole),
        (&[("If-Unmodified-Since", OLD), ("If-Unmodified-Since", OLD)], 200, "-", whole),
        (&[("If-Unmodified-Since", OLD)], 412, "-", "412 Precondition Failed\n"),
        (&[("If-None-Match", "\"other\""), ("If-Modified-Since", SAME)], 200, "-", whole),
        (&[("If-None-Match", ""), ("If-Modified-Since", SAME)], 200, "-", whole),
        (&[("If-None-Match", &tag), ("If-Modified-Since", OLD)], 304, "-", ""),
        (&[("If-Match", &tag), ("If-Unmodified-Since", OLD)], 200, "-", whole),
        // One range (§14).
        (&[("Range", "bytes=2-4")], 206, "bytes 2-4/10", "234"),
        (&[("Range", &format!("bytes=7-{HUGE}"))], 206, "bytes 7-9/10", "789"),
        (&[("Range", &format!("bytes=-{HUGE}"))], 206, "bytes 0-9/10", whole),
        (&[("Range", &format!("bytes={HUGE}-"))], 416, "bytes */10", "416 Range Not Satisfiable\n"),
        (&[("Range", "bytes=18446744073709551616-")], 416, "bytes */10", "416 Range Not Satisfiable\n"),
        (&[("Range", "bytes=-0")], 416, "bytes */10", "416 Range Not Satisfiable\n"),
        (&[("Range", "bytes=+1-2")], 200, "-", whole),
        (&[("Range", "bytes=4-2")], 200, "-", whole),
        (&[("Range", "bytes=0-1"), ("Range", "bytes=0-1")], 200, "-", whole),
        // It was set: another file may have had it too.
        (&[("Range", "bytes=0-1"), ("If-Range", SAME)], 200, "-", whole),
        (&[("Range", "bytes=0-1"), ("If-Range", OLD)], 200, "-", whole),
        (&[("Range", "bytes=0-1"), ("If-Range", &tag)], 206, "bytes 0-1/10", "01"),
        (&[("Range", "bytes=0-1"), ("If-Range", &format!("W/{tag}"))], 200, "-", whole),
        // Several, and what costs more than it saves.
        (&[("Range", "bytes=0-0,99-")], 206, "bytes 0-0/10", "0"),
        (&[("Range", "bytes=0-5,5-9")], 200, "-", whole),
        (&[("Range", "bytes=0-,0-,0-,0-")], 200, "-", whole),
        (&[("Range", "bytes=5-6,0-1")], 200, "-", whole),
        (&[("Range", &format!("bytes={many}"))], 200, "-", whole),
    ] {
        let answer = served.get("/a.txt", fields);
        assert_eq!(said(&answer, &["Content-Range"]), (status, body, vec![content_range]), "{fields:?}");
        if matches!(status, 200 | 206) {
            assert_eq!(said(&answer, &["Accept-Ranges", "Last-Modified", "ETag"]).2, ["bytes", SAME, &tag]);
        }
        // HEAD describes the whole, whatever the range (§14.2), and has the same conditions.
        let head = served.send("HEAD", "/a.txt", fields);
        let wanted = if matches!(status, 206 | 416) { 200 } else { status };
        assert_eq!((head.status, head.header("Content-Range")), (wanted, None), "{fields:?}");
        if wanted == 200 {
            assert_eq!(said(&head, &["Content-Length", "Accept-Ranges"]).2, ["10", "bytes"], "{fields:?}");
        }
    }
    let answer = served.get("/a.txt", &[("Range", &format!("bytes={eight}"))]);
    assert_eq!((answer.status, answer.text().matches("Content-Range: bytes ").count()), (206, 8));
    let written = served.get("/written.txt", &[]).header("Last-Modified").expect("a date").to_owned();
    for (date, status, body) in [(written.as_str(), 206, "01"), (SAME, 200, whole)] {
        let answer = served.get("/written.txt", &[("Range", "bytes=0-1"), ("If-Range", date)]);
        assert_eq!((answer.status, answer.text()), (status, body), "{date}");
    }
    for (range, status) in [("bytes=0-", 416), ("bytes=-1", 200)] {
        assert_eq!(served.get("/empty.txt", &[("Range", range)]).status, status, "{range}");
    }
    served.stop();
}

#[test]
fn no_date_is_later_than_the_answer() {
    let site = Site::new(&[("future.txt", "0123456789"), ("now.txt", "now")]);
    site.modified("future.txt", 1e10);
    let mut served = site.serve("");
    let date = |answer: &Answer, name: &str| {
        httpdate::parse_http_date(answer.header(name).unwrap_or_else(|| panic!("no {name}"))).expect("a date")
    };
    for target in ["/future.txt", "/now.txt"] {
        let answer = served.get(target, &[]);
        assert!(date(&answer, "Last-Modified") <= date(&answer, "Date"), "{answer:?}");
    }
    // What was made up for the answer says nothing about the bytes: nothing may be put together by it.
    let modified = served.get("/future.txt", &[]).header("Last-Modified").expect("a date").to_owned();
    let answer = served.get("/future.txt", &[("Range", "bytes=0-1"), ("If-Range", &modified)]);
    assert_eq!((answer.status, answer.text()), (200, "0123456789"));
    served.stop();
}

#[test]
fn redirects_of_directories_stay_on_this_site() {
    let site = Site::new(&[
        ("evil.com/index.html", "evil"),
        ("deep/evil.com/index.html", "evil"),
        ("a:b/index.html", "odd"),
        ("\\evil.com/index.html", "odd"),
    ]);
    let mut served = site.serve("[[route]]\nprefix = '/at'\ndirectory = 'public'\n");
    for (target, location) in [
        ("/evil.com", "./evil.com/"),
        ("/evil.com?a=b&c=//d", "./evil.com/?a=b&c=//d"),
        ("/evil.com?", "./evil.com/?"),
        ("//evil.com", "./evil.com/"),
        ("///evil.com?x", "./evil.com/?x"),
        ("/./evil.com", "./evil.com/"),
        ("/deep//evil.com", "./evil.com/"),
        ("/deep/..//evil.com", "./evil.com/"),
        ("/\\evil.com", "./%5Cevil.com/"),
        ("/a:b", "./a%3Ab/"),
        ("/at", "./at/"),
        ("/at/evil.com", "./evil.com/"),
        ("http://other.org/evil.com", "./evil.com/"),
    ] {
        let answer = served.get(target, &[]);
        assert_eq!(said(&answer, &["Location"]), (301, "301 Moved Permanently\n", vec![location]), "{target}");
    }
    served.stop();
}

#[test]
fn what_could_block_does_not() {
    let site = Site::new(&[("a.txt", "a"), ("b.txt", "b")]);
    let fifo = |name: &str| {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, site.path(name), FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("a FIFO");
    };
    fifo("fifo");
    fifo("b.txt.gz");
    fs::create_dir(site.path("d")).expect("a directory");
    fifo("d/index.html");
    let _socket = std::os::unix::net::UnixListener::bind(site.path("socket")).expect("a socket");
    assert!(std::path::Path::new("/dev/zero").exists(), "a device to ask for");
    // The one worker that there is would wait for ever.
    let mut served = site.serve(
        "workers = 1\nprecompressed = true\nlisting = true\nfallback = 'a.txt'\n\
         [[route]]\nprefix = '/devices'\ndirectory = '/dev'\n",
    );
    for target in ["/fifo", "/d/", "/socket", "/devices/zero", "/devices/null", "/devices/full", "/devices/tty"] {
        for method in ["GET", "HEAD"] {
            assert_eq!(served.send(method, target, &[]).status, 404, "{method} {target}");
        }
    }
    assert_eq!(served.get("/b.txt", &[("Accept-Encoding", "gzip")]).text(), "b");
    served.stop();
}

/// What is kept says the same as what was just opened, for every kind of request; and what replaces a file, or takes it
/// away, is seen within a second.
#[test]
fn what_is_asked_for_often_is_answered_as_at_first_and_as_it_is_now() {
    let large = "0123456789abcdef".repeat(4096);
    let files = [("a.txt", "alphabet"), ("a.txt.gz", "gz"), ("b.txt", "b"), ("large.txt", &large)];
    let site = Site::new(&files);
    for (name, _) in files {
        site.modified(name, 0.0);
    }
    site.settle(&files.map(|(name, _)| name));
    let headers = "\n[headers]\nX-Content-Type-Options = 'mine'\nX-Own = 'yes'\n\n[[cache]]\nmatch = '*.txt'\ncontrol = 'max-age=9'\n";
    let mut kept = site.serve(&format!("precompressed = true\n{headers}"));
    let mut fresh = site.serve(&format!("precompressed = true\nfile_cache = 0\n{headers}"));
    let date = "Sun, 13 Sep 2020 12:26:40 GMT";
    for target in ["/a.txt", "/b.txt", "/large.txt", "/none.txt"] {
        for fields in [
            &[][..],
            &[("Accept-Encoding", "gzip")],
            &[("Range", "bytes=1-3")],
            &[("Range", "bytes=1-3"), ("If-Range", date)],
            &[("Range", "bytes=70000-")],
            &[("If-Modified-Since", date)],
            &[("IF-UNMODIFIED-SINCE", "Sun, 13 Sep 2010 12:26:40 GMT")],
            &[("If-None-Match", "*")],
            &[("range", "bytes=-2"), ("Accept-Encoding", "gzip")],
        ] {
            for method in ["GET", "GET", "HEAD", "GET"] {
                let (one, other) = (kept.send(method, target, fields), fresh.send(method, target, fields));
                let said = |answer: &Answer| {
                    let mut headers: Vec<_> =
                        answer.headers.iter().filter(|(name, _)| name != "Date").cloned().collect();
                    headers.sort();
                    (answer.status, headers, answer.body.clone())
                };
                assert_eq!(said(&one), said(&other), "{method} {target} {fields:?}");
            }
        }
    }

    let began = Instant::now();
    site.write("new", "replaced");
    site.modified("new", 5.0);
    fs::rename(site.path("new"), site.path("b.txt")).expect("a rename");
    fs::remove_file(site.path("a.txt")).expect("a file");
    let mut seen = [None; 2];
    while seen.contains(&None) {
        assert!(began.elapsed() < PATIENCE, "{seen:?}");
        let now = [kept.get("/b.txt", &[]).text() == "replaced", kept.get("/a.txt", &[]).status == 404];
        for (seen, now) in seen.iter_mut().zip(now) {
            if now {
                seen.get_or_insert_with(|| began.elapsed());
            }
        }
    }
    // A second, the tick of the clock, and whatever the machine was busy with.
    assert!(seen.iter().flatten().all(|after| *after < Duration::from_secs(5)), "{seen:?}");
    kept.stop();
    fresh.stop();
}

/// `cp -p`, `tar` and builds that are to be the same each time: all that a file says of itself is as before, but when it
/// was changed.
#[test]
fn a_file_that_is_replaced_with_its_length_and_time_is_not_stale_for_ever() {
    let names = ["in-place.js", "anew.js"];
    let site = Site::new(&names.map(|name| (name, "version=1.0.1")));
    names.iter().for_each(|name| site.modified(name, 0.0));
    site.settle(&names);
    let mut served = site.serve("");
    for name in names {
        let target = format!("/{name}");
        let old = served.get(&target, &[]);
        assert_eq!(said(&served.get(&target, &[]), &["ETag"]), said(&old, &["ETag"]));
        if name == "anew.js" {
            fs::remove_file(site.path(name)).expect("a file");
        }
        site.write(name, "version=1.0.2");
        site.modified(name, 0.0);
        let tag = old.header("ETag").expect("a tag");
        let began = Instant::now();
        loop {
            let answer = served.get(&target, &[]);
            match answer.text() {
                "version=1.0.2" => break assert_ne!(answer.header("ETag"), Some(tag), "{name}"),
                _ => assert_eq!(answer.header("ETag"), Some(tag), "{name}"),
            }
            assert!(began.elapsed() < PATIENCE, "{name} is served as it was");
        }
        assert_eq!(served.get(&target, &[("If-None-Match", tag)]).status, 200, "{name}");
        let resumed = served.get(&target, &[("Range", "bytes=5-"), ("If-Range", "Sun, 13 Sep 2020 12:26:40 GMT")]);
        assert_eq!(said(&resumed, &[]), (200, "version=1.0.2", vec![]), "{name}");
    }
    served.stop();
}

/// A file that is kept open is asked at each request whether it is still what its tag says.
#[test]
fn a_download_that_is_resumed_has_no_bytes_of_what_was_rewritten_in_place() {
    let film = |letter: &str| letter.repeat(200_000);
    let site = Site::new(&[("film", &film("a"))]);
    site.settle(&["film"]);
    let mut served = site.serve("");
    let tag = served.get("/film", &[]).header("ETag").expect("a tag").to_owned();
    let range = [("Range", "bytes=100000-"), ("If-Range", tag.as_str())];
    assert_eq!(served.get("/film", &range).status, 206);
    site.write("film", &film("b"));
    let resumed = served.get("/film", &range);
    assert_eq!((resumed.status, resumed.text() == film("b")), (200, true));
    assert_ne!(resumed.header("ETag"), Some(tag.as_str()));
    served.stop();
}

#[test]
fn an_absolute_link_that_stays_inside_is_followed() {
    let site = Site::new(&[("v2/a", "inside"), ("index.html", "")]);
    fs::write(site.0.path("secret"), "secret").expect("a file");
    for (link, target) in [
        ("absolute", site.path("v2/a")),
        ("directory", site.path("v2")),
        ("out", site.0.path("secret")),
        ("above", site.0.path("")),
        ("up", site.path("../secret")),
    ] {
        symlink(target, site.path(link)).expect("a link");
    }
    let mut served = site.serve("");
    for (target, status) in [
        ("/absolute", 200),
        ("/directory/a", 200),
        ("/directory", 301),
        ("/out", 404),
        ("/above/secret", 404),
        ("/above/public/v2/a", 404),
        ("/up", 404),
    ] {
        let answer = served.get(target, &[]);
        assert_eq!((answer.status, answer.text() == "inside"), (status, status == 200), "{target}");
    }
    served.stop();
}

/// `cd /srv/current && handover -c handover.toml`: the link is swapped, and later the old release is gone.
#[test]
fn a_link_that_is_swapped_above_the_root_is_seen_and_above_the_working_directory_by_a_reload() {
    for mode in Mode::BOTH {
        let scratch = Scratch::new();
        let release = |version: &str| {
            let public = scratch.path(version).join("public");
            fs::create_dir_all(&public).expect("directories");
            fs::write(public.join("a"), version).expect("a file");
            let config = format!("listen = ['127.0.0.1:0']\nroot = 'public'\n[headers]\nX-Release = '{version}'\n");
            fs::write(scratch.path(version).join("handover.toml"), config).expect("a file");
        };
        let deploy = |version: &str| {
            symlink(version, scratch.path("new")).expect("a link");
            fs::rename(scratch.path("new"), scratch.path("current")).expect("a rename");
        };
        release("v1");
        release("v2");
        release("v3");
        deploy("v1");
        for arguments in [&["-c", "handover.toml"][..], &["-l", "127.0.0.1:0", "public"]] {
            release("v1");
            deploy("v1");
            let current = scratch.path("current");
            let mut command = Program::handover_command();
            mode.flags(&mut command).args(arguments);
            let program = Program::start(command.current_dir(&current).env("PWD", &current));
            let mut client = program.client();
            let mut said = || {
                let answer = client.get("/a").answer();
                (answer.text().to_owned(), answer.header("X-Release").map(str::to_owned))
            };
            let configured = |version: &str| (arguments[0] == "-c").then(|| version.to_owned());
            assert_eq!(said(), ("v1".to_owned(), configured("v1")));
            // The files within a second, the configuration by a reload.
            deploy("v2");
            let began = Instant::now();
            while said() != ("v2".to_owned(), configured("v1")) {
                assert!(began.elapsed() < PATIENCE, "{mode:?} {arguments:?}: {:?}", said());
            }
            program.reload();
            assert_eq!(said(), ("v2".to_owned(), configured("v2")), "{mode:?} {arguments:?}");
            // Where it was started is gone.
            fs::remove_dir_all(scratch.path("v1")).expect("a directory");
            deploy("v3");
            program.reload();
            assert_eq!(said(), ("v3".to_owned(), configured("v3")), "{mode:?} {arguments:?}");
            assert_eq!(program.stop(), Some(0));
        }
    }
}
