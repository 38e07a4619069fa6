#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| handover::fuzzing::path(bytes));
