//! `[[host]]`: which site answers which name, over raw sockets, and that all that is so at the top of a file is so in a host:
//! fields, error pages, passwords, reloads, deployments, mistakes.

use crate::common::{Answer, Mode, Program, RawClient, Scratch, eventually, run_to_its_end};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

/// A directory with a configuration file and sites.
struct Sites(Scratch);

impl Sites {
    fn new(files: &[(&str, &str)]) -> Sites {
        let sites = Sites(Scratch::new());
        for (name, content) in files {
            sites.write(name, content);
        }
        sites
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, content).expect("a file");
    }

    fn configure(&self, config: &str) {
        self.write("handover.toml", &format!("listen = ['127.0.0.1:0']\n{config}"));
    }

    /// Serves that, and reloads in that mode.
    fn serve(&self, config: &str, mode: Mode) -> Program {
        self.configure(config);
        let mut command = Program::handover_command();
        Program::start(mode.flags(&mut command).arg("-c").arg(self.path("handover.toml")))
    }

    fn check(&self, config: &str) -> (Option<i32>, String, String) {
        self.configure(config);
        let mut command = Program::handover_command();
        let output = run_to_its_end(command.arg("--check").arg("-c").arg(self.path("handover.toml")));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

trait Asks {
    fn ask(&mut self, host: &str, target: &str, fields: &str) -> Answer;
    fn text_of(&mut self, host: &str, target: &str) -> (u16, String);
}

impl Asks for RawClient {
    #[track_caller]
    fn ask(&mut self, host: &str, target: &str, fields: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).answer()
    }

    #[track_caller]
    fn text_of(&mut self, host: &str, target: &str) -> (u16, String) {
        let answer = self.ask(host, target, "");
        (answer.status, answer.text().to_owned())
    }
}

const SITES: &[(&str, &str)] = &[
    ("top/index.html", "top"),
    ("one/index.html", "one"),
    ("one/alone.txt", "of one"),
    ("many/index.html", "many"),
    ("deep/index.html", "deep"),
    ("local/index.html", "local"),
];

const HOSTS: &str = "root = 'top'\n\
    [[host]]\nname = ['example.org', 'WWW.example.org.']\nroot = 'one'\n\
    [[host.route]]\nprefix = '/docs'\nbody = 'docs of one'\n\
    [[host]]\nname = '*.example.org'\nroot = 'many'\n\
    [[host]]\nname = ['*.deep.example.org']\nroot = 'deep'\n\
    [[host]]\nname = ['127.0.0.1', '[::1]', 'localhost']\nroot = 'local'\n\
    [[route]]\nprefix = '/docs'\nbody = 'docs of the top'\n";

