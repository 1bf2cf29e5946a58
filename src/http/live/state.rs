//! What `/live` says: everything that the live page shows, in one document.
//!
//! Made of what the process has in memory, and of the survey of Postgres that all who look share.
//! Names no tenants, users or keys.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::surveyed::{InstanceState, PartitionsState, QuarantineState, TotalsState};
use super::tap::Verdict;
use crate::accounts::status::{Health, LaneStatus};
use crate::accounts::survey::Survey;
use crate::event::rejection::Code;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::http::app::App;
use crate::http::codes::{PROBLEM_KINDS, ProblemKind};
use crate::http::ops::ages;
use crate::http::ops::health::{Account, FindingBody, SpoolUsage, accounts, judge};
use crate::metrics::{ByCode, ByOutcome, ByReason, EventOutcome};

/// Everything that the live page shows. Numbers of events and requests count from the start.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Live {
    /// The service's time.
    #[schema(example = "2026-05-24T10:00:00.123456Z")]
    now: String,
    version: &'static str,
    uptime_seconds: u64,
    /// The id of this instance's spool.
    instance: String,
    ingest: Ingest,
    service: ServiceState,
    postgres: PostgresState,
    tables: Vec<TableState>,
    spool: SpoolUsage,
    memory: Fill,
    connections: Fill,
    lanes: Vec<LaneState>,
    /// What became of every row that this instance accepted.
    accounts: Vec<Account>,
    /// Rejected events by reason.
    rejections: Vec<Rejections>,
    /// Requests that were refused with 503 or 429, by code.
    refusals: Vec<Refusals>,
    /// Of the last thousand rows in quarantine: how many are there for which reason.
    quarantine: Vec<QuarantineState>,
    partitions: Vec<PartitionsState>,
    /// All instances that store in this database, the last active first.
    instances: Vec<InstanceState>,
    /// What all instances and operators have made of all rows.
    totals: Vec<TotalsState>,
    /// What the checks of database and machine found.
    findings: Vec<FindingBody>,
    /// The number of the first verdict since the start.
    bodies_began: u64,
    /// The verdicts on the last hundred bodies, from a look at this document on.
    bodies: Vec<Verdict>,
}

/// Where events are posted.
#[derive(Debug, Serialize, ToSchema)]
struct Ingest {
    port: u16,
    is_https: bool,
    /// Whether that is another port than this document's.
    is_apart: bool,
    /// The file of variables that `dev` writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    env_file: Option<String>,
}

/// Whether the service takes events, as `/readyz` says it.
#[derive(Debug, Serialize, ToSchema)]
struct ServiceState {
    /// `ready`, `degraded` or `unready`.
    #[schema(example = "ready")]
    status: &'static str,
    reasons: Vec<String>,
    notes: Vec<String>,
}

/// Whether Postgres takes events.
#[derive(Debug, Serialize, ToSchema)]
struct PostgresState {
    /// `here`; `away`; `refusing` (it answers, and rows are refused or set aside); `fault` (an
    /// operator has to act).
    #[schema(example = "here")]
    state: &'static str,
    /// The same in words.
    words: String,
    /// Seconds since partitions, instances, totals and quarantine were read. They are read while
    /// someone looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    surveyed_seconds_ago: Option<u64>,
    /// Why they could not be read since.
    #[serde(skip_serializing_if = "Option::is_none")]
    survey_failure: Option<String>,
}

/// The events of one table.
#[derive(Debug, Serialize, ToSchema)]
struct TableState {
    table: &'static str,
    /// The path of its endpoint.
    endpoint: &'static str,
    accepted: u64,
    rejected: u64,
    stored: u64,
    duplicates: u64,
    quarantined: u64,
    /// Age of the oldest row that is not stored; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_unstored_seconds: Option<f64>,
    /// How long the oldest row of the last batch took from its receipt to its COMMIT.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_lag_seconds: Option<f64>,
}

/// How much of something is used.
#[derive(Debug, Serialize, ToSchema)]
struct Fill {
    used: u64,
    max: u64,
}

/// A lane: the writer of one part of a table's rows.
#[derive(Debug, Serialize, ToSchema)]
struct LaneState {
    table: &'static str,
    shard: u16,
    /// `good`, `setting_aside`, `away`, `undecided` or `fault`.
    #[schema(example = "good")]
    health: &'static str,
    /// Rows that are not stored yet.
    waiting: u64,
    /// Rows that it stored, in all lives of this spool.
    stored: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_unstored_seconds: Option<f64>,
}

/// Rejected events of one table with one reason.
#[derive(Debug, Serialize, ToSchema)]
struct Rejections {
    table: &'static str,
    #[schema(example = "missing_field")]
    code: &'static str,
    /// What the code means.
    meaning: &'static str,
    count: u64,
    /// The last one, if it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<ExampleState>,
}

/// An event that was rejected.
#[derive(Debug, Serialize, ToSchema)]
struct ExampleState {
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    message: String,
}

/// Refused requests with one code.
#[derive(Debug, Serialize, ToSchema)]
struct Refusals {
    #[schema(example = "overloaded")]
    code: &'static str,
    meaning: &'static str,
    count: u64,
}

