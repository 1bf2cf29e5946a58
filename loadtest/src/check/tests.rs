#![expect(
    clippy::disallowed_methods,
    reason = "a test's connections end with its runtime"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use private_postgres::{Options, PrivatePostgres};
use recsys_ingest::postgres::migrate::migrate;
use tokio_postgres::{Client, NoTls};

use super::{Checker, Patience, Verdict, Wait};
use crate::answer::{Ack, Answer};
use crate::generate::body::{Bodies, Body};
use crate::generate::event::Events;
use crate::generate::expect::{self, Hashed, OfTable, Row, Salt};
use crate::generate::plan::{Plan, Role};
use crate::generate::sample;
use crate::generate::settings::{Caller, Format, Scope, Settings};
use crate::ledger::Ledger;
use crate::report::tally::Tally;

/// Nothing is on its way in these tests.
const PATIENCE: Patience = Patience {
    settle: Duration::from_millis(1),
    at_most: Duration::from_millis(2),
};

/// A database with every event of a run in it, answered as it should be.
struct Fixture {
    client: Client,
    url: String,
    settings: Settings,
    plan: Plan,
    ledger: Ledger,
    tally: Tally,
    checker: Checker,
    /// Rows that the service says are in its spool.
    spooled: u64,
    _postgres: PrivatePostgres,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        // Postgres runs as another user where the tests run as root.
        let dir = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let options = Options::ephemeral(dir.path().join("pg"));
        let postgres = tokio::task::spawn_blocking(move || PrivatePostgres::start(&options))
            .await
            .unwrap()
            .unwrap();
        let url = postgres.url();
        let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        migrate(&mut client).await.unwrap();
        let demo = "INSERT INTO tenants (id, external_id, name) VALUES (gen_random_uuid(), 'demo', 'demo')";
        client.batch_execute(demo).await.unwrap();
        let settings = Settings {
            events: 2_000,
            callers: vec![Caller {
                key: None,
                scope: Scope::Tenant(0),
            }],
            ..sample::settings()
        };
        let plan = Plan::new(&settings).unwrap();
        let checker = Checker::before(&url, &settings, &plan, Some("salt"))
            .await
            .unwrap();
        let mut this = Self {
            ledger: Ledger::new(plan.bodies()),
            tally: Tally::new(),
            client,
            url,
            settings,
            plan,
            checker,
            spooled: 0,
            _postgres: postgres,
            _dir: dir,
        };
        this.partitions().await;
        this.store_and_answer().await;
        this
    }

    async fn partitions(&self) {
        let first = self.settings.until_us - self.settings.span_us;
        for table in ["exposure_events", "interaction_events"] {
            for day in 0..=3 {
                let day_us = 86_400_000_000;
                let from = (first / day_us + day) * day_us;
                let name = |us: i64| crate::report::time(us)[..10].to_owned();
                let sql = format!(
                    "CREATE TABLE {table}_{} PARTITION OF {table} FOR VALUES FROM ('{}') TO ('{}')",
                    name(from).replace('-', "_"),
                    crate::report::time(from),
                    crate::report::time(from + day_us)
                );
                self.client.batch_execute(&sql).await.unwrap();
            }
        }
    }

    /// Does what the service should do.
    async fn store_and_answer(&mut self) {
        let salt = Salt::new(Some("salt"));
        let bodies: Vec<Body> = Bodies::new(Events::new(&self.settings, &self.plan)).collect();
        for body in bodies {
            let stream = self.plan.stream_of(body.number);
            let kind = (stream.table, stream.format);
            let (mut committed, mut duplicates) = (0, 0);
            for slot in self.plan.slots_of(body.number) {
                let (first, at) = match self.plan.role(body.number, slot) {
                    Role::Invalid => continue,
                    Role::Fresh => (body.number, slot),
                    Role::Repeat(original) => (self.plan.body_of(original), original),
                };
                let mut events = Events::new(&self.settings, &self.plan);
                let event = events.event(first, at);
                let count = crate::generate::body::events_in(event);
                if at != slot {
                    duplicates += count;
                    continue;
                }
                committed += count;
                let row = expect::row(self.settings.seed, event, &salt);
                let sql = insert(&row);
                self.client.batch_execute(&sql).await.unwrap();
            }
            let answer = Answer {
                ack: Some(Ack::Committed),
                accepted: committed + duplicates,
                rejected: body
                    .rejects
                    .iter()
                    .map(|(index, code)| crate::answer::Rejected {
                        index: *index,
                        code: (*code).to_owned(),
                    })
                    .collect(),
                committed: Some(committed),
                duplicates: Some(duplicates),
                ..Answer::default()
            };
            self.ledger.post(body.number);
            assert!(self.ledger.answer(&body, &answer));
            self.tally
                .answered(kind, &answer, std::time::Duration::from_millis(1));
        }
    }

    /// Changes the database by `sql`, and checks.
    async fn verdict_after(&mut self, sql: &str) -> Verdict {
        let tallies = [self.tally.clone()];
        self.client.batch_execute(sql).await.unwrap();
        self.checker
            .after(
                &self.settings,
                &self.plan,
                &self.ledger,
                &tallies,
                PATIENCE,
                async || Some(self.spooled),
            )
            .await
            .unwrap()
    }
}

