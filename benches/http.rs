//! The HTTP core on what most origins send: `cargo bench --bench http`.
//!
//! Each bench is one response from its first byte to its last, as a probe sees it, so the figures are costs
//! per probe. Payload is handed out and not read, so large bodies count their receives, and not their bytes.

use std::io::Write;
use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use flate2::Compression;
use flate2::write::GzEncoder;
use ringprobe::http::coding::{DecodeMemory, Decoder};
use ringprobe::http::redirect::{Rules, follow};
use ringprobe::http::request::{Parts, Template};
use ringprobe::http::wanted::{Rule, Wanted};
use ringprobe::http::{Progress, Response};

/// Counts allocations: an ordinary response that comes whole must show none.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// The head nginx sends for a small static file.
const NGINX_HEAD: &str = "HTTP/1.1 200 OK\r\n\
    Server: nginx/1.26.2\r\n\
    Date: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/html\r\n\
    Content-Length: 615\r\n\
    Last-Modified: Mon, 05 Oct 2026 14:20:51 GMT\r\n\
    Connection: keep-alive\r\n\
    ETag: \"670148a3-267\"\r\n\
    Accept-Ranges: bytes\r\n\
    \r\n";

/// Runs one response, and checks that it came to its end.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut response = Response::new(false);
    let mut payload_bytes = 0;
    let mut complete = false;
    for piece in pieces {
        let progress = response.feed(piece, &mut |part: &[u8]| payload_bytes += black_box(part).len() as u64);
        complete = matches!(progress, Ok(Progress::Complete { .. }));
    }
    assert!(complete && response.reusable());
    payload_bytes
}

/// Head and body in one receive: the common case.
#[divan::bench]
fn nginx_200_whole(bencher: Bencher<'_, '_>) {
    let stream = [NGINX_HEAD.as_bytes(), &[b'x'; 615]].concat();
    bencher.bench(|| run([black_box(&stream[..])]));
}

/// The same, of an endpoint that expects something of three fields.
#[divan::bench]
fn nginx_200_whole_three_fields_wanted(bencher: Bencher<'_, '_>) {
    let names = [("Server", Rule::Present), ("X-Debug", Rule::Absent), ("ETag", Rule::Present)];
    let wanted = Wanted::new(names.map(|(name, rule)| (name.to_owned(), rule)));
    let wanted = Arc::new(wanted.expect("names are names"));
    let stream = [NGINX_HEAD.as_bytes(), &[b'x'; 615]].concat();
    bencher.bench(|| {
        let mut response = Response::expecting(false, Some(Arc::clone(&wanted)));
        let progress = response.feed(black_box(&stream), &mut |_: &[u8]| {});
        assert!(progress.is_ok() && response.unmet().is_none());
    });
}

/// What the tokeniser alone takes for the same head: the floor of the bench above.
#[divan::bench]
fn nginx_200_httparse_alone(bencher: Bencher<'_, '_>) {
    bencher.bench(|| {
        let mut fields = [const { std::mem::MaybeUninit::uninit() }; 128];
        let mut response = httparse::Response::new(&mut []);
        let head = black_box(NGINX_HEAD.as_bytes());
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            head,
            &mut fields,
        );
        assert!(parsed.is_ok_and(|status| status.is_complete()));
        response.code
    });
}

/// The head in two receives: gathered, which allocates.
#[divan::bench]
fn nginx_200_split(bencher: Bencher<'_, '_>) {
    let stream = [NGINX_HEAD.as_bytes(), &[b'x'; 615]].concat();
    let (first, second) = stream.split_at(100);
    bencher.bench(|| run([black_box(first), black_box(second)]));
}

/// The worst cut of a head: 250 receives of a byte each.
#[divan::bench]
fn nginx_200_byte_by_byte(bencher: Bencher<'_, '_>) {
    let stream = [NGINX_HEAD.as_bytes(), &[b'x'; 615]].concat();
    bencher.bench(|| run(black_box(&stream).chunks(1)));
}

/// What a dynamic page comes as: one chunk, and the last.
#[divan::bench]
fn one_chunk_whole(bencher: Bencher<'_, '_>) {
    let stream = chunked(615, 615);
    bencher.bench(|| run([black_box(&stream[..])]));
}

/// 1 MiB of known length, in receives of a buffer's size.
#[divan::bench]
fn body_length_1_mib(bencher: Bencher<'_, '_>) {
    let mut stream = b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n".to_vec();
    stream.resize(stream.len() + (1 << 20), b'x');
    let receives = stream.len().div_ceil(4016);
    bencher.counter(ItemsCount::new(receives)).bench(|| run(black_box(&stream).chunks(4016)));
}

