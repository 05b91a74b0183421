//! Tests at the boundary of the DNS core: messages, and the resolver in a simulated world of bad servers.

#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers drawn from small ranges, and halves of lengths"
)]

mod behaviour;
mod messages;
mod simulation;
mod world;

/// The seed of this run: `SEED` from the environment, or one from the clock, printed with every failure.
fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    seed.unwrap_or_else(|| crate::clock::Mono::now().0)
}
