//! Liveness, readiness and metrics.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::accounts::status::Health;
use crate::admission::admit::Overload;
use crate::event::table::Table;
use crate::finding::{Finding, Severity};
use crate::tenants::refresh::KeySource;

use crate::clock;
use crate::http::app::App;
use crate::http::auth::access;
use crate::http::flag;
use crate::http::problem::Problem;

/// The spool counts as full if a body of this size does not fit.
const TYPICAL_BODY_BYTES: usize = 64 * 1024;

/// Whether events can be taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// `ready`; `degraded` (events are taken, and something is wrong); `unready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// Why it is not `ready`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    /// Findings that are worth knowing; everything works.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// With `?verbose`: what the checks of database and machine found, the worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<FindingBody>,
    /// With `?verbose`: what became of every row that this instance accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rows: Vec<Account>,
    /// With `?verbose`: how full the spool is.
    #[serde(skip_serializing_if = "Option::is_none")]
    spool: Option<SpoolUsage>,
    /// With `?verbose`: where tenants and API keys are from.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Keys>,
}

/// What a check found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FindingBody {
    /// A stable name for the kind of finding.
    #[schema(example = "column_type")]
    code: &'static str,
    /// `fault` (events cannot be stored), `degraded` (they can, with a limit) or `note`.
    #[schema(example = "fault")]
    severity: &'static str,
    /// What was seen.
    seen: String,
    /// What it means.
    meaning: String,
    /// What to do.
    remedy: String,
}

/// Where tenants and API keys are from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Keys {
    /// `database`; `copy` (the database was not read since the start); `nowhere`.
    #[schema(example = "database")]
    from: &'static str,
    /// Seconds since the database confirmed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
}

/// What became of the rows of one table under this spool id: accepted = inherited + stored +
/// duplicates + quarantined + spooled + lost.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct Account {
    /// The table.
    #[schema(value_type = String)]
    #[serde(serialize_with = "as_name")]
    pub(super) table: Table,
    /// Rows that were made durable here.
    pub(super) accepted: u64,
    /// Of those: rows that another lineage of this spool accounts for. Below zero: rows in
    /// the numbers below that another copy of this spool had accepted. Absent: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) inherited: i64,
    /// Of those: rows that were new in Postgres.
    pub(super) stored: u64,
    /// Of those: rows that were in Postgres already.
    pub(super) duplicates: u64,
    /// Of those: rows that were put into quarantine.
    pub(super) quarantined: u64,
    /// Of those: rows that are only on this instance's disk.
    pub(super) spooled: u64,
    /// Of those: rows that are neither in the spool nor known to be stored.
    pub(super) lost: u64,
}

