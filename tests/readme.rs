//! The README's commands on a fresh clone: the files, flags, recipes and examples that they name are there, and what
//! starts the program is right as it stands.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a host has, or has to install, and no part of this repository.
const OF_THE_HOST: &[&str] = &["curl", "echo", "kill", "sleep", "wait", "wrk"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The lines of all blocks that are marked as `language`.
fn block_lines(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}");
    let (mut lines, mut inside) = (Vec::new(), false);
    for line in text.lines() {
        match (inside, line.trim()) {
            (false, line) if line == fence => inside = true,
            (true, "```") => inside = false,
            (true, line) => lines.push(line.to_owned()),
            _ => {}
        }
    }
    assert!(!inside, "a block of {language} does not end");
    lines
}

/// The commands of one line, in words; comments, what is put before a command (`A=b`) and `VAR=$!` are left out.
fn commands(line: &str) -> Vec<Vec<String>> {
    let line = line.split(" #").next().unwrap_or_default();
    // What stands inside of $( ) is a command like the others.
    let line = line.replace("$(", "; ").replace(')', " ");
    let commands = line.split([';', '&', '|']).map(|command| {
        let words = command
            .split_whitespace()
            .skip_while(|word| word.split_once('=').is_some_and(|(name, _)| is_variable(name)));
        words.map(str::to_owned).collect::<Vec<_>>()
    });
    commands.filter(|words| !words.is_empty()).collect()
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
}

fn handover(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    command.args(args).current_dir(root()).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn help() -> String {
    String::from_utf8(handover(&["--help"]).output().expect("the program").stdout).expect("UTF-8")
}

/// `--check` says that the program would start with these arguments, in the root of the repository.
fn would_run(args: &[String]) -> Result<(), String> {
    if let Some(command) = args.first().filter(|first| COMMANDS.contains(&first.as_str())) {
        return command_knows(command, &args[1..]);
    }
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    if !args.contains(&"--check") {
        args.push("--check");
    }
    let output = handover(&args).output().expect("the program");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("handover {}: {message}", args.join(" "))) }
}

/// Commands of the program that are no server, each with a help of its own.
const COMMANDS: &[&str] = &["reload", "token", "top"];

/// What stands behind one of them is in its help.
fn command_knows(command: &str, args: &[String]) -> Result<(), String> {
    let help = handover(&[command, "--help"]).output().expect("the program").stdout;
    let help = String::from_utf8(help).expect("UTF-8");
    let flags = args.iter().filter(|word| word.starts_with('-')).map(|word| word.split('=').next().unwrap_or(word));
    let missing: Vec<&str> = flags.filter(|flag| !help.contains(flag)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("handover {command} knows no {missing:?}")) }
}

/// What a recipe of the Justfile is, its parameters and its lines.
fn recipe(name: &str) -> Option<String> {
    let file = read("Justfile");
    let is_start = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', ':']));
    let start = file.lines().position(is_start)?;
    let mut lines = file.lines().skip(start);
    let first = lines.next()?.to_owned();
    Some(lines.take_while(|line| line.is_empty() || line.starts_with(' ')).fold(first, |all, line| all + "\n" + line))
}

/// The scripts that a recipe runs, as text.
fn scripts(recipe: &str) -> String {
    let names = recipe.split_whitespace().filter(|word| word.ends_with(".py"));
    names.map(|name| read(name.trim_start_matches("./"))).collect()
}

fn is_target(kind: &str, name: &str) -> bool {
    match kind {
        "--example" => root().join("examples").join(name).with_extension("rs").is_file(),
        "--bench" => root().join("benches").join(name).with_extension("rs").is_file(),
        "--test" => root().join("tests").join(name).with_extension("rs").is_file(),
        _ => false,
    }
}

fn check_cargo(words: &[String]) -> Result<(), String> {
    let (own, program) = match words.iter().position(|word| word == "--") {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[][..]),
    };
    let mut own = own.iter();
    let subcommand = own.next().map(String::as_str);
    if !matches!(subcommand, Some("run" | "test" | "build" | "doc")) {
        return Err(format!("cargo {subcommand:?}"));
    }
    while let Some(word) = own.next() {
        match word.as_str() {
            "--release" | "--open" => {}
            kind if own.next().is_some_and(|name| is_target(kind, name)) => {}
            other => return Err(format!("cargo {other} …")),
        }
    }
    if subcommand == Some("run") { would_run(program) } else { Ok(()) }
}

