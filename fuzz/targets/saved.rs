#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};

// What is refused at once teaches nothing to who mutates it.
fuzz_target!(|bytes: &[u8]| -> Corpus {
    if websocket::invariants::saved(bytes) { Corpus::Keep } else { Corpus::Reject }
});
