//! The deterministic simulation: the production schedule, engine, probe machine and HTTP client on a simulated
//! clock, network and database.
//!
//! ```text
//!   seed ─► World ─► Engine ◄──► Network     origins of every character, stalls, disorder
//!             │         └─ Sample ─► ring ─► Writer ─► Database    comes and goes, loses answers
//!             └─► Checker and Ledger: slots, connections, rows, counted in another way
//! ```
//!
//! One seed is one world, and always the same one: threads, sleeping and the real clock play no part, so that
//! a hundred hours take a second. `SEED=… scripts/test sim` replays what failed.
//!
//! In scope: invariants 1, 2 and 4 of ARCHITECTURE.md, and the contract between engine and wire. Out of scope:
//! the kernel (`shard/ring.rs`), SQL, and the threads between. A [`Breakage`] is put in on purpose to see that
//! the checks can fail.

pub mod check;
pub mod clock;
pub mod database;
pub mod network;
pub mod world;

pub use world::{Breakage, Options, Origins, Report, Scale, Violation, run};
