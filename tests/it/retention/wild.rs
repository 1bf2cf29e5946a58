//! A sender with a wrong clock: events at random times, within what is accepted and beyond.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use recsys_ingest::event::body::framing::Framing;
use recsys_ingest::event::body::{Body, Limits};
use recsys_ingest::event::context::{Context, Tenants};
use recsys_ingest::event::decode::decode;
use recsys_ingest::event::identity::Pseudonymizer;
use recsys_ingest::event::rejection::Code;
use recsys_ingest::event::row::Key;
use recsys_ingest::event::table::Table;
use recsys_ingest::event::time::Micros;
use recsys_ingest::metrics::Metrics;
use recsys_ingest::partitions::indexes::IndexProfile;
use recsys_ingest::partitions::maintain::{PartitionMaintainer, PartitionPolicy};
use recsys_ingest::partitions::range::Interval;
use recsys_ingest::postgres::connect::Target;
use recsys_ingest::postgres::session::Session;
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::{DEMO, Database, one};

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// Partitions that may be made on demand within an hour.
const PER_HOUR: usize = 4;

/// Days before and after the present of which events are accepted.
const PAST_DAYS: i64 = 29;
const FUTURE_DAYS: i64 = 400;

/// Events of one body.
const EVENTS: usize = 200;

const TABLE: Table = Table::Interactions;

/// What became of the events of a day's flood.
#[derive(Debug, Default)]
pub struct Flood {
    /// The times of those that have a partition.
    pub stored: Vec<Micros>,
    /// Those that wait in quarantine for one.
    pub set_aside: usize,
    /// Those beyond what is accepted.
    pub rejected: usize,
    /// Whether the limit of partitions was reached.
    pub is_exhausted: bool,
}

/// The sender, and the part of a service that makes the partitions of its events.
pub struct WrongClock {
    session: Session,
    client: Client,
    random: StdRng,
    began: (i64, Instant),
}

struct Own;

impl Tenants for Own {
    fn resolve(&self, _named: &str) -> Result<Uuid, Code> {
        Ok(DEMO.parse().unwrap())
    }
}

impl WrongClock {
    /// A sender in a simulation that begins at `start`.
    pub async fn new(database: &Database, start: i64) -> Self {
        let target = Target::parse(database.url()).unwrap();
        Self {
            session: Session::open(&target, None).await.unwrap(),
            client: database.connect().await,
            random: StdRng::seed_from_u64(1),
            began: (start, Instant::now()),
        }
    }

    /// A service's limit on partitions, where time is cut by `interval`.
    pub fn maintainer(interval: Interval) -> PartitionMaintainer {
        let policy = PartitionPolicy {
            interval: Some(interval),
            ahead: 3,
            on_demand_per_hour: PER_HOUR,
            indexes: IndexProfile::Deferred,
        };
        PartitionMaintainer::new(policy, Arc::new(Metrics::default()))
    }

    /// Posts on a day: twice within an hour, and once more after it.
    pub async fn flood(&mut self, maintainer: &PartitionMaintainer, day: i64) -> Flood {
        let mut all = Flood::default();
        let limit = i64::try_from(PER_HOUR).unwrap();
        let mut made_before = 0;
        for minutes in [0, 25, 61] {
            let before = self.made().await;
            let now = day + minutes * HOUR_US / 60;
            let is_exhausted = self.post(maintainer, now, &mut all).await;
            let made = self.made().await - before;
            // The post before is less than an hour ago, and the one before that is more.
            let in_hour = made_before + made;
            assert!(in_hour <= limit, "{in_hour} within an hour");
            // All that may be made is made.
            assert!(!is_exhausted || in_hour == limit, "{in_hour}");
            all.is_exhausted |= is_exhausted;
            made_before = made;
        }
        all
    }

    /// Partitions that were made on demand so far.
    async fn made(&self) -> i64 {
        let sql = "SELECT count(*) FROM ingest_partition_log WHERE action = 'create' AND reason = 'on demand'";
        one(&self.client, sql).await
    }

    /// Posts one body. Returns whether no more partitions may be made.
    async fn post(&mut self, maintainer: &PartitionMaintainer, now: i64, all: &mut Flood) -> bool {
        let earliest = now - PAST_DAYS * DAY_US;
        let latest = now + FUTURE_DAYS * DAY_US;
        // As many of the past as of the future, and of each kind as many beyond what is accepted.
        let random = &mut self.random;
        let mut time = || match random.random_bool(0.5) {
            true => random.random_range(now - 2 * PAST_DAYS * DAY_US..now),
            false => random.random_range(now..now + 2 * FUTURE_DAYS * DAY_US),
        };
        let times: Vec<i64> = (0..EVENTS).map(|_| time()).collect();
        let body =
            json!(times.iter().map(|at| json!({
            "event_type": "view", "item_id": "a", "occurred_at": Micros(*at).to_string(),
        })).collect::<Vec<_>>());
        let body = body.to_string();
        let limits = Limits {
            events_max: usize::MAX,
            event_bytes_max: usize::MAX,
        };
        let context = Context {
            table: TABLE,
            format: None,
            tenant: DEMO.parse().unwrap(),
            tenants: &Own,
            source: "ingest",
            is_public: false,
            pseudonymizer: &Pseudonymizer::new(b"salt"),
            received_at: Micros(now),
            earliest: Micros(earliest),
            latest: Micros(latest),
            items_max: 1,
            strict: true,
            new_event_id: &Uuid::now_v7,
            skew_ms: None,
        };
        let split = Body::split(body.as_bytes(), Framing::Json, &limits).unwrap();
        let decoded = decode(&split, &context);
        let accepted: Vec<Micros> = decoded
            .rows
            .iter()
            .map(|row| Key::of_row(row).unwrap().occurred_at)
            .collect();
        let within = times.iter().filter(|at| (earliest..=latest).contains(at));
        assert_eq!(accepted.len(), within.count());
        all.rejected += EVENTS - accepted.len();

        let elapsed = u64::try_from(now - self.began.0).unwrap();
        let clock = self.began.1 + Duration::from_micros(elapsed);
        let refused = maintainer
            .ensure_by(&mut self.session, TABLE, accepted.iter().copied(), || clock)
            .await
            .unwrap();
        for at in accepted {
            match refused.iter().find(|one| one.range.contains(at.0)) {
                None => all.stored.push(at),
                Some(_) => all.set_aside += 1,
            }
        }
        let words = "no more may be made this hour";
        refused.iter().any(|one| one.why.contains(words))
    }
}
