//! References and digests.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| images::fuzz::names(text));
