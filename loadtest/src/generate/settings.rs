//! What decides the bytes of a run, and nothing else.

use std::ops::RangeInclusive;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Command, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use crate::service::{Format, Table};

/// How the events of a body are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// A JSON array.
    Json,
    /// One event a line.
    Ndjson,
    /// An object around a JSON array.
    Envelope,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Not at all.
    None,
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
}

/// How occurred_at runs over the days of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Later events are posted later, give or take two seconds, as in real traffic.
    Time,
    /// Any time at any moment: the worst case for the index.
    Random,
}

/// The tenants that a caller writes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The key's own, which only the service knows.
    Own,
    /// The key's own: an index into [`Settings::tenants`].
    Tenant(u16),
    /// Any of [`Settings::tenants`]: each event names one.
    Any,
}

/// A client that posts.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The API key.
    pub key: Option<String>,
    /// The tenants that it writes for.
    pub scope: Scope,
}

impl Default for Caller {
    fn default() -> Self {
        Self {
            key: None,
            scope: Scope::Own,
        }
    }
}

/// Everything that decides the bytes of a run.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// External ids of the tenants: of each API key in turn, or those that the service key names.
    #[arg(long, value_delimiter = ',', value_name = "A,B,C")]
    pub tenants: Vec<String>,
    /// Events to post, repeated and invalid ones among them (a list of pipelines_v1 counts as one).
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub events: u32,
    /// Events of a body: one number, or a range to draw from.
    #[arg(long, default_value = "100", value_name = "MIN..MAX", value_parser = parse_range)]
    pub body_events: RangeInclusive<u32>,
    /// Exposures to interactions.
    #[arg(long, default_value = "1:3", value_name = "E:I", value_parser = parse_mix)]
    pub mix: (u32, u32),
    /// Formats, each used equally often where it fits.
    #[arg(long, value_delimiter = ',', default_value = "native", value_name = "FORMATS", value_parser = format_parser())]
    pub formats: Vec<Format>,
    /// Compression of the bodies.
    #[arg(long, value_enum, default_value = "none")]
    pub encoding: Encoding,
    /// How a body holds its events.
    #[arg(long, value_enum, default_value = "json")]
    pub framing: Framing,
    /// Spread occurred_at over this many days.
    #[arg(long, default_value_t = 1.0, value_name = "DAYS", value_parser = parse_positive)]
    pub days: f64,
    /// The end of those days; the last full hour if not given, so that a seed repeats for that long.
    #[arg(long, value_name = "RFC3339")]
    pub until: Option<Timestamp>,
    /// Whether occurred_at advances with the events or is drawn for each.
    #[arg(long, value_enum, default_value = "time")]
    pub order: Order,
    /// Share of events that are sent again.
    #[arg(long, default_value_t = 0.0, value_name = "0..1", value_parser = parse_share)]
    pub duplicates: f64,
    /// Share of events that the service must reject.
    #[arg(long, default_value_t = 0.0, value_name = "0..1", value_parser = parse_share)]
    pub invalid: f64,
    /// How many items there are to choose from.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub items: u32,
    /// How many users there are.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub users: u32,
    /// The same seed (and --until) posts the same bytes again; drawn if not given.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// At least one.
    #[arg(skip = vec![Caller::default()])]
    pub callers: Vec<Caller>,
}

/// What the command line has where nothing is said.
pub fn defaults<T: Args>() -> T {
    let matches = T::augment_args(Command::new("")).get_matches_from([""]);
    T::from_arg_matches(&matches).expect("every option has a default")
}

impl Default for Settings {
    fn default() -> Self {
        defaults()
    }
}

/// The mix that has nothing but events of a table.
pub fn only(table: Table) -> (u32, u32) {
    match table {
        Table::Exposures => (1, 0),
        Table::Interactions => (0, 1),
        Table::Assignments => unreachable!("assignments are not loaded"),
    }
}

impl Settings {
    /// The seed; 0 where none was given or drawn.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_default()
    }

    /// Every occurred_at lies before this, in microseconds since 1970.
    pub fn until_us(&self) -> i64 {
        self.until.unwrap_or_default().as_microsecond()
    }

    /// How far occurred_at goes back from there.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a century of microseconds fits, and rounding only moves the first event"
    )]
    pub fn span_us(&self) -> i64 {
        (self.days.min(36_500.0) * 86_400e6).round() as i64
    }
}

/// The formats that are loaded.
pub const FORMATS: [Format; 5] = [
    Format::Native,
    Format::ServiceV1,
    Format::EvalV1,
    Format::PipelinesV1,
    Format::OutcomeV1,
];

/// These formats by their names.
fn format_parser() -> impl TypedValueParser<Value = Format> {
    let help = |format| match format {
        Format::Native => "The service's own, for both tables",
        Format::ServiceV1 => "The exposure log of recsys-service",
        Format::EvalV1 => "exposure.v1 of recsys-eval",
        Format::PipelinesV1 => "exposure.v1 of recsys-pipelines: one line an item",
        Format::OutcomeV1 => "outcome.v1 of recsys-eval",
        Format::AssignmentV1 => unreachable!("assignments are not loaded"),
    };
    PossibleValuesParser::new(
        FORMATS.map(|format| PossibleValue::new(format.as_str()).help(help(format))),
    )
    .try_map(|name| name.parse::<Format>())
}

fn parse_number(text: &str) -> Result<u32, String> {
    text.trim()
        .parse()
        .map_err(|error| format!("'{text}': {error}"))
}

fn parse_range(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let (from, to) = (
        parse_number(from)?,
        parse_number(to.trim_start_matches('='))?,
    );
    match (1..=to).contains(&from) {
        true => Ok(from..=to),
        false => Err("must be one number or MIN..MAX, from 1 on".to_owned()),
    }
}

fn parse_mix(text: &str) -> Result<(u32, u32), String> {
    let (exposures, interactions) = text.split_once(':').ok_or("must look like 1:3")?;
    match (parse_number(exposures)?, parse_number(interactions)?) {
        (0, 0) => Err("must not be 0:0".to_owned()),
        mix => Ok(mix),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    parse_float(text, 0.0..=1.0, "between 0 and 1")
}

pub fn parse_positive(text: &str) -> Result<f64, String> {
    parse_float(text, f64::MIN_POSITIVE..=f64::MAX, "above 0")
}

fn parse_float(text: &str, right: RangeInclusive<f64>, what: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "must be a number")?;
    let number = right.contains(&number).then_some(number);
    number.ok_or_else(|| format!("must be {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_sizes_are_ranges_from_one_on_and_a_mix_has_a_weight_that_is_not_zero() {
        assert_eq!(parse_range("100"), Ok(100..=100));
        assert_eq!(parse_range("1..1000"), Ok(1..=1000));
        assert_eq!(parse_mix("1:0"), Ok((1, 0)));
        for wrong in ["0", "0..5", "5..1", "x", "1..", "", "0:0", "a:b", "1:-1"] {
            let parsed = (parse_range(wrong), parse_mix(wrong));
            assert!(matches!(parsed, (Err(_), Err(_))), "{wrong}");
        }
    }
}
