//! `geo`: which region serves a client, and why. Everything is in the library; `cli` is where to begin.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    geo::cli::main()
}
