//! Every limit and default, with its unit and its reason. Nothing here is computed at run time.
//!
//! A number that a user may set has its default here and its flag in `cli/`; the others are bounds that keep
//! a promise of ARCHITECTURE.md ("everything is bounded") and move only with a measurement.

use crate::clock::Micros;

// --- endpoints ------------------------------------------------------------------------------------------

/// Interval of an endpoint that names none.
pub const INTERVAL_DEFAULT: Micros = Micros::from_millis(60_000);
/// Shortest interval: below it, a closed loop (`bench`) is what is wanted.
pub const INTERVAL_MIN: Micros = Micros::from_millis(100);
/// Longest interval: a day.
pub const INTERVAL_MAX: Micros = Micros::from_millis(86_400_000);
/// Timeout of an endpoint that names none; cut to its interval if that is shorter.
pub const TIMEOUT_DEFAULT: Micros = Micros::from_millis(10_000);
/// Longest timeout. Phases are stored as 31 bits of microseconds: 2,147 s.
pub const TIMEOUT_MAX: Micros = Micros::from_millis(300_000);
/// Longest URL, as sent by us; servers commonly refuse above 8 KiB.
pub const URL_BYTES_MAX: usize = 8 * 1024;
/// Longest name of an endpoint.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest request, head and body: it is kept in memory per endpoint.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Who is given up first under overload, of an endpoint that does not say: 0 before 9.
pub const PRIORITY_DEFAULT: u8 = 5;
/// Most tags of one endpoint.
pub const TAGS_MAX: usize = 64;
/// Longest key and longest value of a tag.
pub const TAG_BYTES_MAX: usize = 255;
/// Most header fields of a request: servers commonly refuse above 100.
pub const REQUEST_FIELDS_MAX: usize = 100;
/// Room for what we add to a request ourselves: request line, `Host`, `User-Agent`, `Accept`, framing.
pub const REQUEST_OVERHEAD_BYTES: usize = 1024;
/// Longest endpoint file: a million endpoints of 200 bytes, and some. One that has to be parsed as a whole
/// (`endpoint::file` says when) takes 25 times its size for as long as that lasts.
pub const ENDPOINT_FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most endpoints that `endpoints generate` makes.
pub const GENERATE_COUNT_MAX: u32 = 10_000_000;
/// Most origins that one range such as `http://127.0.0.[1-64]:8080` may stand for.
pub const GENERATE_ORIGINS_MAX: usize = 65_536;

/// Longest file of certificates: all of Mozilla's are 220 KiB.
pub const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

// --- responses ------------------------------------------------------------------------------------------

/// Longest response head. nginx, Apache and curl (100 KiB) all stop in this order of size.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most fields in a response head.
pub const HEAD_FIELDS_MAX: usize = 128;
/// Most interim (1xx) responses before the final one; curl has no bound, and hangs.
pub const INTERIM_RESPONSES_MAX: u32 = 8;
/// Longest chunk-size line, extensions included (RFC 9112, section 7.1.1, asks for a limit).
pub const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// Bytes of chunk-size lines beyond 16 per chunk and twice the payload, over a whole body: extensions of a
/// kilobyte on chunks of a byte are an attack. Go's client draws the same line.
pub const CHUNK_EXCESS_BYTES_MAX: usize = 16 * 1024;
/// Longest trailer section.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Body bytes read before a probe gives up with `body_too_large`.
pub const BODY_BYTES_MAX: u64 = 10 * 1024 * 1024;

// --- shard ----------------------------------------------------------------------------------------------

