//! The matcher at its boundary: patterns and bodies in, verdicts out, against a naive reference, the `regex` crate
//! and Python's own answers.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests, helpers included; seeds are printed")]

#[path = "support/naive.rs"]
mod naive;

use ringprobe::clock::Mono;
use ringprobe::matcher::{
    self, Budgets, Certainty, Charset, Compiler, Matcher, Node, Patterns, Transcoder, Verdict,
};

/// The pattern that the matcher was made for.
const FOUNDING: &str = include_str!("data/patterns/founding.txt");

/// Numbers that a seed repeats (xorshift64).
struct Random(u64);

impl Random {
    /// From `RINGPROBE_SEED`, or from the clock; says which.
    fn seeded() -> Self {
        let given = std::env::var("RINGPROBE_SEED").ok();
        let seed =
            given.map_or_else(|| Mono::now().0, |seed| seed.parse().expect("RINGPROBE_SEED is a number"));
        println!("RINGPROBE_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % bound as u64).unwrap()
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

fn required(pattern: &str) -> Patterns {
    Patterns { body_match: vec![pattern.to_owned()], body_forbid: Vec::new() }
}

fn tree(pattern: &str) -> Node {
    matcher::parse(pattern, 4096).unwrap_or_else(|fault| panic!("{pattern}: {fault:?}")).node
}

/// The verdict, and after how many bytes it was certain. Checks on the way that it never changes.
fn run<'a>(matcher: &Matcher, pieces: impl Iterator<Item = &'a [u8]>) -> (Verdict, u64) {
    let mut scan = matcher.start();
    let mut certain = matcher.verdict_so_far(&scan);
    for piece in pieces {
        let now = match matcher.feed(&mut scan, piece) {
            Certainty::More => None,
            Certainty::Certain(verdict) => Some(verdict),
        };
        assert!(certain.is_none() || certain == now, "certain, and then not: {certain:?} {now:?}");
        assert_eq!(now, matcher.verdict_so_far(&scan));
        certain = now;
    }
    let verdict = matcher.finish(&mut scan);
    assert!(certain.is_none() || certain == Some(verdict), "certain, and then not: {certain:?} {verdict:?}");
    (verdict, scan.certain_after_bytes().expect("it is over"))
}

/// The verdict on a body, the same whole, byte by byte, and at random cuts with empty pieces between.
fn verdict(matcher: &Matcher, body: &[u8], random: &mut Random) -> (Verdict, u64) {
    let whole = run(matcher, std::iter::once(body));
    assert_eq!(whole, run(matcher, body.chunks(1)), "byte by byte");
    let mut pieces = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(random.below(rest.len() + 1));
        pieces.push(piece);
        rest = after;
    }
    assert_eq!(whole, run(matcher, pieces.into_iter()), "at random cuts");
    whole
}

fn is_found(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Matched => true,
        Verdict::Missing { pattern: 0 } => false,
        other => panic!("a verdict that one required pattern cannot have: {other:?}"),
    }
}

/// A body that the founding pattern may match, or nearly.
fn founding_body(random: &mut Random) -> Vec<u8> {
    let words =
        ["you", "welcome", "forbidden", "the", "meeting", "hall", "Tuesday", "a", "xy", "abc", "sevenup"];
    let mut body = String::new();
    let parts: [(usize, &[&str]); 12] = [
        (9, &["you are ", "hello you ", "you", "you\n"]),
        (9, &["welcome ", "welcome to ", "so welcome, ", "welcome"]),
        (1, &["forbidden ", "it is forbidden"]),
        (8, &["the meeting ", "some words here", "abc def ghi", "abcdef ghijkl mno pqr"]),
        (2, &["room", " hall", "hallway hall"]),
        (10, &[" ", "\t", "\n", ""]),
        (10, &["12", "7", "999", "100", "200", "1000", "101"]),
        (10, &[" ", "  ", "\n"]),
        (10, &["at", "on", "in"]),
        (10, &[" 10:30", " 09:05", " 9:05", "\t23:59", " 10:305"]),
        (10, &[" AM", " PM", "\nPM", " XM", "AM", ""]),
        (3, &["\n", "\n\n", ".", "x"]),
    ];
    for (chance, choices) in parts {
        // The first choice is one that a match may have, mostly.
        let choice = if random.below(10) < 7 { choices[0] } else { random.pick(choices) };
        if random.below(10) < chance {
            body += choice;
        }
    }
    let mut body = body.into_bytes();
    for _ in 0..random.below(6).saturating_sub(3) {
        let at = random.below(body.len() + 1);
        match random.below(4) {
            0 if at < body.len() => drop(body.remove(at)),
            1 => body.insert(at, *random.pick(&[b" ", b"\n", b"1", b"x"]).first().unwrap()),
            2 => drop(body.splice(at..at, random.pick(&words).bytes())),
            _ if at < body.len() => body[at] = u8::try_from(random.below(256)).unwrap(),
            _ => {}
        }
    }
    body.truncate(naive::TEXT_BYTES_MAX);
    body
}

