//! Compares this machine's clock with PostgreSQL's.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::event::time::Micros;

use crate::finding::{Finding, Severity};
use crate::postgres::error::{Error, limited};

/// Clocks that NTP synchronises are milliseconds apart.
const APART_MAX_US: i64 = 60_000_000;

const LIMIT: Duration = Duration::from_secs(10);

/// How far this machine's clock is ahead of PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offset {
    pub(crate) ahead_us: i64,
    /// Half of the round trip: the server read its clock at some time within it.
    pub(crate) tolerance_us: i64,
}

/// The server's time. Work that all processes share uses this one clock: a process with a wrong
/// clock would seal or create partitions for all of them.
///
/// # Errors
///
/// When the connection is lost.
pub async fn server_time(client: &Client) -> Result<Micros, Error> {
    let asking = client.query_one(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
        &[],
    );
    let row = limited("ask the server for the time", LIMIT, asking).await?;
    Ok(Micros(row.get(0)))
}

/// Compares `now` with the server's clock.
pub(crate) async fn compare(client: &Client, now: fn() -> Micros) -> Result<Offset, Error> {
    let (before, started) = (now(), Instant::now());
    let theirs = server_time(client).await?;
    let half_us = i64::try_from(started.elapsed().as_micros() / 2).unwrap_or(i64::MAX);
    Ok(Offset {
        ahead_us: before.0.saturating_add(half_us).saturating_sub(theirs.0),
        tolerance_us: half_us,
    })
}

pub(crate) fn judge(offset: Offset) -> Option<Finding> {
    let apart_us = offset.ahead_us.saturating_abs();
    (apart_us.saturating_sub(offset.tolerance_us) > APART_MAX_US).then(|| {
        let direction = if offset.ahead_us > 0 {
            "ahead of"
        } else {
            "behind"
        };
        Finding::new(
            Severity::Degraded,
            "clock_skew",
            format!(
                "the clock of this machine is {} {direction} PostgreSQL's",
                rounded(apart_us)
            ),
            "events are accepted or rejected by a wrong time, and received_at is wrong",
            "set the clocks of both machines, and keep them by NTP",
        )
    })
}

/// A duration in its largest unit, so that the message stays the same from one comparison to the
/// next.
fn rounded(us: i64) -> String {
    let seconds = us / 1_000_000;
    let (number, unit) = match seconds {
        0..120 => return "more than a minute".to_owned(),
        120..7_200 => (seconds / 60, "minutes"),
        7_200..172_800 => (seconds / 3_600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{number} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_more_than_a_minute_apart_are_found_in_either_direction() {
        let seen = |ahead_us, tolerance_us| {
            let offset = Offset {
                ahead_us,
                tolerance_us,
            };
            judge(offset).map(|finding| finding.seen)
        };
        assert_eq!(seen(60_000_000, 0), None);
        assert_eq!(seen(-60_000_000, 0), None);
        assert_eq!(
            seen(200 * 86_400_000_000, 5_000).as_deref(),
            Some("the clock of this machine is 200 days ahead of PostgreSQL's")
        );
        assert_eq!(
            seen(-61_000_001, 0).as_deref(),
            Some("the clock of this machine is more than a minute behind PostgreSQL's")
        );
        // The tolerance of a slow answer is larger.
        assert_eq!(seen(-61_000_001, 2_000_000), None);
        assert!(seen(i64::MIN, 0).is_some());
    }
}
