//! What tests need and operators may use: the scripted test origin.
//!
//! Nothing here is on a prober's path; the program reaches it through `ringprobe target` and `bench --accuracy` only.

pub mod origin;
pub mod sim;
