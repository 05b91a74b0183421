//! The test origin over real sockets: every item of the menu byte for byte, the states of a connection, and
//! what it counts. The bytes of answers that no client could read whole are tested in `testing::origin`.

#![expect(clippy::unwrap_used, reason = "tests, helpers included")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use ringprobe::clock::{Micros, Mono};
use ringprobe::testing::origin::{HoldingOptions, HoldingOrigin, MENU, Origin, OriginOptions, Stats};
use rustix::process::{Pid, Signal, kill_process};

const FILLER: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.\n";
const WELCOME: &str = "welcome to the ringprobe test origin\n";

/// How the bytes of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Closed,
    Reset,
    /// Nothing more for [`SILENCE`].
    Silent,
}

/// How long an origin must be silent to be called so.
const SILENCE: Duration = Duration::from_millis(60);

fn origin() -> Origin {
    Origin::start(OriginOptions::default()).unwrap()
}

fn connect(origin: &Origin) -> TcpStream {
    let stream = TcpStream::connect(origin.addr()).unwrap();
    // Nothing here takes as long: a test that hangs fails instead.
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends a request and reads what comes, see [`read_all`].
fn exchange(origin: &Origin, request: &str, bytes_min: usize, ended: Ended) -> (String, Ended) {
    let mut stream = connect(origin);
    stream.write_all(request.as_bytes()).unwrap();
    read_all(&mut stream, bytes_min, ended)
}

/// Reads until the end, or until nothing more comes. Patient until the bytes and the ending that are expected
/// have come, so that a busy machine does not pass for a silent origin.
fn read_all(stream: &mut TcpStream, bytes_min: usize, ended: Ended) -> (String, Ended) {
    let (mut received, mut buffer) = (Vec::new(), [0; 65_536]);
    let ended = loop {
        if received.len() >= bytes_min && ended == Ended::Silent {
            stream.set_read_timeout(Some(SILENCE)).unwrap();
        }
        match stream.read(&mut buffer) {
            Ok(0) => break Ended::Closed,
            Ok(bytes) => received.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break Ended::Reset,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break Ended::Silent,
            Err(error) => panic!("{error}"),
        }
    };
    (String::from_utf8_lossy(&received).into_owned(), ended)
}

/// Reads a given number of bytes, without waiting for more.
fn read_exactly(stream: &mut TcpStream, bytes: usize) -> String {
    let mut received = vec![0; bytes];
    stream.read_exact(&mut received).unwrap();
    String::from_utf8(received).unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// What an ordinary answer looks like.
fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn every_item_answers_byte_for_byte() {
    use Ended::{Closed, Reset, Silent};
    let plain = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    let chunked = format!("{plain}Transfer-Encoding: chunked\r\n\r\n");
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
    let welcome = ok(WELCOME);
    let hundred: String = FILLER.chars().cycle().take(100).collect();
    let many_chunks: String = FILLER
        .as_bytes()
        .iter()
        .copied()
        .cycle()
        .take(1000)
        .collect::<Vec<u8>>()
        .chunks(100)
        .map(|chunk| format!("64\r\n{}\r\n", std::str::from_utf8(chunk).unwrap()))
        .collect();
    let expected: Vec<(&str, String, Ended)> = vec![
        ("/delay/10ms", welcome.clone(), Silent),
        ("/pause/10ms/bytes/10", ok("0123456789"), Silent),
        (
            "/status/503",
            format!(
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 37\r\n\r\n{WELCOME}"
            ),
            Silent,
        ),
        ("/bytes/4096", ok(&FILLER.repeat(64)), Silent),
        ("/text/welcome%20back", ok("welcome back"), Silent),
        ("/chunked/1000/100", format!("{chunked}{many_chunks}0\r\n\r\n"), Silent),
        ("/close/100", format!("{plain}\r\n{hundred}"), Closed),
        ("/drip/5/1ms", ok("01234"), Silent),
        (
            "/redirect/3",
            format!(
                "HTTP/1.1 302 Found\r\nContent-Type: text/plain\r\nContent-Length: 37\r\nLocation: \
                 /redirect/2\r\n\r\n{WELCOME}"
            ),
            Silent,
        ),
        (
            "/fields/200",
            format!("{plain}Content-Length: 37\r\n{}\r\n{WELCOME}", "X-Field: one of many\r\n".repeat(200)),
            Silent,
        ),
        (
            "/field/70000",
            format!("{plain}Content-Length: 37\r\nX-Long: {}\r\n\r\n{WELCOME}", "a".repeat(70_000)),
            Silent,
        ),
        ("/fault/reset", String::new(), Reset),
        ("/fault/reset-after/30", plain[..30].to_owned(), Reset),
        ("/fault/close", String::new(), Closed),
        ("/fault/never", String::new(), Silent),
        ("/fault/half-head", "HTTP/1.1 200 OK\r\nContent-Le".into(), Silent),
        ("/fault/early-close", format!("{plain}Content-Length: 37\r\n\r\n{}", &FILLER[..18]), Closed),
        ("/fault/slow-head/1ms", welcome.clone(), Silent),
        ("/fault/split/7", welcome.clone(), Silent),
        ("/fault/garbage", "\x16\x03\x01\x00 this is not HTTP\r\n\r\n".into(), Silent),
        ("/fault/http10", welcome.replace("HTTP/1.1", "HTTP/1.0"), Closed),
        ("/fault/no-reason", welcome.replace(" OK", ""), Silent),
        ("/fault/lf-only", welcome.replace("\r\n", "\n"), Silent),
        ("/fault/interim/3", interim.repeat(3) + &welcome, Silent),
        (
            "/fault/101",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: nonsense\r\n\r\n".into(),
            Silent,
        ),
        ("/fault/bad-length", format!("{plain}Content-Length: -5\r\n\r\nhello"), Silent),
        (
            "/fault/two-lengths",
            format!("{plain}Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello.."),
            Silent,
        ),
        ("/fault/long-body", format!("{welcome}surplus"), Silent),
        ("/fault/poison", format!("{welcome}HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"), Silent),
        ("/fault/bad-chunk", format!("{chunked}5 hello\r\nhello\r\nsize\r\nhello\r\n0\r\n\r\n"), Silent),
        ("/fault/huge-chunk", format!("{chunked}10000000000000005\r\nhello\r\n0\r\n\r\n"), Silent),
        (
            "/fault/trailers",
            format!("{chunked}25\r\n{WELCOME}\r\n0\r\nX-Trailer: one\r\nX-Other: two\r\n\r\n"),
            Silent,
        ),
        ("/delay/1ms/status/500/bytes/1", ok("0").replace("200 OK", "500 Internal Server Error"), Silent),
        ("/status/204", "HTTP/1.1 204 No Content\r\nContent-Type: text/plain\r\n\r\n".into(), Silent),
        ("/chunked/0", format!("{chunked}0\r\n\r\n"), Silent),
    ];
    for item in MENU {
        let known = item.example == "/" || item.example.contains("endless");
        assert!(
            known || expected.iter().any(|(path, ..)| *path == item.example),
            "{} untested",
            item.example
        );
    }
    let origin = origin();
    for (path, bytes, ended) in expected {
        let found = exchange(&origin, &get(path), bytes.len(), ended);
        assert!(found.0 == bytes, "{path}: {:?}\nexpected {bytes:?}", found.0);
        assert_eq!(found.1, ended, "{path}");
    }
    let (menu, _) = exchange(&origin, &get("/"), 1000, Silent);
    assert!(menu.contains(WELCOME) && menu.contains("\n/fault/endless-trailers"));
}

#[test]
fn endless_answers_go_on_until_the_client_goes() {
    let origin = origin();
    for item in MENU.iter().filter(|item| item.example.contains("endless")) {
        let mut stream = connect(&origin);
        stream.write_all(get(item.example).as_bytes()).unwrap();
        let received = read_exactly(&mut stream, 8 << 20);
        assert!(received.starts_with("HTTP/1.1 "), "{}", item.example);
    }
    wait_until(&origin, |stats| stats.open == 0);
}

/// Waits for the origin to notice something that the client did.
fn wait_until(origin: &Origin, reached: impl Fn(&Stats) -> bool) {
    let start = Mono::now();
    while !reached(&origin.stats()) {
        assert!(Mono::now().since(start) < Duration::from_secs(10), "{:?}", origin.stats());
        std::thread::yield_now();
    }
}

#[test]
fn silence_ends_when_the_client_goes() {
    let origin = origin();
    for path in ["/fault/never", "/fault/half-head", "/fault/101"] {
        let mut stream = connect(&origin);
        stream.write_all(get(path).as_bytes()).unwrap();
        wait_until(&origin, |stats| stats.open == 1 && stats.requests > 0);
        stream.write_all(b"more that nobody reads").unwrap();
        drop(stream);
        wait_until(&origin, |stats| stats.open == 0);
    }
    assert_eq!(origin.stop().unwrap().requests, 3);
}

#[test]
fn head_requests_get_no_body() {
    let origin = origin();
    for path in ["/bytes/100000", "/chunked/50", "/drip/5/1s", "/pause/10s", "/fault/endless-body"] {
        let (answer, _) = exchange(&origin, &get(path).replace("GET", "HEAD"), 40, Ended::Silent);
        assert!(answer.ends_with("\r\n\r\n") && answer.len() < 200, "{path}: {answer:?}");
    }
}

#[test]
fn bodies_are_read_and_discarded() {
    let origin = origin();
    for (headers, body_bytes) in [("", 0), ("", 5), ("", 1_000_000), ("Expect: 100-continue\r\n", 70_000)] {
        let mut stream = connect(&origin);
        write!(stream, "POST /text/got-it HTTP/1.1\r\n{headers}Content-Length: {body_bytes}\r\n\r\n")
            .unwrap();
        if !headers.is_empty() {
            assert_eq!(read_exactly(&mut stream, 25), "HTTP/1.1 100 Continue\r\n\r\n");
        }
        let body = "GET /trap HTTP/1.1\r\n\r\n".repeat(body_bytes / 22 + 1);
        stream.write_all(&body.as_bytes()[..body_bytes]).unwrap();
        stream.write_all(get("/text/next").as_bytes()).unwrap();
        let expected = ok("got-it") + &ok("next");
        assert_eq!(read_exactly(&mut stream, expected.len()), expected);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_at_any_cut() {
    let origin = origin();
    let requests: String =
        ["/text/one", "/delay/2ms/text/two", "/drip/3/1ms", "/text/four?x=/text/five", "/chunked/3"]
            .map(get)
            .concat();
    let expected = ok("one") + &ok("two") + &ok("012") + &ok("four");
    let expected = expected
        + "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n0\r\n2\r\n12\r\n0\r\n\r\n";
    for piece_bytes in [requests.len(), 1, 7, 40] {
        let mut stream = connect(&origin);
        for piece in requests.as_bytes().chunks(piece_bytes) {
            stream.write_all(piece).unwrap();
        }
        assert_eq!(read_exactly(&mut stream, expected.len()), expected, "in pieces of {piece_bytes}");
    }
    assert_eq!(origin.stats().requests, 20);
    assert_eq!(origin.paths()["/text/four"], 4);
}

#[test]
fn closing_is_gentle_even_with_input_unread() {
    let origin = origin();
    let close = "GET /bytes/200000 HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned();
    // Far more than one read takes: an origin that just closed would send RST after the answer.
    let (answer, ended) = exchange(&origin, &(close + &get("/").repeat(10_000)), 200_000, Ended::Closed);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with("\r\nConnection: close"), "{head}");
    assert_eq!((body.len(), ended), (200_000, Ended::Closed));
    wait_until(&origin, |stats| stats.open == 0);
}

#[test]
fn half_closed_clients_get_their_answer() {
    let origin = origin();
    for path in ["/text/late", "/delay/5ms/text/late"] {
        let mut stream = connect(&origin);
        stream.write_all(get(path).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut stream, 1, Ended::Closed), (ok("late"), Ended::Closed), "{path}");
    }
}

#[test]
fn what_is_not_a_request_is_refused() {
    let origin = origin();
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), "505"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), "411"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)), "431"),
        (get("/no/such/item"), "404"),
        (get("/bytes/many"), "400"),
    ] {
        let (answer, _) = exchange(&origin, &request, 60, Ended::Silent);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
    }
}

