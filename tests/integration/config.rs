//! The configuration file, through the program: what it says of mistakes, and that what it says is served.

use crate::common::{Program, RawClient, Scratch, run_to_its_end};
use rustix::process::Signal;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory with a configuration file.
struct Site(Scratch);

impl Site {
    fn new(config: &str) -> Site {
        let site = Site(Scratch::new());
        site.write("handover.toml", config);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// The directory itself.
    fn directory(&self) -> PathBuf {
        self.path("handover.toml").parent().expect("a parent").to_owned()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, content).expect("a file");
    }

    fn file(&self) -> String {
        self.path("handover.toml").to_str().expect("UTF-8").to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Program::handover_command();
        command.args(["-c", &self.file()]).args(args);
        command
    }

    fn check(&self, args: &[&str]) -> Output {
        run_to_its_end(&mut self.command(&[&["--check"], args].concat()))
    }

    /// What `--check` prints about a configuration that is right.
    #[track_caller]
    fn report(&self, args: &[&str]) -> String {
        let output = self.check(args);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// One line on stderr that names file, line and column, and says all that; with and without `--check`.
    #[track_caller]
    fn fails(&self, place: &str, says: &[&str]) {
        for output in [self.check(&[]), run_to_its_end(&mut self.command(&[]))] {
            let message = failure(&output, 78);
            assert!(message.starts_with(&format!("handover: {}:{place}: ", self.file())), "{message}");
            for part in says {
                assert!(message.contains(part), "{part:?} is missing: {message}");
            }
        }
    }
}

#[track_caller]
fn failure(output: &Output, code: i32) -> String {
    let message = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(output.stdout.is_empty(), "{output:?}");
    message
}

#[test]
fn mistakes_name_file_line_key_and_what_is_allowed() {
    for (text, place, says) in [
        ("lisen = []", "1:1", &["unknown key lisen, did you mean listen?"][..]),
        ("\n\n  wrokers = 4", "3:3", &["unknown key wrokers, did you mean workers?"]),
        ("frobnicate = 1", "1:1", &["unknown key frobnicate, allowed are listen, workers", "route"]),
        ("check = true", "1:1", &["unknown key check, this is for the command line only"]),
        ("no_status_routes = true", "1:1", &["did you mean status_routes?"]),
        ("workers = \"four\"", "1:11", &["workers is \"four\", allowed is a whole number, 1 to 1024"]),
        ("workers = 0", "1:11", &["workers is 0, allowed is a whole number"]),
        ("workers = -1", "1:11", &["workers is -1, allowed"]),
        ("workers = 1.5", "1:11", &["workers is 1.5, allowed"]),
        ("worker_stack = \"1K\"", "1:16", &["worker_stack is \"1K\", allowed is 64K to 1G"]),
        ("max_body = \"1T\"", "1:12", &["max_body is \"1T\", allowed are bytes"]),
        ("idle_timeout = 0", "1:16", &["idle_timeout is 0, allowed are seconds, 0.001 to"]),
        ("idle_timeout = inf", "1:16", &["idle_timeout is inf, allowed are seconds"]),
        ("idle_timeout = \"30\"", "1:16", &["idle_timeout is \"30\", allowed are seconds"]),
        ("status_routes = \"yes\"", "1:17", &["status_routes is \"yes\", allowed is true or false"]),
        ("reload = \"always\"", "1:10", &["reload is \"always\", allowed is \"auto\", \"overlap\" or \"exec\""]),
        ("log_file = 1", "1:12", &["log_file is 1, allowed is a path in quotes"]),
        ("root = [1,\n2]", "1:8", &["root is [1,\\n2], allowed is text in quotes"]),
        ("listen = \"127.0.0.1:80\"", "1:10", &["listen is \"127.0.0.1:80\", allowed is an array of addresses"]),
        ("listen = []", "1:10", &["listen is [], allowed is an array of addresses"]),
        ("listen = [\n  \"127.0.0.1\",\n]", "2:3", &["listen: cannot listen on \"127.0.0.1\"", "HOST:PORT"]),
        ("listen = [80]", "1:11", &["listen is 80, allowed is HOST:PORT"]),
        ("listen = [\"[::]:1\", \"[::]:1\"]", "1:21", &["listen is \"[::]:1\", which stands twice"]),
        ("max_head = 1000\nmax_target = 2000", "2:14", &["max_target is 2000, allowed is 16 to 1000"]),
        // TOML itself.
        ("workers = 4\nworkers = 5", "2:1", &["\"workers\" stands twice"]),
        ("'ä' = ./public", "1:7", &["text stands in quotes"]),
        ("'ä' = 1", "1:1", &["unknown key ä"]),
        ("log_file = \"x", "1:14", &["invalid basic string"]),
        ("listen = [", "1:11", &["unclosed array"]),
        // The site.
        ("route = 1", "1:9", &["route is 1, allowed is [[route]]"]),
        ("[route]\nprefix = '/a'", "1:1", &["route is a table, allowed is [[route]]"]),
        ("[[route]]\nbody = 'x'", "1:1", &["a route needs a prefix"]),
        ("[[route]]\nprefix = '/a'", "1:1", &["a route needs one of directory, redirect, status and body"]),
        ("[[route]]\nprefix = 'a'\nbody = ''", "2:10", &["prefix is 'a', allowed is a path that begins with"]),
        ("[[route]]\nprefix = '/a'\ndir = 'x'", "3:1", &["unknown key dir, did you mean directory?"]),
        ("[[route]]\nprefix = '/a'\nbody = ''\ndirectory = 'x'", "3:1", &["body does not go with directory"]),
        ("[[route]]\nprefix = '/a'\nredirect = '/b'\nstatus = 200", "4:10", &["status is 200, allowed is 301"]),
        ("[[route]]\nprefix = '/a'\nredirect = 'b'", "3:12", &["redirect is 'b', allowed is a path"]),
        ("[[route]]\nprefix = '/a'\nstatus = 304", "3:10", &["status is 304, allowed is 200 to 205"]),
        ("[[route]]\nprefix = '/a'\nbody = ''\ncontent_type = 'text'", "4:16", &["allowed is a media type"]),
        (
            "[[route]]\nprefix = '/a'\nbody = ''\n[[route]]\nprefix = '/a/'\nbody = ''",
            "5:10",
            &["prefix is '/a/', which line 2 has already"],
        ),
        ("[[route]]\nprefix = '/a'\nbody = ''\nauth = true", "4:8", &["auth is true, allowed is { realm = "]),
        ("[[route]]\nprefix = '/a'\nbody = ''\nauth = 'users'", "4:8", &["auth is 'users', allowed is {"]),
        ("[[route]]\nprefix = '/a'\nbody = ''\nauth = { file = 'u' }", "4:8", &["auth needs realm and file"]),
        ("[[route]]\nprefix = '/a'\nbody = ''\nauth = { fle = 'u' }", "4:10", &["unknown key fle, did you mean file?"]),
        (
            "[[push]]\nprefix = '/a'\nauth = { realm = 'a\"b', file = 'u' }",
            "3:18",
            &["realm is 'a\"b', allowed is printable ASCII without quotes"],
        ),
        ("[[push]]\nprefix = '/a'\nauth = { realm = 'a', file = 'u' }", "3:8", &["file of users", "no such file"]),
        ("[error_pages]\n401 = 'x'", "2:1", &["401 is no error that this site answers with: allowed are 400, 403"]),
        (
            "[[route]]\nprefix = '/a/b'\nbody = ''\n[[push]]\nprefix = '/a'",
            "2:10",
            &["route /a/b never answers: push has /a and what lies below it"],
        ),
        (
            "max_message = '5M'\n[[push]]\nprefix = '/a'",
            "1:15",
            &["max_message is 5M, allowed is push_memory at the most: 4M"],
        ),
        (
            "[[push]]\nprefix = '/a'\npublish = 'token'",
            "3:1",
            &["publish is \"token\", which needs keys: token_key_file"],
        ),
        ("[[push]]\nprefix = '/a'\nsubscribe = 'token'", "3:1", &["subscribe is \"token\", which needs keys"]),
        ("[[push]]\nprefix = '/a'\nsubscribe = 'local'", "3:13", &["allowed is \"anyone\" or \"token\""]),
        ("[[push]]\nprefix = '/a'\ntoken_key_file = 'k'", "3:1", &["token_key_file goes with publish = \"token\""]),
        (
            "[[push]]\nprefix = '/a'\npublish = 'token'\ntoken_key_file = 'k'",
            "4:18",
            &["token_key_file ", "there is no such file"],
        ),
        ("[[route]]\nprefix = '/a'\ndirectory = 'nowhere'", "3:13", &["directory of route /a", "no such directory"]),
        ("root = 'nowhere'", "1:8", &["root: cannot serve", "nowhere", "no such directory"]),
        (
            "[[route]]\nprefix = '/a'\nbody = ''\nprecompressed = true",
            "4:1",
            &["precompressed goes with a directory only"],
        ),
        ("precompressed = 'br'", "1:17", &["precompressed is 'br', allowed is true, false or an array of \"br\""]),
        ("precompressed = ['br', 'gz']", "1:24", &["precompressed is 'gz', allowed is true, false or"]),
        ("precompressed = ['br', 'br']", "1:24", &["precompressed is 'br', which stands twice"]),
        ("precompressed = true", "1:17", &["precompressed is for root, which is not set"]),
        ("listing = 1", "1:11", &["listing is 1, allowed is true or false"]),
        ("listing = true", "1:11", &["listing is for root, which is not set"]),
        ("root = '.'\nfallback = 'nothing.html'", "2:12", &["fallback is \"nothing.html\", and there is no such file"]),
        ("root = '.'\nfallback = '../a'", "2:12", &["fallback is \"../a\", allowed is the path of a file below"]),
        ("root = '.'\nfallback = true", "2:12", &["fallback is true, allowed is text in quotes"]),
        (
            "[[route]]\nprefix = '/a'\ndirectory = '.'\nfallback = '/handover.toml'",
            "4:12",
            &["fallback is \"/handover.toml\", allowed is the path of a file below"],
        ),
        ("[[route]]\nprefix = '/a'\nredirect = '/'\nlisting = true", "4:1", &["listing goes with a directory only"]),
        ("[cache]\nmatch = '*'", "1:1", &["cache is a table, allowed is [[cache]]"]),
        ("[[cache]]\nmatch = '*.js'", "1:1", &["a cache rule needs match and control"]),
        ("[[cache]]\nmatch = 'a/*'\ncontrol = 'no-cache'", "2:9", &["match is 'a/*', allowed is a name of files"]),
        ("[[cache]]\nmatch = ['*.js', 1]\ncontrol = 'no-cache'", "2:18", &["match is 1, allowed is text in quotes"]),
        ("[[cache]]\nmatch = []\ncontrol = 'no-cache'", "2:9", &["match is [], allowed is text in quotes"]),
        ("[[cache]]\nmatch = ['*.js', '*.js']\ncontrol = 'no-cache'", "2:18", &["match is '*.js', which stands twice"]),
        (
            "[[cache]]\nmatch = '*'\ncontrol = 'max-age=1d'",
            "3:11",
            &["control is 'max-age=1d', allowed are directives"],
        ),
        ("[[cache]]\nmatch = '*'\ncontol = 'no-cache'", "3:1", &["unknown key contol, did you mean control?"]),
        ("[headers]\nContent-Encoding = 'gzip'", "2:1", &["Content-Encoding is for the server to say"]),
        ("[headers]\n'a b' = 'x'", "2:1", &["a b is no name of a header field"]),
        ("[headers]\nconnection = 'close'", "2:1", &["connection is for the server to say"]),
        ("[headers]\nA = \"b\\r\\nC: d\"", "2:5", &["A is \"b\\r\\nC: d\", allowed is printable ASCII"]),
        ("[headers]\nA = 'x'\na = 'y'", "3:1", &["a stands twice"]),
        ("[mime]\n'.md' = 'text/markdown'", "2:1", &[".md is no extension"]),
        ("[mime]\nmd = 'markdown'", "2:6", &["md is 'markdown', allowed is a media type"]),
        ("[error_pages]\n200 = 'x'", "2:1", &["200 is no error that this site answers with: allowed are 400, 403"]),
        ("[error_pages]\n404 = 'nowhere.html'", "2:7", &["error page 404", "nowhere.html", "no such file"]),
    ] {
        Site::new(text).fails(place, says);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let site = Site::new("");
    let run_with = |path: &str| {
        let mut command = Program::handover_command();
        failure(&run_to_its_end(command.args(["-c", path]).current_dir(site.directory())), 78)
    };
    let absolute = site.path("missing.toml");
    assert!(run_with("missing.toml").contains(&format!("{absolute:?}: there is no such file")));
    assert!(run_with("/dev/null").contains("not a regular file"));
    assert!(run_with(site.directory().to_str().expect("UTF-8")).contains("not a regular file"));
    fs::write(site.path("latin1.toml"), b"# one\n# \xe4\n").expect("a file");
    assert!(run_with("latin1.toml").contains("line 2 is not UTF-8"));
    site.write("large.toml", &"# x\n".repeat(300_000));
    assert!(run_with("large.toml").contains("more than 1 MiB"));
}

#[test]
fn a_wrong_flag_is_a_usage_error_whatever_the_file_says() {
    let site = Site::new("nonsense = 1");
    assert!(failure(&site.check(&["-w", "0"]), 2).contains("--workers is \"0\""));
    assert!(failure(&site.check(&["-c", "other.toml"]), 2).contains("--config stands twice"));
    assert!(failure(&site.check(&["--listing=yes"]), 2).contains("--listing takes no value"));
    // A ROOT that is an argument is the user's mistake, not the file's.
    let site = Site::new("root = 'public'");
    assert!(failure(&site.check(&["/nowhere/at/all"]), 2).contains("/nowhere/at/all"));
}

#[test]
fn a_listing_is_for_a_root() {
    let site = Site::new("");
    assert!(failure(&site.check(&["--listing"]), 2).contains("--listing is for a ROOT, which is missing"));
    site.write("public/a", "a");
    let root = site.path("public");
    let report = site.report(&["--listing", root.to_str().expect("UTF-8")]);
    assert!(report.contains(&format!("/ directory {root:?}, listing\n")), "{report}");
}

#[test]
fn flags_win() {
    let site = Site::new(
        "listen = ['127.0.0.1:1', '127.0.0.1:2']\nroot = 'nowhere'\nworkers = 7\nmax_body = '2M'\n\
         stop_deadline = 3\nreload = 'exec'\n",
    );
    let root = site.directory().to_str().expect("UTF-8").to_owned();
    let report = site.report(&["-l", "127.0.0.1:3", "-w", "2", "--no-status-routes", "--reload", "overlap", &root]);
    let says = |line: &str| report.lines().any(|other| other.split_whitespace().eq(line.split_whitespace()));
    assert!(says("listen 127.0.0.1:3") && !report.contains("127.0.0.1:1"), "{report}");
    assert!(says(&format!("route / directory {root:?}")) && !report.contains("/-/healthy"), "{report}");
    assert!(says("workers 2, stack 256K each"), "{report}");
    assert!(report.contains("body 2M") && report.contains("deadline 3 s") && report.contains("overlap"), "{report}");
}

#[test]
fn check_says_what_would_run_and_binds_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address");
    let site = Site::new(&format!(
        "listen = ['{address}', 'unix:run.sock']\nroot = 'public'\nlog_file = 'a.log'\n\
         [error_pages]\n404 = '404.html'\n[[route]]\nprefix = '/a'\nredirect = '/b/{{path}}'\n\
         [[route]]\nprefix = '/b'\ndirectory = 'public'\n"
    ));
    site.write("public/index.html", "home");
    site.write("404.html", "nothing here");
    let report = site.report(&[]);
    for part in [
        &format!("file       {}", site.file()),
        &format!("listen     {address}"),
        &format!("listen     unix:{}/run.sock", site.directory().display()),
        "route      /a redirect 302 to /b/{path}",
        "route      /b directory \"",
        "route      / directory \"",
        "route      error 404: 12 bytes",
        "limits     1024 connections",
        "memory     at most ",
    ] {
        assert!(report.contains(part), "{part:?} is missing: {report}");
    }
    assert!(report.ends_with("configuration is valid\n"), "{report}");
    assert!(!site.path("run.sock").exists() && !site.path("a.log").exists());
}

#[test]
fn what_the_file_says_is_served() {
    let site = Site::new(
        "listen = ['127.0.0.1:0']\nroot = 'public'\n[headers]\nX-Site = 'mine'\n[mime]\nmine = 'text/x-mine'\n\
         [error_pages]\n404 = '404.html'\n[[route]]\nprefix = '/docs'\ndirectory = 'manual'\n\
         headers = { X-Site = 'docs' }\n[[route]]\nprefix = '/old'\nredirect = '/docs/{path}'\nstatus = 301\n\
         [[route]]\nprefix = '/down'\nstatus = 503\nbody = 'later'\n",
    );
    site.write("public/index.html", "home");
    site.write("manual/a.mine", "manual");
    site.write("404.html", "<p>nothing here");
    let mut command = site.command(&[]);
    // Neither the file nor what it names depends on the working directory.
    let program = Program::start(command.current_dir("/"));
    let mut client = program.client();
    for (target, status, fields, body) in [
        ("/", "200 OK", &["X-Site: mine", "Content-Type: text/html; charset=utf-8"][..], "home"),
        ("/docs/a.mine", "200 OK", &["X-Site: docs", "Content-Type: text/x-mine"], "manual"),
        ("/docs/../docs/./a.mine", "200 OK", &["X-Site: docs"], "manual"),
        (
            "/old/a.mine?x",
            "301 Moved Permanently",
            &["Location: /docs/a.mine?x", "X-Site: mine"],
            "301 Moved Permanently\n",
        ),
        ("/down", "503 Service Unavailable", &["X-Site: mine"], "later"),
        ("/nothing", "404 Not Found", &["X-Site: mine", "Content-Type: text/html; charset=utf-8"], "<p>nothing here"),
        ("/docs/nothing", "404 Not Found", &["X-Site: docs"], "<p>nothing here"),
        ("/docs/../../handover.toml", "404 Not Found", &[], "<p>nothing here"),
        ("/-/ready", "200 OK", &[], "ready\n"),
    ] {
        let answer = client.get(target).answer();
        let head = &answer.head;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{target}: {head}");
        for field in fields {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{target}: {field} is missing: {head}");
        }
        assert_eq!(answer.text(), body, "{target}");
    }
}

#[test]
fn a_reload_reads_the_file_anew_and_a_broken_one_changes_nothing() {
    let fixed = |body: &str| format!("listen = ['127.0.0.1:0']\n[[route]]\nprefix = '/'\nbody = '{body}'\n");
    let site = Site::new(&fixed("one"));
    let mut command = Program::handover_command();
    // By a relative path: the next execution finds the same file.
    let command = command.args(["--config=handover.toml", "--reload", "exec"]).current_dir(site.directory());
    let program = Program::start(command);
    let said = || RawClient::to(&program.listening()[0]).get("/").answer().text().to_owned();
    assert_eq!(said(), "one");

    site.write("handover.toml", "wrokers = 4");
    program.signal(Signal::HUP);
    let why = program.logged("did you mean workers?");
    assert!(why.contains("handover.toml:1:1: unknown key wrokers"), "{why}");
    assert_eq!(said(), "one");

    site.write("handover.toml", &fixed("two"));
    program.signal(Signal::HUP);
    program.generation(2);
    assert_eq!(said(), "two");
}

#[test]
fn a_library_reads_it_too() {
    let site = Site::new("workers = 3\nmax_body = '5M'\nunknown_to_all = 1");
    let error = handover::Config::from_file(site.file()).expect_err("an unknown key");
    assert!(error.is_config() && error.to_string().contains(":3:1: unknown key unknown_to_all"), "{error}");
    site.write("handover.toml", "workers = 3\nmax_body = '5M'");
    let config = handover::Config::from_file(site.file()).expect("a configuration");
    assert_eq!((config.workers, config.limits.body_size), (3, 5 << 20));
    assert_eq!(config.file.expect("it came from a file").path(), Path::new(&site.file()));
}

/// The settings that the example has off, on.
fn all_on(example: &str) -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        // It changes what everything else says; `overload.rs` has it.
        Some(setting) if setting.starts_with("memory") => String::new(),
        // Who that is, and what it may, is the host's; `tests/hosts` has them.
        Some(setting) if setting.starts_with("user") || setting.starts_with("group") => String::new(),
        // It goes with tokens alone, and has to be there; `push_tokens.rs` has it.
        Some(setting) if setting.starts_with("token_key_file") => String::new(),
        // A program of one host has no bus, and with it nothing of it is there to be on.
        Some(setting) if setting.starts_with("bus") => String::new(),
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    example.lines().map(on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_right_and_shows_the_defaults() {
    let example = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/handover.toml"));
    let example = example.expect("the example");
    for text in [example.clone(), all_on(&example)] {
        let site = Site::new(&text);
        site.write("site/index.html", "home");
        site.write("site/manual/index.html", "manual");
        site.write("site/404.html", "nothing here");
        site.write("status.token", "0123456789abcdef");
        site.write("users", "ada:$2y$04$Thc/7VngqLJsyIRKJ9Yrv.5zyTQ0QH1XHGtPdbRnYQ2xUGiCFx8Ie");
        fs::set_permissions(site.directory().join("users"), fs::Permissions::from_mode(0o600)).expect("ours");
        let report = site.report(&[]);
        let without = Site::new("[[push]]\nprefix = \"/events\"\n");
        // What is no example of a site is a default, so nothing else differs from a file with no more than push.
        let ours = ["file", "route", "push", "log", "access", "pid", "status", "warning", "landlock"];
        let settings = |report: &str| {
            let lines = report.lines().filter(|line| !ours.contains(&line.split(' ').next().unwrap_or("")));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(settings(&report), settings(&without.report(&[])));
        assert!(report.contains("/old redirect 308 to /docs/{path}"), "{report}");
    }
}
