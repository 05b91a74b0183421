//! Tests at the boundary of the probe machine: what happened, and when, against the sample that must follow.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use proptest::prelude::*;
use url::Host;

use super::*;
use crate::http::coding::DecodeMemory;
use crate::http::invariants::random_cuts;
use crate::http::request::{Parts, Template};
use crate::matcher::{Budgets, Compiler, Patterns};

const START: Mono = Mono(1_000_000_000_000);
const TIMEOUT: Micros = Micros(1_000);
const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nok";

/// What happens to a probe; times are in µs after its start.
#[derive(Clone, Copy, Debug)]
enum Step {
    Connect(i64),
    /// Bytes, when they arrived, when they were seen.
    Bytes(&'static str, Option<i64>, i64),
    Break(Broken, i64),
    Deadline,
    /// From when to when nobody looked, of all that follows.
    Unseen(i64, i64),
}
use Step::{Break, Bytes, Connect, Deadline, Unseen};

/// What is expected: phases (connect, processing, transfer; `ABSENT` for none), failure, flags, agent µs.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    phases: [i32; 3],
    failure: Option<Failure>,
    flags: Flags,
    agent_us: i32,
    parting: Parting,
}

fn plan() -> Plan {
    plan_of(Profile { timeout: TIMEOUT, redirects: 0, ..Profile::default() })
}

fn plan_of(profile: Profile) -> Plan {
    Plan {
        origin: Arc::new(HostPort { tls: false, host: Host::Ipv4(Ipv4Addr::LOCALHOST), port: 80 }),
        request: Template::new(&Parts::new("GET", &"http://a/".parse().unwrap())).unwrap(),
        profile: Arc::new(profile),
    }
}

fn at(us: i64) -> Mono {
    Mono(START.0.saturating_add_signed(us * 1_000))
}

fn start(plan: &Plan, reused: bool) -> Probe {
    let mut probe = Probe::start(plan, EndpointId(7), Wall(5), Micros(3), START);
    let request: Arc<[u8]> = plan.request.render(0);
    let make = if reused { Exchange::reused } else { Exchange::fresh };
    probe.begin(
        SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
        make(&plan.profile, &request, None, START, probe.deadline()),
    );
    if reused {
        say(&mut probe, START);
    }
    probe
}

/// Sends what there is to be sent, all at once.
fn say(probe: &mut Probe, at: Mono) {
    say_at_most(u64::MAX, probe, (at, at));
}

/// Sends what there is to be sent, so much of it at once, by a call of that span.
fn say_at_most(bytes_max: u64, probe: &mut Probe, (at, until): (Mono, Mono)) {
    if let Some(output) = exchange(probe).take_output() {
        probe.departed(Departure { at, until, bytes: bytes_max.min(output.len() as u64) });
    }
}

fn exchange(probe: &mut Probe) -> &mut Exchange {
    probe.exchange().expect("it has begun")
}

/// Takes the steps up to the ending.
fn run(plan: &Plan, probe: &mut Probe, steps: &[Step]) -> Option<Ending> {
    let profile = &plan.profile;
    steps.iter().find_map(|step| match *step {
        Connect(us) => {
            let ending = exchange(probe).connected(profile, None, at(us));
            say(probe, at(us));
            ending
        }
        Bytes(bytes, arrived, seen) => {
            exchange(probe).received(profile, bytes.as_bytes(), arrived.map(at), at(seen))
        }
        Break(how, us) => exchange(probe).broken(profile, how, at(us)),
        Deadline => Some(exchange(probe).timed_out(profile)),
        Unseen(since, until) => {
            exchange(probe).blind(Some(Blind { since: at(since), until: at(until) }));
            None
        }
    })
}

/// The one sample of a probe that makes one exchange.
fn sample(plan: &Plan, mut probe: Probe, ending: Ending, cpu_ns: u64) -> Sample {
    let (Next::Done(verdict), _) = probe.ended(plan, ending, ending.at) else {
        panic!("{ending:?} is not the end")
    };
    let mut samples = Vec::new();
    probe.samples(verdict, cpu_ns, &mut |sample| samples.push(sample));
    assert_eq!(samples.len(), 1, "one exchange leaves no steps: {samples:?}");
    samples[0]
}

fn observe(reused: bool, steps: &[Step]) -> Expected {
    let plan = plan();
    let mut probe = start(&plan, reused);
    let ending = run(&plan, &mut probe, steps).unwrap_or_else(|| panic!("{steps:?} has no ending"));
    let sample = sample(&plan, probe, ending, 0);
    holds(&sample);
    assert_eq!((sample.phases.resolve_us, sample.phases.tls_us), (ABSENT, ABSENT));
    let Phases { connect_us, processing_us, transfer_us, .. } = sample.phases;
    Expected {
        phases: [connect_us, processing_us, transfer_us],
        failure: sample.failure(),
        flags: Flags(sample.flags.0 & !Flags::TAINTED.0),
        agent_us: sample.agent_us,
        parting: ending.parting,
    }
}