/// The row as SQL.
fn insert(row: &Row) -> String {
    let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let null = || "NULL".to_owned();
    let opt = |value: &Option<String>| value.as_deref().map_or_else(null, text);
    let mut columns = BTreeMap::from([
        ("tenant_id", "(SELECT id FROM tenants)".to_owned()),
        ("occurred_at", text(&crate::report::time(row.occurred_us))),
        ("received_at", "now()".to_owned()),
        (
            "event_id",
            row.event_id
                .map_or("gen_random_uuid()".to_owned(), |id| format!("'{id}'")),
        ),
        (
            "request_id",
            row.request_id.map_or_else(null, |id| format!("'{id}'")),
        ),
        ("surface", opt(&row.surface)),
        ("segment", opt(&row.segment)),
        (
            "user_key",
            match &row.user_key {
                Hashed::Hash(hash) => format!("'\\x{}'", hex::encode(hash)),
                _ => null(),
            },
        ),
        (
            "session_id",
            match &row.session_id {
                Hashed::Hash(hash) => text(&hex::encode(hash)),
                Hashed::Text(session) => text(session),
                _ => null(),
            },
        ),
    ]);
    let table = match &row.of_table {
        OfTable::Exposure {
            experiment_id,
            experiment_variant,
            algo_version,
            config_etag,
            rules_etag,
            items,
        } => {
            let items: Vec<_> = items
                .iter()
                .map(|item| {
                    let mut json = serde_json::json!({"item_id": item.item_id, "rank": item.rank});
                    if let Some(score) = item.score {
                        json["score"] = (f64::from(score) / 1000.0).into();
                    }
                    json
                })
                .collect();
            columns.extend([
                ("experiment_id", opt(experiment_id)),
                ("experiment_variant", opt(experiment_variant)),
                ("algo_version", text(algo_version)),
                ("config_etag", opt(config_etag)),
                ("rules_etag", opt(rules_etag)),
                ("request", "'{}'".to_owned()),
                (
                    "response",
                    text(&serde_json::json!({ "items": items }).to_string()),
                ),
            ]);
            "exposure_events"
        }
        OfTable::Interaction {
            event_type,
            item_id,
            position,
            value,
        } => {
            columns.extend([
                ("event_type", text(event_type)),
                ("item_id", text(item_id)),
                (
                    "position",
                    position.map_or_else(null, |position| position.to_string()),
                ),
                ("value", value.clone().unwrap_or_else(null)),
            ]);
            "interaction_events"
        }
    };
    let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    format!(
        "INSERT INTO {table} ({}) VALUES ({})",
        names.join(", "),
        values.join(", ")
    )
}