/// Probes in flight per shard; more is a miss (`inflight_limit`). 16 Ki sockets are 60 MiB of kernel memory.
pub const INFLIGHT_MAX: u32 = 16 * 1024;
/// Probes in flight to one origin address, of the whole node, where nobody says otherwise: more than any origin that is
/// merely watched should see of one client. Loopback is not counted.
pub const ORIGIN_INFLIGHT_DEFAULT: u32 = 256;
/// Probes started per second to one origin address, of the whole node, where nobody says otherwise.
pub const ORIGIN_PROBES_PER_S_DEFAULT: u32 = 1_000;
/// The second that is meant by that: less than a whole one, so that an endpoint that is probed once a second is not in
/// its own way when it starts some milliseconds less late than the last time.
pub const ORIGIN_SPAN: Micros = Micros::from_millis(990);
/// The agent's own delay in one probe, or its lag, that taints it, µs,
pub const AGENT_BUDGET_US: i32 = 1_000;
/// or this share of the probe's total, one in so many, if that is more.
pub const AGENT_BUDGET_SHARE: i32 = 10;
/// The deadline of a probe moves by what its origin had to wait for us. How long before it is looked at again, at
/// least: timers are too coarse for less.
pub const MOVED_DEADLINE_AGAIN: Micros = Micros(1_024);
/// Due slots started per turn before completions are looked at again. In one turn the kernel runs 20 pieces of work
/// that completions wait for (`IO_LOCAL_TW_DEFAULT_MAX`), which take 1 ms: with less than what falls due meanwhile, a
/// burst of answers makes slots late (lag p99 at 10,000 fresh probes/s beside PostgreSQL: 2.9 ms with 8, 0.8 ms with
/// 24), with more, a stall lets answers wait behind questions (agent delay 22 ms at p99 with 64).
pub const DRAIN_PER_TURN_MAX: u32 = 24;
/// How long a shard watches itself before it gives up more slots, or fewer: long beside the stalls of a shared host,
/// and short beside an interval.
pub const RESTRAINT_WINDOW: Micros = Micros::from_millis(250);
/// A window in which fewer slots fell due, or fewer probes ended, says nothing.
pub const RESTRAINT_COUNT_MIN: u32 = 16;
/// Most that a shard gives up of its slots: what is left tells it when the overload is over.
pub const RESTRAINT_SHARE_MAX: f32 = 0.95;
/// Below this it gives up nothing.
pub const RESTRAINT_SHARE_MIN: f32 = 0.01;
/// A probe that starts late by this share of its interval, one in so many, and by more than [`LAG_P99_BUDGET`], is why
/// its next slot finds it in flight: most answers take less than what is left.
pub const DRAGGING_SHARE: u64 = 10;
/// Turns for which what is out of time waits for what has arrived and was not looked at. Each turn is good for 20
/// completions or more, so this is everything of a full shard.
pub const DOUBT_TURNS_MAX: u32 = 4 * INFLIGHT_MAX / 20;
/// Bytes that one go at decoding a body makes, and a slice: 10 to 100 µs (0.3 to 3 ms per MiB, by the coding). A few
/// KiB may decode to the whole of a body's limit, 3 to 31 ms, for which everybody else would wait. What one receive
/// brings of an ordinary page is made in one go. (Of brotli, this bounds what is handed out: `http::coding` has more.)
pub const DECODED_BYTES_PER_GO: usize = 32 * 1024;
/// Goes per turn at what has been received and not yet decoded.
pub const DECODE_GOES_PER_TURN: u32 = 4;
/// Memory that decoding may take in a shard: the windows of brotli decoders, and what has come and was not decoded
/// yet. A window grows with its content, to 4 MiB with what brotli compresses by default and to 16 MiB at most: this is
/// for as many large bodies as a core can decode at a time. Whose body finds none left is a missed slot.
pub const DECODE_MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Questions to DNS sent before slots are looked at again: each is a socket of its own, some 25 µs.
pub const ASKS_PER_TURN_MAX: u32 = 8;
/// Submission entries per shard: a turn that needs more submits in between.
pub const RING_ENTRIES: u32 = 1024;
/// Completion entries per shard; an overflow is kept by the kernel, and costs.
pub const RING_COMPLETIONS: u32 = 8 * 1024;
/// Receive buffers per shard; a power of two, at most 32,768. They hold what arrived and was not yet looked
/// at, so a shard needs as many as arrivals in one turn, not as connections.
pub const RECV_BUFFERS: u16 = 1024;
/// Size of one, in bytes, with 16 of header and 64 of control data in front of the payload.
pub const RECV_BUFFER_BYTES: u32 = 4096;
/// How long a connection that is done may wait for the origin's FIN before we close first (TIME_WAIT should
/// be the server's, who has one port and not 28,000 to lose).
pub const LINGER: Micros = Micros::from_millis(200);
/// Time slice that a shard's thread asks of the scheduler: the shortest there is (`sched_setattr(2)`).
pub const SHARD_SLICE: Micros = Micros(100);
/// The longest single wait in the kernel while probes are in flight: commands are looked at this often, and a shard
/// that was stopped while it waited notices, but for as much. At most 500 waits a second.
pub const WAIT_MAX: Micros = Micros::from_millis(2);
/// A shard that comes to its completions later than this after it would have, had nothing kept it, was blind meanwhile:
/// the kernel may have merged what arrived then, under the stamp of the last of it.
pub const BLIND_MIN: Micros = Micros::from_millis(1);
/// With nothing in flight and nothing due for this long, the shard sleeps in glommio instead.
pub const PARK_AFTER: Micros = Micros::from_millis(5);
/// The longest sleep in glommio: commands are looked at this often.
pub const PARK_MAX: Micros = Micros::from_millis(100);

