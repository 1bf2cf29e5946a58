//! What `doctor` says of a spool's directory and its disk.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bytesize::ByteSize;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::accounts::doctor::diagnosis::{Diagnosis, Mend};
use crate::accounts::verify;
use crate::clock;
use crate::config::doctor::Doctor;
use crate::finding::{Finding, Severity};
use crate::log::spool::recover::glance::{Glance, glance};
use crate::log::spool::recover::open::{account, history};

/// Rows that wait for longer than this are late: a batch waits for milliseconds.
const LATE: Duration = Duration::from_secs(5 * 60);
/// A segment of the largest size.
const SEGMENT_BYTES: u64 = 64 << 20;

pub(super) async fn look(
    doctor: &Doctor,
    dir: &Path,
    client: Option<&mut Client>,
) -> Result<Vec<Diagnosis>> {
    let place = dir.to_owned();
    let looking = tokio::task::spawn_blocking(move || glance(&place));
    let glance = looking.await.context("reading the spool broke off")??;
    let mut found = disk(doctor, dir, &glance);
    found.extend(damage(dir, &glance));
    // Which of its rows are stored, PostgreSQL alone knows.
    if let (Some(spool_id), Some(client)) = (glance.report.spool_id, client) {
        found.extend(backlog(dir, spool_id, &glance, client).await?);
    }
    Ok(found)
}

fn found(
    severity: Severity,
    code: &'static str,
    seen: String,
    meaning: &str,
    remedy: String,
    command: Option<String>,
) -> Diagnosis {
    Diagnosis {
        finding: Finding::new(severity, code, seen, meaning, remedy),
        mend: command.map_or(Mend::Words, Mend::Command),
    }
}

/// Whether the disk has room for what the settings allow.
fn disk(doctor: &Doctor, dir: &Path, glance: &Glance) -> Vec<Diagnosis> {
    let (most, reserve) = (
        doctor.spool_bytes_max.as_u64(),
        doctor.spool_disk_reserve.as_u64(),
    );
    let (free, usable) = (
        ByteSize(glance.free_bytes),
        glance.free_bytes.saturating_sub(reserve),
    );
    let mut diagnoses = Vec::new();
    let show = Some(format!("df -h {}", dir.display()));
    let segment = SEGMENT_BYTES.min(most / 8);
    if usable < segment {
        diagnoses.push(found(
            Severity::Fault,
            "spool_disk_full",
            format!(
                "the disk of the spool in {} has {free} free, of which {} are left to others",
                dir.display(),
                ByteSize(reserve)
            ),
            "no new segment fits: the service is unready and refuses events with 503",
            format!(
                "free some space ({} at least), or lower --spool-disk-reserve",
                ByteSize(segment.saturating_add(reserve))
            ),
            show,
        ));
    } else if usable < most.saturating_sub(glance.bytes) {
        diagnoses.push(found(
            Severity::Note,
            "spool_disk_small",
            format!(
                "the spool in {} may grow to {} and the disk has room for {} more",
                dir.display(),
                ByteSize(most),
                ByteSize(usable)
            ),
            "in an outage of PostgreSQL events are refused sooner than --spool-bytes-max says",
            "give it a larger disk, or lower --spool-bytes-max to what the disk can hold"
                .to_owned(),
            show,
        ));
    }
    if glance.bytes > most / 2 {
        diagnoses.push(found(
            Severity::Degraded,
            "spool_filling",
            format!(
                "the spool in {} has {} of its {}",
                dir.display(),
                ByteSize(glance.bytes),
                ByteSize(most)
            ),
            "rows wait for PostgreSQL; when it is full, events are refused with 503",
            "see above what keeps rows from being stored; /readyz of the service says it, too"
                .to_owned(),
            None,
        ));
    }
    diagnoses
}