#[test]
fn delays_are_kept_to_well_under_a_millisecond() {
    let origin = Origin::start(OriginOptions { record_arrivals: 100, ..OriginOptions::default() }).unwrap();
    let mut stream = connect(&origin);
    for delay_us in [0, 300, 1_000, 7_500] {
        for round in 0..20 {
            let path = format!("/delay/{delay_us}us/text/x?{round}");
            stream.write_all(get(&path).as_bytes()).unwrap();
            read_exactly(&mut stream, ok("x").len());
        }
    }
    let arrivals = origin.arrivals();
    assert_eq!(arrivals.len(), 80);
    assert_eq!(&*arrivals[21].target, "/delay/300us/text/x?1");
    for (arrivals, delay_us) in arrivals.chunks(20).zip([0, 300, 1_000, 7_500]) {
        let mut held_ns: Vec<u64> =
            arrivals.iter().map(|arrival| arrival.departs.nanos_since(arrival.arrived)).collect();
        held_ns.sort_unstable();
        let least = Micros(delay_us).as_nanos();
        assert!(held_ns[0] >= least, "never early: {held_ns:?}");
        // The lower quartile: on a busy machine wake-ups are late, which is not the origin's doing.
        assert!(held_ns[5] < least + 500_000, "{delay_us} µs: {held_ns:?}");
        assert!(arrivals.iter().all(|arrival| arrival.departed >= arrival.departs));
    }
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let origin = origin();
    let mut deaf = connect(&origin);
    deaf.write_all((get("/fault/endless-body") + &get("/text/never")).as_bytes()).unwrap();
    wait_until(&origin, |stats| stats.bytes_out > 100_000);
    for round in 0..100 {
        assert_eq!(exchange_kept(&origin, round), ok("heard"));
    }
    drop(deaf);
    wait_until(&origin, |stats| stats.open == 0);
}

