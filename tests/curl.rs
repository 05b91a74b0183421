//! Replies of every sort, judged by us and by curl: the vectors in `tests/data/curl/`.
//!
//! For each, a server that knows nothing of HTTP sends the bytes, once to `curl` and once to a small blocking client
//! around the pure cores ([`Response`], [`Decoder`], [`redirect`]). Both must come to the same verdict (curl's exit
//! status 0 or not), the same body, and, where there are redirects, the same requests; or the vector says why they
//! differ, and then they must. The bytes are also fed to the cores whole, byte by byte and at random cuts.
//!
//! Needs `curl` in the path, with brotli (Debian's, 7.88, is what the vectors were tried with).

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

mod support {
    pub(crate) mod reply_server;
}

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use ringprobe::clock::Mono;
use ringprobe::http::coding::{DecodeMemory, Decoder};
use ringprobe::http::invariants::random_cuts;
use ringprobe::http::redirect::{self, Rules, Trail};
use ringprobe::http::request::{Parts, Template};
use ringprobe::http::{Progress, Response};
use ringprobe::sample::Failure;
use serde::Deserialize;
use support::reply_server::ReplyServer;
use url::Url;

/// As much content as an endpoint may have.
const CONTENT_BYTES_MAX: u64 = ringprobe::config::BODY_BYTES_MAX;
/// curl's, and ours for a read: far more than any reply needs.
const TIMEOUT_S: u64 = 10;
/// Cases tried at the same time.
const WORKERS: usize = 4;

// --- vectors ----------------------------------------------------------------------------------------------

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One vector; `tests/data/curl/README.md` describes the fields.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    compressed: bool,
    redirects: Option<usize>,
    #[serde(default)]
    keep_open: bool,
    replies: Vec<Vec<Part>>,
    end: String,
    content: Option<Vec<Part>>,
    differs: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Repeat { repeat: String, times: usize },
    Hex { hex: String },
    Gzip { gzip: Vec<Self> },
    Zlib { zlib: Vec<Self> },
    Raw { raw: Vec<Self> },
    File { file: String },
}

impl Part {
    fn bytes(&self, port: u16) -> Vec<u8> {
        let latin1 = |text: &str| -> Vec<u8> {
            text.replace("@port", &port.to_string()).chars().map(|c| u8::try_from(c).unwrap()).collect()
        };
        match self {
            Self::Text(text) => latin1(text),
            Self::Repeat { repeat, times } => latin1(repeat).repeat(*times),
            Self::Hex { hex } => {
                let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                (0..hex.len()).step_by(2).map(digits).collect()
            }
            Self::Gzip { gzip } => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&all(gzip, port)).unwrap();
                encoder.finish().unwrap()
            }
            Self::Zlib { zlib } => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&all(zlib, port)).unwrap();
                encoder.finish().unwrap()
            }
            Self::Raw { raw } => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&all(raw, port)).unwrap();
                encoder.finish().unwrap()
            }
            Self::File { file } => std::fs::read(data("tests/data").join(file)).unwrap(),
        }
    }
}

fn all(parts: &[Part], port: u16) -> Vec<u8> {
    parts.iter().flat_map(|part| part.bytes(port)).collect()
}

fn data(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(data("tests/data/curl")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let file: File = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            cases.extend(file.case);
        }
    }
    cases
}

impl Case {
    fn replies(&self, port: u16) -> Vec<Vec<u8>> {
        self.replies.iter().map(|reply| all(reply, port)).collect()
    }

    fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    fn fields(&self) -> Vec<(String, String)> {
        let split = |line: &String| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned()));
        self.headers.iter().map(|line| split(line).unwrap()).collect()
    }
}

// --- both sides -------------------------------------------------------------------------------------------

/// What one side made of it.
#[derive(Debug)]
struct Seen {
    /// A failure class or curl's exit status; empty if all was well.
    failure: String,
    content: Vec<u8>,
    requests: Vec<String>,
}

fn curl(case: &Case, server: &ReplyServer) -> Seen {
    server.script(case.replies(server.port()), case.keep_open);
    let mut command = Command::new("curl");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["-q", "-sS", "--http1.1", "--noproxy", "*", "--globoff", "--output", "-"]);
    command.args(["--max-time", &TIMEOUT_S.to_string()]);
    match &*case.method {
        "GET" | "POST" => {}
        "HEAD" => drop(command.arg("--head")),
        method => drop(command.args(["--request", method])),
    }
    if !case.body.is_empty() || case.method == "POST" {
        command.args(["--header", "Content-Type:", "--data-binary", &case.body]);
    }
    for line in &case.headers {
        command.args(["--header", line]);
    }
    if case.compressed {
        command.arg("--compressed");
    }
    if let Some(redirects) = case.redirects {
        command.args(["--location", "--max-redirs", &redirects.to_string()]);
    }
    let output = command.arg(format!("http://127.0.0.1:{}/", server.port())).output();
    let output = output.expect("curl is installed and in the path");
    let failure = match output.status.code() {
        Some(0) => String::new(),
        Some(28) => "timed out, which is no verdict".to_owned(),
        status => format!("{status:?} {}", String::from_utf8_lossy(&output.stderr).trim()),
    };
    // What `--head` prints is the heads.
    let content = if case.is_head() { Vec::new() } else { output.stdout };
    Seen { failure, content, requests: normal(&server.requests()) }
}

