//! The matcher per tier and body: `cargo bench --bench matcher`.
//!
//! Bodies are 1 MiB, fed in pieces of 16 KiB as a probe would, and made so that nothing is found before their
//! end: every byte is looked at. Next to each other: the tiers, `regex::bytes` on the whole body (which may look
//! from behind and skip inner texts), and a bare table loop that does nothing but load.

use std::io::{self, Write};
use std::sync::{Arc, LazyLock};

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::start;
use ringprobe::clock::Mono;
use ringprobe::matcher::{Budgets, Certainty, Compiler, Matcher, Patterns};

fn main() {
    for (name, pattern) in PATTERNS.iter().chain(&BLOW_UPS) {
        let (what, _) = compiled(pattern);
        writeln!(io::stdout(), "{name}: {what}").expect("standard output takes it");
    }
    // None may take more than 250 ms.
    let texts =
        include_str!("../tests/data/patterns/blow_ups.txt").lines().filter(|line| !line.starts_with('#'));
    let mut blow_ups: Vec<_> = texts.map(|text| (compiled(text), text)).collect();
    blow_ups.sort_by_key(|((_, took_ms), _)| std::cmp::Reverse(*took_ms));
    for ((what, took_ms), text) in blow_ups {
        writeln!(io::stdout(), "{took_ms} ms: {text}: {what}").expect("standard output takes it");
    }
    divan::main();
}

/// What a pattern becomes, and in how many milliseconds.
fn compiled(pattern: &str) -> (String, u64) {
    let began = Mono::now();
    let result = Compiler::new(Budgets::default()).compile(&required(pattern));
    let took_ms = Mono::now().nanos_since(began) / 1_000_000;
    let what = match result {
        Ok(matcher) => {
            let tier = matcher.tier().map_or("none", |tier| tier.name());
            format!(
                "{tier}, {} tables, {} states, {} bytes",
                matcher.explain()[0].conjuncts.len(),
                matcher.states(),
                matcher.bytes()
            )
        }
        Err(error) => error.to_string(),
    };
    (what, took_ms)
}

const BODY_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 16 << 10;