fn damage(dir: &Path, glance: &Glance) -> Option<Diagnosis> {
    glance.report.is_damaged().then(|| {
        found(
            Severity::Degraded,
            "spool_damaged",
            format!("files of the spool in {} are damaged", dir.display()),
            "rows in them that are not stored yet are lost; all others are delivered",
            "`recsys-ingest verify` names the segments; look at the disk".to_owned(),
            Some(format!(
                "recsys-ingest verify --skip-tables --spool-dir {}",
                dir.display()
            )),
        )
    })
}

/// Rows that are in the spool and not in the ledger, and who may store them.
async fn backlog(
    dir: &Path,
    spool_id: Uuid,
    glance: &Glance,
    client: &mut Client,
) -> Result<Vec<Diagnosis>> {
    let lineage = history(dir, spool_id)?.lineage();
    let ledger = verify::read_streams(client, spool_id, lineage).await?;
    let watermarks: Vec<_> = ledger
        .iter()
        .map(|stream| (stream.number, stream.totals.watermark, stream.opening))
        .collect();
    let place = dir.to_owned();
    let counting = tokio::task::spawn_blocking(move || account(&place, spool_id, &watermarks));
    let account = counting.await.context("reading the spool broke off")??;
    let mut diagnoses = Vec::new();
    let others = ledger.iter();
    let mut others = others.filter(|stream| !account.history.knows(stream.opening));
    if let Some(other) = others.next() {
        let holder = other.holder.as_ref();
        let holder = holder.map_or("an unknown process".to_owned(), ToString::to_string);
        diagnoses.push(found(
            Severity::Fault,
            "spool_fenced_off",
            format!(
                "the spool in {} is fenced off: its accounts are held by {holder}",
                dir.display()
            ),
            "a service on this directory stores nothing and refuses events with 503",
            "stop one of the two; if both directories are to be used, fork this one".to_owned(),
            Some(format!(
                "recsys-ingest spool fork --spool-dir {}",
                dir.display()
            )),
        ));
    }
    let waiting: u64 = account.streams.iter().map(|stream| stream.unacked).sum();
    let age = glance.oldest.and_then(|written| {
        let written = written.duration_since(UNIX_EPOCH).ok()?;
        let now = Duration::from_micros(u64::try_from(clock::now().0).ok()?);
        now.checked_sub(written)
    });
    if let Some(age) = age.filter(|age| waiting > 0 && *age > LATE) {
        let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
        diagnoses.push(found(
            Severity::Degraded,
            "spool_old",
            format!(
                "{waiting} rows wait in the spool in {}, the oldest for {age} at least",
                dir.display()
            ),
            "they are durable, and not in PostgreSQL: queries do not see them",
            "if no service runs on this directory, start one; if one runs, its /readyz says what keeps it"
                .to_owned(),
            None,
        ));
    }
    Ok(diagnoses)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;
    use crate::log::spool::recover::scan::report::ScanReport;

    #[test]
    fn a_disk_is_judged_by_what_the_settings_would_take() {
        const MIB: u64 = 1 << 20;
        let command = Doctor::augment_args(clap::Command::new("doctor").no_binary_name(true));
        let arguments = ["--database-url=postgres://h/d", "--spool-bytes-max=1GiB"];
        let matches = command
            .try_get_matches_from(arguments.into_iter().chain(["--spool-disk-reserve=100MiB"]))
            .unwrap();
        let doctor = Doctor::from_arg_matches(&matches).unwrap();
        for (free_mib, used_mib, expected) in [
            (4096, 0, &[][..]),
            (160, 0, &["spool_disk_full"]),
            (500, 0, &["spool_disk_small"]),
            (500, 700, &["spool_filling"]),
            (150, 700, &["spool_disk_full", "spool_filling"]),
        ] {
            let glance = Glance {
                report: ScanReport::default(),
                bytes: used_mib * MIB,
                oldest: None,
                free_bytes: free_mib * MIB,
            };
            let found = disk(&doctor, Path::new("spool"), &glance);
            let codes: Vec<_> = found.iter().map(|one| one.finding.code).collect();
            assert_eq!(codes, expected, "{free_mib} MiB free, {used_mib} used");
        }
    }
}
