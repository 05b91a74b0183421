//! Samples as PostgreSQL's binary COPY format, by hand.
//!
//! Every column of `metrics` and of `steps` is fixed-width and never null, so a row is a constant template (field
//! count and field lengths) with big-endian values patched in:
//!
//! ```text
//! header   "PGCOPY\n\xff\r\n\0"  flags: u32 = 0  extension length: u32 = 0            19 bytes
//! row      fields: i16 = 26      26 x (length: i32, value)                           204 bytes each (steps: 27, 210)
//! trailer  -1: i16                                                                     2 bytes
//! ```
//!
//! tokio-postgres's own encoder makes a virtual call per value and a hand-over between tasks per 4 KiB; this
//! one makes chunks of [`COPY_CHUNK_BYTES`], which the driver sends as they are.
//!
//! Out of scope: connections, transactions, the order of statements (`postgres.rs`).
//!
//! Invariant: [`COLUMNS`] names the fields in the order and the widths in which they are written.

use bytes::Bytes;

use crate::config::COPY_CHUNK_BYTES;
use crate::sample::Sample;

/// The columns of `metrics`: the widest first, so that no row is padded.
pub const COLUMNS: [&str; 26] = [
    "ts",
    "address_hi",
    "address_lo",
    "endpoint_id",
    "lag_us",
    "resolve_us",
    "connect_us",
    "tls_us",
    "processing_us",
    "transfer_us",
    "total_us",
    "write_us",
    "agent_us",
    "bytes_in",
    "bytes_out",
    "cpu_ns",
    "flags",
    "status",
    "outcome",
    "failure",
    "tls_cipher",
    "pattern",
    "redirects",
    "attempt",
    "body",
    "twin",
];

/// The column that `steps` has on top, at the end.
pub const STEP_COLUMN: &str = "step";

/// Their widths in bytes: `timestamptz`, 2 x `bigint`, 14 x `integer`, 9 x `smallint`.
const WIDTHS: [u8; 26] = [8, 8, 8, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2];

/// Bytes of one row of `metrics` on the wire.
pub const ROW_BYTES: usize = 2 + 26 * 4 + 98;

/// Bytes of one row of `steps`.
pub const STEP_ROW_BYTES: usize = ROW_BYTES + 4 + 2;

/// What precedes the first row.
const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What follows the last.
const TRAILER: [u8; 2] = [0xff, 0xff];

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const EPOCH_US: i64 = 946_684_800_000_000;

/// A row whose values are all zero: the bytes that are the same in every row.
const TEMPLATE: [u8; ROW_BYTES] = {
    let mut row = [0; ROW_BYTES];
    row[1] = 26;
    let mut at = 2;
    let mut field = 0;
    while field < WIDTHS.len() {
        row[at + 3] = WIDTHS[field];
        at += 4 + WIDTHS[field] as usize;
        field += 1;
    }
    assert!(at == ROW_BYTES);
    row
};

/// The COPY stream of `metrics`, chunk by chunk, encoded as it is asked for.
pub fn chunks(rows: &[Sample]) -> impl Iterator<Item = Bytes> + '_ {
    chunks_of(rows, encode)
}

/// The same for `steps`.
pub fn step_chunks(rows: &[Sample]) -> impl Iterator<Item = Bytes> + '_ {
    chunks_of(rows, encode_step)
}

fn chunks_of<const BYTES: usize>(
    rows: &[Sample],
    encode: fn(&Sample) -> [u8; BYTES],
) -> impl Iterator<Item = Bytes> + '_ {
    // The header and the trailer come on top.
    let chunk_rows = COPY_CHUNK_BYTES / BYTES;
    // No rows are still a header and a trailer.
    let count = rows.len().div_ceil(chunk_rows).max(1);
    (0..count).map(move |chunk| {
        let first = chunk * chunk_rows;
        let rows = &rows[first..rows.len().min(first + chunk_rows)];
        let mut bytes = Vec::with_capacity(rows.len() * BYTES + HEADER.len() + TRAILER.len());
        if chunk == 0 {
            bytes.extend_from_slice(&HEADER);
        }
        for row in rows {
            bytes.extend_from_slice(&encode(row));
        }
        if chunk + 1 == count {
            bytes.extend_from_slice(&TRAILER);
        }
        Bytes::from(bytes)
    })
}

