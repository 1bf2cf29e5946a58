//! `recsys-ingest import`: files of events into a running service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytesize::ByteSize;

use super::own_pipeline::OwnPipeline;
use super::progress::ProgressLine;
use super::shipping::{line_bytes_max, pipeline, report};
use super::signals::Stop;
use super::terminal::{counted, print};
use crate::config::import::Import;
use crate::logging;
use crate::ship::files::Own;
use crate::ship::import::{Importer, find, target};
use crate::ship::pipeline::WAITING;
use crate::ship::status::{Progress, Status, get};

/// How often the progress is shown: on a terminal, and elsewhere, as lines.
const ON_TERMINAL: Duration = Duration::from_millis(200);
const AS_LINES: Duration = Duration::from_secs(1);

/// Exit code of an import that is done, and of which lines were rejected. To run it again, as after
/// 1, is no use.
const REJECTED: u8 = 3;

/// Imports files; returns the exit code.
pub(crate) async fn run(mut config: Import, stop: Stop) -> Result<u8> {
    let rejects = config.rejects.clone();
    let rejects = rejects.unwrap_or_else(|| config.state_dir.join("rejected.jsonl"));
    let files = find(&config.files, &Own::of(&[&config.state_dir, &rejects]))?;
    let mut own = match config.beyond_horizon {
        true => Some(OwnPipeline::start(&config.state_dir).await?),
        false => None,
    };
    if let Some(own) = &own {
        config.upstream.url.clone_from(&own.url);
    }
    let status = Arc::new(Status::default());
    let stop = stop.begun().clone();
    let to = match &own {
        Some(own) => format!("beyond the horizon: {}", own.database_url.expose()),
        None => config.upstream.url.trim().trim_end_matches('/').to_owned(),
    };
    let key = config.upstream.api_key.0.expose();
    let time_us = config.occurred_at.map(jiff::Timestamp::as_microsecond);
    let tenant = config.upstream.tenant.as_deref();
    let target = target(&to, key, tenant, time_us.is_some());
    let pipeline = pipeline(
        &config.upstream, &config.state_dir, &rejects, &status, false, &stop,
    )?;
    pipeline.courier.client.check().await.context(
        "nothing was imported: is the service running? --url names it, http://127.0.0.1:8080 by default",
    )?;
    let rejects = pipeline.rejects.path().to_owned();
    let (to, from) = flume::bounded(WAITING);
    let known = pipeline.positions.files.iter();
    let importer = Importer {
        files,
        known: known
            .map(|(key, position)| (*key, position.clone()))
            .collect(),
        target,
        time_us,
        next_key: pipeline.positions.next_key(),
        line_bytes_max: line_bytes_max(&config.upstream),
        to,
        status: Arc::clone(&status),
        stop: stop.clone(),
    };
    let reading = tokio::task::spawn_blocking(move || importer.run());
    let own_ended = async {
        match &mut own {
            Some(own) => Err(own.ended().await),
            None => std::future::pending().await,
        }
    };
    let progress = ProgressLine::new();
    let delivered = tokio::select! {
        biased;
        delivered = pipeline.run(from) => delivered,
        ended = own_ended => ended,
        never = show(&status, &progress) => never,
    };
    drop(progress);
    let spooled = match own {
        Some(own) => own.stop().await?,
        None => 0,
    };
    let unread = reading.await.context("reading broke off")?;
    let ack = config.upstream.ack;
    let done = report(&status, &rejects, ack);
    match config.json {
        true => print(&done.to_string())?,
        false => print(&in_words(&status, &rejects.display().to_string()))?,
    }
    delivered.context("the import ended early; run the same command again to go on")?;
    if stop.is_cancelled() {
        bail!("the import was interrupted; run the same command again to go on");
    }
    for unread in &unread {
        logging::say(&format!(
            "{} could not be read to its end: {}",
            unread.path.display(),
            unread.why
        ));
    }
    if spooled > 0 {
        bail!(
            "{spooled} rows are still in the spool of this import: run the same command again to store them"
        );
    }
    match (unread.len(), get(&status.rejected)) {
        (0, 0) => Ok(0),
        (0, rejected) => {
            logging::say(&format!(
                "recsys-ingest: the import is done, and {} rejected: {} has each with its reason",
                match rejected {
                    1 => "1 line was".to_owned(),
                    more => format!("{more} lines were"),
                },
                rejects.display()
            ));
            Ok(REJECTED)
        }
        (count, _) => bail!(
            "{} could not be read to the end; see above",
            counted(count as u64, "file")
        ),
    }
}

fn in_words(status: &Status, rejects: &str) -> String {
    let (lines, rejected) = (get(&status.lines), get(&status.rejected));
    let duplicates = match get(&status.duplicates) {
        0 => String::new(),
        count => format!(" ({count} stored before)"),
    };
    let see = match rejected {
        0 => String::new(),
        _ => format!(": see {rejects}"),
    };
    format!(
        "{}: {}, {} accepted{duplicates}, {} rejected{see}",
        counted(get(&status.files), "file"),
        counted(lines, "line"),
        counted(get(&status.accepted), "event"),
        counted(rejected, "line"),
    )
}

/// Shows the progress until it is dropped.
async fn show(status: &Status, progress: &ProgressLine) -> Result<()> {
    let started = Instant::now();
    let every = if progress.is_terminal() {
        ON_TERMINAL
    } else {
        AS_LINES
    };
    let mut ticks = tokio::time::interval(every);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let mut line = line(&Progress::of(status, started.elapsed()));
        if let Some((_, why)) = status.troubles().pop() {
            line.push_str(&format!("; {why}"));
        }
        match progress.is_terminal() {
            true => progress.show(&line),
            false => logging::say(&line),
        }
    }
}

fn line(progress: &Progress) -> String {
    const BAR: u64 = 24;
    let all = progress.all_bytes.max(1);
    let filled = (progress.done_bytes.min(all)).saturating_mul(BAR) / all;
    let bar = |mark: &str, count| mark.repeat(usize::try_from(count).unwrap_or(0));
    let left = match progress.left {
        Some(left) => format!("{} left", humantime::format_duration(left)),
        None => "time left not known yet".to_owned(),
    };
    format!(
        "[{}{}] {} % of {}, {} lines ({} a second, {}/s), {} rejected, {left}",
        bar("#", filled),
        bar("-", BAR - filled),
        progress.done_bytes.min(all).saturating_mul(100) / all,
        ByteSize(progress.all_bytes),
        progress.lines,
        progress.lines_per_second,
        ByteSize(progress.bytes_per_second),
        progress.rejected,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_has_a_bar_a_rate_and_the_time_left() {
        let progress = Progress {
            lines: 10,
            rejected: 1,
            done_bytes: 512 << 10,
            all_bytes: 1 << 20,
            lines_per_second: 5,
            bytes_per_second: 1 << 10,
            left: Some(Duration::from_secs(83)),
        };
        assert_eq!(
            line(&progress),
            "[############------------] 50 % of 1.0 MiB, 10 lines (5 a second, 1.0 KiB/s), 1 rejected, 1m 23s left"
        );
        let empty = Progress {
            all_bytes: 0,
            done_bytes: 0,
            left: None,
            ..progress
        };
        assert!(line(&empty).starts_with("[------------------------] 0 %"));
    }
}
