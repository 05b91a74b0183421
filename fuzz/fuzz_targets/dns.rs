//! Arbitrary bytes as a DNS message, a resolv.conf and a hosts file: `ringprobe::dns::invariants` says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringprobe::dns::invariants::check(data));
