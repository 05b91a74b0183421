//! [`Latest`]: which samples of a batch are worth writing to `endpoint_state`.
//!
//! Writing the state of each endpoint with each sample would cost more than the samples themselves: an upsert
//! is some ten times a COPY row. So it is written when what a probe found has changed, and every
//! `STATE_REFRESH` when it has not; the table is at most that far behind. Missed slots say nothing about the
//! endpoint and are left out, and so do steps: what a probe came to is in its sample.
//!
//! Invariant: at most one sample per endpoint is selected from a batch, the last.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use crate::clock::Wall;
use crate::config::STATE_REFRESH;
use crate::sample::{EndpointId, Outcome, Sample};

/// What was last written about each endpoint: 24 bytes each.
#[derive(Debug, Default)]
pub(super) struct Latest {
    written: HashMap<EndpointId, Written>,
}

#[derive(Debug)]
struct Written {
    ts: Wall,
    outcome: Outcome,
    reason: i16,
    status: i16,
}

/// Until when the origin's certificate is valid, if there was one.
pub(super) fn not_after(sample: &Sample) -> Option<Wall> {
    match sample.detail.tls_not_after_s {
        0 => None,
        seconds => Some(Wall(i64::from(seconds) * 1_000_000)),
    }
}

/// The address that was connected to, as text; IPv4 as itself.
pub(super) fn address(sample: &Sample) -> Option<String> {
    match sample.detail.address {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => None,
        octets => Some(Ipv6Addr::from(octets).to_canonical().to_string()),
    }
}

impl Latest {
    /// The samples to write, in order of endpoint (two writers that lock rows in one order cannot deadlock).
    ///
    /// They count as written from now on: the caller keeps them until the store has them, or has given them
    /// up, in which case the next refresh repairs the table.
    pub(super) fn select(&mut self, rows: &[Sample]) -> Vec<Sample> {
        let mut selected: Vec<Sample> = Vec::new();
        for row in rows.iter().filter(|row| row.outcome != Outcome::Missed && row.detail.step == 0) {
            let now = Written { ts: row.ts, outcome: row.outcome, reason: row.reason, status: row.status };
            match self.written.get_mut(&row.endpoint_id) {
                Some(known) if !now.replaces(known) => {}
                Some(known) => {
                    *known = now;
                    selected.push(*row);
                }
                None => {
                    self.written.insert(row.endpoint_id, now);
                    selected.push(*row);
                }
            }
        }
        selected.sort_by_key(|row| (row.endpoint_id, std::cmp::Reverse(row.ts)));
        selected.dedup_by_key(|row| row.endpoint_id);
        selected
    }
}

impl Written {
    fn replaces(&self, known: &Self) -> bool {
        let same = (self.outcome, self.reason, self.status) == (known.outcome, known.reason, known.status);
        let age_us = self.ts - known.ts;
        age_us > 0 && (!same || age_us.unsigned_abs() >= STATE_REFRESH.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Micros;
    use crate::sample::{Flags, MissReason};

    fn probed(ts_s: i64, endpoint: i32, status: i16) -> Sample {
        let ts = Wall(ts_s * 1_000_000);
        let missed = Sample::missed(ts, EndpointId(endpoint), Micros(0), MissReason::Late, Flags::default());
        let up = status < 400;
        let (outcome, reason) = if up { (Outcome::Up, 0) } else { (Outcome::Down, 60) };
        Sample { status, outcome, reason, ..missed }
    }

    fn check(latest: &mut Latest, rows: &[Sample], expected: &[Sample]) {
        assert_eq!(latest.select(rows), expected);
    }

    #[test]
    fn a_state_is_written_when_it_is_new_changed_or_old() {
        let mut latest = Latest::default();
        check(&mut latest, &[probed(0, 7, 200), probed(0, 3, 200)], &[probed(0, 3, 200), probed(0, 7, 200)]);
        check(&mut latest, &[probed(10, 7, 200), probed(59, 3, 200)], &[]);
        check(
            &mut latest,
            &[probed(60, 7, 200), probed(61, 3, 500)],
            &[probed(61, 3, 500), probed(60, 7, 200)],
        );
        check(&mut latest, &[probed(70, 3, 503)], &[probed(70, 3, 503)]);
        check(&mut latest, &[probed(70, 3, 200)], &[]);
    }

    #[test]
    fn only_the_last_of_a_batch_is_written() {
        let mut latest = Latest::default();
        check(&mut latest, &[probed(0, 1, 200), probed(1, 1, 500), probed(2, 1, 200)], &[probed(2, 1, 200)]);
        check(&mut latest, &[probed(3, 1, 200)], &[]);
    }

    #[test]
    fn a_missed_slot_and_a_step_say_nothing_about_the_endpoint() {
        let missed = Sample::missed(Wall(0), EndpointId(1), Micros(0), MissReason::Overlap, Flags::default());
        check(&mut Latest::default(), &[missed], &[]);
        let mut step = probed(0, 1, 302);
        step.detail.step = 1;
        check(&mut Latest::default(), &[step], &[]);
    }
}
