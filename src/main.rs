//! The `recsys-ingest` program; everything is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use recsys_ingest::cli::{self, Cli};

/// Many small buffers are made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    recsys_ingest::panics::install();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("recsys-ingest: cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = cli::start_log(&cli.log).and_then(|()| runtime.block_on(cli::run(cli.command)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recsys-ingest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
