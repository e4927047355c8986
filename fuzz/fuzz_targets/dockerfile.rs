//! Dockerfiles, ignore files, and the words in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| builder::fuzz::language(bytes));
