//! Endpoints by the number, for load tests and benchmarks: a [`Recipe`] makes a [`Generator`].
//!
//! Everything about endpoint `n` is a function of the recipe's seed and of `n` alone: the same recipe gives the
//! same endpoints on every machine, and a larger count only appends. What they ask of the origin is a path
//! chain of the test origin (`ringprobe target`), but any paths will do.
//!
//! In scope: ranges in URLs, weights, the presets. Out of scope: what a URL or a timeout may be, which is
//! [`Draft::validate`]'s business.
//!
//! Invariant: all parts are validated before the first endpoint is made, so that making one cannot fail and
//! nobody is left with half of what was asked for.

use std::iter::FusedIterator;

use url::Position;

use super::{Draft, Endpoint, FieldError, duration};
use crate::clock::Micros;
use crate::config::{GENERATE_ORIGINS_MAX, URL_BYTES_MAX};

/// What to generate, as text, like a [`Draft`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// How many.
    pub count: u32,
    /// Another seed gives another choice of intervals and paths.
    pub seed: u64,
    /// Names are `prefix-000001` and so on.
    pub prefix: String,
    /// One duration, or a range of whole seconds such as `5s..30s`, from which each endpoint gets one.
    pub interval: String,
    /// URLs without a query, used in turn; each may have ranges, `http://127.0.0.[1-4]:[8080-8087]`.
    pub bases: Vec<String>,
    /// Paths and their weights, `/delay/10ms:4`; without a number the weight is 1.
    pub paths: Vec<String>,
    /// `fresh` or `reuse`.
    pub connection: Option<String>,
    /// A duration.
    pub timeout: Option<String>,
}

impl Default for Recipe {
    /// One endpoint every minute at a test origin on this machine.
    fn default() -> Self {
        Self {
            count: 1,
            seed: 0,
            prefix: "gen".to_owned(),
            interval: "60s".to_owned(),
            bases: vec!["http://127.0.0.1:8080".to_owned()],
            paths: vec!["/".to_owned()],
            connection: None,
            timeout: None,
        }
    }
}

impl Recipe {
    /// The load that the prober's ancestor was measured with: intervals from 5 to 30 s, four fast endpoints to
    /// one slow, and of both a tenth that answer 500 and a tenth that answer 404.
    #[must_use]
    pub fn ancestor() -> Self {
        let paths = [
            "/delay/10ms:64",
            "/delay/10ms/status/500:8",
            "/delay/10ms/status/404:8",
            "/delay/1s:16",
            "/delay/1s/status/500:2",
            "/delay/1s/status/404:2",
        ];
        Self { interval: "5s..30s".to_owned(), paths: paths.map(str::to_owned).to_vec(), ..Self::default() }
    }

    /// Validates every part; the error's field is named as the command's flag, without the dashes.
    pub fn generate(&self) -> Result<Generator, FieldError> {
        let intervals = parse_intervals(&self.interval).map_err(in_field("interval"))?;
        let mut origins = Vec::new();
        for base in &self.bases {
            expand(base, &mut origins).map_err(in_field("base"))?;
        }
        for origin in &mut origins {
            *origin = plain_base(origin).map_err(in_field("base"))?;
        }
        let mut paths = Vec::with_capacity(self.paths.len());
        let mut weights = 0;
        for path in &self.paths {
            let (path, weight) = parse_path(path).map_err(in_field("path"))?;
            weights += u64::from(weight);
            paths.push((weights, path));
        }
        let missing = |field| in_field(field)("is missing".to_owned());
        let base_bytes = origins.iter().map(String::len).max().ok_or_else(|| missing("base"))?;
        let path_bytes = paths.iter().map(|(_, path)| path.len()).max().ok_or_else(|| missing("path"))?;
        if base_bytes + path_bytes > URL_BYTES_MAX {
            let message = format!("makes a URL longer than {URL_BYTES_MAX} bytes with its base");
            return Err(in_field("path")(message));
        }
        let common =
            Draft { connection: self.connection.clone(), timeout: self.timeout.clone(), ..Draft::default() };
        let generator = Generator {
            prefix: self.prefix.clone(),
            seed: self.seed,
            intervals,
            origins,
            paths,
            common,
            next: 0,
            count: self.count,
        };
        // What remains is the same for all endpoints, save that the last name is the longest and that both
        // ends of the range of intervals must be accepted.
        for interval in [intervals.0, intervals.1] {
            let mut draft = generator.draft(self.count.saturating_sub(1));
            draft.interval = Some(duration::write(interval));
            draft.validate(&generator.common).map_err(|error| match error.key() {
                "name" => FieldError::new("prefix", error.message),
                _ => error,
            })?;
        }
        Ok(generator)
    }
}