#[test]
fn the_founding_pattern_is_right() {
    let mut random = Random::seeded();
    let matcher = Compiler::new(Budgets::default()).compile(&required(FOUNDING)).unwrap();
    assert!(matcher.bytes() <= 8 * 1024, "{} bytes: {:?}", matcher.bytes(), matcher.explain());
    let tree = tree(FOUNDING);
    let mut found = 0;
    for number in 0..12_000 {
        let body = founding_body(&mut random);
        let expected = naive::contains(&tree, &body);
        found += usize::from(expected);
        for size in [1, 2, 3, 7, 16, 4096] {
            let (verdict, _) = run(&matcher, body.chunks(size));
            assert_eq!(is_found(verdict), expected, "body {number}: {:?}", String::from_utf8_lossy(&body));
        }
    }
    assert!((1_000..11_000).contains(&found), "bodies of both sorts: {found} of 12,000 match");
}

/// A pattern of the generator's, with lookarounds nested in anything if `looks`.
fn pattern(random: &mut Random, depth: usize, looks: bool) -> String {
    let atoms = [
        "a", "b", "c", "ab", "[ab]", "[^a]", ".", "_", " ", r"\n", r"\w", r"\W", r"\s", r"\b", r"\B", "^",
        "$", r"\Z", "(?m:^)", "(?m:$)", "(?s:.)", "(?i:B)", "",
    ];
    if depth == 0 || random.one_in(4) {
        return random.pick(&atoms).to_owned();
    }
    let inner = |random: &mut Random| pattern(random, depth - 1, looks);
    match random.below(if looks { 9 } else { 5 }) {
        0 | 1 => inner(random) + &inner(random),
        2 => format!("(?:{}|{})", inner(random), inner(random)),
        3 => {
            format!("(?:{})", inner(random))
                + random.pick(&["*", "+", "?", "{2}", "{0,2}", "{1,3}", "{2,}", "*?"])
        }
        4 => inner(random) + &inner(random) + &inner(random),
        5 => format!("(?={})", inner(random)),
        6 => format!("(?!{})", inner(random)),
        7 => format!("(?<={})", inner(random)),
        _ => format!("(?<!{})", inner(random)),
    }
}

fn text(random: &mut Random, length_max: usize) -> Vec<u8> {
    (0..random.below(length_max + 1))
        .map(|_| *random.pick(&[b"a", b"b", b"c", b"_", b" ", b"\n", b"B", b"\xff"]).first().unwrap())
        .collect()
}

/// How often more than usual: `RINGPROBE_MATCHER_ROUNDS`.
fn rounds() -> usize {
    std::env::var("RINGPROBE_MATCHER_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number"))
}