/// An address as two numbers: its first and its last eight bytes, in network order.
#[expect(clippy::big_endian_bytes, reason = "addresses are written from the left")]
pub(super) fn address_halves(address: [u8; 16]) -> (i64, i64) {
    let bits = u128::from_be_bytes(address);
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default().cast_signed();
    (half(bits >> 64), half(bits))
}

/// One row of `metrics`.
#[inline]
#[expect(clippy::big_endian_bytes, reason = "PostgreSQL's wire format is big-endian")]
fn encode(sample: &Sample) -> [u8; ROW_BYTES] {
    let mut row = TEMPLATE;
    // The offsets are constants once this is inlined: 26 stores and no branch.
    let mut at = 2;
    let mut put = |value: &[u8]| {
        row[at + 4..at + 4 + value.len()].copy_from_slice(value);
        at += 4 + value.len();
    };
    let detail = &sample.detail;
    put(&sample.ts.0.saturating_sub(EPOCH_US).to_be_bytes());
    put(&detail.address[..8]);
    put(&detail.address[8..]);
    put(&sample.endpoint_id.0.to_be_bytes());
    put(&sample.lag_us.to_be_bytes());
    let phases = &sample.phases;
    put(&phases.resolve_us.to_be_bytes());
    put(&phases.connect_us.to_be_bytes());
    put(&phases.tls_us.to_be_bytes());
    put(&phases.processing_us.to_be_bytes());
    put(&phases.transfer_us.to_be_bytes());
    put(&sample.total_us.to_be_bytes());
    put(&sample.write_us.to_be_bytes());
    put(&sample.agent_us.to_be_bytes());
    put(&sample.bytes_in.to_be_bytes());
    put(&sample.bytes_out.to_be_bytes());
    put(&sample.cpu_ns.to_be_bytes());
    put(&sample.flags.0.to_be_bytes());
    put(&sample.status.to_be_bytes());
    put(&(sample.outcome as i16).to_be_bytes());
    put(&sample.reason.to_be_bytes());
    // There is no unsigned type: the same bits.
    put(&detail.tls_cipher.to_be_bytes());
    put(&detail.pattern.to_be_bytes());
    put(&i16::from(detail.redirects).to_be_bytes());
    put(&i16::from(detail.attempt).to_be_bytes());
    put(&(detail.body as i16).to_be_bytes());
    put(&sample.twin.to_be_bytes());
    row
}

