//! What must hold of any pattern on any body: for the tests, and for the fuzzer.

use super::{Budgets, Compiler, Matcher, Patterns, Verdict};

/// Takes the first line for a pattern and the rest for a body. However the body is cut, the verdict is the same, and
/// so is the byte at which it is certain; a body that may not contain the pattern is judged the other way round.
///
/// # Panics
/// If not.
pub fn check(data: &[u8]) {
    let (pattern, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let Ok(pattern) = std::str::from_utf8(pattern) else { return };
    let pattern = vec![pattern.to_owned()];
    let mut compiler = Compiler::new(Budgets::default());
    let wanted = Patterns { body_match: pattern.clone(), body_forbid: Vec::new() };
    let Ok(matcher) = compiler.compile(&wanted) else { return };
    let whole = run(&matcher, body, usize::MAX);
    for piece_bytes in [1, 7] {
        assert_eq!(run(&matcher, body, piece_bytes), whole, "the verdict depends on the cut");
    }
    let unwanted = Patterns { body_match: Vec::new(), body_forbid: pattern };
    let matcher = compiler.compile(&unwanted).expect("what may be wanted may be unwanted");
    match (whole.0, run(&matcher, body, usize::MAX).0) {
        (Verdict::Matched, Verdict::Forbidden { .. })
        | (Verdict::Missing { .. }, Verdict::Matched)
        | (Verdict::Budget { .. }, _)
        | (_, Verdict::Budget { .. }) => {}
        (wanted, unwanted) => panic!("wanted: {wanted:?}, and unwanted: {unwanted:?}"),
    }
}

/// The verdict, and after how many bytes it was certain.
fn run(matcher: &Matcher, body: &[u8], piece_bytes: usize) -> (Verdict, Option<u64>) {
    let mut scan = matcher.start();
    for piece in body.chunks(piece_bytes) {
        matcher.feed(&mut scan, piece);
    }
    (matcher.finish(&mut scan), scan.certain_after_bytes())
}