impl Live {
    /// What there is now, with the verdicts whose numbers are higher than `after`.
    pub(super) fn of(app: &App, now: Micros, after: u64) -> Self {
        let survey = app.live.surveyor.look();
        let judgement = judge(app, false);
        let log = app.admission.log();
        let waiting = |lane: &LaneStatus| log.usage_of(lane.stream.log, lane.stream.number).items;
        let (used, max) = app.admission.bytes();
        let gauge = |number: i64| u64::try_from(number).unwrap_or(0);
        Self {
            now: now.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: app.live.started.elapsed().as_secs(),
            instance: log.id().to_string(),
            ingest: Ingest {
                port: app.live.ingest_port,
                is_https: app.live.is_https,
                is_apart: app.live.is_apart,
                env_file: app
                    .live
                    .env_file
                    .as_ref()
                    .map(|path| path.display().to_string()),
            },
            postgres: PostgresState::of(app, &survey),
            tables: Table::ALL
                .map(|table| TableState::of(app, table, now))
                .into(),
            spool: SpoolUsage::of(app),
            memory: Fill {
                used: used as u64,
                max: max as u64,
            },
            connections: Fill {
                used: gauge(app.metrics.connections.get()),
                max: gauge(app.metrics.connections_max.get()),
            },
            lanes: app
                .lanes
                .iter()
                .map(|lane| LaneState::of(lane, waiting(lane), now))
                .collect(),
            accounts: accounts(app),
            rejections: rejections(app),
            refusals: refusals(app),
            quarantine: survey.set_aside.iter().map(QuarantineState::of).collect(),
            partitions: survey.partitions.iter().map(PartitionsState::of).collect(),
            instances: survey
                .instances
                .iter()
                .map(|instance| InstanceState::of(instance, app))
                .collect(),
            totals: survey.totals.iter().map(TotalsState::of).collect(),
            bodies_began: app.live.tap.began(),
            bodies: app.live.tap.look(now, after),
            service: ServiceState {
                status: judgement.status,
                reasons: judgement.reasons,
                notes: judgement.notes,
            },
            findings: judgement.found.into_iter().map(FindingBody::from).collect(),
        }
    }
}

impl PostgresState {
    fn of(app: &App, survey: &Survey) -> Self {
        let worst = app.lanes.iter().map(|lane| lane.health()).max();
        let was_reached = app.lanes.iter().all(|lane| lane.was_reached());
        let (state, words) = match worst.unwrap_or(Health::Good) {
            Health::Fault => {
                let words = "Events cannot be stored until an operator mends something; they are kept in the spool. See the findings, and the log.";
                (FAULT, words)
            }
            Health::Undecided => {
                let words = "Postgres refuses the last rows that it was given; the next events tell whether the rows or the table are at fault. They are kept in the spool.";
                (REFUSING, words)
            }
            Health::Away => {
                let words = "Postgres is away or busy. Events are still taken and kept in the spool; they are stored once it is back.";
                (AWAY, words)
            }
            Health::SettingAside => {
                let words =
                    "Postgres answers, and every row that came last was set aside in quarantine.";
                (REFUSING, words)
            }
            Health::Good if !was_reached => {
                let words = "Postgres was not reached yet. Events are kept in the spool; they are stored once it is there.";
                (AWAY, words)
            }
            Health::Good => (HERE, "Postgres answers and takes events."),
        };
        let why = survey.failure.as_ref();
        Self {
            state,
            words: words.to_owned(),
            surveyed_seconds_ago: survey.read_at.map(|at| at.elapsed().as_secs()),
            survey_failure: why.map(|(_, why)| why.clone()),
        }
    }
}

const HERE: &str = "here";
const AWAY: &str = "away";
const REFUSING: &str = "refusing";
const FAULT: &str = "fault";

impl TableState {
    fn of(app: &App, table: Table, now: Micros) -> Self {
        let count = |outcome| {
            let counter = app.metrics.events.get(&ByOutcome { table, outcome });
            counter.map_or(0, |counter| counter.get())
        };
        Self {
            table: table.as_str(),
            endpoint: table.path(),
            accepted: count(EventOutcome::Accepted),
            rejected: count(EventOutcome::Rejected),
            stored: count(EventOutcome::Stored),
            duplicates: count(EventOutcome::Duplicate),
            quarantined: count(EventOutcome::Quarantined),
            oldest_unstored_seconds: seconds(ages::oldest_unstored(app, table, now)),
            last_lag_seconds: seconds(ages::last_lag(app, table, now)),
        }
    }
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

impl LaneState {
    fn of(lane: &LaneStatus, waiting: u64, now: Micros) -> Self {
        Self {
            table: lane.stream.table.as_str(),
            shard: lane.stream.shard,
            health: lane.health().as_str(),
            waiting,
            stored: lane.totals().stored,
            oldest_unstored_seconds: seconds(lane.oldest_age(waiting, now)),
        }
    }
}

fn rejections(app: &App) -> Vec<Rejections> {
    let kinds = Table::ALL
        .into_iter()
        .flat_map(|table| Code::ALL.map(|code| (table, code)));
    let of_kind = |(table, code): (Table, Code)| {
        let reason = code.as_str();
        let counter = app.metrics.rejections.get(&ByReason { table, reason })?;
        let example = app.live.tap.example(table, reason);
        Some(Rejections {
            table: table.as_str(),
            code: reason,
            meaning: code.description(),
            count: counter.get(),
            example: example.map(|example| ExampleState {
                at: example.at.to_string(),
                field: example.field,
                message: example.message.into_owned(),
            }),
        })
    };
    let mut all: Vec<Rejections> = kinds.filter_map(of_kind).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.count));
    all
}

fn refusals(app: &App) -> Vec<Refusals> {
    let of_kind = |kind: &ProblemKind| {
        let reason = kind.code;
        let counter = app.metrics.refused_requests.get(&ByCode { reason })?;
        let count = counter.get();
        (count > 0).then_some(Refusals {
            code: reason,
            meaning: kind.meaning,
            count,
        })
    };
    PROBLEM_KINDS.iter().filter_map(of_kind).collect()
}