fn ours(case: &Case, server: &ReplyServer) -> Seen {
    server.script(case.replies(server.port()), case.keep_open);
    let mut content = Vec::new();
    let failure = match probe(case, server.port(), &mut content) {
        Ok(()) => String::new(),
        Err(failure) => failure.name().to_owned(),
    };
    Seen { failure, content, requests: normal(&server.requests()) }
}

/// What a probe does, with blocking sockets: no more than the cores leave to whoever drives them.
fn probe(case: &Case, port: u16, content: &mut Vec<u8>) -> Result<(), Failure> {
    let mut url: Url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    let fields = case.fields();
    let parts = Parts {
        headers: &fields,
        body: case.body.as_bytes(),
        accept_encoding: case.compressed.then_some("deflate, gzip, br"),
        ..Parts::new(&case.method, &url)
    };
    let mut request = Template::new(&parts).unwrap().render(0).to_vec();
    let mut head_request = case.is_head();
    let mut trail = Trail::new(case.method.as_bytes(), &url);
    loop {
        let host = url.host_str().unwrap().to_owned();
        let mut connection = TcpStream::connect((host, url.port_or_known_default().unwrap())).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(TIMEOUT_S))).unwrap();
        connection.write_all(&request).unwrap();
        content.clear();
        let mut exchange = Exchange::new(head_request, case.compressed);
        let mut buffer = [0; 4096];
        loop {
            let read_bytes = connection.read(&mut buffer).unwrap_or_else(|e| panic!("{e}: {}", case.name));
            let ended = match read_bytes {
                0 => exchange.eof().map(|()| true)?,
                _ => exchange.feed(&buffer[..read_bytes], content)?,
            };
            if ended {
                break;
            }
        }
        let response = &exchange.response;
        let status = response.status().expect("who ends well has a status");
        let Some(redirects) = case.redirects else { return Ok(()) };
        if !redirect::is_redirect(status, response.location().is_some()) {
            return Ok(());
        }
        let location = response.location().unwrap_or_default();
        let hop = redirect::follow(&request, &url, status, location, Rules::default())?;
        trail.enter(&hop, redirects)?;
        (url, request, head_request) = (hop.url, hop.request, hop.head_request);
    }
}

/// A response and its decoder.
struct Exchange {
    response: Response,
    compressed: bool,
    decoder: Option<Decoder>,
}

impl Exchange {
    fn new(head_request: bool, compressed: bool) -> Self {
        Self { response: Response::new(head_request), compressed, decoder: None }
    }

    /// Takes the next bytes; says whether that was all.
    fn feed(&mut self, input: &[u8], content: &mut Vec<u8>) -> Result<bool, Failure> {
        let head_bytes = self.response.feed_head(input)?;
        if self.response.status().is_some() && self.decoder.is_none() {
            let codings = self.response.content_encoding().filter(|_| self.compressed);
            self.decoder =
                Decoder::new(codings.unwrap_or_default(), CONTENT_BYTES_MAX, &DecodeMemory::default());
        }
        let mut decoded = Ok(());
        let decoder = &mut self.decoder;
        let progress = self.response.feed(&input[head_bytes..], &mut |payload: &[u8]| {
            let Some(decoder) = decoder else { return content.extend_from_slice(payload) };
            decoder.feed(payload);
            let all = usize::MAX;
            decoded = decoder.go_on(all, &mut |slice: &[u8]| content.extend_from_slice(slice)).map(|_| ());
        });
        // What was wrong first in the stream was wrong first.
        decoded?;
        match progress? {
            Progress::More => Ok(false),
            Progress::Complete { .. } => self.decoder.as_mut().map_or(Ok(()), Decoder::finish).map(|()| true),
        }
    }

    fn eof(&mut self) -> Result<(), Failure> {
        self.response.eof()?;
        self.decoder.as_mut().map_or(Ok(()), Decoder::finish)
    }
}