#[test]
fn each_name_is_answered_by_its_own_site_and_every_other_by_the_top() {
    let sites = Sites::new(SITES);
    let program = sites.serve(HOSTS, Mode::Exec);
    // All on one connection: each request is for a name of its own.
    let mut client = program.client();
    for (host, site) in [
        ("example.org", "one"),
        ("www.example.org", "one"),
        ("EXAMPLE.Org", "one"),
        ("example.org.", "one"),
        ("example.org:8080", "one"),
        ("example.org:", "one"),
        ("Example.org.:80", "one"),
        ("a.example.org", "many"),
        ("a.b.c.example.org:80", "many"),
        ("deep.example.org", "many"),
        ("a.deep.example.org", "deep"),
        ("a.b.DEEP.example.org.", "deep"),
        ("x.www.example.org", "many"),
        ("127.0.0.1", "local"),
        ("127.0.0.1:8888", "local"),
        ("[::1]", "local"),
        ("[0:0:0:0:0:0:0:1]:80", "local"),
        ("localhost", "local"),
        ("org", "top"),
        ("example.com", "top"),
        ("badexample.org", "top"),
        ("example.org.evil.com", "top"),
        (".example.org", "top"),
        ("a..example.org", "top"),
        ("example.org..", "top"),
        ("127.0.0.2", "top"),
        ("[::2]", "top"),
        ("127.1", "top"),
        // An escape is no other way to write a name that is another site's.
        ("ex%61mple.org", "top"),
        ("", "top"),
    ] {
        assert_eq!(client.text_of(host, "/"), (200, site.to_owned()), "{host:?}");
    }
    // As many labels as a head has room for, again and again, are one that nobody has.
    let long = format!("{}example.org", "a.".repeat(7000));
    for _ in 0..20 {
        assert_eq!(client.text_of(&long, "/"), (200, "top".to_owned()));
    }
    // Routes are a site's own, whatever the top has.
    assert_eq!(client.text_of("example.org", "/docs/x").1, "docs of one");
    assert_eq!(client.text_of("a.example.org", "/docs").0, 404);
    assert_eq!(client.text_of("example.com", "/docs").1, "docs of the top");
    // The authority of the target goes before Host.
    for (target, host, site) in [
        ("http://example.org/", "example.com", "one"),
        ("http://EXAMPLE.org:80/", "a.example.org", "one"),
        ("http://example.com/", "example.org", "top"),
        ("http://a.example.org", "example.org", "many"),
        ("http://[::1]:8888/", "example.org", "local"),
    ] {
        assert_eq!(client.text_of(host, target), (200, site.to_owned()), "{target} {host}");
    }
    // HTTP/1.0 may say none, or one.
    for (fields, site) in [("", "top"), ("Host: example.org\r\n", "one")] {
        let answer = program.client().send(format!("GET / HTTP/1.0\r\n{fields}\r\n")).answer();
        assert_eq!((answer.status, answer.text()), (200, site), "{fields:?}");
    }
    // What is no host stays refused.
    for fields in [
        "Host: example.org\r\nHost: example.org\r\n",
        "Host: example.org\r\nHost: a.example.org\r\n",
        "Host: example.org, a.example.org\r\n",
        "Host: me@example.org\r\n",
        "Host: example.org/\r\n",
        "Host: example.org:80a\r\n",
        "Host: [::1\r\n",
        "",
    ] {
        assert_eq!(program.client().send(format!("GET / HTTP/1.1\r\n{fields}\r\n")).answer().status, 400, "{fields:?}");
    }
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn requests_that_come_together_are_answered_by_their_own_sites() {
    let sites = Sites::new(SITES);
    let program = sites.serve(HOSTS, Mode::Exec);
    let mut client = program.client();
    let hosts = ["example.org", "a.example.org", "example.com", "example.org", "a.deep.example.org", "localhost"];
    client.send(hosts.map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).concat());
    let answers = hosts.map(|_| client.answer().text().to_owned());
    assert_eq!(answers, ["one", "many", "top", "one", "deep", "local"]);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn the_same_path_under_two_names_is_never_mixed_also_where_it_is_kept() {
    // Of the same length, so that no figure of the answer tells them apart.
    let sites = Sites::new(&[("a/x.txt", "of a"), ("b/x.txt", "of b"), ("a/only.txt", "a"), ("top/x.txt", "top!")]);
    let program = sites.serve(
        "root = 'top'\n[[host]]\nname = 'a'\nroot = 'a'\nheaders = { X-Of = 'a' }\n[[host]]\nname = 'b'\nroot = 'b'\n\
         headers = { X-Of = 'b' }\n[[host]]\nname = 'also-a'\nroot = 'a'\nheaders = { X-Of = 'also a' }\n",
        Mode::Exec,
    );
    ["a/x.txt", "b/x.txt", "top/x.txt", "a/only.txt"].iter().for_each(|name| sites.0.settle(name));
    let mut client = program.client();
    for round in 0..3 {
        for (host, text, of) in [
            ("a", "of a", Some("a")),
            ("b", "of b", Some("b")),
            ("other", "top!", None),
            ("also-a", "of a", Some("also a")),
        ] {
            let answer = client.ask(host, "/x.txt", "");
            assert_eq!((answer.text(), answer.header("x-of")), (text, of), "{host} {round}");
        }
        assert_eq!(client.text_of("a", "/only.txt").0, 200);
        assert_eq!(client.text_of("b", "/only.txt").0, 404);
        for way in ["/../a/only.txt", "/%2e%2e/a/only.txt", "/..%2fa/only.txt", "//a/only.txt"] {
            assert_eq!(client.text_of("b", way).0, 404, "{way}");
        }
    }
    // Of b there is none, as often as a has it: that is known of b alone.
    let metrics = client.ask("localhost", "/-/metrics", "");
    assert!(metrics.text().contains("handover_file_cache_hits_total"), "{metrics:?}");
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn what_files_can_do_at_the_top_they_can_in_a_host() {
    let sites = Sites::new(&[
        ("one/index.html", "<p>one"),
        ("one/a.js", "plain"),
        ("one/a.js.gz", "coded"),
        ("one/sub/index.html", "sub"),
        ("one/list/b.txt", "0123456789"),
        ("two/list/b.txt", "abcdefghij"),
    ]);
    let program = sites.serve(
        "[[host]]\nname = 'one'\nroot = 'one'\nprecompressed = true\nlisting = true\nfallback = 'index.html'\n\
         [[host]]\nname = 'two'\nroot = 'two'\n[[host.route]]\nprefix = '/files'\ndirectory = 'one'\n\
         precompressed = ['gzip']\nlisting = true\n",
        Mode::Exec,
    );
    let mut client = program.client();
    let whole = client.ask("one", "/list/b.txt", "");
    let etag = whole.header("etag").expect("a tag").to_owned();
    let modified = whole.header("last-modified").expect("a time").to_owned();
    assert_eq!((whole.status, whole.text()), (200, "0123456789"));
    let kept = client.ask("one", "/list/b.txt", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!((kept.status, kept.header("etag")), (304, Some(&*etag)));
    assert_eq!(client.ask("one", "/list/b.txt", &format!("If-Modified-Since: {modified}\r\n")).status, 304);
    assert_eq!(client.ask("one", "/list/b.txt", "If-Match: \"x\"\r\n").status, 412);
    let part = client.ask("one", "/list/b.txt", &format!("Range: bytes=2-4\r\nIf-Range: {etag}\r\n"));
    assert_eq!((part.status, part.text(), part.header("content-range")), (206, "234", Some("bytes 2-4/10")));
    // What one host's client has is nothing to another's: the tag is of another file.
    let other = client.ask("two", "/list/b.txt", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!((other.status, other.text()), (200, "abcdefghij"));
    let other = client.ask("two", "/list/b.txt", &format!("Range: bytes=2-4\r\nIf-Range: {etag}\r\n"));
    assert_eq!((other.status, other.text()), (200, "abcdefghij"));
    let head = client.send("HEAD /list/b.txt HTTP/1.1\r\nHost: two\r\n\r\n").answer_to_head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
    for (host, target, coding, text) in [
        ("one", "/a.js", Some("gzip"), "coded"),
        ("two", "/files/a.js", Some("gzip"), "coded"),
        ("one", "/sub/", None, "sub"),
        ("one", "/nothing", None, "<p>one"),
    ] {
        let answer = client.ask(host, target, "Accept-Encoding: gzip\r\n");
        assert_eq!((answer.text(), answer.header("content-encoding")), (text, coding), "{host} {target}");
    }
    let listing = client.text_of("one", "/list/").1;
    assert!(listing.contains("b.txt"), "{listing}");
    let listing = client.text_of("two", "/files/list/").1;
    assert!(listing.contains("b.txt"), "{listing}");
    assert_eq!(client.text_of("two", "/list/").0, 404);
    // A redirect names no host, so that it leads to the one that was asked.
    for (host, target, location) in
        [("one", "/sub", "./sub/"), ("two", "/files/sub?q", "./sub/?q"), ("two", "/files", "./files/")]
    {
        let answer = client.ask(host, target, "");
        assert_eq!((answer.status, answer.header("location")), (301, Some(location)), "{host} {target}");
    }
    let post = client.send("POST /a.js HTTP/1.1\r\nHost: one\r\nContent-Length: 0\r\n\r\n").answer();
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn without_a_site_at_the_top_other_names_are_misdirected() {
    let sites = Sites::new(&[("one/index.html", "one"), ("421.html", "<p>not here")]);
    let host = "[[host]]\nname = ['one', '127.0.0.1']\nroot = 'one'\n";
    let program = sites.serve(
        &format!("{host}[headers]\nX-Top = 'yes'\n[error_pages]\n421 = '421.html'\n[[push]]\nprefix = '/events'\npublish = 'anyone'\n"),
        Mode::Exec,
    );
    let mut client = program.client();
    for (target, host) in [("/", "other"), ("/index.html", "other"), ("http://other/", "one"), ("/", "")] {
        let answer = client.ask(host, target, "");
        assert_eq!((answer.status, answer.text(), answer.header("x-top")), (421, "<p>not here", Some("yes")));
        assert!(answer.head.starts_with("HTTP/1.1 421 Misdirected Request\r\n") && !answer.closes(), "{answer:?}");
    }
    let post = client.send("POST / HTTP/1.1\r\nHost: other\r\nContent-Length: 3\r\n\r\nabc").answer();
    assert_eq!((post.status, post.header("allow")), (421, None));
    let old = program.client().send("GET / HTTP/1.0\r\n\r\n").answer();
    assert_eq!((old.status, old.text()), (421, "<p>not here"));
    assert_eq!(client.text_of("one", "/"), (200, "one".to_owned()));
    // What is the server's is there by every name.
    for host in ["one", "other"] {
        assert_eq!(client.text_of(host, "/-/ready"), (200, "ready\n".to_owned()), "{host}");
        let published = client.send(format!("POST /events/t HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\nhi"));
        assert_eq!(published.answer().status, 200, "{host}");
        let poll = client.ask(host, "/events/t?since=start&wait=0", "Accept: application/json\r\n");
        assert!(poll.text().contains("\"hi\""), "{poll:?}");
    }
    assert_eq!(program.stop(), Some(0));

    // Something of the top is a site: what it has not is 404 there, and not the welcome site.
    let program = sites.serve(&format!("{host}[[route]]\nprefix = '/a'\nbody = 'a'\n"), Mode::Exec);
    let mut client = program.client();
    assert_eq!(client.text_of("other", "/a"), (200, "a".to_owned()));
    assert_eq!(client.text_of("other", "/"), (404, "404 Not Found\n".to_owned()));
    assert_eq!(client.text_of("one", "/a").0, 404);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_host_has_what_the_top_says_of_all_and_adds_its_own() {
    let sites = Sites::new(&[
        ("top/a.mine", "top"),
        ("one/a.mine", "one"),
        ("one/a.other", "one"),
        ("two/a.mine", "two"),
        ("404.html", "404 of the top"),
        ("410.html", "410 of the top"),
        ("one.html", "404 of one"),
    ]);
    let program = sites.serve(
        "root = 'top'\n\
         [[host]]\nname = 'one'\nroot = 'one'\n\
         headers = { X-Site = 'one', X-One = 'yes' }\nmime = { other = 'text/x-other', MINE = 'text/x-one' }\n\
         [[host.cache]]\nmatch = 'a.mine'\ncontrol = 'max-age=1'\n\
         [[host.route]]\nprefix = '/gone'\nstatus = 410\nheaders = { X-Site = 'gone' }\n\
         [host.error_pages]\n404 = 'one.html'\n\
         [[host]]\nname = 'two'\nroot = 'two'\n[[host.route]]\nprefix = '/old'\nredirect = '/new/{path}'\n\
         [headers]\nX-Site = 'top'\nX-All = 'yes'\n[mime]\nmine = 'text/x-mine'\n\
         [[cache]]\nmatch = '*.mine'\ncontrol = 'no-cache'\n[[cache]]\nmatch = '*'\ncontrol = 'max-age=9'\n\
         [error_pages]\n404 = '404.html'\n410 = '410.html'\n",
        Mode::Exec,
    );
    let mut client = program.client();
    for (host, target, status, text, fields) in [
        ("other", "/a.mine", 200, "top", ["top", "yes", "-", "no-cache", "text/x-mine"]),
        ("two", "/a.mine", 200, "two", ["top", "yes", "-", "no-cache", "text/x-mine"]),
        ("one", "/a.mine", 200, "one", ["one", "yes", "yes", "max-age=1", "text/x-one"]),
        ("one", "/a.other", 200, "one", ["one", "yes", "yes", "max-age=9", "text/x-other"]),
        ("one", "/none", 404, "404 of one", ["one", "yes", "yes", "-", "text/html; charset=utf-8"]),
        ("two", "/none", 404, "404 of the top", ["top", "yes", "-", "-", "text/html; charset=utf-8"]),
        ("one", "/gone/x", 410, "410 of the top", ["gone", "yes", "yes", "-", "text/html; charset=utf-8"]),
        ("other", "/gone/x", 404, "404 of the top", ["top", "yes", "-", "-", "text/html; charset=utf-8"]),
        ("two", "/%zz", 400, "400 Bad Request\n", ["top", "yes", "-", "-", "text/plain; charset=utf-8"]),
    ] {
        let answer = client.ask(host, target, "");
        let said = ["x-site", "x-all", "x-one", "cache-control", "content-type"]
            .map(|name| answer.header(name).unwrap_or("-").to_owned());
        assert_eq!((answer.status, answer.text(), said), (status, text, fields.map(str::to_owned)), "{host} {target}");
    }
    assert_eq!(client.ask("two", "/old/x?y", "").header("location"), Some("/new/x?y"));
    assert_eq!(program.stop(), Some(0));
}

/// `ada` has the password "horse"; the cost is the least.
const USERS: &str = "ada:$2y$04$8YnDNuxBysrqH1iWMpIPl.J6gFovuxzG1MAbhUl0OkfVdw4L649I2\n";
const ADA: &str = "Authorization: Basic YWRhOmhvcnNl\r\n";

#[test]
fn a_route_of_a_host_lets_in_its_own_users_and_push_those_of_the_top() {
    let sites = Sites::new(&[
        ("users", USERS),
        ("others", &USERS.replace("ada", "bob")),
        ("one/index.html", "one"),
        ("two/index.html", "two"),
        ("three/index.html", "three"),
        ("401.html", "who are you"),
    ]);
    let program = sites.serve(
        "[[host]]\nname = 'one'\n[[host.route]]\nprefix = '/'\ndirectory = 'one'\n\
         auth = { realm = 'of one', file = 'users' }\n[[host.route]]\nprefix = '/open'\nbody = 'open'\nauth = false\n\
         [host.error_pages]\n401 = '401.html'\n\
         [[host]]\nname = 'two'\nroot = 'two'\n\
         [[host]]\nname = 'three'\n[[host.route]]\nprefix = '/'\ndirectory = 'three'\n\
         auth = { realm = 'of three', file = 'others' }\n\
         [[route]]\nprefix = '/top'\nbody = 'top'\nauth = { realm = 'of the top', file = 'users' }\n\
         [[push]]\nprefix = '/top/events'\npublish = 'anyone'\n[[push]]\nprefix = '/events'\npublish = 'anyone'\n",
        Mode::Exec,
    );
    let mut client = program.client();
    let poll = "?since=start&wait=0";
    for (host, target, anyone, ada, realm) in [
        ("one", "/", 401, 200, "of one"),
        ("ONE:80", "/none", 401, 404, "of one"),
        ("one.", "/", 401, 200, "of one"),
        ("one", "/open", 200, 200, ""),
        ("two", "/", 200, 200, ""),
        ("three", "/", 401, 401, "of three"),
        ("other", "/top", 401, 200, "of the top"),
        ("one", "/top", 401, 404, "of one"),
        // By the routes of the top, under every name.
        ("one", "/events/t", 200, 200, ""),
        ("three", "/events/t", 200, 200, ""),
        ("two", "/top/events/t", 401, 200, "of the top"),
    ] {
        let target = if target.ends_with("/t") { format!("{target}{poll}") } else { target.to_owned() };
        let json = "Accept: application/json\r\n";
        let answer = client.ask(host, &target, json);
        let challenge = answer.header("www-authenticate").unwrap_or("").to_owned();
        assert_eq!(answer.status, anyone, "{host} {target}");
        let wanted =
            if realm.is_empty() { String::new() } else { format!("Basic realm=\"{realm}\", charset=\"UTF-8\"") };
        assert_eq!(challenge, wanted, "{host} {target}");
        assert_eq!(client.ask(host, &target, &format!("{json}{ADA}")).status, ada, "{host} {target}");
    }
    assert_eq!(client.text_of("one", "/"), (401, "who are you".to_owned()));
    // The target's authority says whose password is asked for.
    assert_eq!(client.ask("two", "http://one/", "").status, 401);
    assert_eq!(client.ask("one", "http://two/", "").status, 200);
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_kept_connection_asks_each_generation_for_its_hosts() {
    for mode in Mode::BOTH {
        let sites = Sites::new(&[("top/a", "top"), ("one/a", "one"), ("two/a", "two"), ("three/a", "three")]);
        let host = |name: &str, root: &str| format!("[[host]]\nname = {name}\nroot = '{root}'\n");
        let program =
            sites.serve(&format!("root = 'top'\n{}{}", host("'one'", "one"), host("['two', '*.two']", "two")), mode);
        let mut client = program.client();
        let mut served = |wanted: [&str; 4], generation: u32| {
            let got = ["one", "x.two", "three", "other"].map(|host| client.text_of(host, "/a").1);
            assert_eq!(got, wanted.map(str::to_owned), "{mode:?} {generation}");
        };
        served(["one", "two", "top", "top"], 1);
        // One is added, one has another root, one has a name less.
        sites.configure(&format!(
            "root = 'top'\n{}{}{}",
            host("'three'", "three"),
            host("'two'", "two"),
            host("['one']", "two")
        ));
        program.reload();
        served(["two", "top", "three", "top"], 2);
        // A mistake changes nothing.
        sites.configure(&format!("root = 'top'\n{}{}", host("'one'", "one"), host("'ONE.'", "two")));
        let old = program.current();
        program.signal_to(old, Signal::HUP);
        let why = program.logged("reload failed, serving on: ");
        assert!(why.contains("name is 'ONE.', which line 4 has already"), "{why}");
        served(["two", "top", "three", "top"], 2);
        // And all of them go.
        sites.configure("root = 'top'\n");
        program.reload();
        served(["top", "top", "top", "top"], 3);
        sites.configure(&host("'one'", "one"));
        program.reload();
        served(["one", "421 Misdirected Request\n", "421 Misdirected Request\n", "421 Misdirected Request\n"], 4);
        assert_eq!(program.stop(), Some(0));
    }
}

/// Half a request, then a reload after which the name is another site's, then the other half: whose request it is is decided
/// when it is whole.
#[test]
fn a_request_that_is_half_there_at_a_reload_is_answered_by_the_new_hosts() {
    for mode in Mode::BOTH {
        let sites = Sites::new(&[("one/a", "one"), ("two/a", "two")]);
        let program = sites.serve("[[host]]\nname = 'one'\nroot = 'one'\n", mode);
        let mut client = program.client();
        assert_eq!(client.text_of("one", "/a").1, "one");
        client.send("GET /a HTTP/1.1\r\nHost: o");
        sites.configure("[[host]]\nname = 'one'\nroot = 'two'\n");
        program.reload();
        client.send("ne\r\n\r\n");
        assert_eq!(client.answer().text(), "two", "{mode:?}");
        assert_eq!(program.stop(), Some(0));
    }
}

/// A deployment of one host, as Landlock lets it: seen without a reload, and by nobody else.
#[test]
fn a_root_of_a_host_that_is_swapped_is_served_and_no_other_is_touched() {
    let sites = Sites::new(&[
        ("app/1/a", "first"),
        ("app/2/a", "second"),
        ("other/public/a", "other"),
        ("other/secret", "secret"),
        ("users", USERS),
    ]);
    symlink("1", sites.path("app/current")).expect("a link");
    symlink("../secret", sites.path("other/public/out")).expect("a link");
    symlink("../../app/1/a", sites.path("other/public/across")).expect("a link");
    let program = sites.serve(
        "[[host]]\nname = 'app'\nroot = 'app/current'\n[[host]]\nname = 'other'\nroot = 'other/public'\n",
        Mode::Exec,
    );
    program.logged(&format!("requests can open no file but in {:?}, {:?}", sites.path("app"), sites.path("other")));
    let mut client = program.client();
    assert_eq!(client.text_of("app", "/a").1, "first");
    symlink("2", sites.path("app/new")).expect("a link");
    fs::rename(sites.path("app/new"), sites.path("app/current")).expect("a rename");
    eventually("the new one is served", || {
        assert_eq!(client.text_of("other", "/a").1, "other");
        client.text_of("app", "/a").1 == "second"
    });
    // A link never leads from one host into another, nor out.
    for target in ["/across", "/out"] {
        assert_eq!(client.text_of("other", target).0, 404, "{target}");
    }
    assert_eq!(program.stop(), Some(0));
}

#[test]
fn a_check_has_a_block_for_each_host() {
    let sites = Sites::new(&[("one/index.html", "one"), ("404.html", "none"), ("users", USERS)]);
    let (code, said, _) = sites.check(
        "[[host]]\nname = ['Example.org.', '*.example.org']\nroot = 'one'\nlisting = true\n\
         [[host.route]]\nprefix = '/old'\nredirect = 'https://example.org/{path}'\n\
         [[host.route]]\nprefix = '/private'\nbody = 'x'\nauth = { realm = 'x', file = 'users' }\n\
         [host.error_pages]\n404 = '404.html'\n\
         [[host]]\nname = '[0::1]'\n[[host.route]]\nprefix = '/'\nstatus = 503\n\
         [[host]]\nname = 'routes'\n[[host.route]]\nprefix = '/a'\nbody = ''\n",
    );
    let root = sites.path("one");
    let block = format!(
        "route      / status 421, for every name that no host has\n\
         route      host example.org, *.example.org\n\
         route        /private status 200, 1 bytes of text/plain; charset=utf-8, for users of {:?} (1)\n\
         route        /old redirect 302 to https://example.org/{{path}}\n\
         route        / directory {root:?}, listing\n\
         route        error 404: 4 bytes\n\
         route      host [::1]\n\
         route        / status 503\n\
         route      host routes\n\
         route        /a status 200, 0 bytes of text/plain; charset=utf-8\n\
         route        / status 404\n\
         route      /-/healthy and /-/ready, by the server itself\n",
        sites.path("users")
    );
    assert!(code == Some(0) && said.contains(&block), "{said}");
}

#[test]
fn mistakes_in_hosts_name_their_place_and_what_helps() {
    let sites = Sites::new(&[("one/index.html", "one"), ("bad-users", "ada:plain\n")]);
    let host = |names: &str| format!("[[host]]\nname = {names}\nroot = 'one'\n");
    for (text, place, says) in [
        (
            host("'*'"),
            "3:8",
            "name is '*', allowed is a name: what no [[host]] has is answered by what stands at the top",
        ),
        (host("'*example.org'"), "3:8", "name is '*example.org', allowed is one * with a dot behind it"),
        (
            host("['a', 'a.*.org']"),
            "3:14",
            "name is 'a.*.org', allowed is one * with a dot behind it, in front of a name",
        ),
        (host("['*.']"), "3:9", "name is '*.', allowed is one * with a dot behind it"),
        (host("'example.org:80'"), "3:8", "name is 'example.org:80', allowed is a name without a port"),
        (host("'https://example.org'"), "3:8", "allowed is a name without a scheme: example.org"),
        (host("'example.org/a'"), "3:8", "allowed is a name without a path, which is for [[host.route]]"),
        (host("'exa mple.org'"), "3:8", "allowed are letters, digits, - and _ with dots between"),
        (
            host("'bücher.example'"),
            "3:8",
            "allowed is the form that browsers send of such a name: xn--bcher-kva.example",
        ),
        (host("'::1'"), "3:8", "allowed is an IPv6 address in brackets: [::1]"),
        (host("''"), "3:8", "name is '', allowed are letters"),
        (
            host("[]"),
            "3:8",
            "name is [], allowed is a name, or an array of names: [\"example.org\", \"*.example.org\"]",
        ),
        (host("[1]"), "3:9", "name is 1, allowed is text in quotes"),
        (host("1"), "3:8", "name is 1, allowed is text in quotes"),
        (host("['a', 'A']"), "3:14", "name is 'A', which line 3 has already"),
        (host("['a', 'a.']"), "3:14", "name is 'a.', which line 3 has already"),
        (host("'a'") + &host("['b', 'A.']"), "6:14", "name is 'A.', which line 3 has already"),
        (host("'[::1]'") + &host("'[0::1]'"), "6:8", "name is '[0::1]', which line 3 has already"),
        (host("'*.a'") + &host("'*.A.'"), "6:8", "name is '*.A.', which line 3 has already"),
        ("[[host]]\nroot = 'one'\n".into(), "2:1", "a host needs a name: name = [\"example.org\", \"*.example.org\"]"),
        ("[[host]]\nnames = ['a']\n".into(), "3:1", "unknown key names, did you mean name?"),
        ("[[host]]\nserver_name = 'a'\n".into(), "3:1", "unknown key server_name, did you mean name?"),
        (host("'a'") + "frobnicate = 1\n", "5:1", "unknown key frobnicate, allowed are name, root, precompressed"),
        (host("'a'") + "workers = 4\n", "5:1", "workers is for the whole server, and stands above all [[host]]"),
        (host("'a'") + "[[host.push]]\nprefix = '/a'\n", "5:8", "push is for the whole server: [[push]]"),
        ("[[host]]\nname = 'a'\n".into(), "2:1", "a host needs a root or a [[host.route]]: root = \"public\""),
        (
            "host = '0.0.0.0'\n".into(),
            "2:8",
            "host is '0.0.0.0', allowed is [[host]], once or more; where to listen is",
        ),
        ("[host]\nname = 'a'\n".into(), "2:1", "host is a table, allowed is [[host]], once or more"),
        ("[[server]]\nname = 'a'\n".into(), "2:3", "unknown key server, did you mean host?"),
        // What a site may say, with the words that the top has for it.
        (
            host("'a'") + "[host.route]\nprefix = '/a'\n",
            "5:1",
            "route is a table, allowed is [[host.route]], once or more",
        ),
        (host("'a'") + "[[host.route]]\nbody = 'x'\n", "5:1", "a route needs a prefix"),
        (
            host("'a'") + "[[host.route]]\nprefix = '/x'\nbody = ''\n[[host.route]]\nprefix = '/x/'\nbody = ''\n",
            "9:10",
            "prefix is '/x/', which line 6 has already",
        ),
        (host("'a'") + "[[host.route]]\nprefix = '/'\nbody = ''\n", "6:10", "prefix / leaves nothing for root"),
        (host("'a'") + "[host.headers]\nDate = 'x'\n", "6:1", "Date is for the server to say"),
        (
            host("'a'") + "[host.error_pages]\n410 = 'x'\n",
            "6:1",
            "410 is no error that this site answers with: allowed are",
        ),
        (host("'a'") + "[host.error_pages]\n404 = 'x'\n", "6:7", "error page 404 cannot be read from"),
        (host("'a'") + "fallback = 'none'\n", "5:12", "fallback is \"none\", and there is no such file"),
        ("[[host]]\nname = 'a'\nroot = 'none'\n".into(), "4:8", "root: cannot serve"),
        (
            host("'a'") + "[[host]]\nname = 'b'\n[[host.route]]\nprefix = '/x'\ndirectory = 'none'\n",
            "9:13",
            "directory of route /x: cannot serve",
        ),
        (
            "[[host]]\nname = 'a'\nlisting = true\n[[host.route]]\nprefix = '/x'\nbody = ''\n".into(),
            "4:11",
            "listing is for root, which is not set",
        ),
        (
            host("'a'") + "[[host.route]]\nprefix = '/x'\nbody = ''\nauth = { realm = 'x', file = 'bad-users' }\n",
            "8:8",
            "file of users",
        ),
        (
            host("'a'") + "[[host.route]]\nprefix = '/e/x'\nbody = ''\n[[push]]\nprefix = '/e'\n",
            "6:10",
            "route /e/x never answers: push has /e and what lies below it",
        ),
    ] {
        let (code, _, said) = sites.check(&text);
        let start = format!("handover: {}:{place}: ", sites.path("handover.toml").display());
        assert!(said.starts_with(&start) && said.contains(says), "{text}: {place} {says}: {said}");
        assert!(code == Some(78) && said.lines().count() == 1, "{text}: {code:?} {said}");
    }
    // 421 is the top's to answer, where there are hosts.
    let (code, _, said) = sites.check("[error_pages]\n421 = 'x'\n");
    assert!(code == Some(78) && said.contains("421 is no error that this site answers with"), "{said}");
}

#[test]
fn an_application_has_no_hosts() {
    let sites = Sites::new(&[]);
    sites.configure("[[host]]\nname = 'a'\nroot = '.'\n");
    let output = run_to_its_end(Program::lab_command().arg("--check").arg("-c").arg(sites.path("handover.toml")));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains(":2:3: host is not for lab, which decides itself what it serves"), "{said}");
}

/// What ROOT says goes for the top, and for no host.
#[test]
fn an_argument_is_the_root_of_the_top() {
    let sites = Sites::new(&[("top/a", "top"), ("argument/a", "argument"), ("one/a", "one")]);
    sites.configure("root = 'top'\n[[host]]\nname = 'one'\nroot = 'one'\n");
    let mut command = Program::handover_command();
    let program = Program::start(command.arg("-c").arg(sites.path("handover.toml")).arg(sites.path("argument")));
    let mut client = program.client();
    assert_eq!(client.text_of("other", "/a").1, "argument");
    assert_eq!(client.text_of("one", "/a").1, "one");
    assert_eq!(program.stop(), Some(0));
}

/// The system's own words say nothing of a limit.
#[test]
fn more_hosts_than_files_may_be_open_are_told_what_to_raise() {
    let sites = Sites::new(SITES);
    let host = |number: usize| format!("[[host]]\nname = 'h{number}'\nroot = 'one'\n");
    sites.configure(&(0..60).map(host).collect::<String>());
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 40; exec \"$0\" --check -c \"$1\""]);
    let output = run_to_its_end(shell.arg(Program::handover_command().get_program()).arg(sites.path("handover.toml")));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains("no more can be held open; raise what this process may have (ulimit -n"), "{said}");
    assert_eq!(output.status.code(), Some(78));
}

/// Each root is open: where few files may be, fewer connections are taken, and none is taken that could not be answered.
#[test]
fn roots_of_many_hosts_leave_fewer_connections() {
    let sites = Sites::new(&[("one/a", "one")]);
    let hosts = (0..150).map(|number| format!("[[host]]\nname = 'h{number}'\nroot = 'one'\n"));
    sites.configure(&hosts.collect::<String>());
    let handover = Program::handover_command();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 300; exec \"$0\" -c \"$1\""]).arg(handover.get_program());
    command.arg(sites.path("handover.toml")).env_remove("RUST_LOG");
    let program = Program::start(&mut command);
    program.logged("only 300 files may be open: the limit is 86 connections");
    let mut clients: Vec<RawClient> = (0..86).map(|_| program.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.text_of(&format!("h{number}"), "/a"), (200, "one".to_owned()));
    }
    assert_eq!(program.stop(), Some(0));
}
