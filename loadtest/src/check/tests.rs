use std::collections::HashSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{Checker, Findings, Patience};
use crate::answer::{Answer, Told};
use crate::compare::{TestEnvironment, copy, test_environment};
use crate::generate::{Bodies, Body, Framing, Plan, Role, Settings, test_settings};
use crate::report::{Tally, time};
use crate::sample::Request;
use crate::service::{self, Ack, Format, Interval, Micros, Pseudonymizer, TABLES, Table, ensure};

/// Nothing is on its way in these tests.
const PATIENCE: Patience = Patience {
    settle: Duration::from_millis(1),
    at_most: Duration::from_millis(2),
};

/// A database with every event of a run in it, answered as it should be.
struct Fixture {
    plan: Plan,
    tally: Tally,
    checker: Checker,
    /// Rows that the service says are in its spool.
    spooled: u64,
    environment: TestEnvironment,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn new(framing: Framing, salt: Option<&str>) -> Self {
        let (environment, dir) = test_environment().await;
        let plan = Plan::new(Settings {
            events: 2_000,
            tenants: vec![crate::compare::TENANT.to_owned()],
            framing,
            ..test_settings()
        })
        .unwrap();
        let checker = Checker::before(&environment.url(), &plan, salt).await;
        let mut this = Self {
            tally: Tally::default(),
            plan,
            checker: checker.unwrap(),
            spooled: 0,
            environment,
            _dir: dir,
        };
        // Every row is compared, not one in a hundred.
        this.checker.sample_one_in = 1;
        this.partitions().await;
        this.store_and_answer().await;
        assert!(this.tally.odd.is_empty(), "{:?}", this.tally.odd);
        this
    }

    async fn partitions(&mut self) {
        let settings = &self.plan.settings;
        for table in TABLES {
            for day in 0..=3 {
                let us = settings.until_us() - settings.span_us() + day * 86_400_000_000;
                let range = Interval::Day.range_of(us);
                let client = &mut self.environment.admin.client;
                ensure(client, table, range, "test").await.unwrap();
            }
        }
    }

    /// Does what the service should do, with its own decoder and encoder.
    async fn store_and_answer(&mut self) {
        let pseudonymizer = Pseudonymizer::new(b"salt");
        let mut stored: HashSet<Vec<u8>> = HashSet::new();
        let mut blocks = TABLES.map(|_| BytesMut::new());
        let bodies: Vec<Body> = Bodies::new(&self.plan).collect();
        for body in bodies {
            let stream = self.plan.stream_of(body.number);
            let request = Request {
                table: stream.table,
                format: stream.format,
                framing: match self.plan.settings.framing {
                    Framing::Ndjson => service::Framing::Lines,
                    Framing::Json | Framing::Envelope => service::Framing::Json,
                },
                tenant: self.environment.tenant,
                received_at: Micros(self.plan.settings.until_us()),
            };
            let decoded = request.decode(&body.bytes, &pseudonymizer).unwrap();
            for row in decoded.rows.iter() {
                if stored.insert(row.to_vec()) {
                    blocks[stream.table as usize].extend_from_slice(row);
                }
            }
            let (mut committed, mut duplicates) = (0, 0);
            for slot in self.plan.slots_of(body.number) {
                let (role, first, at) = self.plan.source(body.number, slot);
                match role {
                    Role::Invalid => {}
                    Role::Fresh => committed += self.plan.event(first, at).count(),
                    Role::Repeat(_) => duplicates += self.plan.event(first, at).count(),
                }
            }
            let told = |rejected: &service::Rejected| Told {
                index: rejected.index,
                code: rejected.rejection.code.as_str().to_owned(),
                message: String::new(),
            };
            let answer = Answer {
                ack: Some(Ack::Committed),
                accepted: committed + duplicates,
                rejected: decoded.rejected.iter().map(told).collect(),
                committed: Some(committed),
                duplicates: Some(duplicates),
                ..Answer::default()
            };
            self.tally.posted.push(body.number);
            let latency = Duration::from_millis(1);
            self.tally.answered(stream.kind(), &body, &answer, latency);
        }
        for (table, block) in TABLES.into_iter().zip(blocks) {
            let block: Bytes = block.freeze();
            copy(&self.environment.admin, table, &[block])
                .await
                .unwrap();
        }
    }

    /// Changes the database by `sql`, and checks.
    async fn after(&mut self, sql: &str) -> Findings {
        let client = &self.environment.admin.client;
        client.batch_execute(sql).await.unwrap();
        let spooled = async || Some(self.spooled);
        let passes = std::slice::from_ref(&self.tally);
        let checked = self.checker.after(&self.plan, passes, PATIENCE, spooled);
        checked.await.unwrap()
    }
}

#[tokio::test]
async fn every_event_becomes_the_row_that_is_expected_in_every_format_and_framing() {
    for (framing, salt) in [
        (Framing::Json, Some("salt")),
        (Framing::Envelope, None),
        (Framing::Ndjson, Some("salt")),
    ] {
        let mut it = Fixture::new(framing, salt).await;
        let good = it.after("").await;
        assert_eq!(good.failures(), Vec::<String>::new(), "{good:#?}");
        assert_eq!((good.promised, good.sampled), (good.found, good.rows_read));
        let compared = good.sampled;
        assert!(compared > 1_000, "only {compared} rows were compared");
    }
}

