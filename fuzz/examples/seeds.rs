//! Writes what each target begins with to `corpus/TARGET/`, out of the data files in `tests/requests`,
//! and what the crates below begin their tests with.

#[path = "../../tests/common/cases.rs"]
#[allow(dead_code, reason = "what judges answers is for the tests of a server")]
mod cases;

use cases::Case;
use std::fs;
use std::path::Path;

fn main() {
    let cases = Case::all_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/requests"));
    let requests: Vec<Vec<u8>> = cases.iter().map(Case::bytes).collect();
    let bodies = requests.iter().filter_map(|bytes| {
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some(bytes[head + 4..].to_vec())
    });
    let bodies: Vec<Vec<u8>> = bodies.filter(|body| !body.is_empty()).collect();
    let lines: Vec<String> = requests
        .iter()
        .flat_map(|bytes| String::from_utf8_lossy(bytes).split("\r\n").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let field = |name: &str| {
        let values = lines.iter().filter_map(|line| line.strip_prefix(name)?.split_once(": "));
        values.map(|(_, value)| value.to_owned()).collect::<Vec<String>>()
    };
    let of = |texts: Vec<String>| texts.into_iter().map(String::into_bytes).collect::<Vec<Vec<u8>>>();
    let tagged =
        |tag: char, name: &str| field(name).into_iter().map(|value| format!("{tag}{value}")).collect::<Vec<_>>();

    write("frames", websocket::invariants::frames_seeds());
    write("saved", websocket::invariants::saved_seeds());
    write("handshake", websocket::invariants::handshake_seeds());
    write("inflate", websocket::invariants::inflate_seeds().collect());
    write("log", vec![pubsub::invariants::sample()]);
    write("sockjs_saved", sockjs::invariants::samples());
    let payloads = [r#"["a","b"]"#, r#"["\ud83d\ude00\ud800"]"#, "d=%5B%22x%22%5D", r#"[" \n",1,[[{}]]]"#];
    write("sockjs_payload", payloads.map(|text| text.as_bytes().to_vec()).into());
    let asked = ["/000/a/xhr_streaming", "/iframe-1.6.html", "JSESSIONID=x; a=b", "https://one.example", "c=%63b&t=1"];
    write("sockjs_request", asked.map(|text| text.as_bytes().to_vec()).into());
    write(
        "framing",
        [
            tagged('\0', "Content-Length"),
            tagged('\u{1}', "Transfer-Encoding"),
            tagged('\u{2}', "Expect"),
            tagged('\u{3}', "Connection"),
        ]
        .concat()
        .into_iter()
        .map(String::into_bytes)
        .collect(),
    );
    let sized = |size: u8| {
        field("Range").into_iter().map(move |value| [&[0, 0, 0, 0, 0, 0, 0, size][..], value.as_bytes()].concat())
    };
    write("range", sized(11).chain(sized(0)).collect());
    let mut conditions = of(field("If-"));
    conditions.extend([b"\"tag\"".to_vec(), b"W/\"tag\", \"x,y\"".to_vec()]);
    write("dates", conditions);
    let paths =
        of(lines.iter().filter_map(|line| line.strip_prefix("GET /")?.split(' ').next()).map(str::to_owned).collect());
    let linked = [
        "in\n../out/f\n../../f\n../../../secret\na/b/l3",
        "a\nl0/b\n..\nc\nl1/f",
        "up/root/f\nin/c/",
        "/f\nl0",
        "/etc/passwd\n/\nl0",
        ".\n./a/./\na/l2/c",
        "~/a/b\n~/..\n~\n~/f\nl0/l3",
        "~/../outside\n~x/f\n~//./a/./b/f\n~/l1\na/l2",
        "~/l1/secret\n~/..\n../~\n/\nl0",
    ];
    write("below", paths.iter().cloned().chain(linked.iter().map(|text| text.as_bytes().to_vec())).collect());
    write("path", paths);
    write("decoder", bodies.iter().map(|body| [&[4, 0, 0, 0, 0][..], body].concat()).collect());
    write("chunked", bodies);
    write("state", handover::fuzzing::states());
    write("head", requests.clone());
    write("stream", requests);
}

fn write(target: &str, seeds: Vec<Vec<u8>>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory).expect("a directory for seeds");
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(directory.join(format!("seed-{number}")), seed).expect("a seed");
    }
    println!("{target}: {} seeds", seeds.len());
}
