//! The days that a command is asked about.

use anyhow::Result;
use clap::Args;
use jiff::civil::Date;
use jiff::tz::Offset;
use jiff::{Span, Timestamp};

use crate::clock;
use crate::jobs::day::Days;

/// The days, in UTC.
#[derive(Args, Debug)]
pub struct Period {
    /// The day, in UTC: YYYY-MM-DD, today or yesterday
    #[arg(long, value_parser = day, conflicts_with_all = ["from", "to"], value_name = "DAY")]
    pub day: Option<Date>,
    /// The first of several days
    #[arg(long, value_parser = day, requires = "to", value_name = "DAY")]
    pub from: Option<Date>,
    /// The last of several days
    #[arg(long, value_parser = day, requires = "from", value_name = "DAY")]
    pub to: Option<Date>,
}

impl Period {
    /// The days that were given, if any were.
    ///
    /// # Errors
    /// When the last day is before the first.
    pub(super) fn days(&self) -> Result<Option<Days>> {
        let (from, to) = match (self.day, self.from, self.to) {
            (Some(day), ..) => (day, day),
            (None, Some(from), Some(to)) => (from, to),
            _ => return Ok(None),
        };
        anyhow::ensure!(
            from <= to,
            "--to {to} is before --from {from}: the first day comes first"
        );
        Ok(Some(Days { from, to }))
    }
}

/// The current day in UTC.
pub(super) fn today() -> Date {
    let now = Timestamp::from_microsecond(clock::now().0).unwrap_or_default();
    Offset::UTC.to_datetime(now).date()
}

/// Parses a day.
fn day(text: &str) -> Result<Date, String> {
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "today" => Ok(today()),
        "yesterday" => Ok(today().saturating_sub(Span::new().days(1))),
        _ => match text.parse::<Date>() {
            Ok(day) if text.len() == 10 && day.year() > 0 => Ok(day),
            _ => Err("a day is YYYY-MM-DD, today or yesterday, in UTC".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_a_date_or_a_word() {
        for (text, is_day) in [
            ("2026-05-24", true),
            (" 2026-05-24 ", true),
            ("Today", true),
            ("yesterday", true),
            ("", false),
            ("20260524", false),
            ("2026-05", false),
            ("2026-02-30", false),
            ("2026-05-24T00:00:00Z", false),
            ("-000001-05-24", false),
            ("0000-05-24", false),
            ("24.05.2026", false),
        ] {
            assert_eq!(day(text).is_ok(), is_day, "{text}");
        }
        assert_eq!(day("yesterday").unwrap().tomorrow().unwrap(), today());
    }
}
