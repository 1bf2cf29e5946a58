//! What decides the bytes of a run, and nothing else.

use std::ops::RangeInclusive;

/// The table that an event goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// What was shown.
    Exposures,
    /// What people did.
    Interactions,
}

impl Table {
    /// Both tables.
    pub(crate) const ALL: [Table; 2] = [Table::Exposures, Table::Interactions];

    /// The table's name in Postgres.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Table::Exposures => "exposure_events",
            Table::Interactions => "interaction_events",
        }
    }

    /// The endpoint that writes it.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Table::Exposures => "/v1/exposures",
            Table::Interactions => "/v1/interactions",
        }
    }
}

/// How the fields of an event are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Format {
    /// The service's own, for both tables.
    Native,
    /// The exposure log of recsys-service.
    ServiceV1,
    /// exposure.v1 of recsys-eval.
    EvalV1,
    /// exposure.v1 of recsys-pipelines: one line an item.
    PipelinesV1,
    /// outcome.v1 of recsys-eval.
    OutcomeV1,
}

impl Format {
    /// The name in `?format=`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Format::Native => "native",
            Format::ServiceV1 => "service_v1",
            Format::EvalV1 => "eval_v1",
            Format::PipelinesV1 => "pipelines_v1",
            Format::OutcomeV1 => "outcome_v1",
        }
    }

    /// Whether events of this format go into `table`.
    pub(crate) fn fits(self, table: Table) -> bool {
        match self {
            Format::Native => true,
            Format::OutcomeV1 => table == Table::Interactions,
            Format::ServiceV1 | Format::EvalV1 | Format::PipelinesV1 => table == Table::Exposures,
        }
    }
}

/// How the events of a body are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Framing {
    /// A JSON array.
    Json,
    /// One event a line.
    Ndjson,
    /// An object around a JSON array.
    Envelope,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Encoding {
    /// Not at all.
    None,
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
}

/// How occurred_at runs over the days of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// Later events are posted later, give or take two seconds, as in real traffic.
    Time,
    /// Any time at any moment: the worst case for the index.
    Random,
}

/// The tenants that a caller writes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The key's own, whose name we do not know.
    Own,
    /// The key's own: an index into [`Settings::tenants`].
    Tenant(u16),
    /// Any of [`Settings::tenants`]: each event names one.
    Any,
}

/// Someone who posts.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The API key.
    pub(crate) key: Option<String>,
    /// Whom it writes for.
    pub(crate) scope: Scope,
}

/// Everything that decides the bytes of a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Tells runs apart.
    pub(crate) seed: u64,
    /// Events in all; a list of pipelines_v1 counts as one.
    pub(crate) events: u32,
    /// Events of one body.
    pub(crate) body_events: RangeInclusive<u32>,
    /// Weights of exposures and interactions.
    pub(crate) mix: (u32, u32),
    /// Formats, each used equally often within its table.
    pub(crate) formats: Vec<Format>,
    /// External ids.
    pub(crate) tenants: Vec<String>,
    /// At least one.
    pub(crate) callers: Vec<Caller>,
    /// The last occurred_at, in microseconds since 1970.
    pub(crate) until_us: i64,
    /// How far occurred_at goes back from there.
    pub(crate) span_us: i64,
    /// How it runs.
    pub(crate) order: Order,
    /// Share of events sent again.
    pub(crate) duplicates: f64,
    /// Share of events that the service must reject.
    pub(crate) invalid: f64,
    /// How many items there are.
    pub(crate) items: u32,
    /// How many users there are.
    pub(crate) users: u32,
    /// How bodies are put together.
    pub(crate) framing: Framing,
    /// How bodies are compressed.
    pub(crate) encoding: Encoding,
}