/// What holds for every sample of a probe.
fn holds(sample: &Sample) {
    assert!(sample.phases_sum_to_total(), "{sample:?}");
    assert!(sample.phases.as_array().iter().all(|us| *us >= ABSENT), "{sample:?}");
    assert!(sample.write_is_within_processing(), "{sample:?}");
    assert!((0..=1_000).contains(&sample.total_us), "no longer than the timeout: {sample:?}");
    assert!(sample.agent_us >= 0, "{sample:?}");
}

#[test]
fn sequences_make_these_samples() {
    use Parting::{Close, Keep, Linger};
    const NO: i32 = ABSENT;
    const NONE: Flags = Flags(0);
    const USER_TIME: Flags = Flags::USER_TIME;
    const CENSORED: Flags = Flags::CENSORED;
    type Row<'a> = (&'a str, &'a [Step], [i32; 3], Option<Failure>, Flags, i32, Parting);
    let rows: &[Row<'_>] = &[
        (
            "whole in one receive",
            &[Connect(100), Bytes(WHOLE, Some(300), 310)],
            [100, 200, 0],
            None,
            NONE,
            10,
            Keep,
        ),
        (
            "head, then body: both waits are the agent's",
            &[Connect(100), Bytes(HEAD, Some(300), 310), Bytes("ok", Some(450), 457)],
            [100, 200, 150],
            None,
            NONE,
            17,
            Keep,
        ),
        (
            "the wait of bytes that end no phase is nobody's",
            &[
                Connect(100),
                Bytes(HEAD, Some(300), 300),
                Bytes("o", Some(400), 440),
                Bytes("k", Some(450), 450),
            ],
            [100, 200, 150],
            None,
            NONE,
            0,
            Keep,
        ),
        (
            "no kernel stamp: user time stands in",
            &[Connect(100), Bytes(WHOLE, None, 310)],
            [100, 210, 0],
            None,
            USER_TIME,
            0,
            Keep,
        ),
        (
            "a stamp before the start is clamped to it",
            &[Connect(0), Bytes(WHOLE, Some(-500), 310)],
            [0, 0, 0],
            None,
            NONE,
            310,
            Keep,
        ),
        (
            "a stamp after it was seen is clamped to that",
            &[Connect(100), Bytes(WHOLE, Some(900_000), 310)],
            [100, 210, 0],
            None,
            NONE,
            0,
            Keep,
        ),
        (
            "a stamp before the one before is clamped to it",
            &[Connect(100), Bytes(HEAD, Some(300), 300), Bytes("ok", Some(200), 320)],
            [100, 200, 0],
            None,
            NONE,
            20,
            Keep,
        ),
        (
            "bytes that came before the request left answer it at once",
            &[Connect(400), Bytes(WHOLE, Some(300), 410)],
            [400, 0, 0],
            None,
            NONE,
            10,
            Keep,
        ),
        (
            "arrived just in time, however late it was seen",
            &[Connect(100), Bytes(WHOLE, Some(1_000), 90_000)],
            [100, 900, 0],
            None,
            NONE,
            89_000,
            Keep,
        ),
        (
            "arrived too late",
            &[Connect(100), Bytes(WHOLE, Some(1_001), 1_001)],
            [100, 900, NO],
            Some(Failure::TtfbTimeout),
            CENSORED,
            0,
            Close,
        ),
        (
            "arrived too late, and seen later still",
            &[Connect(100), Bytes(HEAD, Some(300), 300), Bytes("ok", Some(1_001), 90_000)],
            [100, 200, 700],
            Some(Failure::TransferTimeout),
            CENSORED,
            0,
            Close,
        ),
        (
            "deadline while connecting",
            &[Deadline],
            [1_000, NO, NO],
            Some(Failure::ConnectTimeout),
            CENSORED,
            0,
            Close,
        ),
        (
            "a handshake of which only we know is as late as we saw it",
            &[Connect(1_500)],
            [1_000, NO, NO],
            Some(Failure::ConnectTimeout),
            CENSORED,
            0,
            Close,
        ),
        (
            "deadline while waiting",
            &[Connect(100), Deadline],
            [100, 900, NO],
            Some(Failure::TtfbTimeout),
            CENSORED,
            0,
            Close,
        ),
        (
            "deadline while reading",
            &[Connect(100), Bytes(HEAD, Some(300), 310), Deadline],
            [100, 200, 700],
            Some(Failure::TransferTimeout),
            CENSORED,
            10,
            Close,
        ),
        (
            "the close ends the body; it has no stamp",
            &[Connect(100), Bytes(UNTIL_CLOSE, Some(300), 300), Break(Broken::Closed, 420)],
            [100, 200, 120],
            None,
            USER_TIME,
            0,
            Close,
        ),
        (
            "another status than expected",
            &[Connect(100), Bytes("HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", Some(300), 300)],
            [100, 200, 0],
            Some(Failure::StatusUnexpected),
            NONE,
            0,
            Keep,
        ),
        (
            "another status than expected, until the close",
            &[Connect(100), Bytes("HTTP/1.0 503\r\n\r\n", Some(300), 300), Break(Broken::Closed, 300)],
            [100, 200, 0],
            Some(Failure::StatusUnexpected),
            USER_TIME,
            0,
            Close,
        ),
        (
            "the origin will close",
            &[Connect(100), Bytes("HTTP/1.0 200\r\nContent-Length: 0\r\n\r\n", Some(300), 300)],
            [100, 200, 0],
            None,
            NONE,
            0,
            Linger,
        ),
        (
            "more than the response",
            &[Connect(100), Bytes("HTTP/1.1 204\r\n\r\nHTTP/1.1", Some(300), 300)],
            [100, 200, 0],
            None,
            NONE,
            0,
            Linger,
        ),
        (
            "no HTTP",
            &[Connect(100), Bytes("SSH-2.0", Some(300), 300)],
            [100, 200, 0],
            Some(Failure::MalformedResponse),
            NONE,
            0,
            Close,
        ),
    ];
    for (name, steps, phases, failure, flags, agent_us, parting) in rows {
        let expected = Expected {
            phases: *phases,
            failure: *failure,
            flags: *flags,
            agent_us: *agent_us,
            parting: *parting,
        };
        assert_eq!(observe(false, steps), expected, "{name}");
    }
}

