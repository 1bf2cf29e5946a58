//! The `recsys-ingest` program; everything is in the library.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use recsys_ingest::cli::{self, Cli};

/// Many small buffers are made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What still runs on a thread when a command has ended is of no use any more.
const THREADS_WAIT_MAX: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
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
    // A thread that waits for a disk that hangs would hold the end of the process.
    runtime.shutdown_timeout(THREADS_WAIT_MAX);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recsys-ingest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