#[test]
fn random_patterns_with_lookarounds_are_right() {
    let mut random = Random::seeded();
    let (mut pairs, mut found, mut refused, mut patterns) = (0, 0, 0, 0);
    while pairs < 100_000 * rounds() {
        let depth = 1 + random.below(5);
        let source = pattern(&mut random, depth, true);
        let tree = tree(&source);
        patterns += 1;
        let matcher = match Compiler::new(Budgets::default()).compile(&required(&source)) {
            Ok(matcher) => matcher,
            Err(error) => {
                assert!(error.message.contains("over budget"), "{source}: {error}");
                refused += 1;
                continue;
            }
        };
        for _ in 0..20 {
            pairs += 1;
            let body = text(&mut random, 12);
            let expected = naive::contains(&tree, &body);
            found += usize::from(expected);
            let (verdict, certain_after) = verdict(&matcher, &body, &mut random);
            assert_eq!(is_found(verdict), expected, "{source} on {:?}", String::from_utf8_lossy(&body));
            // What is certain stays true, whatever follows.
            let certain_after = usize::try_from(certain_after).unwrap();
            if certain_after < body.len() {
                let mut other = body[..certain_after].to_vec();
                other.extend(text(&mut random, 12));
                assert_eq!(
                    naive::contains(&tree, &other),
                    expected,
                    "{source} on {other:?}: certain too early"
                );
            }
        }
    }
    println!("{patterns} patterns, {refused} over budget; {found} of {pairs} pairs match");
    assert!(refused * 50 < patterns, "{refused} of {patterns} patterns are over budget");
    assert!(found * 10 > pairs && found * 10 < pairs * 9, "pairs of both sorts");
}

/// A vector file of `tests/data/patterns`, without its comments.
fn vectors(name: &str) -> Vec<String> {
    let path = format!("{}/tests/data/patterns/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn python_says_the_same() {
    let mut random = Random::seeded();
    let mut compiler = Compiler::new(Budgets::default());
    let (mut lines, mut found) = (0, 0);
    for line in vectors("python.jsonl") {
        let (pattern, text, expected): (String, String, bool) = serde_json::from_str(&line).unwrap();
        let body: Vec<u8> = text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect();
        let matcher =
            compiler.compile(&required(&pattern)).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        let (verdict, _) = verdict(&matcher, &body, &mut random);
        assert_eq!(is_found(verdict), expected, "{line}");
        lines += 1;
        found += usize::from(expected);
    }
    assert!(lines > 2_000 && found > 500 && found < lines - 500, "{found} of {lines}");
}

#[test]
fn what_no_table_can_do_is_refused_with_advice() {
    for line in vectors("errors.txt") {
        let [pattern, offset, message] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let error = Compiler::new(Budgets::default())
            .compile(&Patterns {
                body_forbid: vec!["fine".to_owned(), pattern.to_owned()],
                ..Patterns::default()
            })
            .expect_err(pattern);
        assert_eq!((error.list, error.index), ("body_forbid", 1), "{pattern}");
        assert_eq!(error.offset.to_string(), offset, "{pattern}: {error}");
        assert!(error.message.contains(message), "{pattern}: {error}");
        assert!(!error.to_string().contains('\n'));
    }
}

/// Patterns of any bytes at all end in a tree or an error; and what parses compiles or is over budget.
#[test]
fn no_text_breaks_the_parser() {
    let mut random = Random::seeded();
    let pieces = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "?",
        "*",
        "+",
        "|",
        "^",
        "$",
        ".",
        "\\",
        "a",
        "é",
        "1",
        ",",
        "-",
        ":",
        "=",
        "!",
        "<",
        ">",
        "P",
        "#",
        "i",
        "u",
        "x",
        "\\d",
        "\\b",
        "\\x",
        "(?",
        "(?:",
        "(?=",
        "(?<!",
        "(?u)",
        "{2,3}",
        "\n",
        " ",
        "\u{1F600}",
    ];
    let (mut parsed, mut refused) = (0, 0);
    for _ in 0..30_000 {
        let pattern: String = (0..random.below(12)).map(|_| random.pick(&pieces)).collect();
        match Compiler::new(Budgets::default()).compile(&required(&pattern)) {
            Ok(_) => parsed += 1,
            Err(error) => {
                assert!(error.offset <= pattern.len(), "{pattern}: {error}");
                refused += 1;
            }
        }
    }
    assert!(parsed > 1_000 && refused > 1_000, "{parsed} parsed, {refused} refused");
    // As deep as it goes, and one deeper; as long as it may be, and longer.
    let nested = |depth: usize| "(".repeat(depth) + "a" + &")*".repeat(depth);
    let compile = |pattern: &str| Compiler::new(Budgets::default()).compile(&required(pattern));
    assert!(compile(&nested(64)).is_ok());
    assert!(compile(&nested(65)).unwrap_err().message.contains("nested deeper"));
    assert!(compile(&"(?=".repeat(5_000)).unwrap_err().message.contains("4096 bytes"));
    for long in [
        r"\b".repeat(2_000),
        "a?".repeat(2_000),
        "(?=a)".repeat(800),
        "(?<=a)".repeat(600),
        "$".repeat(4_000),
    ] {
        if let Err(error) = compile(&long) {
            assert!(error.message.contains("over budget"), "{error}");
        }
    }
}

