//! The `recsys-ingest` program; everything is in the library.

use std::process::ExitCode;
use std::time::Duration;

use recsys_ingest::cli;
use recsys_ingest::logging;

/// mimalloc: many small buffers are allocated on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest wait at the end for a log that is not read.
const LOG_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Without a reader of standard error, the code says enough.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let code = cli::run(cli).unwrap_or_else(|error| {
        logging::say(&format!("recsys-ingest: {error:#}"));
        1
    });
    logging::flush(LOG_LIMIT);
    ExitCode::from(code)
}
