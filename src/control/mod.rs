//! Everything that is neither probing nor storing: starting and stopping a node, and judging its run.
//!
//! Runs on threads of its own that are pinned nowhere. Out of scope, so far: the endpoint feed, the admin page,
//! the fleet lease.

pub mod accuracy;
pub mod canary;
pub mod cgroup;
pub mod comparison;
pub mod machine;
pub mod minutes;
pub mod node;
pub mod plans;
pub mod quantiles;
pub mod roster;
pub mod solo;
pub mod summary;
pub mod surroundings;
pub mod validity;
