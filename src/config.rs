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
/// Most tags of one endpoint.
pub const TAGS_MAX: usize = 64;

// --- responses ------------------------------------------------------------------------------------------

/// Longest response head. nginx, Apache and curl (100 KiB) all stop in this order of size.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most fields in a response head.
pub const HEAD_FIELDS_MAX: usize = 128;
/// Most interim (1xx) responses before the final one; curl has no bound, and hangs.
pub const INTERIM_RESPONSES_MAX: u32 = 8;
/// Longest chunk-size line, extensions included (RFC 9112, section 7.1.1, asks for a limit).
pub const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// Longest trailer section.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Body bytes read before a probe gives up with `body_too_large`.
pub const BODY_BYTES_MAX: u64 = 10 * 1024 * 1024;

// --- shard ----------------------------------------------------------------------------------------------

/// Probes in flight per shard; more is a miss (`inflight_limit`). 16 Ki sockets are 60 MiB of kernel memory.
pub const INFLIGHT_MAX: u32 = 16 * 1024;
/// Due slots started per turn before completions are looked at again: bounds the burst that a stall leaves.
pub const DRAIN_PER_TURN_MAX: u32 = 64;
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
/// The longest single wait in the kernel while probes are in flight: commands are looked at this often.
pub const WAIT_MAX: Micros = Micros::from_millis(10);
/// With nothing in flight and nothing due for this long, the shard sleeps in glommio instead.
pub const PARK_AFTER: Micros = Micros::from_millis(5);
/// The longest sleep in glommio: commands are looked at this often.
pub const PARK_MAX: Micros = Micros::from_millis(100);

// --- samples and writer ---------------------------------------------------------------------------------

/// Samples a shard's ring to the writer holds (64 B each): 0.6 s at 100,000 probes/s.
pub const SAMPLE_RING_CAPACITY: usize = 64 * 1024;
/// How often the writer looks at the rings; nobody wakes it.
pub const GATHER_EVERY: Micros = Micros::from_millis(20);
/// A batch is closed when it is this old,
pub const BATCH_AGE_MAX: Micros = Micros::from_millis(250);
/// or has this many rows,
pub const BATCH_ROWS_MAX: usize = 25_000;
/// or this many bytes of COPY data.
pub const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
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
/// Most addresses that one port range of `ringprobe target` may name.
pub const ORIGIN_LISTENERS_MAX: usize = 1024;

const _: () = assert!(RECV_BUFFERS.is_power_of_two());
const _: () = assert!(RING_COMPLETIONS >= RING_ENTRIES * 4);
const _: () = assert!(HEAD_BYTES_MAX > RECV_BUFFER_BYTES as usize);