#[tokio::test]
async fn the_check_finds_what_is_wrong_and_nothing_else() {
    let mut it = Fixture::new(Framing::Ndjson, Some("salt")).await;
    let changed = it.after("UPDATE interaction_events SET value = coalesce(value, 0) + 0.000001");
    let changed = changed.await;
    assert!(changed.wrong_columns > 700, "{changed:?}");
    let native = native_event(&it);
    let copied = format!(
        "INSERT INTO interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id) \
         SELECT tenant_id, occurred_at + interval '1 microsecond', event_id, now(), event_type, item_id \
         FROM interaction_events WHERE event_id = '{native}'"
    );
    let copied = it.after(&copied).await;
    assert_eq!((copied.twice, copied.wrong_key, copied.missing), (1, 1, 0));

    let delete = format!("DELETE FROM interaction_events WHERE event_id = '{native}'");
    let gone = it.after(&delete).await;
    assert_eq!((gone.twice, gone.missing), (0, 1));
    assert_eq!(gone.contradictions.len(), 1, "{:?}", gone.contradictions);
    // The service says that it still has some.
    it.spooled = 1000;
    let spooled = it.after("").await;
    assert_eq!((spooled.missing, spooled.spooled), (0, 1));
    assert!(spooled.unfinished().unwrap().contains("spool"));
    assert!(!spooled.failures().iter().any(|f| f.contains("missing")));
    // More are lacking than it has.
    it.spooled = 1;
    let two = "DELETE FROM interaction_events WHERE ctid IN (SELECT ctid FROM interaction_events
               WHERE event_type = 'view' LIMIT 2)";
    let lacking = it.after(two).await;
    assert!(lacking.missing > 0 && lacking.spooled == 1, "{lacking:?}");

    let moved = it.after(
        "INSERT INTO tenants (id, external_id, name) VALUES (gen_random_uuid(), 'other', 'other'); \
         UPDATE exposure_events SET tenant_id = (SELECT id FROM tenants WHERE external_id = 'other')",
    );
    let moved = moved.await.wrong_key;
    assert!(moved > 500, "{moved} rows have another tenant");

    // What is there before a run is not its own: the same answers claim rows that are not new.
    let later = Checker::before(&it.environment.url(), &it.plan, None).await;
    it.checker = later.unwrap();
    let contradictions = it.after("").await.contradictions;
    assert_eq!(contradictions.len(), 6, "{contradictions:?}");

    // The rows of a run can be removed, and no others.
    let other = "INSERT INTO interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
                 SELECT tenant_id, occurred_at, gen_random_uuid(), now(), 'view', 'x' FROM interaction_events LIMIT 1";
    let found = it.after(other).await.found;
    let removed = it.checker.cleanup(&it.plan).await.unwrap();
    assert!(removed >= i64::try_from(found).unwrap());
    let booked = "SELECT sum(row_count)::bigint FROM ingest_removed_rows WHERE kind = 'operator' AND reason LIKE 'loadtest %'";
    assert_eq!(it.environment.value::<i64>(booked).await.unwrap(), removed);
    let left =
        "SELECT (SELECT count(*) FROM interaction_events) + (SELECT count(*) FROM exposure_events)";
    assert_eq!(it.environment.value::<i64>(left).await.unwrap(), 1);
}

#[tokio::test]
async fn rows_in_a_partition_with_another_name_or_without_a_range_are_found() {
    let mut it = Fixture::new(Framing::Ndjson, Some("salt")).await;
    let settings = &it.plan.settings;
    let day = time(settings.until_us() - settings.span_us())[..10].replace('-', "_");
    let mut name = format!("exposure_events_{day}");
    for (suffix, is_right) in [
        ("2001_01_02", false),
        ("2001_01", false),
        ("old", true),
        (day.as_str(), true),
    ] {
        let to = format!("exposure_events_{suffix}");
        let rename = format!("ALTER TABLE {name} RENAME TO {to}");
        let findings = it.after(&rename).await;
        let is_good = findings.wrong_partition == 0;
        assert_eq!(is_good, is_right, "{to}: {findings:?}");
        name = to;
    }
    let default = format!(
        "ALTER TABLE exposure_events DETACH PARTITION {name}; \
         ALTER TABLE exposure_events ATTACH PARTITION {name} DEFAULT"
    );
    let findings = it.after(&default).await;
    let lost = (findings.wrong_partition, findings.missing);
    assert!(lost.0 > 0 && lost.1 == 0, "{findings:?}");
}

#[test]
fn the_wait_for_rows_ends_when_nothing_moves_and_nothing_is_spooled() {
    let patience = Patience {
        settle: Duration::from_secs(30),
        at_most: Duration::from_secs(600),
    };
    for (waited, idle, spooled, lasts) in [
        (400, 400, 100, true),
        (439, 29, 0, true),
        (440, 30, 0, false),
        (600, 0, 100, false),
    ] {
        let [waited, idle] = [waited, idle].map(Duration::from_secs);
        assert_eq!(patience.lasts(waited, idle, spooled), lasts, "{waited:?}");
    }
}

/// A native interaction that is stored.
fn native_event(it: &Fixture) -> uuid::Uuid {
    let is_wanted = |slot: &u32| {
        let body = it.plan.body_of(*slot);
        let stream = it.plan.stream_of(body);
        let is_native = stream.format == Format::Native && stream.table == Table::Interactions;
        is_native && it.plan.role(body, *slot) == Role::Fresh
    };
    let slot = (0..it.plan.slots()).find(is_wanted).unwrap();
    it.plan.event(it.plan.body_of(slot), slot).event_id
}
