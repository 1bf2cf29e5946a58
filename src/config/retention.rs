//! Settings of what is removed because of its age.

use std::time::Duration;

use anyhow::bail;
use clap::{ArgAction, Args};

use super::parse::{DAY, boolean, time};

/// A century; more would reach beyond Postgres's calendar.
const MOST: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);

/// What the service keeps of itself tells of at least a month: a spool may be away that long.
const ACCOUNTS_LEAST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long rows are kept.
#[derive(Args, Clone, Debug, Default)]
pub struct Retention {
    /// Age past which exposures are removed, a partition at a time, by one instance; not less than --horizon-past [default: never]
    #[arg(long, env = "INGEST_RETAIN_EXPOSURES", value_name = "AGE", value_parser = time(DAY, MOST))]
    pub retain_exposures: Option<Duration>,

    /// The same for interactions
    #[arg(long, env = "INGEST_RETAIN_INTERACTIONS", value_name = "AGE", value_parser = time(DAY, MOST))]
    pub retain_interactions: Option<Duration>,

    /// The same for assignments
    #[arg(long, env = "INGEST_RETAIN_ASSIGNMENTS", value_name = "AGE", value_parser = time(DAY, MOST))]
    pub retain_assignments: Option<Duration>,

    /// Age past which rows are removed from quarantine, counted from when they were put there [default: never]
    #[arg(long, env = "INGEST_RETAIN_QUARANTINE", value_name = "AGE", value_parser = time(DAY, MOST))]
    pub retain_quarantine: Option<Duration>,

    /// Time without a batch and without a start after which a spool that nothing is connected for is dead: its ledger rows are added up; log entries of partitions that are gone go at that age; 30d or more [default: never]
    #[arg(long, env = "INGEST_RETAIN_ACCOUNTS", value_name = "AGE", value_parser = time(ACCOUNTS_LEAST, MOST))]
    pub retain_accounts: Option<Duration>,

    /// Keep what is removed as tables by themselves, detached, instead of dropping it
    #[arg(long, env = "INGEST_RETAIN_KEEP", default_value = "false", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = boolean)]
    pub retain_keep: bool,
}

impl Retention {
    /// Refuses to keep events for a shorter time than they are accepted.
    ///
    /// # Errors
    /// Names both settings.
    pub fn check(&self, horizon_past: Duration) -> anyhow::Result<()> {
        for (name, kept) in [
            ("exposures", self.retain_exposures),
            ("interactions", self.retain_interactions),
            ("assignments", self.retain_assignments),
        ] {
            if let Some(kept) = kept.filter(|&kept| kept < horizon_past) {
                bail!(
                    "--retain-{name} {} is shorter than --horizon-past {}: events that are still accepted would be removed; raise the one (INGEST_RETAIN_{}) or lower the other (INGEST_HORIZON_PAST)",
                    in_days(kept),
                    in_days(horizon_past),
                    name.to_ascii_uppercase(),
                );
            }
        }
        Ok(())
    }
}

/// A length as it is written in settings: ages are of days.
fn in_days(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds.is_multiple_of(DAY.as_secs()) {
        true => format!("{}d", seconds / DAY.as_secs()),
        false => humantime::format_duration(length).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_kept_for_at_least_as_long_as_they_are_accepted() {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let kept = |days: Option<Duration>| Retention {
            retain_interactions: days,
            ..Retention::default()
        };
        for (retention, horizon, accepted) in [
            (kept(None), days(90), true),
            (kept(Some(days(90))), days(90), true),
            (kept(Some(days(91))), days(90), true),
            (kept(Some(days(89))), days(90), false),
        ] {
            let checked = retention.check(horizon);
            assert_eq!(checked.is_ok(), accepted, "{retention:?}");
            if let Err(refused) = checked {
                let words = refused.to_string();
                for name in [
                    "--retain-interactions",
                    "--horizon-past",
                    "INGEST_RETAIN_INTERACTIONS",
                    "INGEST_HORIZON_PAST",
                ] {
                    assert!(words.contains(name), "{words}");
                }
            }
        }
    }
}