#[test]
fn a_client_that_does_not_stop_sending_holds_nobody_up() {
    let origin = origin();
    let mut loud = connect(&origin);
    loud.write_all(b"POST / HTTP/1.1\r\nContent-Length: 9000000000000000000\r\n\r\n").unwrap();
    let sender = std::thread::spawn(move || while loud.write_all(&[0; 65_536]).is_ok() {});
    wait_until(&origin, |stats| stats.bytes_in > 10 << 20);
    for round in 0..100 {
        assert_eq!(exchange_kept(&origin, round), ok("heard"));
    }
    origin.stop().unwrap();
    sender.join().unwrap();
}

fn exchange_kept(origin: &Origin, round: usize) -> String {
    let mut stream = connect(origin);
    stream.write_all(get(&format!("/text/heard?{round}")).as_bytes()).unwrap();
    read_exactly(&mut stream, ok("heard").len())
}

#[test]
fn several_addresses_are_served_and_counted() {
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let v4 = OriginOptions::default().listen[0];
    // A machine without IPv6 still has the other two.
    let listen = if std::net::TcpListener::bind(v6).is_ok() { vec![v4, v4, v6] } else { vec![v4, v4] };
    let addresses = listen.len() as u64;
    let origin = Origin::start(OriginOptions { listen, ..OriginOptions::default() }).unwrap();
    for addr in origin.addrs() {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(get("/text/here").as_bytes()).unwrap();
        assert_eq!(read_exactly(&mut stream, ok("here").len()), ok("here"));
    }
    wait_until(&origin, |stats| stats.open == 0);
    let stats = origin.stop().unwrap();
    assert_eq!((stats.connections, stats.requests), (addresses, addresses));
    assert_eq!(stats.bytes_out, addresses * ok("here").len() as u64);
    assert_eq!(stats.bytes_in, addresses * get("/text/here").len() as u64);
}

