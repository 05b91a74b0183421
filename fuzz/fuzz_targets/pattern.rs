//! Arbitrary patterns on arbitrary bodies: the first line is the pattern, the rest the body. Whole and byte by byte
//! the verdict and the byte at which it is certain must be the same, and nothing may panic.

#![no_main]

use ringprobe::matcher::{Budgets, Compiler, Patterns};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (pattern, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let Ok(pattern) = std::str::from_utf8(pattern) else { return };
    let patterns = Patterns { body_match: vec![pattern.to_owned()], body_forbid: Vec::new() };
    let Ok(matcher) = Compiler::new(Budgets::default()).compile(&patterns) else { return };
    let run = |piece_bytes: usize| {
        let mut scan = matcher.start();
        for piece in body.chunks(piece_bytes) {
            matcher.feed(&mut scan, piece);
        }
        (matcher.finish(&mut scan), scan.certain_after_bytes())
    };
    assert_eq!(run(1), run(usize::MAX));
});