/// Requests without what each side says of itself, their fields in order of their names, percent-encoding in
/// capitals (RFC 3986, section 6.2.2.1: it is the same in small letters).
fn normal(requests: &[Vec<u8>]) -> Vec<String> {
    const OWN: [&str; 4] = ["user-agent:", "accept:", "accept-encoding:", "connection:"];
    let normal = |request: &Vec<u8>| {
        let text = String::from_utf8_lossy(request).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let first = lines.next().unwrap();
        let mut digits_left = 0_u8;
        let capitals = |c: char| {
            let is_digit = digits_left > 0;
            digits_left = if c == '%' { 2 } else { digits_left.saturating_sub(1) };
            if is_digit { c.to_ascii_uppercase() } else { c }
        };
        let first: String = first.chars().map(capitals).collect();
        let is_own = |line: &&str| OWN.iter().any(|own| line.to_ascii_lowercase().starts_with(own));
        let fields: BTreeSet<&str> = lines.filter(|line| !is_own(line)).collect();
        format!("{first}\n{}\n\n{body}", fields.into_iter().collect::<Vec<_>>().join("\n"))
    };
    requests.iter().map(normal).collect()
}

// --- tests ------------------------------------------------------------------------------------------------

/// What is wrong with a case, if anything is.
fn judge(case: &Case, server: &ReplyServer) -> Result<(), String> {
    let ours = ours(case, server);
    let curls = curl(case, server);
    let end = if ours.failure.is_empty() { "up" } else { &ours.failure };
    if end != case.end {
        return Err(format!("we say {end}, the vector {}; curl: {:?}", case.end, curls.failure));
    }
    if let Some(content) = &case.content
        && ours.content != all(content, server.port())
    {
        return Err(format!("our content is {:?}", String::from_utf8_lossy(&ours.content)));
    }
    let mut differences = Vec::new();
    if ours.failure.is_empty() != curls.failure.is_empty() {
        differences.push(format!("verdicts: {end}, curl {:?}", curls.failure));
    } else if ours.failure.is_empty() && ours.content != curls.content {
        let text = |content: &[u8]| String::from_utf8_lossy(&content[..content.len().min(200)]).into_owned();
        differences.push(format!("content: {:?}, curl {:?}", text(&ours.content), text(&curls.content)));
    }
    if ours.requests != curls.requests {
        differences.push(format!("requests: {:#?}, curl {:#?}", ours.requests, curls.requests));
    }
    match (&case.differs, differences.is_empty()) {
        (None, true) | (Some(_), false) => Ok(()),
        (None, false) => Err(differences.join("; ")),
        (Some(reason), true) => Err(format!("does not differ from curl, and claims to: {reason}")),
    }
}

#[test]
fn verdicts_bodies_and_requests_are_those_of_curl_or_differ_for_a_reason() {
    let cases = cases();
    let differ = cases.iter().filter(|case| case.differs.is_some()).count();
    println!("{} replies, {differ} of them judged unlike curl", cases.len());
    assert!(cases.len() >= 250, "vectors were found: {}", cases.len());
    assert!(differ < cases.len() / 5, "what differs is the exception");
    let queue: Mutex<VecDeque<&Case>> = Mutex::new(cases.iter().collect());
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let server = ReplyServer::start();
                loop {
                    let Some(case) = queue.lock().unwrap().pop_front() else { break };
                    if let Err(what) = judge(case, &server) {
                        wrong.lock().unwrap().push(format!("{}: {what}", case.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn names_are_unique_and_reasons_are_given() {
    let cases = cases();
    let names: BTreeSet<&str> = cases.iter().map(|case| &*case.name).collect();
    assert_eq!(names.len(), cases.len());
    for reason in cases.iter().filter_map(|case| case.differs.as_ref()) {
        assert!(reason.split_whitespace().count() >= 4, "a reason is a sentence: {reason:?}");
    }
}

/// What comes of a reply in pieces: how it ended, and the content.
fn fed<'a>(
    head_request: bool,
    compressed: bool,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Result<(), Failure>, Vec<u8>) {
    let mut exchange = Exchange::new(head_request, compressed);
    let mut content = Vec::new();
    for piece in pieces {
        match exchange.feed(piece, &mut content) {
            Ok(false) => {}
            Ok(true) => return (Ok(()), content),
            Err(failure) => return (Err(failure), content),
        }
    }
    (exchange.eof(), content)
}

/// Every reply as if the connection closed behind it, in every cut worth trying.
#[test]
fn every_reply_means_the_same_in_every_cut() {
    let given = std::env::var("RINGPROBE_SEED").ok();
    let seed =
        given.map_or_else(|| Mono::now().0, |seed| seed.parse().expect("RINGPROBE_SEED is a number")) | 1;
    println!("RINGPROBE_SEED={seed}");
    let mut random = seed;
    for case in cases() {
        for reply in case.replies(80) {
            let (head_request, compressed) = (case.is_head(), case.compressed);
            let whole = fed(head_request, compressed, [&reply[..]]);
            let check = |cut: &str, pieces: Vec<&[u8]>| {
                let (end, content) = fed(head_request, compressed, pieces);
                assert_eq!(whole.0, end, "{}, {cut}", case.name);
                assert!(whole.0.is_err() || whole.1 == content, "content of {}, {cut}", case.name);
            };
            check("byte by byte", reply.chunks(1).collect());
            for _ in 0..5 {
                check("at random cuts", random_cuts(&reply, &mut random));
            }
        }
    }
}