#[test]
fn a_reused_connection_has_no_connect_phase() {
    let observed = observe(true, &[Bytes(HEAD, Some(300), 300), Bytes("ok", Some(350), 350)]);
    assert_eq!((observed.phases, observed.flags), ([ABSENT, 300, 50], Flags::REUSED));
    let observed = observe(true, &[Deadline]);
    assert_eq!((observed.phases, observed.failure), ([ABSENT, 1_000, ABSENT], Some(Failure::TtfbTimeout)));
    let observed = observe(true, &[Break(Broken::Closed, 20)]);
    assert_eq!((observed.phases, observed.failure), ([ABSENT, 20, ABSENT], Some(Failure::ClosedEarly)));
}

const BROKEN: [Broken; 7] = [
    Broken::Closed,
    Broken::Reset,
    Broken::Refused,
    Broken::TimedOut,
    Broken::Unreachable,
    Broken::SendFailed,
    Broken::Other,
];

#[test]
fn every_way_to_break_has_its_class_in_every_stage() {
    use Failure::{
        ClosedEarly, ConnectFailed, ConnectRefused, ConnectTimeout, NetworkUnreachable, Reset, SendFailed,
        TransferTimeout, TtfbTimeout,
    };
    // While connecting, waiting and reading; and the same seen after the deadline.
    let in_time = [
        [ConnectFailed, ClosedEarly, ClosedEarly],
        // Only what stood can be reset: it was so close behind that connecting is what was told.
        [Reset; 3],
        [ConnectRefused, Reset, Reset],
        [ConnectTimeout, TtfbTimeout, TransferTimeout],
        [NetworkUnreachable; 3],
        [SendFailed; 3],
        [ConnectFailed, Reset, Reset],
    ];
    let timeouts = [ConnectTimeout, TtfbTimeout, TransferTimeout];
    let late = [timeouts, timeouts, in_time[2], timeouts, in_time[4], in_time[5], timeouts];
    let stages: [&[Step]; 3] = [&[], &[Connect(100)], &[Connect(100), Bytes(HEAD, Some(300), 300)]];
    for (expected, seen_us, total_us) in [(in_time, 500, 500), (late, 70_000, 1_000)] {
        for (how, classes) in BROKEN.into_iter().zip(expected) {
            for (stage, class) in stages.into_iter().zip(classes) {
                let observed = observe(false, &[stage, &[Break(how, seen_us)]].concat());
                assert_eq!(observed.failure, Some(class), "{how:?} after {stage:?} at {seen_us}");
                assert_eq!(observed.parting, Parting::Close);
                let sum: i32 = observed.phases.into_iter().filter(|us| *us != ABSENT).sum();
                assert_eq!(sum, total_us, "{how:?} after {stage:?} at {seen_us}");
                let censored = timeouts.contains(&class);
                assert_eq!(observed.flags.has(Flags::CENSORED), censored, "{how:?} after {stage:?}");
            }
        }
    }
}

