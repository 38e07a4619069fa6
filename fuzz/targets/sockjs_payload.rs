#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sockjs::invariants::payload(bytes));
