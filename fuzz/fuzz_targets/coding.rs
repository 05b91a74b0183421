//! Arbitrary bytes as coded content, in three cuts: `ringprobe::http::invariants` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringprobe::http::invariants::check_coding(data));