/// What came while we were not looking may have been merged under a later stamp, and a close has none at all: nobody is
/// late for that, and what is told is the most that it can have waited for us.
#[test]
fn nobody_is_late_because_we_were_blind() {
    let stood: &[Step] = &[Connect(100), Unseen(150, 1_600)];
    for (steps, phases, failure) in [
        // Merged with what came behind, beyond the timeout and within it.
        (&[Bytes(WHOLE, Some(1_590), 1_600)][..], [100, 900, 0], None),
        (&[Bytes(WHOLE, Some(700), 1_600)], [100, 600, 0], None),
        // The end of a body that ends so, and a reset: as early as they can have been.
        (&[Bytes(UNTIL_CLOSE, Some(200), 1_600), Break(Broken::Closed, 1_600)], [100, 100, 0], None),
        (&[Break(Broken::Reset, 1_600)], [100, 50, ABSENT], Some(Failure::Reset)),
    ] {
        let steps = [stood, steps].concat();
        let plan = plan();
        let mut probe = start(&plan, false);
        let ending = run(&plan, &mut probe, &steps).unwrap();
        let sample = sample(&plan, probe, ending, 0);
        holds(&sample);
        let Phases { connect_us, processing_us, transfer_us, .. } = sample.phases;
        assert_eq!(
            ([connect_us, processing_us, transfer_us], sample.failure()),
            (phases, failure),
            "{steps:?}"
        );
        assert!(sample.flags.has(Flags::TAINTED) && !sample.flags.has(Flags::CENSORED), "{steps:?}");
        assert!((1_400..=1_450).contains(&sample.agent_us), "{steps:?}: {}", sample.agent_us);
    }
    // Who has only begun since has nothing to fear from it.
    let observed = observe(false, &[Unseen(-900, 0), Connect(100), Bytes(WHOLE, Some(300), 310)]);
    assert_eq!((observed.phases, observed.failure, observed.agent_us), ([100, 200, 0], None, 10));
}

/// Whoever has no port left knows nothing of the origin.
#[test]
fn a_probe_without_a_local_port_is_a_missed_slot() {
    for seen_us in [500, 70_000] {
        let plan = plan();
        let mut probe = start(&plan, false);
        let ending = exchange(&mut probe).broken(&plan.profile, Broken::NoPort, at(seen_us)).unwrap();
        assert_eq!(ending.parting, Parting::GiveUp(MissReason::InflightLimit));
        let (next, _) = probe.ended(&plan, ending, at(seen_us));
        assert!(matches!(next, Next::Missed(MissReason::InflightLimit)));
    }
}

#[test]
fn agent_delay_is_waiting_and_processor_time() {
    let plan = plan();
    let mut probe = start(&plan, false);
    assert_eq!(exchange(&mut probe).connected(&plan.profile, None, at(100)), None);
    probe.charge(1_500);
    let request_bytes = i32::try_from(exchange(&mut probe).request().len()).unwrap();
    say(&mut probe, at(110));
    let ending = run(&plan, &mut probe, &[Bytes(WHOLE, Some(300), 340)]).unwrap();
    let sample = sample(&plan, probe, ending, 2_700);
    assert_eq!((sample.cpu_ns, sample.agent_us), (4_200, 10 + 40 + 4));
    assert_eq!((sample.bytes_out, sample.bytes_in), (request_bytes, i32::try_from(WHOLE.len()).unwrap()));
    assert_eq!((sample.ts, sample.endpoint_id, sample.lag_us), (Wall(5), EndpointId(7), 3));
    assert_eq!((sample.status, sample.outcome, sample.total_us), (200, Outcome::Up, 290));
}

#[test]
fn a_handshake_ends_when_the_kernel_says_and_not_when_we_look() {
    let plan = plan();
    for (round_trip_us, expected) in
        [(None, ([250, 50, 0], 10)), (Some(100), ([100, 50, 0], 160)), (Some(900), ([250, 50, 0], 10))]
    {
        let mut probe = start(&plan, false);
        let round_trip = round_trip_us.map(Micros);
        assert_eq!(exchange(&mut probe).connected(&plan.profile, round_trip, at(250)), None);
        say(&mut probe, at(250));
        let ending = run(&plan, &mut probe, &[Bytes(WHOLE, Some(300), 310)]).unwrap();
        let sample = sample(&plan, probe, ending, 0);
        let Phases { connect_us, processing_us, transfer_us, .. } = sample.phases;
        assert_eq!(
            ([connect_us, processing_us, transfer_us], sample.agent_us),
            expected,
            "{round_trip_us:?}"
        );
        holds(&sample);
    }
}