/// The endpoints of a [`Recipe`], made one at a time.
#[derive(Clone, Debug)]
pub struct Generator {
    prefix: String,
    seed: u64,
    /// Shortest and longest; whole seconds unless they are equal.
    intervals: (Micros, Micros),
    /// As URLs write them, without the slash at the end.
    origins: Vec<String>,
    /// Each with the sum of the weights up to and including its own.
    paths: Vec<(u64, String)>,
    common: Draft,
    next: u32,
    count: u32,
}

impl Generator {
    fn draft(&self, n: u32) -> Draft {
        let (shortest, longest) = self.intervals;
        let steps = (longest.0 - shortest.0) / SECOND_US + 1;
        let interval = Micros(shortest.0 + below(steps, self.random(n, 0)) * SECOND_US);
        let weights = self.paths.last().map_or(0, |(sum, _)| *sum);
        let drawn = below(weights, self.random(n, 1));
        let path = self.paths.partition_point(|(sum, _)| *sum <= drawn);
        let origin = &self.origins[n as usize % self.origins.len()];
        Draft {
            name: Some(format!("{}-{:06}", self.prefix, u64::from(n) + 1)),
            url: Some(format!("{origin}{}", self.paths[path].1)),
            interval: Some(duration::write(interval)),
            ..Draft::default()
        }
    }

