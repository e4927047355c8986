//! Tar archives, as anyone may send them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| images::fuzz::archive(bytes));
