#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| http1::invariants::stream(bytes));