#[test]
fn the_regex_crate_says_the_same_and_so_do_both_compilers() {
    let mut random = Random::seeded();
    let budgets = Budgets::default();
    let lazy = Budgets { table_bytes_soft: 0, ..budgets };
    let (mut compared, mut found, mut equal) = (0, 0, 0);
    while compared < 20_000 * rounds() {
        let source = pattern(&mut random, 4, false);
        let tree = tree(&source);
        // Without `$`, of which it has another opinion.
        let is_plain = !source.replace("(?m:$)", "").contains('$');
        let (eager, lazily) = (
            Compiler::new(budgets).compile(&required(&source)),
            Compiler::new(lazy).compile(&required(&source)),
        );
        let (eager, lazily) = (eager.unwrap(), lazily.unwrap());
        if let (Some(determinized), Some(derived)) =
            (matcher::automaton(&tree, false, &budgets), matcher::automaton(&tree, true, &budgets))
        {
            let difference = determinized.difference(&derived);
            assert_eq!(difference, None, "{source}: the compilers differ");
            assert!(determinized == derived, "{source}: equal languages in two forms");
            assert!(
                determinized.difference(&derived.complement()).is_some(),
                "{source}: a complement is equal"
            );
            equal += 1;
        }
        let regex = regex::bytes::Regex::new(&format!("(?-u){}", source.replace(r"\Z", r"\z"))).unwrap();
        for _ in 0..10 {
            compared += 1;
            let body = text(&mut random, 20);
            let (verdict, _) = verdict(&eager, &body, &mut random);
            let (lazily, _) = self::verdict(&lazily, &body, &mut random);
            assert_eq!(verdict, lazily, "{source} on {body:?}: the tiers differ");
            if is_plain {
                assert_eq!(is_found(verdict), regex.is_match(&body), "{source} on {body:?}");
                found += usize::from(is_found(verdict));
            }
        }
    }
    println!("{equal} automata were equal; {found} of {compared} pairs match");
    assert!(equal * 20 > compared && found * 10 > compared);
}

/// A cell of the documentation's table: a text with `\n` and `\xHH` for bytes.
fn bytes_of(cell: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = cell.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let (byte, taken) = match (byte, after) {
            (b'\\', [b'n', ..]) => (b'\n', 1),
            (b'\\', [b'x', high, low, ..]) => {
                let digits = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap(), 3)
            }
            _ => (*byte, 0),
        };
        bytes.push(byte);
        rest = &after[taken..];
    }
    bytes
}

#[test]
fn what_the_documentation_shows_is_so() {
    let mut random = Random::seeded();
    let path = format!("{}/docs/patterns.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut seen = 0;
    for line in text.lines() {
        let (line, expected) = match (line.strip_suffix("` | yes |"), line.strip_suffix("` | no |")) {
            (Some(line), _) => (line, true),
            (_, Some(line)) => (line, false),
            _ => continue,
        };
        let (pattern, body) = line.strip_prefix("| `").unwrap().split_once("` | `").unwrap();
        let matcher = Compiler::new(Budgets::default()).compile(&required(pattern)).unwrap();
        let (verdict, _) = verdict(&matcher, &bytes_of(body), &mut random);
        assert_eq!(is_found(verdict), expected, "{pattern} on {body}");
        seen += 1;
    }
    assert!(seen > 20, "{seen} examples");
    let (_, refused) = text.split_once("\nRefused, with").unwrap();
    let (refused, _) = refused.split_once("\nWith `charset").unwrap();
    let cells =
        refused.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.split(" | ").nth(1));
    let refused: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(refused.len() > 8, "{refused:?}");
    for pattern in refused {
        Compiler::new(Budgets::default()).compile(&required(pattern)).expect_err(pattern);
    }
    for (pattern, bytes) in [(r"\d{4}-\d\d-\d\d", 500..2_000), (r"(?u)\d{4}-\d\d-\d\d", 20_000..34_000)] {
        let matcher = Compiler::new(Budgets::default()).compile(&required(pattern)).unwrap();
        assert!(bytes.contains(&matcher.bytes()), "{pattern} takes {} bytes", matcher.bytes());
    }
}

