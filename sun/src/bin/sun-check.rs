//! The daemon `sun-check`, and its commands. Everything is in the library; [`sun::selfcheck`] is where to begin.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    sun::selfcheck::cli::main()
}
