//! The other end of the writer's rings: samples, and waiting for what becomes of them.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ringprobe::clock::{Micros, Mono, Wall};
use ringprobe::sample::{EndpointId, Failure, Flags, MissReason, Outcome, Phases, Sample};
use ringprobe::writer::{self, Snapshot, WriterHandle, WriterOptions};
use rtrb::{Producer, RingBuffer};

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks at a condition of the outside world until it holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Mono::now();
    while !holds() {
        assert!(Mono::now().since(started) < PATIENCE, "in vain: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// A running writer with one ring, as a shard sees it.
pub(crate) struct Writer {
    producer: Producer<Sample>,
    handle: WriterHandle,
    fed: u64,
}

impl Writer {
    /// Small, so that tests come to its end.
    pub(crate) const RING: usize = 8 * 1024;

    pub(crate) fn start(options: WriterOptions) -> Self {
        let (producer, consumer) = RingBuffer::new(Self::RING);
        Self { producer, handle: writer::spawn(vec![consumer], options).unwrap(), fed: 0 }
    }

    /// Puts samples in the ring, waiting while it is full (a shard would not).
    pub(crate) fn feed(&mut self, samples: &[Sample]) {
        for sample in samples {
            wait_until("the ring is emptied", || !self.producer.is_full());
            self.producer.push(*sample).unwrap();
        }
        self.fed += samples.len() as u64;
    }

    pub(crate) fn handle(&self) -> &WriterHandle {
        &self.handle
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.handle.snapshot()
    }

    /// Waits until the writer has seen this many samples.
    pub(crate) fn gathered(&self, samples: u64) {
        wait_until("samples are gathered", || self.snapshot().tally.due() >= samples);
    }

    /// Waits until all that was fed is stored or dropped.
    pub(crate) fn settle(&self) {
        wait_until("samples are stored", || {
            let now = self.snapshot();
            now.stored + now.dropped >= self.fed
        });
    }

    /// Ends the shard, and waits for the writer.
    pub(crate) fn end(self) -> Arc<Snapshot> {
        drop(self.producer);
        self.handle.join()
    }
}

/// A sample of a probe that got a response; `status` decides between up and down.
pub(crate) fn probed(ts_us: i64, endpoint: i32, status: i16) -> Sample {
    let none = Flags::default();
    let up = status < 400;
    Sample {
        phases: Phases { connect_us: 100, processing_us: 2_000, transfer_us: 30, ..Phases::NONE },
        total_us: 2_130,
        write_us: 20,
        status,
        outcome: if up { Outcome::Up } else { Outcome::Down },
        reason: if up { 0 } else { Failure::StatusUnexpected.code() },
        ..Sample::missed(Wall(ts_us), EndpointId(endpoint), Micros(7), MissReason::Late, none)
    }
}

/// Numbers that a seed repeats (xorshift64).
pub(crate) struct Random(u64);

impl Random {
    /// From `RINGPROBE_SEED`, or from the clock; says which.
    pub(crate) fn seeded() -> Self {
        let given = std::env::var("RINGPROBE_SEED").ok();
        let seed =
            given.map_or_else(|| Mono::now().0, |seed| seed.parse().expect("RINGPROBE_SEED is a number"));
        println!("RINGPROBE_SEED={seed}");
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}