#[test]
fn several_patterns_are_judged_together() {
    let mut random = Random::seeded();
    let mut compiler = Compiler::new(Budgets::default());
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mut check =
        |required: &[&str], forbidden: &[&str], body: &str, expected: Verdict, certain_after: u64| {
            let patterns = Patterns { body_match: list(required), body_forbid: list(forbidden) };
            let matcher = compiler.compile(&patterns).unwrap();
            let found = verdict(&matcher, body.as_bytes(), &mut random);
            assert_eq!(found, (expected, certain_after), "{patterns:?} on {body}");
        };
    check(&[], &[], "anything", Verdict::Matched, 0);
    check(&[""], &[], "", Verdict::Matched, 0);
    check(&["one", "two"], &[], "two one three", Verdict::Matched, 7);
    check(&["one", "two", "four"], &[], "two one three", Verdict::Missing { pattern: 2 }, 13);
    check(&["four", "five"], &[], "two one three", Verdict::Missing { pattern: 0 }, 13);
    // The first to be certain is told, and not the first of the list.
    check(&["four", "^five"], &[], "two one three", Verdict::Missing { pattern: 1 }, 1);
    check(&["one"], &["error", "fatal"], "one fatal error", Verdict::Forbidden { pattern: 1 }, 9);
    check(&["none"], &["error", "fatal"], "one fatal error", Verdict::Forbidden { pattern: 1 }, 9);
    check(&["one"], &["error"], "one", Verdict::Matched, 3);
    check(&["one"], &["error$"], "one error\n", Verdict::Forbidden { pattern: 0 }, 10);
    check(&["one"], &["^error", "^fatal"], "no, one", Verdict::Matched, 7);
    check(&["^(?=.*a)(?!.*b)c"], &["^(?=.*a)(?!.*b)d"], "c, a", Verdict::Matched, 4);
    // More conjuncts than stand in a scan, and more than walk abreast.
    check(&["a", "b", "c", "d", "e", "f"], &["x", "y", "z"], "fedcba", Verdict::Matched, 6);
    check(
        &["a+b", "b+c", "c+d", "d+e", "e+f", "f+g"],
        &["[xy]z"],
        "abcdefg xz",
        Verdict::Forbidden { pattern: 0 },
        10,
    );
}

/// Long bodies, in which tables skip, stop skipping, and walk abreast: cut anywhere, the same byte is certain.
#[test]
fn skipping_and_walking_abreast_change_nothing() {
    let mut random = Random::seeded();
    let mut compiler = Compiler::new(Budgets::default());
    let choices = [
        "needle",
        "<title>[^<]*x",
        "^(?=.*you)(?!.*forbidden).*hall$",
        r"(?s)a.*zz",
        r"\bq\w+k\b",
        r"(?:ab|cd)e",
        "nee",
    ];
    let words = [
        "needl",
        "needle",
        "<title>",
        "x",
        "you ",
        "forbidden",
        " hall",
        "a",
        "z",
        " quack ",
        "abe",
        "\n",
        "nneedle",
    ];
    for _ in 0..300 {
        let mut pick =
            |count: usize| (0..count).map(|_| random.pick(&choices).to_owned()).collect::<Vec<_>>();
        let patterns = Patterns { body_match: pick(3), body_forbid: pick(3) };
        let matcher = compiler.compile(&patterns).unwrap();
        let mut body = Vec::new();
        let length = 1 + random.below(60_000);
        while body.len() < length {
            match random.below(40) {
                0 => body.extend(random.pick(&words).bytes()),
                1 => body.extend(std::iter::repeat_n(b'-', random.below(20_000))),
                _ => body.extend(std::iter::repeat_n(b"n<ya z\n"[random.below(7)], random.below(8))),
            }
        }
        let found = verdict(&matcher, &body, &mut random);
        let is_in = |pattern: &str| {
            let alone = compiler_free(pattern);
            alone.accepts(&body)
        };
        let all = patterns.body_match.iter().all(|pattern| is_in(pattern));
        let none = !patterns.body_forbid.iter().any(|pattern| is_in(pattern));
        assert_eq!(found.0 == Verdict::Matched, all && none, "{patterns:?}");
    }
}