#[tokio::test]
async fn the_check_finds_what_is_wrong_and_nothing_else() {
    let mut it = Fixture::new().await;

    let good = it.verdict_after("").await;
    assert_eq!(good.failures(), Vec::<String>::new());
    assert!(good.sampled > 5, "only {} rows were compared", good.sampled);
    assert_eq!(good.promised, good.found);

    // The sample is a hundredth; a change of all rows is bound to meet it.
    let changed = it
        .verdict_after(
            "BEGIN; UPDATE interaction_events SET value = coalesce(value, 0) + 0.000001; COMMIT",
        )
        .await;
    assert!(changed.wrong_columns > 0);
    let native = native_event(&it);
    let copied = it
        .verdict_after(&format!(
            "INSERT INTO interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id) \
             SELECT tenant_id, occurred_at + interval '1 microsecond', event_id, now(), event_type, item_id \
             FROM interaction_events WHERE event_id = '{native}'"
        ))
        .await;
    assert_eq!((copied.twice, copied.wrong_key, copied.missing), (1, 1, 0));

    let gone = it
        .verdict_after(&format!(
            "DELETE FROM interaction_events WHERE event_id = '{native}'"
        ))
        .await;
    assert_eq!((gone.twice, gone.missing), (0, 1));
    assert_eq!(gone.contradictions.len(), 1, "{:?}", gone.contradictions);

    let moved = it
        .verdict_after(
            "INSERT INTO tenants (id, external_id, name) VALUES (gen_random_uuid(), 'other', 'other'); \
             UPDATE exposure_events SET tenant_id = (SELECT id FROM tenants WHERE external_id = 'other')",
        )
        .await;
    assert!(
        moved.wrong_key > 500,
        "{} rows have another tenant",
        moved.wrong_key
    );
}

#[tokio::test]
async fn rows_that_were_there_before_the_run_are_not_counted_as_its_own() {
    let mut it = Fixture::new().await;
    let mut later = Checker::before(&it.url, &it.settings, &it.plan, None)
        .await
        .unwrap();
    let posted_again = std::mem::replace(&mut it.tally, Tally::new());
    // The same answers once more claim rows that are not new.
    let verdict = later
        .after(
            &it.settings,
            &it.plan,
            &it.ledger,
            &[posted_again],
            PATIENCE,
            async || None,
        )
        .await
        .unwrap();
    assert_eq!(verdict.missing, 0);
    assert_eq!(
        verdict.contradictions.len(),
        6,
        "{:?}",
        verdict.contradictions
    );
}

#[tokio::test]
async fn rows_that_the_service_still_has_are_not_called_missing() {
    let mut it = Fixture::new().await;
    it.spooled = 1000;
    let three = "DELETE FROM interaction_events WHERE ctid IN (SELECT ctid FROM interaction_events
                 WHERE event_type = 'view' LIMIT 3)";
    let verdict = it.verdict_after(three).await;
    let lacking = verdict.spooled;
    assert!(verdict.missing == 0 && lacking > 0, "{verdict:?}");
    assert!(verdict.unfinished().unwrap().contains("spool"));
    assert!(!verdict.failures().iter().any(|f| f.contains("missing")));
    // More are lacking than it has.
    it.spooled = lacking - 1;
    let verdict = it.verdict_after("").await;
    assert_eq!((verdict.missing, verdict.spooled), (1, lacking - 1));
}

#[test]
fn the_wait_for_rows_ends_when_nothing_moves_and_nothing_is_spooled() {
    let start = tokio::time::Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let patience = Patience {
        settle: Duration::from_secs(30),
        at_most: Duration::from_secs(600),
    };
    let mut wait = Wait::new(start, patience);
    assert!(wait.goes_on(at(1), 5, 100));
    assert!(wait.goes_on(at(400), 5, 100), "some are spooled");
    assert!(wait.goes_on(at(410), 9, 0), "more have come");
    assert!(wait.goes_on(at(439), 9, 0));
    assert!(!wait.goes_on(at(440), 9, 0), "nothing moves");
    assert!(!wait.goes_on(at(600), 99, 100), "not for ever");
}

/// A native interaction that is stored.
fn native_event(it: &Fixture) -> uuid::Uuid {
    let mut events = Events::new(&it.settings, &it.plan);
    (0..it.plan.slots())
        .find_map(|slot| {
            let body = it.plan.body_of(slot);
            let stream = it.plan.stream_of(body);
            let wanted = stream.format == Format::Native
                && stream.table == crate::generate::settings::Table::Interactions
                && it.plan.role(body, slot) == Role::Fresh;
            wanted.then(|| events.event(body, slot).event_id)
        })
        .unwrap()
}