const PATTERNS: [(&str, &str); 9] = [
    ("literal", "Welcome to nginx"),
    ("literals", "Fatal error|Uncaught exception|Service Unavailable"),
    ("title", r"(?i)<title>[^<]*Example Store[^<]*</title>"),
    ("json", r#""status"\s*:\s*"(?:ok|healthy|up)""#),
    ("words", r"\b[A-Z][a-z]+\s+[A-Z][a-z]+\s+\d{4}\b"),
    ("unicode", r"(?u)\bversion\s*[:=]\s*\d+\.\d+\w*;"),
    ("tempered", r#"<div id="app">(?:(?!</div>)[^!])*checkout(?<!no checkout)"#),
    ("gap", r#""id":"[0-9a-f]{8}".{1,200}"active":true"#),
    ("founding", FOUNDING),
];

const FOUNDING: &str = include_str!("../tests/data/patterns/founding.txt");

/// Patterns whose automata are too large, or nearly.
const BLOW_UPS: [(&str, &str); 6] = [
    ("counted gap", r"(?:a|e)[^\n]{18}zq"),
    ("counted gaps", r"(?:a.{1,300}b.{1,300}c){1,3}"),
    ("nested counts", r"(?:(?:a{1,900}){1,900}){1,900}"),
    ("looks in a counted gap", r"(?<=a.{20})b(?=.{20}c)"),
    ("looks in a loop", r"(?:(?=.*a.{9}b)(?!.*c.{9}d).)*e(?<!f.{9}g)"),
    ("wide Unicode", r"(?u)(?:\w{1,60}\s){1,60}\b"),
];

fn required(pattern: &str) -> Patterns {
    Patterns { body_match: vec![pattern.to_owned()], body_forbid: Vec::new() }
}

fn pattern(name: &str) -> &'static str {
    PATTERNS.iter().chain(&BLOW_UPS).find(|(known, _)| *known == name).expect("a pattern of the list").1
}

fn matcher(name: &str) -> Arc<Matcher> {
    Compiler::new(Budgets::default()).compile(&required(pattern(name))).expect("it compiles")
}

/// Bodies in which no pattern is found. "lines" is for the founding pattern: a first line that keeps all three of
/// its tables busy to the end. "hostile" is made of what begins to look like a match, again and again.
static BODIES: LazyLock<[(&str, Vec<u8>); 4]> = LazyLock::new(|| {
    let html = "<div class=\"row\"><p>Lorem ipsum dolor sit amet, consectetur <b>adipiscing</b> elit.</p>\n\
        <a href=\"/item/1234?ref=home\">see more &raquo;</a></div>\n<!-- Version 2.1.3 of 17 May -->\n";
    let json = concat!(
        r#"{"id":"0badcafe","name":"widget 17","status":"pending","#,
        r#""tags":["a","b"],"price":12.50},"#,
        "\n"
    );
    // Bytes that leave a state stand so close that skipping does not pay: `w` and `f` for the lookaheads.
    let line = "few of you know how we wonder if wolves were fit for halls of wood two feet wide, or if we fly off on \
        Friday; ";
    let hostile = concat!(
        r#"WelcomWelcome to nginFatal erro<title>Example Stor"status":"o"#,
        r#"<div id="app">checkou"id":"0badcafe" "#
    );
    [("html", html), ("json", json), ("lines", line), ("hostile", hostile)]
        .map(|(name, part)| (name, part.bytes().cycle().take(BODY_BYTES).collect()))
});

fn body(name: &str) -> &'static [u8] {
    &BODIES.iter().find(|(known, _)| *known == name).expect("a body of the list").1
}

fn run(matcher: &Matcher, body: &[u8]) {
    let mut scan = matcher.start();
    for piece in body.chunks(PIECE_BYTES) {
        let certainty = matcher.feed(&mut scan, black_box(piece));
        assert_eq!(certainty, Certainty::More, "every byte is looked at");
    }
    black_box(matcher.finish(&mut scan));
}

fn ours(bencher: Bencher<'_, '_>, name: &str, body_name: &str) {
    let (matcher, body) = (matcher(name), body(body_name));
    bencher.counter(BytesCount::of_slice(body)).bench(|| run(&matcher, body));
}

const NAMES: [&str; 8] = ["literal", "literals", "title", "json", "words", "unicode", "tempered", "gap"];

#[divan::bench(args = NAMES)]
fn html(bencher: Bencher<'_, '_>, name: &str) {
    ours(bencher, name, "html");
}

#[divan::bench(args = NAMES)]
fn json(bencher: Bencher<'_, '_>, name: &str) {
    ours(bencher, name, "json");
}

#[divan::bench(args = NAMES)]
fn hostile(bencher: Bencher<'_, '_>, name: &str) {
    ours(bencher, name, "hostile");
}

/// Its body has one line only, so that no table is certain before the end.
#[divan::bench]
fn founding(bencher: Bencher<'_, '_>) {
    ours(bencher, "founding", "lines");
}

/// What 5,000 endpoints cost if each brings a body of its own: one piece each, in turn.
#[divan::bench]
fn founding_in_short_pieces(bencher: Bencher<'_, '_>) {
    let (matcher, body) = (matcher("founding"), body("lines"));
    bencher.counter(BytesCount::of_slice(body)).bench(|| {
        let mut scan = matcher.start();
        for piece in body.chunks(1_400) {
            black_box(matcher.feed(&mut scan, black_box(piece)));
        }
        matcher.finish(&mut scan)
    });
}

/// The floor: one load per byte from one table of the founding pattern's size, on the body above, and nothing else.
#[divan::bench]
fn bare_table_loop(bencher: Bencher<'_, '_>) {
    let core = r"\A.*\b(?:[a-zA-Z]{3,6}\s?){2,4}\b\s\d{1,3}\s(?:at|on)\s[0-9]{2}:[0-9]{2}\s(?:AM|PM)\n?\z";
    let dfa = dense::Builder::new()
        .configure(dense::Config::new().accelerate(false).minimize(true))
        .syntax(regex_automata::util::syntax::Config::new().unicode(false).utf8(false))
        .thompson(regex_automata::nfa::thompson::Config::new().utf8(false))
        .build(core)
        .expect("it compiles");
    let start = dfa.start_state(&start::Config::new().anchored(Anchored::No)).expect("it has one");
    // The same form as ours: two bytes a cell, states as the index of their row.
    let mut states = vec![start];
    let mut cells: Vec<u16> = Vec::new();
    let mut at = 0;
    while let Some(state) = states.get(at).copied() {
        for byte in 0..=u8::MAX {
            let next = dfa.next_state(state, byte);
            let index = states.iter().position(|known| *known == next).unwrap_or_else(|| {
                states.push(next);
                states.len() - 1
            });
            cells.push(u16::try_from(index * 256).expect("a small automaton"));
        }
        at += 1;
    }
    let body = body("lines");
    bencher.counter(BytesCount::of_slice(body)).bench(|| {
        let table = black_box(&cells[..]);
        body.iter().fold(0_u16, |state, byte| table[usize::from(state) + usize::from(*byte)])
    });
}

fn whole(bencher: Bencher<'_, '_>, name: &str, body_name: &str) {
    let text = pattern(name);
    let regex = regex::bytes::Regex::new(text).expect("it has no lookarounds");
    let body = body(body_name);
    bencher.counter(BytesCount::of_slice(body)).bench(|| regex.is_match(black_box(body)));
}

const LOOK_FREE: [&str; 7] = ["literal", "literals", "title", "json", "words", "unicode", "gap"];

#[divan::bench(args = LOOK_FREE)]
fn regex_crate_whole_html(bencher: Bencher<'_, '_>, name: &str) {
    whole(bencher, name, "html");
}

#[divan::bench(args = LOOK_FREE)]
fn regex_crate_whole_json(bencher: Bencher<'_, '_>, name: &str) {
    whole(bencher, name, "json");
}

#[divan::bench(args = LOOK_FREE)]
fn regex_crate_whole_hostile(bencher: Bencher<'_, '_>, name: &str) {
    whole(bencher, name, "hostile");
}

/// From text to tables, with a compiler that knows nothing yet.
#[divan::bench(args = PATTERNS.iter().chain(&BLOW_UPS).map(|(name, _)| *name))]
fn compile(bencher: Bencher<'_, '_>, name: &str) {
    let patterns = required(pattern(name));
    bencher.bench(|| Compiler::new(Budgets::default()).compile(black_box(&patterns)).is_ok());
}