/// How full the spool is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SpoolUsage {
    bytes: u64,
    bytes_max: u64,
    segments: u64,
    frames: u64,
    /// Accepted rows that are neither in the spool nor known to be stored.
    lost: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_name<S: serde::Serializer>(table: &Table, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(table.as_str())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Verbosity {
    /// Add the findings and the numbers.
    verbose: Option<String>,
    /// An API key; none is needed. One that is only for publishing gets the codes of findings alone.
    key: Option<String>,
}

impl Verbosity {
    /// Any value switches on, except those that say otherwise.
    fn is_verbose(&self) -> bool {
        let value = self.verbose.as_deref();
        value.is_some_and(|value| flag::parse(value) != Some(false))
    }
}

/// The process is alive.
#[utoipa::path(get, path = "/healthz", tag = "operations",
    responses((status = 200, description = "Alive", body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// Whether the service can take events.
#[utoipa::path(get, path = "/readyz", tag = "operations", params(Verbosity),
    responses(
        (status = 200, description = "Events are taken", body = Readiness),
        (status = 503, description = "Send events elsewhere", body = Readiness),
    ))]
pub(crate) async fn readyz(
    State(app): State<Arc<App>>,
    verbosity: Result<Query<Verbosity>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(verbosity) =
        verbosity.map_err(|error| Problem::bad_request("invalid_query", error.body_text()))?;
    // Findings may repeat what Postgres says.
    let is_public = access::is_public_key(
        &headers,
        verbosity.key.as_deref(),
        &app.tenants,
        &app.key_hasher,
        clock::now(),
    );
    let Judgement {
        status,
        reasons,
        notes,
        found,
    } = judge(&app, is_public);
    let code = match status {
        UNREADY => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let mut readiness = Readiness {
        status,
        reasons,
        notes,
        findings: Vec::new(),
        rows: Vec::new(),
        spool: None,
        keys: None,
    };
    if verbosity.is_verbose() {
        readiness.rows = accounts(&app);
        readiness.spool = Some(SpoolUsage::of(&app));
        readiness.keys = Some(Keys::of(app.tenants.standing()));
        if !is_public {
            readiness.findings = found.into_iter().map(FindingBody::from).collect();
        }
    }
    Ok((code, Json(readiness)).into_response())
}

/// Whether events can be taken, and what is wrong.
pub(in crate::http) struct Judgement {
    /// `ready`, `degraded` or [`UNREADY`].
    pub(in crate::http) status: &'static str,
    /// Why it is not `ready`.
    pub(in crate::http) reasons: Vec<String>,
    pub(in crate::http) notes: Vec<String>,
    /// The findings in full, the worst first.
    pub(in crate::http) found: Vec<Finding>,
}

/// No event can be taken.
const UNREADY: &str = "unready";

/// Judges what the process knows. `is_public`: in words that anyone may read.
pub(in crate::http) fn judge(app: &App, is_public: bool) -> Judgement {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    if app.stopping.is_cancelled() {
        reasons.push("the service is stopping".into());
    }
    let standing = app.tenants.standing();
    if standing == KeySource::Unread {
        reasons.push("tenants and API keys were never read from the database".into());
    }
    let largest = app.admission.log().payload_bytes_max();
    let room = app.admission.has_room(TYPICAL_BODY_BYTES.min(largest));
    let fenced_off = room == Err(Overload::FencedOff);
    match room {
        // One that only stores is ready to do that.
        Ok(()) | Err(Overload::NotHere) => {}
        Err(
            reason @ (Overload::Disk
            | Overload::Stalled
            | Overload::Gone
            | Overload::Away),
        ) => {
            reasons.push(reason.to_string().into());
        }
        Err(Overload::FencedOff) => reasons.push(
            "fenced off: a later start on a copy of this spool stores its events; the log names both"
                .into(),
        ),
        Err(_) => match app.admission.log().shortage() {
            Some(shortage) => reasons.push(shortage.into()),
            None => reasons.push("the spool is full".into()),
        },
    }
    let refused = Table::ALL
        .into_iter()
        .any(|table| app.checks.refusal(table).is_some());
    let unready = refused || !reasons.is_empty();
    if let Some(lasts) = app.admission.log().stalled().filter(|_| !unready) {
        let seconds = lasts.as_secs();
        let medium = app.admission.log().medium();
        reasons.push(format!("{medium} has not answered for {seconds} s").into());
    }
    reasons.extend(app.admission.log().kept_aside().map(Cow::Owned));
    let lost = app.admission.log().usage().lost;
    if lost > 0 {
        reasons.push(
            format!(
                "{lost} events that were accepted are lost: they are missing from the spool and \
                 not known to be stored; see the log and `recsys-ingest verify`"
            )
            .into(),
        );
    }
    if let KeySource::Copied { .. } = standing {
        reasons.push(
            "tenants and API keys are a copy: they were not read from the database yet".into(),
        );
    }
    match app.lanes.iter().map(|lane| lane.health()).max() {
        // The fencing is reported already.
        Some(Health::Fault) if fenced_off => {}
        Some(Health::Fault) => {
            reasons.push(
                "events cannot be stored until an operator mends something; see the log".into(),
            );
        }
        Some(Health::Undecided) => reasons.push(
            "Postgres refuses the last rows that it was given; the next events tell whether the rows or the table are at fault; see the log"
                .into(),
        ),
        Some(Health::Away) => reasons.push("Postgres is away or busy".into()),
        Some(Health::SettingAside) => reasons.push(
            "every row that came last was set aside in quarantine; see `recsys-ingest quarantine list`"
                .into(),
        ),
        Some(Health::Good) | None => {}
    }
    let found = app.checks.all();
    let sentences = |holds: fn(Severity) -> bool| {
        let findings = found.iter().filter(move |finding| holds(finding.severity));
        findings.map(|finding| match is_public {
            true => format!("for operators: {}", finding.code),
            false => finding.to_string(),
        })
    };
    // Causes come before their consequences.
    let reasons: Vec<String> = sentences(|severity| severity > Severity::Note)
        .chain(reasons.into_iter().map(Cow::into_owned))
        .collect();
    let notes = sentences(|severity| severity == Severity::Note).collect();
    let status = match (unready, reasons.is_empty()) {
        (true, _) => UNREADY,
        (false, false) => "degraded",
        (false, true) => "ready",
    };
    Judgement {
        status,
        reasons,
        notes,
        found,
    }
}

impl SpoolUsage {
    pub(in crate::http) fn of(app: &App) -> Self {
        let usage = app.admission.log().usage();
        Self {
            bytes: usage.bytes,
            bytes_max: usage.bytes_max,
            segments: usage.segments,
            frames: usage.records,
            lost: usage.lost,
        }
    }
}

impl From<Finding> for FindingBody {
    fn from(finding: Finding) -> Self {
        Self {
            code: finding.code,
            severity: finding.severity.as_str(),
            seen: finding.seen,
            meaning: finding.meaning,
            remedy: finding.remedy,
        }
    }
}

impl Keys {
    fn of(standing: KeySource) -> Self {
        let (from, age) = match standing {
            KeySource::Unread => ("nowhere", None),
            KeySource::Copied { confirmed_at_us } => {
                let age_us = clock::now().0.saturating_sub(confirmed_at_us);
                let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
                ("copy", Some(age))
            }
            KeySource::Read { age } => ("database", Some(age)),
        };
        Self {
            from,
            age_seconds: age.map(|age| age.as_secs()),
        }
    }
}

/// What became of all rows, table by table.
pub(in crate::http) fn accounts(app: &App) -> Vec<Account> {
    // The results are read first: a row that is accepted after that counts as spooled.
    let totals: Vec<_> = app
        .lanes
        .iter()
        .map(|lane| (lane.stream, lane.totals()))
        .collect();
    let log = app.admission.log();
    let account = |table| {
        let mut account = Account {
            table,
            accepted: 0,
            inherited: 0,
            stored: 0,
            duplicates: 0,
            quarantined: 0,
            spooled: 0,
            lost: 0,
        };
        for (stream, totals) in totals.iter().filter(|(stream, _)| stream.table == table) {
            let usage = log.usage_of(stream.log, stream.number);
            let accepted = usage.accepted;
            let unacked = totals.spooled(accepted);
            let lost = usage.lost.min(unacked);
            for (sum, part) in [
                (&mut account.accepted, accepted),
                (&mut account.stored, totals.stored),
                (&mut account.duplicates, totals.duplicates),
                (&mut account.quarantined, totals.quarantined),
                (&mut account.spooled, unacked - lost),
                (&mut account.lost, lost),
            ] {
                *sum = sum.saturating_add(part);
            }
            account.inherited = account.inherited.saturating_add(totals.inherited);
        }
        account
    };
    Table::ALL.map(account).to_vec()
}