#[test]
fn writing_ends_when_the_kernel_has_the_last_byte_and_with_the_first_of_the_answer_at_the_latest() {
    const ALL: u64 = u64::MAX;
    let plan = plan();
    let request_bytes = plan.request.render(0).len() as u64;
    // Bytes that the call took until 130 µs; bytes that had left by when; when the answer came; how long it took.
    type Row<'a> = (&'a str, u64, &'a [(u64, i64)], i64, i32);
    let rows: &[Row<'_>] = &[
        ("one call", ALL, &[], 300, 30),
        ("none at once", 0, &[(request_bytes, 250)], 300, 150),
        ("in three", 10, &[(1, 150), (request_bytes - 11, 270)], 300, 170),
        ("noticed after the answer", 10, &[(request_bytes - 10, 320)], 300, 200),
        ("never, for all we know", 10, &[(1, 150)], 300, 200),
        ("an answer while we were calling", ALL, &[], 120, 20),
    ];
    for (name, at_once_bytes, sent, answered_us, write_us) in rows {
        let mut probe = start(&plan, false);
        assert_eq!(exchange(&mut probe).connected(&plan.profile, None, at(100)), None);
        say_at_most(*at_once_bytes, &mut probe, (at(100), at(130)));
        for (bytes, us) in *sent {
            exchange(&mut probe).sent(*bytes, at(*us));
        }
        let ending = run(&plan, &mut probe, &[Bytes(WHOLE, Some(*answered_us), 330)]).unwrap();
        let sample = sample(&plan, probe, ending, 0);
        holds(&sample);
        assert_eq!(sample.write_us, *write_us, "{name}");
    }
    let mut probe = start(&plan, false);
    let ending = run(&plan, &mut probe, &[Break(Broken::Refused, 100)]).unwrap();
    assert_eq!(sample(&plan, probe, ending, 0).write_us, ABSENT, "nothing was asked");
}

#[test]
fn an_unresolved_endpoint_is_down_in_no_time() {
    let plan = plan();
    let mut probe = Probe::start(&plan, EndpointId(7), Wall(5), Micros(3), START);
    let ending = probe.unresolved(Failure::DnsNotFound, START);
    let sample = sample(&plan, probe, ending, 0);
    holds(&sample);
    assert_eq!((sample.failure(), sample.total_us), (Some(Failure::DnsNotFound), 0));
}

/// Times in ns, so that rounding to µs is in play; stamps up to either side of what is possible.
#[derive(Clone, Debug)]
enum Event {
    Connect,
    Bytes(&'static str, Option<i64>),
    Sent(u64),
    Break(Broken),
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let pieces =
        [HEAD, "HTTP/1.1 ", "200 OK\r\n", "\r\n", "o", "k", "HTTP/1.1 100 x\r\n\r\n", UNTIL_CLOSE, "", "x"];
    let bytes = (proptest::sample::select(pieces.to_vec()), proptest::option::of(-2_000_000_i64..2_000_000));
    let event = prop_oneof![
        2 => Just(Event::Connect),
        8 => bytes.prop_map(|(bytes, stamp)| Event::Bytes(bytes, stamp)),
        4 => (1_u64..40).prop_map(Event::Sent),
        1 => proptest::sample::select(BROKEN.to_vec()).prop_map(Event::Break),
    ];
    proptest::collection::vec((0_u64..600_000, event), 0..10)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_048, ..ProptestConfig::default() })]

    #[test]
    fn phases_sum_to_the_total_whatever_happens(
        reused in any::<bool>(),
        at_once_bytes in 0_u64..80,
        call_ns in 0_u64..100_000,
        events in events(),
    ) {
        let plan = plan();
        let mut probe = start(&plan, reused);
        let mut seen = START;
        let mut ending = None;
        for (later_ns, event) in &events {
            seen = Mono(seen.0 + later_ns);
            let connecting = exchange(&mut probe).stage() == Stage::Connecting;
            if connecting && !matches!(event, Event::Break(_)) {
                ending = exchange(&mut probe).connected(&plan.profile, None, seen);
                if ending.is_some() {
                    break;
                }
                let sent = Mono(seen.0 + call_ns);
                say_at_most(at_once_bytes, &mut probe, (seen, sent));
                seen = sent;
            }
            let exchange = exchange(&mut probe);
            ending = match event {
                Event::Connect => None,
                Event::Sent(bytes) => {
                    exchange.sent(*bytes, seen);
                    None
                }
                Event::Bytes(bytes, stamp) => {
                    let arrived = stamp.map(|off_ns| Mono(seen.0.saturating_add_signed(off_ns)));
                    exchange.received(&plan.profile, bytes.as_bytes(), arrived, seen)
                }
                Event::Break(how) => exchange.broken(&plan.profile, *how, seen),
            };
            if ending.is_some() {
                break;
            }
        }
        let ending = ending.unwrap_or_else(|| exchange(&mut probe).timed_out(&plan.profile));
        prop_assert!(ending.at >= START && ending.at <= probe.deadline());
        let sample = sample(&plan, probe, ending, 999);
        holds(&sample);
        prop_assert_eq!(u64::from(sample.total_us.unsigned_abs()), (ending.at.0 - START.0) / 1_000);
        prop_assert_eq!(sample.phases.connect_us == ABSENT, reused);
    }
}

