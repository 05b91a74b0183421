//! Arbitrary bytes as an endpoint file: `ringprobe::endpoint::invariants` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringprobe::endpoint::invariants::check(data));
