//! The `ringprobe` program: chooses the allocator, and hands over to [`ringprobe::cli`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ringprobe::cli::main()
}
