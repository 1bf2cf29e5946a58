//! `recsys-ingest` with Kafka as the log between intake and writers.
//!
//! `serve` has more settings here; every other command is that of `recsys-ingest`.

mod acks;
mod appender;
mod capacity;
mod client;
mod delivery;
mod engine;
mod fallback;
mod header;
mod limit;
mod message;
mod place;
mod producers;
mod reader;
mod replies;
mod reply;
mod settings;
mod topic_id;
mod topics;
mod turn;
mod watch;
mod windows;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use recsys_ingest::config::Serve;
use recsys_ingest::config::environment;
use recsys_ingest::config::log::Log;
use recsys_ingest::service::engine::LocalSpool;
use recsys_ingest::{cli, logging};

use engine::KafkaLog;
use settings::{Kafka, Kind, Role};

/// mimalloc: many small buffers are allocated on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest wait at the end for a log that is not read.
const LOG_LIMIT: Duration = Duration::from_secs(1);

/// Runs the service, with the spool or Kafka as its log.
#[derive(Debug, Parser)]
#[command(name = "serve", bin_name = "recsys-ingest-kafka serve", version)]
struct ServeOnKafka {
    #[command(flatten)]
    serve: Serve,
    #[command(flatten)]
    kafka: Kafka,
    #[command(flatten)]
    log: Log,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let done = match arguments.get(1).is_some_and(|first| first == "serve") {
        true => serve(arguments.into_iter().skip(1)),
        false => cli::parse(arguments).map(cli::run),
    };
    let code = match done {
        Ok(outcome) => outcome.unwrap_or_else(|error| {
            logging::say(&format!("recsys-ingest-kafka: {error:#}"));
            1
        }),
        Err(error) => {
            // Without a reader of standard error, the code says enough.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    logging::flush(LOG_LIMIT);
    ExitCode::from(code)
}

fn serve(arguments: impl Iterator<Item = OsString>) -> clap::error::Result<Result<u8>> {
    let command = ServeOnKafka::command();
    let ServeOnKafka {
        mut serve,
        kafka,
        log,
    } = ServeOnKafka::from_arg_matches(&environment::read(&command, arguments)?)?;
    if kafka.log == Kind::Spool && kafka.role != Role::All {
        let text = "--role is for --log kafka: with the spool an instance does everything\n";
        return Err(ServeOnKafka::command().error(ErrorKind::ArgumentConflict, text));
    }
    if kafka.log == Kind::Spool && kafka.spool_fallback {
        let text =
            "--spool-fallback is for --log kafka: without it events are in the spool anyway\n";
        return Err(ServeOnKafka::command().error(ErrorKind::ArgumentConflict, text));
    }
    if kafka.log == Kind::Kafka {
        // Postgres's connections are counted by writers. A topic that exists may have more partitions than the
        // setting says, and its lanes then take more.
        serve.store.writers = u8::try_from(kafka.kafka_partitions.min(8)).unwrap_or(8);
    }
    Ok(match kafka.log {
        Kind::Spool => cli::serve_on(LocalSpool, serve, &log),
        Kind::Kafka => cli::serve_on(KafkaLog::new(kafka), serve, &log),
    })
}
