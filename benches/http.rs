//! The HTTP core on what most origins send: `cargo bench --bench http`.
//!
//! Each bench is one response from its first byte to its last, as a probe sees it, so the figures are costs
//! per probe. Payload is handed out and not read, so large bodies count their receives, and not their bytes.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ringprobe::http::{Progress, Response};

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