#[test]
fn what_cannot_be_started_says_why() {
    let first = origin();
    let taken = OriginOptions { listen: vec![first.addr()], ..OriginOptions::default() };
    let error = Origin::start(taken).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}: ", first.addr())), "{error}");
    let nowhere = OriginOptions { cpu: Some(5000), ..OriginOptions::default() };
    assert_eq!(
        Origin::start(nowhere).unwrap_err().to_string(),
        "cpu 5000 is not among those this process may use"
    );
}

#[test]
fn the_command_serves_until_it_is_interrupted() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut target = Command::new(env!("CARGO_BIN_EXE_ringprobe"))
            .args(["target", "--json", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(target.stdout.take().unwrap()).lines();
        let mut object =
            || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
        let start = object();
        for addr in start["listening"].as_array().unwrap() {
            let mut stream = TcpStream::connect(addr.as_str().unwrap()).unwrap();
            stream.write_all(get("/text/x").as_bytes()).unwrap();
            assert_eq!(read_exactly(&mut stream, ok("x").len()), ok("x"));
        }
        kill_process(Pid::from_child(&target), signal).unwrap();
        let summary = object();
        assert_eq!((&summary["requests"], &summary["connections"]), (&2.into(), &2.into()));
        assert_eq!(target.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn the_command_ends_by_itself_and_refuses_bad_input() {
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_ringprobe")).arg("target").args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, out, _) = run(&["--listen", "127.0.0.1:0", "--duration", "1ms"]);
    assert_eq!(code, 0);
    assert!(
        out.starts_with("listening on 127.0.0.1:") && out.contains("\n0 connections (0 refused), 0 requests")
    );
    let taken = origin();
    let (code, _, error) = run(&["--listen", &taken.addr().to_string()]);
    assert_eq!((code, error.lines().count()), (2, 1), "{error}");
    assert!(error.starts_with("ringprobe: cannot listen on "), "{error}");
    for bad in [["--listen", "here"], ["--duration", "soon"], ["--cpu", "5000"]] {
        assert_eq!(run(&bad).0, 2, "{bad:?}");
    }
}

/// `curl` is an independent judge of what an ordinary answer is; where it is not installed, the byte-for-byte
/// test above stands alone.
#[test]
fn curl_agrees_on_the_honest_items() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let origin = origin();
    let curl = |arguments: &[&str], path: &str| {
        let output = Command::new("curl")
            .args(["-s", "--max-time", "10", "-w", "|%{http_code}|%{size_download}|%{num_redirects}"])
            .args(arguments)
            .arg(origin.url(path))
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let body = |bytes: usize| FILLER.chars().cycle().take(bytes).collect::<String>();
    for (arguments, path, expected) in [
        (&[][..], "/bytes/100", body(100) + "|200|100|0"),
        (&[], "/chunked/1000/7", body(1000) + "|200|1000|0"),
        (&[], "/chunked/200/fault/trailers", body(200) + "|200|200|0"),
        (&[], "/close/100", body(100) + "|200|100|0"),
        (&["--http1.0"], "/bytes/3", body(3) + "|200|3|0"),
        (&["-L"], "/redirect/2", format!("{WELCOME}|200|37|2")),
        (&[], "/delay/2ms/fault/split/3/drip/3/1ms", body(3) + "|200|3|0"),
        (&[], "/fault/interim/2/status/418/text/tea", "tea|418|3|0".to_owned()),
        (&["-d", "a=b"], "/text/posted", "posted|200|6|0".to_owned()),
        (&[], "/status/304", "|304|0|0".to_owned()),
    ] {
        assert_eq!(curl(arguments, path), (0, expected), "{path}");
    }
    // Its exit codes: 52 empty reply, 18 partial file, 56 receive error.
    for (path, code) in [("/fault/close", 52), ("/fault/early-close", 18), ("/fault/reset", 56)] {
        assert_eq!(curl(&[], path).0, code, "{path}");
    }
}

/// A holding origin, and a connection to it.
fn holding(hold: Micros) -> (HoldingOrigin, TcpStream) {
    let origin = HoldingOrigin::start(HoldingOptions { hold, ..HoldingOptions::default() }).unwrap();
    let stream = TcpStream::connect(origin.addrs()[0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (origin, stream)
}

const HELD_ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_held_answer_is_late_by_as_much_and_its_truth_within_what_its_client_saw() {
    const HOLD: Micros = Micros::from_millis(20);
    let (origin, mut stream) = holding(HOLD);
    let mut seen = Vec::new();
    for endpoint in [7, 9, 7] {
        let sent = Mono::now();
        stream.write_all(get(&format!("/{endpoint}?q")).as_bytes()).unwrap();
        assert_eq!(read_exactly(&mut stream, HELD_ANSWER.len()), HELD_ANSWER);
        seen.push((endpoint, Mono::now().nanos_since(sent)));
    }
    let holds = origin.stop().unwrap();
    assert_eq!((holds.unnoted, holds.unstamped), (0, 0));
    assert_eq!(holds.held.len(), seen.len());
    for (held, (endpoint, seen_ns)) in holds.held.iter().zip(seen) {
        assert_eq!(held.endpoint, endpoint);
        assert!(HOLD.as_nanos() <= held.true_ns() && held.true_ns() < seen_ns, "{held:?} in {seen_ns} ns");
    }
}

#[test]
fn a_request_arrives_with_its_last_byte() {
    let (origin, mut stream) = holding(Micros(0));
    let (head, end) = ("GET /3 HTTP/1.1\r\nHost: h\r\n", "\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // Another connection's answer tells that the first half has been read.
    let mut other = TcpStream::connect(origin.addrs()[0]).unwrap();
    other.write_all(get("/x").as_bytes()).unwrap();
    assert_eq!(read_exactly(&mut other, HELD_ANSWER.len()), HELD_ANSWER);
    let before = Mono::now();
    stream.write_all(end.as_bytes()).unwrap();
    assert_eq!(read_exactly(&mut stream, HELD_ANSWER.len()), HELD_ANSWER);
    let holds = origin.stop().unwrap();
    assert_eq!(holds.held.iter().map(|held| held.endpoint).collect::<Vec<_>>(), [0, 3]);
    // The kernel's stamps are wall time, converted: right to less than a microsecond, of which this allows a thousand.
    assert!(before.0 < holds.held[1].arrived.0 + 1_000_000, "{holds:?}, sent after {before:?}");
}

#[test]
fn whoever_asks_to_close_is_closed_and_whoever_does_not_wait_is_cut_off() {
    let (origin, mut stream) = holding(Micros(0));
    stream.write_all(b"GET /1 HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let (answer, ended) = read_all(&mut stream, 0, Ended::Closed);
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with("ok"), "{answer}");
    assert_eq!(ended, Ended::Closed);

    let mut eager = TcpStream::connect(origin.addrs()[0]).unwrap();
    eager.write_all(get("/2").repeat(2).as_bytes()).unwrap();
    let (answer, _) = read_all(&mut eager, 0, Ended::Closed);
    assert_eq!(answer, "");
    assert_eq!(origin.stop().unwrap().held.len(), 1);
}

#[test]
fn what_is_not_noted_is_counted() {
    let options = HoldingOptions { holds_max: 1, ..HoldingOptions::default() };
    let origin = HoldingOrigin::start(options).unwrap();
    let mut stream = TcpStream::connect(origin.addrs()[0]).unwrap();
    for _ in 0..3 {
        stream.write_all(get("/1").as_bytes()).unwrap();
        assert_eq!(read_exactly(&mut stream, HELD_ANSWER.len()), HELD_ANSWER);
    }
    let holds = origin.stop().unwrap();
    assert_eq!((holds.held.len(), holds.unnoted), (1, 2));
}