fn check_command(words: &[String]) -> Result<(), String> {
    let (name, rest) = (words[0].as_str(), &words[1..]);
    match name {
        "cargo" => check_cargo(rest),
        "./target/release/handover" => would_run(rest),
        "just" => {
            let wanted = rest.first().ok_or("just what?")?;
            let recipe = recipe(wanted).ok_or_else(|| format!("no recipe {wanted}"))?;
            let text = scripts(&recipe) + &recipe;
            let flags = rest.iter().filter(|word| word.starts_with("--"));
            let missing: Vec<_> = flags.filter(|flag| !text.contains(flag.as_str())).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("just {wanted} knows no {missing:?}")) }
        }
        // What a command before it has written.
        "cat" => Ok(()),
        _ if OF_THE_HOST.contains(&name) => Ok(()),
        _ => match name.strip_prefix("./target/release/examples/") {
            // An application has the program's flags.
            Some(example) if is_target("--example", example) => {
                let help = help();
                let missing: Vec<_> =
                    rest.iter().filter(|word| word.starts_with('-') && !help.contains(word.as_str())).collect();
                if missing.is_empty() { Ok(()) } else { Err(format!("{example} knows no {missing:?}")) }
            }
            _ => Err(format!("{name} is not there")),
        },
    }
}

#[test]
fn each_command_works_on_a_fresh_clone() {
    let lines = block_lines(&read("README.md"), "sh");
    let commands: Vec<_> = lines.iter().flat_map(|line| commands(line)).collect();
    let wrong: Vec<_> = commands.iter().filter_map(|words| check_command(words).err()).collect();
    assert_eq!(wrong, [""; 0]);
    let word_for_word =
        ["cargo run --release -- ./examples/site", "./target/release/handover -c examples/handover.toml --check"];
    for wanted in word_for_word {
        assert!(commands.iter().any(|words| words.join(" ") == wanted), "{wanted}");
    }
}

