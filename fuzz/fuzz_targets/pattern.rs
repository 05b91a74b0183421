//! Arbitrary patterns on arbitrary bodies: `ringprobe::matcher::invariants` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringprobe::matcher::invariants::check(data));
