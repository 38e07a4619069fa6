//! The log belongs to the process: one test, in a process of its own, that RUST_LOG does not reach.

use handover::{Config, init_logging};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn messages(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("log file");
    let from = format!("[{}.1] ", std::process::id());
    text.lines().map(|line| line.split_once(' ').expect("a time and more").1.replacen(&from, "", 1)).collect()
}

#[test]
fn a_log_file_is_appended_to_reopened_and_kept_when_that_fails() {
    if std::env::var_os("RUST_LOG").is_some() {
        let this = std::env::current_exe().expect("the test program");
        let status = Command::new(this).env_remove("RUST_LOG").status().expect("the test program runs");
        assert!(status.success(), "without RUST_LOG: {status}");
        return;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("logging-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("directory");
    let (path, rotated) = (directory.join("log"), directory.join("log.1"));
    fs::write(&path, "2026-01-01T00:00:00.000Z INFO  from an earlier run\n").expect("log file");

    let panics = Arc::new(AtomicUsize::new(0));
    let hooked = panics.clone();
    std::panic::set_hook(Box::new(move |_| _ = hooked.fetch_add(1, Ordering::Relaxed)));

    let log = init_logging(&Config { log_file: Some(path.clone()), ..Config::default() }).expect("log");
    log::info!("first");
    log::debug!("info is the default, this is not shown");
    assert_eq!(messages(&path), ["INFO  from an earlier run", "INFO  first"]);

    // The hook that was there is asked, and the log says nothing besides.
    assert!(std::thread::spawn(|| panic!("for the hook")).join().is_err());
    assert_eq!(panics.load(Ordering::Relaxed), 1);
    assert_eq!(messages(&path).len(), 2);

    let second = init_logging(&Config { log_file: Some(directory.join("ignored")), ..Config::default() });
    assert!(Arc::ptr_eq(&log, &second.expect("the first log")));
    assert!(!directory.join("ignored").exists());

    fs::rename(&path, &rotated).expect("rotate");
    log::info!("still into the old file");
    log.reopen();
    log::warn!("into the new file");
    assert_eq!(messages(&rotated)[2..], ["INFO  still into the old file"]);
    assert_eq!(messages(&path), [format!("INFO  reopened log file {path:?}"), "WARN  into the new file".to_owned()]);
    let mode = fs::metadata(&path).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "mode {mode:o}");

    fs::rename(&path, &rotated).expect("rotate");
    fs::create_dir(&path).expect("something in the way");
    log.reopen();
    log::info!("goes on");
    let kept = messages(&rotated);
    let why = "keeping the old one: it is a directory";
    assert_eq!(kept[2], format!("ERROR cannot reopen log file {path:?}, {why}"));
    assert_eq!(kept[3], "INFO  goes on");

    fs::remove_dir_all(&directory).expect("tidy up");
}
