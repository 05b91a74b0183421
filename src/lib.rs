//! ringprobe: an HTTP endpoint prober for Linux, on io_uring, one executor per core.
//!
//! The library exists for the binary, the benches, the tests and the fuzz targets; it makes no promise of a
//! stable API. ARCHITECTURE.md is the map; the order below is the order in which to read.

pub mod clock;
pub mod config;
pub mod sample;

pub mod dns;
pub mod endpoint;
pub mod http;
pub mod matcher;
pub mod policy;
pub mod probe;
pub mod schedule;
pub mod tls;

pub mod shard;
pub mod writer;

pub mod control;

pub mod cli;
pub mod testing;
