//! Arbitrary bytes as a chunked body, in three cuts: `ringprobe::http::invariants` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringprobe::http::invariants::check_chunked(data));
