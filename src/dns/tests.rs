//! Tests at the boundary of the DNS core: messages from vectors and at random, and the resolver in a simulated world
//! of bad servers.

mod messages;
mod world;

use super::*;