    /// The random number `which` of endpoint `n`.
    fn random(&self, n: u32, which: u64) -> u64 {
        let counter = u64::from(n) * 2 + which + 1;
        mix(mix(self.seed).wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

impl Iterator for Generator {
    type Item = Endpoint;

    fn next(&mut self) -> Option<Endpoint> {
        if self.next == self.count {
            return None;
        }
        let draft = self.draft(self.next);
        self.next += 1;
        Some(draft.validate(&self.common).expect("Recipe::generate has validated all parts"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.count - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Generator {}
impl FusedIterator for Generator {}

const SECOND_US: u64 = 1_000_000;

fn in_field(field: &'static str) -> impl Fn(String) -> FieldError {
    move |message| FieldError::new(field, message)
}

/// Finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input changes half of the output.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A random number below `bound`. The bias is below bound / 2^64.
fn below(bound: u64, random: u64) -> u64 {
    u64::try_from((u128::from(random) * u128::from(bound)) >> 64).unwrap_or(0)
}

fn parse_intervals(text: &str) -> Result<(Micros, Micros), String> {
    let Some((shortest, longest)) = text.split_once("..") else {
        let interval = duration::parse(text)?;
        return Ok((interval, interval));
    };
    let (shortest, longest) = (duration::parse(shortest)?, duration::parse(longest)?);
    if shortest > longest {
        return Err(format!("{text:?} runs backwards"));
    }
    if shortest.0 % SECOND_US != 0 || longest.0 % SECOND_US != 0 {
        return Err(format!("{text:?} is not a range of whole seconds such as \"5s..30s\""));
    }
    Ok((shortest, longest))
}

/// `/path:weight`, the path as URLs write it.
fn parse_path(text: &str) -> Result<(String, u32), String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (path, weight) = match text.rsplit_once(':') {
        Some((path, weight)) if digits(weight) => (path, weight),
        _ => (text, "1"),
    };
    if !path.starts_with('/') {
        return Err("does not begin with a slash".to_owned());
    }
    let weight = match weight.parse() {
        Ok(0) | Err(_) => return Err(format!("a weight is a number from 1 to {}", u32::MAX)),
        Ok(weight) => weight,
    };
    let endpoint = endpoint_at(format!("http://origin{path}"))?;
    Ok((endpoint.url[Position::BeforePath..].to_owned(), weight))
}

/// A base as URLs write it, without the slash at the end.
fn plain_base(text: &str) -> Result<String, String> {
    let endpoint = endpoint_at(text.to_owned())?;
    if endpoint.url.query().is_some() {
        return Err("has a query, which belongs into a path".to_owned());
    }
    Ok(endpoint.url.as_str().trim_end_matches('/').to_owned())
}

fn endpoint_at(url: String) -> Result<Endpoint, String> {
    let draft = Draft { name: Some("base".to_owned()), url: Some(url), ..Draft::default() };
    draft.validate(&Draft::default()).map_err(|error| error.message)
}

/// Appends what `text` stands for: every combination of its ranges `[1-4]`, the last one changing fastest. A
/// first number with leading zeros asks for as many digits. Other brackets (`[::1]`) stand for themselves.
fn expand(text: &str, out: &mut Vec<String>) -> Result<(), String> {
    let mut expanded = vec![String::new()];
    let mut rest = text;
    while let Some((before, first, last, after)) = next_range(rest) {
        let range = format!("[{first}-{last}]");
        let number =
            |digits: &str| digits.parse::<u32>().map_err(|_| format!("{range} has too large a number"));
        let (from, to) = (number(first)?, number(last)?);
        if from > to {
            return Err(format!("{range} runs backwards"));
        }
        let values = u64::from(to - from) + 1;
        if values.saturating_mul(expanded.len() as u64) > GENERATE_ORIGINS_MAX as u64 {
            return Err(format!("stands for more than {GENERATE_ORIGINS_MAX} URLs"));
        }
        let digits = if first.starts_with('0') { first.len() } else { 1 };
        expanded = expanded
            .iter()
            .flat_map(|start| (from..=to).map(move |value| format!("{start}{before}{value:0digits$}")))
            .collect();
        rest = after;
    }
    if out.len() + expanded.len() > GENERATE_ORIGINS_MAX {
        return Err(format!("there are more than {GENERATE_ORIGINS_MAX} URLs in all"));
    }
    out.extend(expanded.into_iter().map(|start| start + rest));
    Ok(())
}

/// What stands before the first range, its two numbers, and what stands behind it.
fn next_range(text: &str) -> Option<(&str, &str, &str, &str)> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.match_indices('[').find_map(|(open, _)| {
        let (inside, after) = text[open + 1..].split_once(']')?;
        let (first, last) = inside.split_once('-')?;
        (digits(first) && digits(last)).then_some((&text[..open], first, last, after))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::endpoint::{Connection, file};

    fn recipe(change: impl FnOnce(&mut Recipe)) -> Recipe {
        let mut recipe = Recipe::default();
        change(&mut recipe);
        recipe
    }

    fn expanded(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        expand(text, &mut out).unwrap();
        out
    }

    #[test]
    fn ranges_stand_for_every_combination() {
        assert_eq!(expanded("http://a:80"), ["http://a:80"]);
        assert_eq!(expanded("http://[::1]:[8-9]/"), ["http://[::1]:8/", "http://[::1]:9/"]);
        assert_eq!(
            expanded("http://127.0.0.[1-2]:[8080-8082]"),
            ["1:8080", "1:8081", "1:8082", "2:8080", "2:8081", "2:8082"]
                .map(|end| format!("http://127.0.0.{end}"))
        );
        assert_eq!(expanded("http://h[08-10]"), ["http://h08", "http://h09", "http://h10"]);
        assert_eq!(expanded("[a-b][-1][1-]"), ["[a-b][-1][1-]"]);
    }

    #[test]
    fn the_same_recipe_gives_the_same_and_a_larger_count_appends() {
        let few: Vec<Endpoint> = recipe_of(1_000, 7).collect();
        let many: Vec<Endpoint> = recipe_of(2_000, 7).collect();
        assert_eq!(few[..], many[..1_000]);
        let other: Vec<Endpoint> = recipe_of(1_000, 8).collect();
        assert_ne!(few, other);
        assert_eq!((few[0].name.as_str(), few[999].name.as_str()), ("gen-000001", "gen-001000"));
        assert_eq!(recipe_of(0, 0).count(), 0);
        assert_eq!(recipe_of(5, 0).len(), 5);
    }

    fn recipe_of(count: u32, seed: u64) -> Generator {
        Recipe { count, seed, ..Recipe::ancestor() }.generate().unwrap()
    }

    #[test]
    fn the_ancestor_is_as_it_was() {
        const COUNT: u32 = 100_000;
        for seed in [0, 1, u64::MAX] {
            let mut intervals_s = BTreeMap::new();
            let (mut fast, mut e500, mut e404) = (0, 0, 0);
            for endpoint in recipe_of(COUNT, seed) {
                *intervals_s.entry(endpoint.interval.0 / SECOND_US).or_insert(0_u32) += 1;
                let path = endpoint.url.path();
                fast += u32::from(path.starts_with("/delay/10ms"));
                e500 += u32::from(path.ends_with("/status/500"));
                e404 += u32::from(path.ends_with("/status/404"));
            }
            // Six standard deviations or more.
            assert!(fast.abs_diff(COUNT * 8 / 10) < 800, "{fast}, seed {seed}");
            assert!(
                e500.abs_diff(COUNT / 10) < 600 && e404.abs_diff(COUNT / 10) < 600,
                "{e500} {e404}, seed {seed}"
            );
            assert!(intervals_s.keys().copied().eq(5..=30), "{intervals_s:?}");
            assert!(intervals_s.values().all(|count| count.abs_diff(COUNT / 26) < 400), "{intervals_s:?}");
        }
    }

    #[test]
    fn origins_take_turns_and_flags_arrive() {
        let recipe = recipe(|recipe| {
            recipe.count = 9;
            recipe.bases = vec!["http://127.0.0.[1-2]:8080/".to_owned(), "HTTP://B.example:80/x/".to_owned()];
            recipe.paths = vec!["/a b?q=1:2".to_owned()];
            recipe.interval = "500ms".to_owned();
            recipe.timeout = Some("250ms".to_owned());
            recipe.connection = Some("reuse".to_owned());
        });
        let endpoints: Vec<Endpoint> = recipe.generate().unwrap().collect();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let origin = ["http://127.0.0.1:8080", "http://127.0.0.2:8080", "http://b.example/x"][index % 3];
            assert_eq!(endpoint.url.as_str(), format!("{origin}/a%20b?q=1:2").trim_end_matches(":2"));
            assert_eq!((endpoint.interval, endpoint.options.timeout), (Micros(500_000), Micros(250_000)));
            assert_eq!(endpoint.options.connection, Connection::Reuse);
        }
    }

    #[test]
    fn what_is_generated_is_a_file_that_can_be_read() {
        let mut out = Vec::new();
        assert_eq!(file::write_to(&mut out, recipe_of(1_000, 3)).unwrap(), 1_000);
        let text = String::from_utf8(out).unwrap();
        let endpoints: Vec<Endpoint> = recipe_of(1_000, 3).collect();
        assert_eq!(text, file::write(&endpoints), "streamed or at once");
        assert_eq!(file::parse(&text, "generated").unwrap(), endpoints);
    }

    fn refused(change: impl FnOnce(&mut Recipe)) -> String {
        recipe(change).generate().unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_found_before_the_first_endpoint() {
        let base = |text: &str| refused(|recipe| recipe.bases = vec![text.to_owned()]);
        assert_eq!(base("127.0.0.1"), "base: has no scheme; write it with http:// or https:// in front");
        assert_eq!(base("http://127.0.0.[1-256]"), "base: invalid IPv4 address");
        assert_eq!(base("http://a:[9-8]"), "base: [9-8] runs backwards");
        assert_eq!(base("http://[1-256].[1-257]"), "base: stands for more than 65536 URLs");
        assert_eq!(base("http://a/?q"), "base: has a query, which belongs into a path");
        assert_eq!(base("http://a:[1-99999999999]"), "base: [1-99999999999] has too large a number");
        assert_eq!(refused(|recipe| recipe.bases = Vec::new()), "base: is missing");
        assert_eq!(
            refused(|recipe| recipe.bases = vec!["http://h[1-40000]".to_owned(); 2]),
            "base: there are more than 65536 URLs in all"
        );
        let path = |text: &str| refused(|recipe| recipe.paths = vec![text.to_owned()]);
        assert_eq!(path("delay"), "path: does not begin with a slash");
        assert_eq!(path("/:0"), "path: a weight is a number from 1 to 4294967295");
        assert_eq!(path("/\n"), "path: contains a control character or line break");
        assert_eq!(refused(|recipe| recipe.paths = Vec::new()), "path: is missing");
        assert_eq!(
            refused(|recipe| recipe.paths = vec![format!("/{}", "x".repeat(8_171))]),
            "path: makes a URL longer than 8192 bytes with its base"
        );
        let interval = |text: &str| refused(|recipe| recipe.interval = text.to_owned());
        assert_eq!(interval("0s"), "interval: 0 s is shorter than 100 ms");
        assert_eq!(interval("0s..5s"), "interval: 0 s is shorter than 100 ms");
        assert_eq!(interval("5s..2d"), "interval: 2 d is longer than 1 d");
        assert_eq!(interval("5s..1s"), "interval: \"5s..1s\" runs backwards");
        assert_eq!(
            interval("500ms..2s"),
            "interval: \"500ms..2s\" is not a range of whole seconds such as \"5s..30s\""
        );
        assert_eq!(interval("5..30"), "interval: \"5\" has no unit; write \"5s\" if seconds are meant");
        assert_eq!(
            refused(|recipe| recipe.prefix = "p".repeat(249)),
            "prefix: is 256 bytes long; at most 255 are accepted"
        );
        assert_eq!(
            refused(|recipe| recipe.connection = Some("new".to_owned())),
            "connection: \"new\" is neither \"fresh\" nor \"reuse\""
        );
    }
}