#[test]
fn an_origin_that_waited_for_us_has_as_much_longer() {
    let plan = plan();
    for (arrived_us, failure, total_us) in [(1_800, None, 1_000), (1_801, Some(Failure::TtfbTimeout), 1_000)]
    {
        let mut probe = start(&plan, false);
        assert_eq!(exchange(&mut probe).connected(&plan.profile, Some(Micros(100)), at(850)), None);
        say(&mut probe, at(900));
        let ending = run(&plan, &mut probe, &[Bytes(WHOLE, Some(arrived_us), arrived_us)]).unwrap();
        let sample = sample(&plan, probe, ending, 0);
        assert_eq!((sample.failure(), sample.total_us, sample.agent_us), (failure, total_us, 800));
        assert_eq!(sample.phases.processing_us, 900);
    }
}

/// A response with a coded body, and how its origin ends it.
#[derive(Clone, Debug)]
struct Coded {
    response: Vec<u8>,
    closes: bool,
}

/// Bodies of a few goes, framed in every way, whole, broken or cut off, with something behind or not.
fn coded() -> impl Strategy<Value = Coded> {
    let body = (0_usize..60_000, any::<bool>(), proptest::option::of(any::<proptest::sample::Index>()));
    (body, 0_u8..3, 0_usize..3, any::<bool>()).prop_map(
        |((body_bytes, ok, broken_at), framing, surplus_bytes, twice)| {
            let mut body = vec![b'x'; body_bytes];
            if ok {
                body.splice(body_bytes / 2..body_bytes / 2, *b"all is ok");
            }
            for _ in 0..=u8::from(twice) {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(&body).unwrap();
                body = encoder.finish().unwrap();
            }
            if let Some(at) = broken_at {
                let at = at.index(body.len());
                body[at] ^= 4;
            }
            let codings = if twice { "gzip, gzip" } else { "gzip" };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {codings}\r\n");
            let length = body.len();
            let mut response = match framing {
                0 => [format!("{head}Content-Length: {length}\r\n\r\n").into_bytes(), body].concat(),
                1 => {
                    let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n");
                    [head.into_bytes(), body, b"\r\n0\r\n\r\n".to_vec()].concat()
                }
                _ => [format!("{head}\r\n").into_bytes(), body].concat(),
            };
            if framing < 2 {
                response.resize(response.len() + surplus_bytes, b'!');
            }
            Coded { response, closes: framing == 2 || surplus_bytes == 1 }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// What a sample says does not depend on how much of a body is decoded at once, nor on when we get to it.
    #[test]
    fn goes_of_any_size_make_the_same_sample(
        coded in coded(),
        go_bytes in 1_usize..50_000,
        goes_between in 0_usize..4,
        body_bytes_max in 1_u64..70_000,
        body_stop in any::<bool>(),
        asks in any::<bool>(),
        seed in 1_u64..,
        gap_us in 0_i64..80,
    ) {
        let patterns = Patterns { body_match: vec!["is ok".to_owned()], body_forbid: Vec::new() };
        let matcher = Compiler::new(Budgets::default()).compile(&patterns).unwrap();
        let body = asks.then_some(matcher);
        let expect = Expect { decode: true, body_bytes_max, body_stop, body, ..Expect::default() };
        let plan = plan_of(Profile { timeout: TIMEOUT, redirects: 0, expect, ..Profile::default() });
        let pieces = random_cuts(&coded.response, &mut seed.clone());
        let ends = |go_bytes: usize, goes_between: usize| {
            let profile = &plan.profile;
            let mut probe = start(&plan, false);
            let whole = probe.exchange.take().unwrap();
            probe.exchange = Some(whole.in_goes_of(go_bytes));
            assert_eq!(exchange(&mut probe).connected(profile, None, at(10)), None);
            say(&mut probe, at(10));
            let exchange = exchange(&mut probe);
            let mut ending = None;
            let mut us = 20;
            for piece in &pieces {
                ending = exchange.received(profile, piece, Some(at(us)), at(us + 1));
                for _ in 0..goes_between {
                    ending = ending.or_else(|| exchange.catch_up(profile, at(us + 2)));
                }
                us += gap_us;
                if ending.is_some() {
                    break;
                }
            }
            if ending.is_none() && coded.closes {
                ending = exchange.broken(profile, Broken::Closed, at(us));
            }
            while ending.is_none() && exchange.is_behind() {
                ending = exchange.catch_up(profile, at(us + 5));
            }
            let ending = ending.unwrap_or_else(|| exchange.timed_out(profile));
            let sample = sample(&plan, probe, ending, 0);
            let flags = Flags(sample.flags.0 & !Flags::TAINTED.0);
            // How long what came has waited for us does depend on it.
            (ending, Sample { agent_us: 0, cpu_ns: 0, flags, ..sample })
        };
        let (ending, expected) = ends(usize::MAX, 0);
        let (in_goes, found) = ends(go_bytes, goes_between);
        prop_assert_eq!(found, expected);
        prop_assert_eq!((in_goes.failure, in_goes.at), (ending.failure, ending.at));
        // What comes behind the end is seen with it, and the connection is not lingered on.
        prop_assert!(in_goes.parting == ending.parting || in_goes.parting == Parting::Close);
    }
}

#[test]
fn a_body_that_we_have_no_memory_for_is_a_missed_slot() {
    let expect = Expect { decode: true, ..Expect::default() };
    let plan = plan_of(Profile { timeout: TIMEOUT, expect, ..Profile::default() });
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/http/coding/page.br");
    let coded = std::fs::read(path).unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: {}\r\n\r\n", coded.len());
    let mut probe = start(&plan, false);
    let whole = probe.exchange.take().unwrap();
    probe.exchange = Some(whole.sharing(&DecodeMemory::of(8 * 1024)));
    assert_eq!(exchange(&mut probe).connected(&plan.profile, None, at(10)), None);
    say(&mut probe, at(10));
    let response = [head.as_bytes(), &coded].concat();
    let ending = exchange(&mut probe).received(&plan.profile, &response, Some(at(20)), at(30)).unwrap();
    assert_eq!(ending.parting, Parting::GiveUp(MissReason::Overload));
    assert!(matches!(probe.ended(&plan, ending, at(30)), (Next::Missed(MissReason::Overload), _)));
    let sample = probe.missed(MissReason::Overload);
    assert_eq!((sample.outcome, sample.reason), (Outcome::Missed, MissReason::Overload.code()));
    assert_eq!((sample.ts, sample.endpoint_id), (Wall(5), EndpointId(7)));
}

/// A body that many large tables look at is looked at in goes, and comes to the same.
#[test]
fn slow_patterns_look_in_goes() {
    let pattern = |n: u8| format!("(?!x)[{}b].{{12}}W{n}", char::from(b'c' + n));
    let mut lists = Patterns::default();
    lists.body_match.push("needle".to_owned());
    lists.body_forbid.extend((0..4).map(pattern));
    let matcher = Compiler::new(Budgets::default()).compile(&lists).unwrap();
    assert!(matcher.slowness() > 8, "{}", matcher.slowness());
    let bytes: Vec<u8> =
        (0_u32..300_000).map(|n| b'a' + u8::try_from(n.wrapping_mul(n) / 7 % 8).unwrap()).collect();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
    let mut content = [head.as_bytes(), &bytes].concat();
    for (found, wanted) in [(true, None), (false, Some(Failure::BodyMismatch))] {
        if found {
            content[200_000..200_006].copy_from_slice(b"needle");
        } else {
            content[200_000] = b'N';
        }
        let expect = Expect { body: Some(Arc::clone(&matcher)), ..Expect::default() };
        let plan = plan_of(Profile { timeout: TIMEOUT, expect, ..Profile::default() });
        let mut probe = start(&plan, false);
        assert_eq!(exchange(&mut probe).connected(&plan.profile, None, at(10)), None);
        say(&mut probe, at(10));
        let mut goes = 0;
        let early = content
            .chunks(4_096)
            .find_map(|piece| exchange(&mut probe).received(&plan.profile, piece, Some(at(20)), at(30)));
        let ending = early.or_else(|| {
            std::iter::from_fn(|| {
                goes += 1;
                assert!(exchange(&mut probe).is_behind(), "it ends");
                Some(exchange(&mut probe).catch_up(&plan.profile, at(40)))
            })
            .flatten()
            .next()
        });
        assert!(goes > 60, "a receive is more than a go: {goes}");
        let sample = sample(&plan, probe, ending.unwrap(), 0);
        assert_eq!(sample.failure(), wanted);
        assert_eq!((sample.total_us, sample.bytes_in), (20, i32::try_from(content.len()).unwrap()));
    }
}

/// It grew with what came, without a bound: a bomb is decoded slower than it arrives.
#[test]
fn what_waits_to_be_decoded_is_bounded() {
    let expect = Expect { decode: true, ..Expect::default() };
    let plan = plan_of(Profile { timeout: TIMEOUT, expect, ..Profile::default() });
    let memory = DecodeMemory::of(16 * 1024);
    let mut probe = start(&plan, false);
    let whole = probe.exchange.take().unwrap();
    probe.exchange = Some(whole.in_goes_of(1).sharing(&memory));
    assert_eq!(exchange(&mut probe).connected(&plan.profile, None, at(10)), None);
    say(&mut probe, at(10));
    let mut coder = GzEncoder::new(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut coder, &vec![b'a'; 64 << 20]).unwrap();
    let head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n";
    let response = [&head[..], &coder.finish().unwrap()].concat();
    let ending = response.chunks(1_000).find_map(|piece| {
        assert!(memory.left_bytes() <= 16 * 1024);
        exchange(&mut probe).received(&plan.profile, piece, Some(at(20)), at(30))
    });
    assert_eq!(ending.map(|ending| ending.parting), Some(Parting::GiveUp(MissReason::Overload)));
    assert!(memory.left_bytes() < 2_000, "only when it is used up: {}", memory.left_bytes());
    assert!(matches!(probe.ended(&plan, ending.unwrap(), at(30)), (Next::Missed(MissReason::Overload), _)));
    drop(probe);
    assert_eq!(memory.left_bytes(), 16 * 1024, "and all of it is given back");
}

/// The same page with every coding it may have, and what that is called.
fn coded_pages() -> Vec<(&'static str, Vec<u8>)> {
    let gzip = |content: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let deflate = |content: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let page =
        PAGE_LINES.map(|n| format!("line {n} of a page that is {} times as long as it should be\n", n % 7));
    let page = page.collect::<String>().into_bytes();
    // The same page, coded by another implementation.
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/http/coding/page.br");
    let brotli = std::fs::read(path).unwrap();
    vec![
        ("gzip", gzip(&page)),
        ("deflate", deflate(&page)),
        ("gzip, gzip", gzip(&gzip(&page))),
        ("br, gzip", gzip(&brotli)),
        ("br", brotli),
        ("identity", page),
    ]
}

const PAGE_LINES: std::ops::Range<usize> = 0..2_000;

/// With patterns that were certain, a plain body over its limit was up, and the same one coded `body_too_large`.
#[test]
fn a_limit_cuts_every_coding_alike() {
    use BodyMatch::{Matched, NoVerdict, NotAsked, NotMatched};
    type Row<'a> = (&'a [&'a str], &'a [&'a str], u64, Option<Failure>, BodyMatch, bool);
    let page_bytes = coded_pages().last().map_or(0, |(_, page)| page.len() as u64);
    let rows: [Row<'_>; 8] = [
        (&["line 3 "], &[], 5_000, None, Matched, true),
        (&["line 3 "], &["line 1999 "], 5_000, Some(Failure::BodyNoVerdict), NoVerdict, false),
        (&["line 1999 "], &[], 5_000, Some(Failure::BodyNoVerdict), NoVerdict, false),
        (&["^Line"], &[], 5_000, Some(Failure::BodyMismatch), NotMatched, true),
        (&[], &["line 3 "], 5_000, Some(Failure::BodyForbidden), NotMatched, true),
        (&["line 3 "], &[], page_bytes - 1, None, Matched, true),
        (&["line 3 "], &[], page_bytes, None, Matched, false),
        (&[], &[], 5_000, Some(Failure::BodyTooLarge), NotAsked, false),
    ];
    let mut seed = 7;
    for (body_match, body_forbid, body_bytes_max, failure, state, stopped) in rows {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let patterns = Patterns { body_match: texts(body_match), body_forbid: texts(body_forbid) };
        let matcher = Compiler::new(Budgets::default()).compile(&patterns).unwrap();
        let body = (state != NotAsked).then_some(matcher);
        let expect = Expect { decode: true, body_bytes_max, body, ..Expect::default() };
        let plan = plan_of(Profile { timeout: TIMEOUT, redirects: 0, expect, ..Profile::default() });
        for (codings, page) in coded_pages() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {codings}\r\n");
            let length = page.len();
            let framed = [
                [format!("{head}Content-Length: {length}\r\n\r\n").into_bytes(), page.clone()].concat(),
                [
                    format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n").into_bytes(),
                    page.clone(),
                    b"\r\n0\r\n\r\n".to_vec(),
                ]
                .concat(),
                [format!("{head}\r\n").into_bytes(), page].concat(),
            ];
            for response in &framed {
                let whole = vec![response.as_slice()];
                for pieces in [whole, random_cuts(response, &mut seed)] {
                    let mut probe = start(&plan, false);
                    assert_eq!(exchange(&mut probe).connected(&plan.profile, None, at(10)), None);
                    say(&mut probe, at(10));
                    let exchange = exchange(&mut probe);
                    let ending = pieces.iter().find_map(|piece| {
                        let ending = exchange.received(&plan.profile, piece, Some(at(20)), at(20));
                        ending.or_else(|| decoded(exchange, &plan.profile))
                    });
                    let closed = || exchange.broken(&plan.profile, Broken::Closed, at(30));
                    let ending = ending.or_else(closed).unwrap();
                    let sample = sample(&plan, probe, ending, 0);
                    let found = (sample.failure(), sample.detail.body, sample.flags.has(Flags::STOPPED));
                    let limits = format!("{codings} {body_match:?} {body_forbid:?} of {body_bytes_max}");
                    assert_eq!(found, (failure, state, stopped), "{limits}");
                }
            }
        }
    }
}

/// Goes until what came is decoded.
fn decoded(exchange: &mut Exchange, profile: &Profile) -> Option<Ending> {
    while exchange.is_behind() {
        let ending = exchange.catch_up(profile, at(20));
        if ending.is_some() {
            return ending;
        }
    }
    None
}