// --- control --------------------------------------------------------------------------------------------

/// A run whose lag is above this at p99 judges itself invalid: slots were not probed when they were due.
pub const LAG_P99_BUDGET: Micros = Micros(2_000);
/// So is one in which probes waited for us: what the kernel stamps is true however late we look at it, but an agent
/// that is this late cannot answer an origin in time, and its deadlines are guesses.
pub const AGENT_P99_BUDGET: Micros = Micros::from_millis(10);
/// So is a closed loop in which a probe waited for us for this share of it, one in so many: its rate is as much too
/// low. With less, the rate is as good as a benchmark's usually is.
pub const STALLED_SHARE: u64 = 10;
/// So is one whose canaries read this much beside the truth.
pub const CANARY_P99_BUDGET: Micros = Micros::from_millis(1);
/// So is one in which the host gave this share of the CPUs' time to others, percent.
pub const STOLEN_PERCENT_BUDGET: f64 = 5.0;
/// So is one in which a CPU quota stopped us for this share of it, percent: then many a probe has waited.
pub const THROTTLED_PERCENT_BUDGET: f64 = 1.0;
/// So is a minute at whose end rows wait for the store that took this long to come.
pub const BACKLOG_BUDGET: Micros = Micros::from_millis(30_000);
/// How often a shard probes its canary: sixty a minute are enough for a p99 that is nearly their worst.
pub const CANARY_EVERY: Micros = Micros::from_millis(1_000);
/// How often a run is judged.
pub const JUDGED_EVERY: Micros = Micros::from_millis(60_000);
/// Looks at a run that are farther apart say that this process was stopped, or had no CPU: they come every 20 ms.
pub const LOOKS_APART_MAX: Micros = Micros::from_millis(250);
/// After that the numbers are whole again: shards decide what fell due meanwhile in some hundred ms, and the writer
/// shows what it has seen every [`SNAPSHOT_EVERY`].
pub const SETTLED_AFTER: Micros = Micros::from_millis(2_000);
/// How often a judgement is put off because this process was stopped again: who never comes to rest is judged, too.
pub const JUDGEMENT_PUT_OFF_MAX: u32 = 10;
/// Judgements kept for a store that is away: a week of minutes.
pub const JUDGEMENTS_MAX: usize = 10_000;
/// How often the kernel's counters are read.
pub const MACHINE_EVERY: Micros = Micros::from_millis(1_000);
/// Groups of processes around our own that are asked for their quota: there are five or so, in a container of a pod of
/// a cluster's.
pub const CGROUP_DEPTH_MAX: usize = 16;
/// By less the wall clock is slewed, or we were stopped between reading one clock and the other.
pub const CLOCK_STEP_MIN: Micros = Micros(500);
/// How often the status block on a terminal is redrawn.
pub const STATUS_EVERY: Micros = Micros::from_millis(500);
/// How often a line is printed where there is no terminal.
pub const STATUS_LINE_EVERY: Micros = Micros::from_millis(10_000);
/// How often a line is printed there while endpoints are read: who has waited for so long wants to know what for.
pub const READING_LINE_EVERY: Micros = Micros::from_millis(2_000);
/// How often a run looks at how much memory it takes.
pub const RESIDENT_EVERY: Micros = Micros::from_millis(1_000);
/// A block of memory that the allocator gives a page of its own.
pub const ALLOCATOR_PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Most connections of `bench`: what `fs.nr_open` lets one process have, unless it was raised.
pub const BENCH_CONNECTIONS_MAX: u32 = 1024 * 1024;
/// Highest rate of `bench`, probes per second: some hundred times what a core can do. Slots without a bound come
/// faster than they can even be missed, and such a run would never end.
pub const BENCH_RATE_MAX: f64 = 10e6;
/// Samples of one run of a single shard (`bench --accuracy`, `--ab`), all kept until its end (104 B each).
pub const SOLO_SAMPLES_MAX: usize = 4 * 1024 * 1024;
/// What room is made for in such a run without a rate, samples per second: twice what a core can do.
pub const SOLO_SAMPLES_PER_S: f64 = 250_000.0;
/// What such a run leaves out at its beginning, at least,
pub const SOLO_WARM_UP: Micros = Micros::from_millis(200);
/// and at most, where each connection should have been used once: at a tenth of a small core's load, 10,000 have.
pub const SOLO_WARM_UP_MAX: Micros = Micros::from_millis(10_000);
/// Connections of `bench --accuracy` that names none: with fewer, a slot falls due before the last answer has come.
pub const ACCURACY_CONNECTIONS: u32 = 256;
/// And so many more per second that answers are held, each being busy for that long: 1.2 times what a core can do,
/// keeping connections alive,
pub const ACCURACY_CONNECTIONS_PER_S: f64 = 110_000.0;
/// or opening a new one for each probe.
pub const ACCURACY_FRESH_CONNECTIONS_PER_S: f64 = 25_000.0;
/// Connections that a busy core opens per second: until they stand, a closed loop does not show what it can do.
pub const ACCURACY_OPENINGS_PER_S: f64 = 4_000.0;
/// Longest hold of `bench --accuracy`: with more, connections run out of ports before the core is full.
pub const ACCURACY_HOLD_MAX: Micros = Micros::from_millis(100);
/// Highest load of `bench --accuracy`, percent of capacity.
pub const ACCURACY_LOAD_PERCENT_MAX: u32 = 1_000;
/// How long its capacity is looked for.
pub const ACCURACY_CAPACITY_FOR: Micros = Micros::from_millis(2_000);
/// Rounds of `bench --ab`, each of both.
pub const AB_ROUNDS: u32 = 10;
/// Most of them: each leaves a ring's receive buffers behind (4 MiB), which live as long as the process.
pub const AB_ROUNDS_MAX: u32 = 100;
/// Shortest round: a shorter one is mostly its own beginning.
pub const AB_ROUND_MIN: Micros = Micros::from_millis(50);
/// Descriptors left for everything that is not a probe's socket.
pub const DESCRIPTORS_RESERVED: u64 = 256;