/// What a word in backquotes is: `just NAME`, `.ci/run STAGE`, a path that a link leads to.
#[test]
fn what_the_text_names_is_there() {
    let run = read(".ci/run");
    let all = run.lines().find_map(|line| line.strip_prefix("all=(")).expect("the stages").trim_end_matches(')');
    let mut stages: BTreeSet<&str> = all.split_whitespace().collect();
    // What runs only where it is named.
    stages.extend(run.lines().filter_map(|line| line.strip_prefix("stage_")?.split_once("()").map(|(name, _)| name)));
    let mut wrong = Vec::new();
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "contrib/README.md",
        "docs/design.md",
        "docs/measurements.md",
        "docs/several-hosts.md",
    ] {
        let text = read(document);
        for code in text.split('`').skip(1).step_by(2) {
            let missing = match code.split_whitespace().collect::<Vec<_>>()[..] {
                ["just", name, ..] if !name.starts_with('-') => recipe(name).is_none(),
                [".ci/run", name, ..] => !stages.contains(name),
                _ => false,
            };
            if missing {
                wrong.push(format!("{document}: {code}"));
            }
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let from: PathBuf = root().join(document).parent().expect("a parent").join(link);
            if !link.contains("://") && !from.exists() {
                wrong.push(format!("{document}: {link}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    let text = read("README.md");
    let unnamed: Vec<_> = stages.iter().filter(|stage| !text.contains(&format!("`{stage}`"))).collect();
    assert!(unnamed.is_empty(), "the README names no stage {unnamed:?}");
}

/// The lines of the example that a section begins with, and what they write into that file.
fn example(heading: &str, file: &str) -> (String, String) {
    let text = read("README.md");
    let section = text.split(&format!("\n{heading}\n")).nth(1).expect("a section");
    let lines = section.split("```bash\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let config = lines.split(&format!("> {file} <<'END'\n")).nth(1).and_then(|rest| rest.split("END\n").next());
    (lines.to_owned(), config.expect("a configuration").to_owned())
}

/// The example of push.
fn push_example() -> (String, String) {
    example("## Push", "push.toml")
}

/// Serves the configuration of that file on a port of its own, and answers where.
fn serve(directory: &Path, file: &str) -> (Started, String) {
    let mut server = handover(&["-l", "127.0.0.1:0", "-c", file]);
    let server = server.current_dir(directory).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("run");
    let mut server = Started(server);
    let mut said = BufReader::new(server.0.stdout.take().expect("a pipe")).lines().map(|line| line.expect("UTF-8"));
    let listening = said.next().expect("an address");
    (server, listening.strip_prefix("listening on http://").expect("an address").to_owned())
}

/// The answer to a GET with these fields, in whole.
fn got(address: &str, path: &str, fields: &str) -> String {
    let mut client = TcpStream::connect(address).expect("connected");
    client.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let head = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n");
    client.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    answer
}

/// `tests/clients` runs it with a real `curl`, and opens the page in a browser.
#[test]
fn the_example_of_push_is_that_of_the_files() {
    let (lines, config) = push_example();
    let others = lines.replace(&config, "").replace("END\n", "").replace("cat > push.toml <<'END'", "");
    let words = ["for", "do", "done"];
    for command in others.lines().flat_map(commands) {
        let own: Vec<_> = command.iter().filter(|word| !words.contains(&word.as_str())).cloned().collect();
        if command[0] == "for" || own.is_empty() {
            continue;
        }
        let own: Vec<_> = own.iter().map(|word| word.replace("push.toml", "examples/handover.toml")).collect();
        assert_eq!(check_command(&own), Ok(()), "{own:?}");
    }
    let page = read("examples/push/index.html");
    let script = page.split_inclusive("<script>").nth(1).and_then(|rest| rest.split("</script>").next()).expect("one");
    let shown = block_lines(&read("README.md"), "html").join("\n");
    let flat: Vec<_> = script.trim().lines().map(str::trim).collect();
    assert_eq!(shown, format!("<script>\n{}\n</script>", flat.join("\n")));
}

/// Ends what it has started, also where an assertion fails.
struct Started(std::process::Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Started {
    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.0.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }
}

/// What its lines do, where there is no `curl`.
#[test]
fn the_example_of_push_does_what_it_says() {
    let (lines, config) = push_example();
    let file = std::env::temp_dir().join(format!("handover-readme-{}.toml", std::process::id()));
    fs::write(&file, config).expect("written");
    let arguments = ["-l", "127.0.0.1:0", "-c", &file.to_string_lossy(), "examples/push"];
    let mut server = Started(handover(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("run"));
    let mut said = BufReader::new(server.0.stdout.take().expect("a pipe")).lines().map(|line| line.expect("UTF-8"));
    let listening = said.next().expect("an address");
    let address = listening.strip_prefix("listening on http://").expect("an address").to_owned();
    assert!(said.next().is_some_and(|line| line.contains("generation=1")));
    let ask = |request: &str| -> io::Result<TcpStream> {
        let mut client = TcpStream::connect(&address)?;
        client.set_read_timeout(Some(Duration::from_secs(30)))?;
        client.write_all(request.as_bytes())?;
        Ok(client)
    };
    let publish = |value: &str| {
        let head = "POST /events/temperature HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: ";
        let mut answer = String::new();
        let mut client = ask(&format!("{head}{}\r\n\r\n{value}", value.len())).expect("sent");
        client.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 200 OK\r\n") && answer.contains("\"subscribers\":1"), "{answer}");
    };
    let subscriber = ask("GET /events/temperature?since=last HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").expect("sent");
    let mut subscriber = BufReader::new(subscriber);
    let mut heard = String::new();
    while !heard.ends_with("\r\n\r\n") {
        assert!(subscriber.read_line(&mut heard).expect("a head") > 0, "{heard}");
    }
    assert!(lines.contains("for value in 21.5 21.7;") && lines.contains("-d 21.9 "));
    publish("21.5");
    publish("21.7");
    server.signal("-HUP");
    assert!(said.any(|line| line.contains("generation=2")));
    publish("21.9");
    server.signal("-TERM");
    subscriber.read_to_string(&mut heard).expect("the end");
    assert!(server.0.wait().expect("its end").success());
    fs::remove_file(&file).expect("removed");
    let values: Vec<_> = heard.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(values, ["21.5", "21.7", "21.9"], "{heard}");
    let last = heard.trim_end().lines().next_back().unwrap_or_default();
    assert!(last.starts_with("retry: "), "{heard}");
}

/// The same of the example of passwords, in a directory of its own.
#[test]
fn the_example_of_passwords_does_what_it_says() {
    let (lines, config) = example("### Passwords", "private.toml");
    let password = lines.split("printf '").nth(1).and_then(|rest| rest.split("\\n'").next()).expect("a password");
    let command = lines.split("./target/release/handover ").nth(1).and_then(|rest| rest.split(" #").next());
    let directory = std::env::temp_dir().join(format!("handover-readme-passwords-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let site = format!("directory = {:?}", root().join("examples/site"));
    fs::write(directory.join("private.toml"), config.replace("directory = \"examples/site\"", &site)).expect("written");
    let words: Vec<&str> = command.expect("a command").split_whitespace().collect();
    let mut made = handover(&words).current_dir(&directory).stdin(Stdio::piped()).spawn().expect("run");
    made.stdin.take().expect("a pipe").write_all(password.as_bytes()).expect("read");
    assert!(made.wait().expect("its end").success());
    let (_server, address) = serve(&directory, "private.toml");
    // As curl codes "ada:correct horse".
    for (field, status) in [("", "401 Unauthorized"), ("Authorization: Basic YWRhOmNvcnJlY3QgaG9yc2U=\r\n", "200 OK")] {
        let answer = got(&address, "/private/notes.txt", &format!("Host: x\r\n{field}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
    }
    assert!(
        password == "correct horse" && lines.contains("-u 'ada:correct horse'") && lines.contains("401 Unauthorized")
    );
    fs::remove_dir_all(&directory).expect("removed");
}

/// And of that of several sites: what each of its lines asks for has the answer that stands behind it.
#[test]
fn the_example_of_several_sites_does_what_it_says() {
    let (lines, config) = example("### Several sites", "sites.toml");
    let directory = std::env::temp_dir().join(format!("handover-readme-sites-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let site = format!("root = {:?}", root().join("examples/site"));
    fs::write(directory.join("sites.toml"), config.replace("root = \"examples/site\"", &site)).expect("written");
    let (_server, address) = serve(&directory, "sites.toml");
    let asks: Vec<&str> = lines.lines().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(asks.len(), 3, "{lines}");
    for (line, status) in asks.iter().zip(["200 OK", "302 Found", "421 Misdirected Request"]) {
        let (_, url) = line.split_once(" http://").expect("a URL");
        let (host, path) = url.split(' ').next().and_then(|url| url.split_once('/')).expect("a path");
        let answer = got(&address, &format!("/{path}"), &format!("Host: {host}\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{line}: {answer}");
        let said = line.split_once(" # ").map_or("", |(_, said)| said);
        assert!(answer.contains(said), "{line}: {answer}");
    }
    let notes = read("examples/site/notes.txt");
    assert!(got(&address, "/notes.txt", "Host: www.one.localhost\r\n").ends_with(&notes));
    fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn commands_are_found() {
    let found = |line: &str| commands(line).iter().map(|words| words.join(" ")).collect::<Vec<_>>();
    assert_eq!(found("a -b & lab=$!; sleep 1 # c; d"), ["a -b", "sleep 1"]);
    assert_eq!(found("X=1 kill -HUP $(cat lab.pid)"), ["kill -HUP", "cat lab.pid"]);
    assert_eq!(block_lines("```sh\na\n```\n```toml\nb\n```\n", "sh"), ["a"]);
    assert!(check_command(&["./target/release/nothing".into()]).is_err());
    assert!(check_command(&["cargo".into(), "build".into(), "--example".into(), "nothing".into()]).is_err());
    assert!(would_run(&["./nowhere".into()]).is_err());
}

/// Folders beside `src` and `crates`, whose rooms `layers.rs` holds.
#[test]
fn the_map_names_each_folder() {
    let map = read("ARCHITECTURE.md");
    let folders = fs::read_dir(root()).expect("the root").map(|entry| entry.expect("an entry"));
    let names =
        folders.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ours = names.filter(|name| !name.starts_with('.') && !["target", "src", "crates"].contains(&name.as_str()));
    let unnamed: Vec<_> = ours.filter(|name| !map.contains(&format!("- `{name}/`:"))).collect();
    assert!(unnamed.is_empty(), "{unnamed:?}");
    let named = map.lines().filter_map(|line| line.strip_prefix("- `")?.split_once("/`:")).map(|(name, _)| name);
    let gone: Vec<_> = named.filter(|name| !root().join(name).is_dir()).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

#[test]
fn each_file_that_a_document_names_is_there() {
    let mut wrong = Vec::new();
    for document in ["ARCHITECTURE.md", "docs/design.md"] {
        let text = read(document);
        for code in
            text.split('`').skip(1).step_by(2).filter(|code| code.ends_with(".rs") && !code.contains(['{', ' ']))
        {
            let places = ["", "src/"].map(|folder| root().join(folder).join(code));
            // `invariants.rs` stands in several rooms.
            if code.contains('/') && !places.iter().any(|place| place.is_file()) {
                wrong.push(format!("{document}: {code}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// What is depended on has its sentence.
#[test]
fn each_dependency_says_what_it_earns() {
    let (manifest, map) = (read("Cargo.toml"), read("ARCHITECTURE.md"));
    let section =
        manifest.split("\n[dependencies]\n").nth(1).and_then(|rest| rest.split("\n[").next()).expect("a section");
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let rows: Vec<&str> = map.lines().filter(|line| line.starts_with("| `")).collect();
    let names: Vec<&str> = names.filter(|name| !name.starts_with('#')).collect();
    assert!(names.len() > 5, "{names:?}");
    let silent: Vec<_> = names
        .iter()
        .filter(|name| {
            !rows.iter().any(|row| row.split('|').nth(1).is_some_and(|cell| cell.contains(&format!("`{name}`"))))
        })
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}