/// The automaton of a pattern, neither split nor packed.
fn compiler_free(pattern: &str) -> matcher::Dfa {
    matcher::automaton(&tree(pattern), true, &Budgets::default()).unwrap()
}

#[test]
fn equal_patterns_and_equal_languages_are_shared() {
    let mut compiler = Compiler::new(Budgets::default());
    let first = compiler.compile(&required(r"a[0-9]+b")).unwrap();
    let bytes = compiler.bytes_total();
    assert!(bytes > 0 && bytes == first.bytes());
    let again = compiler.compile(&required(r"a[0-9]+b")).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    // Other texts of the same meaning, one of them through the other compiler.
    for same in [r"a\d\d*b", r"(?:a\d+b|a\d+b)", r"(?=a\d+b)a\d"] {
        let same = compiler.compile(&required(same)).unwrap();
        assert_eq!((same.states(), compiler.bytes_total()), (first.states(), bytes));
    }
    compiler.compile(&required("else")).unwrap();
    assert!(compiler.bytes_total() > bytes);
}

#[test]
fn what_is_too_large_is_lazy_or_refused() {
    let compile = |pattern: &str| Compiler::new(Budgets::default()).compile(&required(pattern));
    let gap = compile(r#""id":".{1,200}"active":true"#).unwrap();
    assert_eq!(gap.tier(), Some(matcher::Tier::Lazy));
    // Large as it is written, but to contain it is to contain an `a`.
    assert_eq!(compile(r"(?:(?:a{1,900}){1,900}){1,900}").unwrap().tier(), Some(matcher::Tier::Table));
    let refused = [
        (r"(?<=a.{40})b(?=.{40}c)", "{40}"),
        (r"(?u)(?:\w{1,60}\s){1,60}\b", "{1,60}"),
        (r"(?!(?:a|b).{30}c)(?:a|b).{30}d", "{30}"),
    ];
    for (pattern, repeat) in refused {
        let error = compile(pattern).expect_err(pattern);
        assert!(error.message.contains("over budget"), "{pattern}: {error}");
        assert!(
            pattern[error.offset..].starts_with(repeat) && error.message.contains(repeat),
            "{pattern}: {error}"
        );
    }
    let small = Budgets { tables_bytes_max: 10, ..Budgets::default() };
    let error = Compiler::new(small).compile(&required("a")).unwrap_err();
    assert!(error.message.contains("all patterns together"), "{error}");
    let many = Patterns { body_match: (0..17).map(|n| format!("a{n}")).collect(), ..Patterns::default() };
    assert_eq!(Compiler::new(Budgets::default()).compile(&many).unwrap_err().index, 16);
}

/// A body that needs a new state for nearly every byte: given up at the same byte in every cut, neither matched
/// nor missing.
#[test]
fn an_unlucky_body_ends_the_lazy_tier_and_not_the_probe() {
    let mut random = Random::seeded();
    let budgets = Budgets { lazy_bytes_max: 32 * 1024, ..Budgets::default() };
    let patterns =
        Patterns { body_match: vec!["a".to_owned()], body_forbid: vec![r"(?:a|e)[^\n]{40}zq".to_owned()] };
    let matcher = Compiler::new(budgets).compile(&patterns).unwrap();
    assert_eq!(matcher.tier(), Some(matcher::Tier::Lazy));
    let unlucky: Vec<u8> = (0..200_000).map(|_| b"aexz"[random.below(4)]).collect();
    let (found, certain_after) = verdict(&matcher, &unlucky, &mut random);
    assert_eq!(found, Verdict::Budget { pattern: 1 });
    assert!(certain_after < 100_000);
    // The next body begins anew.
    let (found, _) = verdict(&matcher, &b"xa..".repeat(50_000), &mut random);
    assert_eq!(found, Verdict::Matched);
}

/// A page, a log and a list of records of a megabyte, as they are: none of them is out of budget.
#[test]
fn ordinary_bodies_have_their_verdict_in_the_lazy_tier() {
    let mut random = Random::seeded();
    let words =
        ["the", "order", "of", "a", "customer", "price", "in", "stock", "page", "and", "active", "user"];
    let mut body = |part: &dyn Fn(usize, &str, &mut Random) -> String| {
        let mut text = String::new();
        for number in 0.. {
            if text.len() > 1 << 20 {
                break;
            }
            let prose: Vec<&str> = (0..random.below(40)).map(|_| random.pick(&words)).collect();
            text += &part(number, &prose.join(" "), &mut random);
        }
        text.into_bytes()
    };
    let html = body(&|number, prose, random| {
        format!(
            "<div class=\"row\" id=\"item-{number}\">\n<p>{prose}</p><b>{}.99</b></div>\n",
            random.below(500)
        )
    });
    let log = body(&|number, prose, random| {
        let level = if random.one_in(100) { "error" } else { "info" };
        format!(
            "2026-11-26T{:02}:07:{number:06} {level} [worker-{}] {prose}\n",
            random.below(24),
            random.below(32)
        )
    });
    let json = body(&|number, prose, random| {
        let failed = if random.one_in(50) { ",\"failed\":true" } else { "" };
        format!("{{\"id\":\"{number:08x}\",\"name\":\"{prose}\"{failed},\"price\":{}}},\n", random.below(900))
    });
    let cases: [(&[u8], &str, &str); 6] = [
        (&html, r"item-7[^}]{1,400}9\.99", r"<div[^>]{1,200}>[^<]{1,500}Sold out"),
        (&html, r"order.{1,200}</p><b>\d", "item 1007[^<]{0,200} in stock"),
        (&log, r"error.{1,200}order", "error.{1,200}code 1007"),
        (&log, r"\[worker-7\].{1,200}price", r"FATAL.{1,300}worker"),
        (&json, r#""failed":true.{1,200}price"#, r#""failed":true.{1,200}"active":true"#),
        (&json, r#""id":"0000[0-9a-f]{4}".{1,200}"price":\d"#, "Exception.{1,400}at line"),
    ];
    for (body, there, not_there) in cases {
        for (pattern, expected) in [(there, Verdict::Matched), (not_there, Verdict::Missing { pattern: 0 })] {
            let matcher = Compiler::new(Budgets::default()).compile(&required(pattern)).unwrap();
            assert_eq!(matcher.tier(), Some(matcher::Tier::Lazy), "{pattern}");
            assert_eq!(run(&matcher, body.chunks(16 << 10)).0, expected, "{pattern}");
        }
    }
}

#[test]
fn unicode_is_as_the_regex_crate_has_it() {
    let mut random = Random::seeded();
    let patterns =
        [r"\w+é", r"[^a]b", r"(?i)straße", r"\d{2}", r"\s.", "[à-ü]{2}", r"(?i)[k]", r".\W", "日|[^本]$"];
    for pattern in patterns {
        let matcher =
            Compiler::new(Budgets::default()).compile(&required(&format!("(?u){pattern}"))).unwrap();
        let tree = tree(&format!("(?u){pattern}"));
        // Its `$` is our `\Z`.
        let regex = regex::bytes::Regex::new(pattern).unwrap();
        for _ in 0..300 {
            let pieces: [&[u8]; 12] =
                ["é", "à", "STRASSE", "straße", "K", "٣", "\u{2003}", "日", "本", "a", "b"]
                    .map(str::as_bytes)
                    .into_iter()
                    .chain([&b"\xff"[..]])
                    .collect::<Vec<_>>()
                    .try_into()
                    .unwrap();
            let body: Vec<u8> =
                (0..random.below(6)).flat_map(|_| pieces[random.below(12)].to_vec()).collect();
            let (verdict, _) = verdict(&matcher, &body, &mut random);
            assert_eq!(is_found(verdict), regex.is_match(&body), "{pattern} on {body:?}");
            assert_eq!(is_found(verdict), naive::contains(&tree, &body), "{pattern} on {body:?}");
        }
    }
}

#[test]
fn charsets_become_utf_8_in_any_cut() {
    let mut random = Random::seeded();
    let check =
        |charset: Charset, content_type: Option<&str>, body: &[u8], expected: &str, random: &mut Random| {
            let feed = |pieces: &mut dyn Iterator<Item = &[u8]>| {
                let mut transcoder = Transcoder::new(charset, content_type.map(str::as_bytes));
                let mut text = Vec::new();
                for piece in pieces {
                    transcoder.feed(piece, &mut |part: &[u8]| text.extend_from_slice(part));
                }
                transcoder.finish(&mut |part: &[u8]| text.extend_from_slice(part));
                text
            };
            let whole = feed(&mut std::iter::once(body));
            assert_eq!(String::from_utf8_lossy(&whole), expected, "{content_type:?}");
            assert_eq!(whole, feed(&mut body.chunks(1)), "byte by byte");
            let cut = random.below(body.len() + 1);
            assert_eq!(whole, feed(&mut [&body[..cut], b"", &body[cut..]].into_iter()), "cut at {cut}");
        };
    let html = |charset: &str| format!("text/html; a=b; Charset={charset}");
    let mut auto = |content_type: Option<&str>, body: &[u8], expected: &str| {
        check(Charset::Auto, content_type, body, expected, &mut random);
    };
    auto(Some(&html("iso-8859-1")), b"caf\xe9", "café");
    auto(Some(&html("\"windows-1251\"")), b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет");
    auto(Some(&html("shift_jis")), b"\x93\xfa\x96\x7b", "日本");
    auto(Some(&html("utf-16le")), b"h\0i\0\x3d\xd8\x00\xde", "hi\u{1F600}");
    auto(Some(&html("iso-8859-1")), b"\xef\xbb\xbfcaf\xc3\xa9", "café");
    auto(None, b"\xfe\xff\0h\0i", "hi");
    auto(None, b"\xff\xfeh\0i\0", "hi");
    auto(None, b"\xef\xbb\xbfhi", "hi");
    auto(None, b"\xef\xbb", "\u{fffd}");
    auto(Some(&html("no-such")), "naïve".as_bytes(), "naïve");
    auto(Some("text/html"), b"", "");
    auto(Some(&html("iso-8859-1")), &b"\xe9".repeat(20_000), &"é".repeat(20_000));
    check(Charset::Raw, Some(&html("utf-16le")), b"\xef\xbb\xbfh", "\u{feff}h", &mut random);
}

/// Four lazy tables may be built for one body, and no more; the compiler says how many patterns are lazy.
#[test]
fn the_lazy_tier_is_counted_and_bounded() {
    let gaps = |count: usize| Patterns {
        body_match: (0..count).map(|number| format!("error.{{1,200}}code {number}")).collect(),
        body_forbid: vec!["a table".to_owned()],
    };
    let mut compiler = Compiler::new(Budgets::default());
    let matcher = compiler.compile(&gaps(4)).unwrap();
    assert_eq!(matcher.bytes_per_body_max(), 4 * matcher::budget::LAZY_BYTES_MAX);
    let (patterns, shared_bytes) = compiler.lazy();
    assert_eq!(patterns, 4);
    assert!(shared_bytes > 0 && shared_bytes < compiler.bytes_total(), "{shared_bytes} bytes");
    let error = compiler.compile(&gaps(5)).unwrap_err();
    assert_eq!((error.list, error.index), ("body_match", 4));
    assert!(error.message.contains("more than 4"), "{error}");
    assert_eq!(compiler.compile(&required("a table")).unwrap().bytes_per_body_max(), 0);
}
