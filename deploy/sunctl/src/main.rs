//! `sunctl`: the operator's tool. Everything is in the library; `cli` is where to begin.

/// The demo runs the daemons in this process, so it allocates as they do.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    sunctl::cli::main()
}