/// One row of `steps`: that of `metrics`, and a column more.
#[expect(clippy::big_endian_bytes, reason = "PostgreSQL's wire format is big-endian")]
fn encode_step(sample: &Sample) -> [u8; STEP_ROW_BYTES] {
    let mut row = [0; STEP_ROW_BYTES];
    row[..ROW_BYTES].copy_from_slice(&encode(sample));
    row[1] += 1;
    row[ROW_BYTES + 3] = 2;
    row[ROW_BYTES + 4..].copy_from_slice(&i16::from(sample.detail.step).to_be_bytes());
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::sample::{BodyMatch, Detail, EndpointId, Failure, Flags, Outcome, Phases};

    const SAMPLE: Sample = Sample {
        ts: Wall(EPOCH_US + 0x0102_0304_0506_0708),
        endpoint_id: EndpointId(0x1112_1314),
        lag_us: 0x2122_2324,
        phases: Phases { resolve_us: -1, connect_us: 1, tls_us: 2, processing_us: 3, transfer_us: 4 },
        total_us: 10,
        write_us: 2,
        agent_us: i32::MIN,
        bytes_in: i32::MAX,
        bytes_out: 5,
        cpu_ns: 6,
        status: 404,
        outcome: Outcome::Down,
        reason: Failure::StatusUnexpected.code(),
        twin: 9,
        flags: Flags(-1),
        detail: Detail {
            address: [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 1],
            tls_not_after_s: 7,
            tls_cipher: 0xcca9,
            pattern: -1,
            redirects: 255,
            attempt: 3,
            body: BodyMatch::NoVerdict,
            step: 200,
        },
    };

    fn stream(rows: &[Sample]) -> Vec<u8> {
        chunks(rows).flatten().collect()
    }

    /// Reads the documented format: "Binary Format" in the PostgreSQL manual's page on COPY.
    #[expect(clippy::big_endian_bytes, reason = "PostgreSQL's wire format is big-endian")]
    fn decode(mut bytes: &[u8]) -> Vec<Vec<i64>> {
        let mut take = |n: usize| {
            let (head, tail) = bytes.split_at(n);
            bytes = tail;
            head
        };
        assert_eq!(take(11), b"PGCOPY\n\xff\r\n\0");
        assert_eq!(take(8), [0; 8], "flags, and length of the header extension");
        let mut rows = Vec::new();
        loop {
            let fields = i16::from_be_bytes(take(2).try_into().unwrap());
            if fields == -1 {
                assert!(bytes.is_empty(), "nothing follows the trailer");
                return rows;
            }
            rows.push(
                (0..fields)
                    .map(|_| {
                        let width = i32::from_be_bytes(take(4).try_into().unwrap());
                        let value = take(width.try_into().unwrap());
                        match width {
                            2 => i16::from_be_bytes(value.try_into().unwrap()).into(),
                            4 => i32::from_be_bytes(value.try_into().unwrap()).into(),
                            8 => i64::from_be_bytes(value.try_into().unwrap()),
                            _ => panic!("width {width}"),
                        }
                    })
                    .collect(),
            );
        }
    }

    #[test]
    fn a_row_follows_the_documented_format() {
        let expected: [i64; 27] = [
            0x0102_0304_0506_0708,
            0x2001_0db8_0000_0000,
            -0x00ff_ffff_ffff_ffff,
            0x1112_1314,
            0x2122_2324,
            -1,
            1,
            2,
            3,
            4,
            10,
            2,
            i32::MIN.into(),
            i32::MAX.into(),
            5,
            6,
            -1,
            404,
            2,
            60,
            0xcca9 - 0x1_0000,
            -1,
            255,
            3,
            4,
            9,
            200,
        ];
        assert_eq!(decode(&stream(&[SAMPLE])), [&expected[..26]]);
        let steps: Vec<u8> = step_chunks(&[SAMPLE]).flatten().collect();
        assert_eq!(decode(&steps), [expected]);
        assert_eq!(address_halves(SAMPLE.detail.address), (expected[1], expected[2]));
        assert_eq!((ROW_BYTES, STEP_ROW_BYTES), (204, 210));
        assert_eq!(COLUMNS.len(), WIDTHS.len());
    }

    #[test]
    fn no_rows_are_a_valid_stream() {
        assert!(decode(&stream(&[])).is_empty());
    }

    #[test]
    fn chunks_are_bounded_and_lose_nothing_at_their_edges() {
        const CHUNK_ROWS: usize = COPY_CHUNK_BYTES / ROW_BYTES;
        for count in [1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 3 * CHUNK_ROWS, 3 * CHUNK_ROWS + 7] {
            let rows: Vec<Sample> = (0..count)
                .map(|row| Sample { endpoint_id: EndpointId(row.try_into().unwrap()), ..SAMPLE })
                .collect();
            for chunk in chunks(&rows) {
                assert!(chunk.len() <= COPY_CHUNK_BYTES + HEADER.len() + TRAILER.len());
            }
            let ids: Vec<i64> = decode(&stream(&rows)).iter().map(|row| row[3]).collect();
            assert_eq!(ids, (0..count.try_into().unwrap()).collect::<Vec<i64>>());
        }
    }
}