// --- samples and writer ---------------------------------------------------------------------------------

/// Samples a shard's ring to the writer holds (104 B each): 0.6 s at 100,000 probes/s.
pub const SAMPLE_RING_CAPACITY: usize = 64 * 1024;
/// Samples that one probe can leave, steps included: 21 hops in each of 6 attempts, and its own; and the same for 64
/// addresses would be too much to keep room for.
pub const SAMPLES_PER_PROBE_MAX: usize = 256;
/// How often the writer looks at the rings; nobody wakes it.
pub const GATHER_EVERY: Micros = Micros::from_millis(20);
/// A batch is closed when it is this old,
pub const BATCH_AGE_MAX: Micros = Micros::from_millis(250);
/// or has this many rows,
pub const BATCH_ROWS_MAX: usize = 25_000;
/// or this many bytes of COPY data.
pub const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Divisions of one batch that the store refuses, to find the rows at fault; then what it refuses is dropped as it
/// is. One row in a full batch takes 15 divisions: four are found, or everything is given up, in some ten seconds.
pub const BATCH_DIVISIONS_MAX: u32 = 64;
/// COPY data handed to the socket at once: large enough that the hand-over between tasks does not show.
pub const COPY_CHUNK_BYTES: usize = 256 * 1024;
/// Samples held in memory while the database is away; beyond it the oldest batch is dropped, and counted.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// First pause before connecting again, doubled up to
pub const RECONNECT_PAUSE_MIN: Micros = Micros::from_millis(100);
/// this one.
pub const RECONNECT_PAUSE_MAX: Micros = Micros::from_millis(5_000);
/// A statement or COPY that takes longer is given up with its connection: PostgreSQL's `statement_timeout`
/// does not stop a COPY whose client went silent.
pub const STORE_DEADLINE: Micros = Micros::from_millis(30_000);
/// How long `run` goes on trying to store what is left when it ends.
pub const DRAIN_STORE_MAX: Micros = Micros::from_millis(30_000);
/// Partitions of `metrics` made ahead of time.
pub const PARTITIONS_AHEAD: u32 = 2;
/// How long raw samples are kept; no flag changes it yet. A week answers "since when?" and "is it
/// like this every Monday?"; at 1,500 rows/s it is 85 GB of PostgreSQL.
pub const RETENTION_DEFAULT: Micros = Micros::from_millis(7 * 86_400_000);
/// Shortest retention: partitions of PostgreSQL are no narrower, and a typing error should not empty a store.
pub const RETENTION_MIN: Micros = Micros::from_millis(3_600_000);
/// How often the writer looks for samples past their retention.
pub const RETENTION_EVERY: Micros = Micros::from_millis(60_000);
/// Rows of SQLite deleted at once: some 10 ms, so that a batch is never kept waiting for long.
pub const RETENTION_SLICE_ROWS: u32 = 10_000;
/// Connecting to the database takes no longer.
pub const STORE_CONNECT_MAX: Micros = Micros::from_millis(5_000);
/// How long SQLite waits for another process's lock before the batch goes back to the queue. Below it lies
/// every ordinary reader; `RECONNECT_PAUSE_MIN` later we try again.
pub const SQLITE_BUSY_MAX: Micros = Micros::from_millis(2_000);
/// `endpoint_state` is written when an endpoint's state changes, and this often when it does not.
pub const STATE_REFRESH: Micros = Micros::from_millis(60_000);
/// How often the writer publishes what it has seen.
pub const SNAPSHOT_EVERY: Micros = Micros::from_millis(1_000);
/// Endpoints read from the table at once: some 2 MiB in memory.
pub const ENDPOINTS_PAGE_ROWS: usize = 5_000;
/// Endpoints per statement when the table is brought in line with a file: some 2 MiB of parameters.
pub const UPSERT_ROWS_MAX: usize = 5_000;

