//! Arbitrary bytes as a response, in three cuts: `ringprobe::http::invariants` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringprobe::http::invariants::check(data));
