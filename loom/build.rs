//! Faults put into the work queue, which its models have to find.

use std::env;
use std::fs;
use std::path::Path;

const SOURCE: &str = "../src/engine/pool/work_queue.rs";

/// The module's name, what stands in the source, and what stands there with the fault.
const FAULTS: &[(&str, &str, &str)] = &[
    ("no_second_look", "let taken = self.take()?;", "let taken: Option<T> = None?;"),
    ("nobody_wakes_the_next", "if found {\n            self.look_after_the_rest();\n        }", "let _ = found;"),
    ("no_look_after_the_last", "self.look_after_the_rest();\n        Some(taken)", "Some(taken)"),
    (
        "searches_for_ever",
        "if self.idle.end_rest(self.index) {\n            self.idle.searching.store(false, Ordering::SeqCst);\n        }",
        "self.idle.end_rest(self.index);",
    ),
    (
        "woken_before_the_end",
        "    sender: Sender<T>,\n    /// Behind the sender, because fields are dropped in their order.\n    idle: WakeAllOnDrop,",
        "    idle: WakeAllOnDrop,\n    sender: Sender<T>,",
    ),
];

fn main() {
    println!("cargo:rerun-if-changed={SOURCE}");
    let source = fs::read_to_string(SOURCE).unwrap_or_else(|error| panic!("{SOURCE}: {error}"));
    // Documentation of a whole file cannot be included.
    let source: String =
        source.lines().skip_while(|line| line.starts_with("//!")).map(|line| format!("{line}\n")).collect();
    let out = env::var("OUT_DIR").expect("cargo sets it");
    for (name, right, wrong) in FAULTS {
        assert_eq!(source.matches(right).count(), 1, "{SOURCE} has changed: put the fault {name} in anew");
        fs::write(Path::new(&out).join(format!("{name}.rs")), source.replace(right, wrong))
            .expect("OUT_DIR is writable");
    }
}