// --- machine ----------------------------------------------------------------------------------------------

/// The oldest kernel, major and minor: `DEFER_TASKRUN` came with it; multishot receive and provided buffer
/// rings with the two before.
pub const KERNEL_MIN: (u32, u32) = (6, 1);
/// Bytes that must be lockable: glommio refuses to start below.
pub const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;
/// Open files besides the probes' sockets: rings, event descriptors, the store, logs.
pub const NOFILE_SPARE: u64 = 1024;
/// Ephemeral ports of an unchanged Linux (32,768 to 60,999), rounded down: fewer was somebody's decision.
pub const LOCAL_PORTS_MIN: u32 = 28_000;

// --- test origin ----------------------------------------------------------------------------------------

/// Pending connections per listener: a burst of fresh probes must not lose its SYNs. The kernel caps it at
/// `net.core.somaxconn`, 4,096 by default.
pub const ORIGIN_BACKLOG: i32 = 4096;
/// Bytes read at once, and thus the most that waits unread behind a request that is being answered.
pub const ORIGIN_READ_BYTES: usize = 64 * 1024;
/// Longest request head that the origin reads.
pub const ORIGIN_REQUEST_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Readiness events taken from the kernel at once.
pub const ORIGIN_EVENTS: usize = 256;
/// Connections accepted before other connections get their turn.
pub const ORIGIN_ACCEPTS_PER_TURN: usize = 64;
/// Reads from one connection before other connections get their turn.
pub const ORIGIN_READS_PER_TURN: u32 = 16;
/// Writes of one answer before other connections get their turn,
pub const ORIGIN_WRITES_PER_TURN: u32 = 64;
/// and bytes of it.
pub const ORIGIN_WRITE_BYTES_PER_TURN: usize = 512 * 1024;
/// Answers kept ready, one per path; further ones are made for each request.
pub const ORIGIN_ANSWERS_MAX: usize = 4096;
/// Memory of all answers kept ready.
pub const ORIGIN_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest wait that a path can order: an hour.
pub const ORIGIN_WAIT_MAX: Micros = Micros::from_millis(3_600_000);
/// How long a connection closed with input unread may take to go. Closing it at once would send RST, which
/// can take the answer back out of the client's hands (RFC 9112, section 9.6).
pub const ORIGIN_LINGER: Micros = Micros::from_millis(1_000);
/// Most holds that a holding origin notes, 24 bytes each: half a minute of all that a core can ask.
pub const HOLDS_MAX: usize = 4 * 1024 * 1024;
/// Most addresses that one port range of `ringprobe target` may name.
pub const ORIGIN_LISTENERS_MAX: usize = 1024;

const _: () = assert!(RECV_BUFFERS.is_power_of_two());
const _: () = assert!(SETTLED_AFTER.0 > SNAPSHOT_EVERY.0);
const _: () = assert!(RING_COMPLETIONS >= RING_ENTRIES * 4);
const _: () = assert!(HEAD_BYTES_MAX > RECV_BUFFER_BYTES as usize);