/// 1 MiB in chunks of 16 KiB, in receives that divide neither.
#[divan::bench]
fn body_chunked_16_kib_in_odd_cuts(bencher: Bencher<'_, '_>) {
    let stream = chunked(1 << 20, 16 * 1024);
    let receives = stream.len().div_ceil(4001);
    bencher.counter(ItemsCount::new(receives)).bench(|| run(black_box(&stream).chunks(4001)));
}

/// 64 KiB in chunks of 16 bytes: the items are chunks, so this is the cost of framing one.
#[divan::bench]
fn body_chunked_16_bytes(bencher: Bencher<'_, '_>) {
    let stream = chunked(1 << 16, 16);
    bencher.counter(ItemsCount::new(4096_usize)).bench(|| run(black_box(&stream).chunks(4016)));
}

/// 64 KiB of page as gzip in receives of a buffer's size: bytes are those of the page.
#[divan::bench]
fn gzip_page_64_kib(bencher: Bencher<'_, '_>) {
    let stream = gzip(&page(64 * 1024));
    bencher
        .counter(BytesCount::new(64 * 1024_usize))
        .bench(|| assert_eq!(decode(b"gzip", black_box(&stream)), Some(64 * 1024)));
}

/// The smallest: what a decoder costs by itself.
#[divan::bench]
fn gzip_hello(bencher: Bencher<'_, '_>) {
    let stream = gzip(b"hello");
    bencher.bench(|| assert_eq!(decode(b"gzip", black_box(&stream)), Some(5)));
}

/// 10 MiB out of ten KiB, up to the limit: the worst that an origin can do with gzip.
#[divan::bench]
fn gzip_bomb_10_mib(bencher: Bencher<'_, '_>) {
    let stream = gzip(&vec![0; 11 << 20]);
    bencher
        .counter(BytesCount::new(10_usize << 20))
        .bench(|| assert_eq!(decode(b"gzip", black_box(&stream)), None));
}

/// 10 MiB out of 27 bytes: the worst with br.
#[divan::bench]
fn br_bomb_10_mib(bencher: Bencher<'_, '_>) {
    let stream = include_bytes!("../tests/data/http/coding/bomb.br");
    bencher
        .counter(BytesCount::new(10_usize << 20))
        .bench(|| assert_eq!(decode(b"br", black_box(stream)), None));
}

/// A request that every probe shares.
#[divan::bench]
fn request_plain(bencher: Bencher<'_, '_>) {
    let url = "https://shop.example/health".parse().expect("a URL");
    let template = Template::new(&Parts::new("GET", &url)).expect("it can be sent");
    bencher.bench(|| template.render(black_box(7)));
}

/// A request with a UUID of each probe.
#[divan::bench]
fn request_uuid(bencher: Bencher<'_, '_>) {
    let url = "https://shop.example/health?id=${uuid}".parse().expect("a URL");
    let template = Template::new(&Parts::new("GET", &url)).expect("it can be sent");
    bencher.bench(|| template.render(black_box(7)));
}

/// One redirect to a path of the same origin.
#[divan::bench]
fn redirect_to_a_path(bencher: Bencher<'_, '_>) {
    let url = "https://shop.example/health".parse().expect("a URL");
    let request = Template::new(&Parts::new("GET", &url)).expect("it can be sent").render(0);
    bencher.bench(|| follow(black_box(&request), &url, 302, b"/login?next=%2Fhealth", Rules::default()));
}

/// How much content comes of `stream`; `None` if it is too much.
fn decode(codings: &[u8], stream: &[u8]) -> Option<u64> {
    let mut decoder = Decoder::new(codings, 10 << 20, &DecodeMemory::default())?;
    let mut content_bytes = 0;
    for piece in stream.chunks(4016) {
        decoder.feed(piece);
        let all = usize::MAX;
        decoder.go_on(all, &mut |slice: &[u8]| content_bytes += black_box(slice).len() as u64).ok()?;
    }
    decoder.finish().ok().map(|()| content_bytes)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).and_then(|()| encoder.finish()).expect("memory does not fail")
}

fn page(page_bytes: usize) -> Vec<u8> {
    let line =
        |n: usize| format!("<li class=\"item\"><a href=\"/shop/item/{n}\">item {}</a></li>\n", n * 7919);
    let mut page: Vec<u8> = (0..page_bytes / 32).flat_map(|n| line(n).into_bytes()).collect();
    page.truncate(page_bytes);
    page
}

fn chunked(payload_bytes: usize, chunk_bytes: usize) -> Vec<u8> {
    let mut stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..payload_bytes / chunk_bytes {
        stream.extend(format!("{chunk_bytes:x}\r\n").bytes());
        stream.resize(stream.len() + chunk_bytes, b'x');
        stream.extend(b"\r\n");
    }
    stream.extend(b"0\r\n\r\n");
    stream
}
